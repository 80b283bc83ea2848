"""Finding faces in ordinary photos, however they are turned."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from ferbatch.core.records import TURNED, Search
from ferbatch.images import frames, looks, passes, views, yunet
from ferbatch.images.decode import GrayImage
from ferbatch.images.frames import Frame, Points
from ferbatch.images.looks import Detector, Looking, answered, answered_together
from ferbatch.images.views import View
from ferbatch.images.yunet import YuNet

FACES = Search("detect")
SMALL_SIDE = 128  # pixels; up to this on its longer side, `auto` takes an image for a crop without a search
# Pixels of the square for a second look at a face: its frame, without a margin, so that the face is as large as in a
# square of 224 pixels with a margin of a tenth, which takes 1.4 times as long. In a smaller square tilted faces seem
# more upright than they are. Of 840 faces of RAF-DB on drawn people, tilted by up to 40°, the median error of the turn
# is 2.6°, 2.1° and 1.9° (24 to 48, to 90, to 160 pixels wide); with that margin 3.2°, 2.4° and 2.0°.
CLOSE = 192
# In a turned photo, the square where it shows no face: else 74 of 1,049 crops that lie are missed, in place of 62.
CLOSER = 320
# Scores from which a face is taken to stand as it seems to, in the first look and in the closer one. Of 219 upright
# faces 0.09 have neither, and of 115 that hang 0.99: they are looked at in all turns, as squares of QUICK pixels with
# a margin of BESIDE. In which one is surer by SURER, they are turned; 1 in 200 of those upright faces would be.
SURE, CLOSE_SURE = 0.89, 0.91
QUICK, BESIDE, SURER = 128, 0.3, 0.02
MAYBE_CROP = 256  # pixels on the longer side, up to which an image may be a crop though no face is found
BELIEVED = 0.8  # score of the closer look from which one face is enough to believe that the photo is turned
TILTED = 8.0  # degrees between the first look's landmarks and the closer one's from which there is another


@dataclass(frozen=True)
class Face:
    """A face in the image it was found in: its box and landmarks in that image's pixels."""

    x: float
    y: float
    width: float
    height: float
    score: float  # 0..1
    landmarks: Points  # (5, 2), as in frames.TEMPLATE
    close_score: float = 0.0  # 0..1, in the closer look; 0 where that did not show it
    stands: bool = True  # whether it is upright, by 45° at the most, in the view of the photo that it was found in

    @cached_property
    def frame(self) -> Frame:
        """The square around it as the networks know faces."""
        return frames.around(self.landmarks)

    @cached_property
    def turn(self) -> float:
        """Degrees, -180..180, by which it is turned from upright in the image: clockwise is more than 0."""
        right, down = self.frame.axes[0]
        return math.degrees(math.atan2(down, right))


@dataclass(frozen=True, slots=True)
class Kind:
    """A detector: how to make one, a check that it could be made, and what identifies it in a sidecar.

    Both are told a device, or None: the cores.
    """

    make: Callable[[str | None], Detector]
    version: Callable[[str | None], str]  # ModelError where it is not installed as it should be


def _yunet(device: str | None) -> Detector:
    if device is None:
        return YuNet()
    from ferbatch.images.on_device import OnDevice  # here, for it imports torch

    return OnDevice(device)


OF_THREAD = threading.local()  # each thread's detectors by name and device
DETECTORS = {"yunet": Kind(_yunet, YuNet.version)}


def detector(search: Search) -> Detector:
    """This thread's detector for a search; DeviceError where it cannot be had on its device."""
    name = f"{search.detector} {search.device}"
    if not hasattr(OF_THREAD, name):
        setattr(OF_THREAD, name, DETECTORS[search.detector].make(search.device))
    found: Detector = getattr(OF_THREAD, name)
    return found


def prepare(search: Search) -> None:
    """Open the device that a search takes, if it takes one; DeviceError where that fails."""
    if search.device is not None and search.mode != "whole":
        detector(search)


def check(search: Search) -> None:
    """ModelError where a search needs a detector that is not there."""
    version(search)


def version(search: Search) -> str | None:
    """The detector that a search goes by, with its version; None without one. ModelError if it is not there."""
    return None if search.mode == "whole" else f"{DETECTORS[search.detector].version(search.device)}, {passes.VERSION}"


def find(image: GrayImage, search: Search) -> list[Face]:
    """The faces of at least `search.min_face` pixels, the largest first, in pixels of `image.pixels`."""
    return answered(search_in(image, search), detector(search))


def find_all(images: Sequence[GrayImage], search: Search) -> list[list[Face]]:
    """The same of each of several images, looked at together."""
    return answered_together([search_in(image, search) for image in images], detector(search)) if images else []


def search_in(image: GrayImage, search: Search) -> Looking[list[Face]]:
    """What `find` gives, as a search that asks for looks.

    A small image without one is looked at with a margin. A photo without one is turned by quarters. Where one is found
    that leans, lies or hangs, the photo is searched as it stands for that face as well.
    """
    view = View(image.pixels)
    least = search.min_face * image.pixels.width / image.width
    found = yield from _found_in(view, least, largest=search.largest)
    if not found and max(image.width, image.height) <= MAYBE_CROP:
        view = view.with_room()
        found = yield from _found_in(view, least, largest=search.largest)
    waiting, searched = _turns(found) if found else (yield from views.likely_turns(view)), {0}
    while waiting := [steps for steps in waiting if steps not in searched]:
        searched.add(waiting[0])
        turned = yield from _found_in(view.turned(waiting[0]), least, largest=search.largest)
        if max((face.close_score for face in turned if face.stands), default=0.0) >= BELIEVED:
            found += turned
            waiting += _turns(turned)
    found = _once(found) if len(searched) > 1 else found
    found.sort(key=lambda face: (-face.width * face.height, face.x, face.y))
    return found[:1] if search.largest else found


def _turns(found: Sequence[Face]) -> list[int]:
    """Of each face the steps by which the photo is to be turned so that it stands upright."""
    return [round(face.turn / views.STEP) % views.ROUND for face in found]


def _once(found: Sequence[Face]) -> list[Face]:
    """Each face once, of several views: the one that stands before others, then the surest."""
    ordered = sorted(found, key=lambda face: (not face.stands, -face.score))
    boxes = np.array([(face.x, face.y, face.width, face.height) for face in ordered]).reshape(-1, 4)
    kept: list[int] = []
    for at, box in enumerate(boxes):
        if not yunet.alike(box, boxes[kept], passes.SAME, passes.INSIDE).any():
            kept.append(at)
    return [ordered[at] for at in kept]


def _found_in(view: View, least: float, *, largest: bool) -> Looking[list[Face]]:
    """The faces that a view of a photo shows, in the photo's pixels; the largest first.

    view: as it is searched.
    least: pixels of the photo that a face is wide and high, at the least.
    largest: only the largest is asked for.
    """
    rows = yield from passes.faces_in(view.pixels, least, largest=largest)
    rows = rows[(rows[:, 2:4].min(1) >= least) & view.shows(rows[:, :2] + rows[:, 2:4] / 2)]
    found = [_in_photo(view, row) for row in rows]
    found.sort(key=lambda face: (-face.width * face.height, face.x, face.y))
    found = found[:1] if largest else found
    closer = yield from _closer(view.photo, found, CLOSE)
    if view.steps and not any(face.close_score >= BELIEVED for face in closer):
        closer = yield from _closer(view.photo, found, CLOSER)
    stood = views.STEP * view.steps
    upright = []
    for face in closer:
        trusted = _is_trusted(face, frames.apart(face.turn, stood))
        upright.append(face if trusted else (yield from _turned_upright(view.photo, face)))
    return [replace(face, stands=frames.apart(face.turn, stood) <= TURNED) for face in upright]


def _in_photo(view: View, row: yunet.Rows) -> Face:
    """The face of a detector's row about a view, where it is in the photo."""
    points = view.in_photo(np.concatenate((row[None, :2] + row[2:4] / 2, row[4:14].reshape(5, 2))))
    # As wide and high as an ellipse of its size that is turned.
    width, height = np.hypot(*(row[2:4, None] * frames.axes(views.STEP * view.steps))).tolist()
    (x, y), landmarks = points[0].tolist(), points[1:]
    return Face(x - width / 2, y - height / 2, width, height, float(row[14]), landmarks)


def _is_trusted(face: Face, turn: float) -> bool:
    """Whether a face is turned as its landmarks say, by so many degrees in the view that it was found in.

    The detector sees faces that hang or lie as if they stood, with landmarks to fit, but is less sure of them.
    """
    return turn <= TURNED and (face.score >= SURE or face.close_score >= CLOSE_SURE)


def _turned_upright(photo: Image.Image, face: Face) -> Looking[Face]:
    """The face with the landmarks of that turn, of all round, in which it is the surest."""
    frame = face.frame.widened(BESIDE)
    turned = [frame.turned(views.STEP * steps) for steps in range(views.ROUND)]
    seen = yield from looks.faces_in(np.stack([np.asarray(one.cut(photo, QUICK)) for one in turned]))
    rows = [yunet.in_the_middle(one, QUICK) for one in seen]
    scores = [0.0 if row is None else float(row[14]) for row in rows]
    best = int(np.argmax(scores))
    row = rows[best]
    if row is None or scores[best] < scores[0] + SURER:
        return face
    landmarks = turned[best].in_image(row[4:14].reshape(5, 2), QUICK)
    (found,) = yield from _closer(photo, [replace(face, landmarks=landmarks)], CLOSE)
    return found


def _closer(photo: Image.Image, found: Sequence[Face], side: int) -> Looking[list[Face]]:
    """The faces with the landmarks of a second look, at all of them at once, each `side` pixels large.

    By those of the first, a small face that is tilted seems more upright than it is. Those that the second shows to be
    tilted by far more have a third.
    """
    seen = yield from _seen_closer(photo, found, side)
    pairs = zip(found, seen, strict=True)
    tilted = [at for at, (before, now) in enumerate(pairs) if frames.apart(before.turn, now.turn) > TILTED]
    again = yield from _seen_closer(photo, [seen[at] for at in tilted], side)
    for at, face in zip(tilted, again, strict=True):
        seen[at] = face
    return seen


def _seen_closer(photo: Image.Image, found: Sequence[Face], side: int) -> Looking[list[Face]]:
    """The faces, each with the landmarks of the one that is seen in the middle of its frame, if there is one."""
    if not found:
        return []
    close = [face.frame for face in found]
    candidates = yield np.stack([np.asarray(frame.cut(photo, side)) for frame in close])
    return [_landmarks_of(*one, side) for one in zip(found, close, candidates, strict=True)]


def _landmarks_of(face: Face, frame: Frame, candidates: yunet.Rows, side: int) -> Face:
    row = yunet.in_the_middle(yunet.surest(candidates, yunet.SAME), side)
    if row is None:
        return face
    mean = yunet.averaged(row, candidates)
    return replace(face, landmarks=frame.in_image(mean[4:14].reshape(5, 2), side), close_score=float(row[14]))
