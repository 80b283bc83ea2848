"""Finding faces in ordinary photos, and cropping each as the faces are cropped that the networks were trained on.

A face is found in the gray image, levelled and scaled by the similarity that brings its landmarks nearest to TEMPLATE
(least squares; Umeyama, 1991), and cut out at its own resolution. What lies beyond the photo's border is black.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core.records import DIGITS, Box, Search
from ferbatch.images import passes
from ferbatch.images.decode import GrayImage
from ferbatch.images.yunet import YuNet

# Eyes, nose tip and corners of the mouth, the subject's right ones first, on a square of side 1: the medians over
# 2,865 of 3,000 training faces of FER2013 in which the detector found a face, made symmetric.
TEMPLATE = np.array([(0.312, 0.386), (0.688, 0.386), (0.5, 0.592), (0.347, 0.752), (0.653, 0.752)])
SMALL_SIDE = 128  # pixels; up to this on its longer side, `auto` takes an image for a crop without a search
FILLS = 1.25  # a face whose crop is larger than the image's shorter side by this fills it: the image is the crop
# Pixels of the square for a second look at a face; its margin round the crop, as a share. In a smaller square tilted
# faces would seem more upright (of 20°, 5° would be missed at 96 pixels, 1.5° at 192), and labels were right in 0.4
# points less of the cases at 256 without a margin.
CLOSE, AROUND = 320, 0.1
SMALLEST_CROP = 48  # pixels on a side: a smaller face is scaled up

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Face:
    """A face in the image it was found in: its box and landmarks in that image's pixels."""

    x: float
    y: float
    width: float
    height: float
    score: float  # 0..1
    landmarks: Points  # (5, 2), as in TEMPLATE


class Detector(Protocol):
    """Finds faces in gray pictures of one size, (N, H, W) uint8.

    Of each picture, rows of x, y, width, height, the five landmarks' x and y, score.
    """

    def __call__(self, grays: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        """The faces, of each picture alone: whatever comes with it, they are the same."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A detector: how to make one, a check that it could be made, and what identifies it in a sidecar."""

    make: Callable[[], Detector]
    version: Callable[[], str]  # ModelError where it is not installed as it should be


OF_THREAD = threading.local()  # each thread's detectors by name
DETECTORS = {"yunet": Kind(YuNet, YuNet.version)}


def detector(name: str) -> Detector:
    """This thread's detector of this name."""
    if not hasattr(OF_THREAD, name):
        setattr(OF_THREAD, name, DETECTORS[name].make())
    found: Detector = getattr(OF_THREAD, name)
    return found


def check(search: Search) -> None:
    """ModelError where a search needs a detector that is not there."""
    version(search)


def version(search: Search) -> str | None:
    """The detector that a search goes by, with its version; None without one. ModelError if it is not there."""
    return None if search.mode == "whole" else f"{DETECTORS[search.detector].version()}, {passes.VERSION}"


def find(image: GrayImage, search: Search) -> list[Face]:
    """The faces of at least `search.min_face` pixels, the largest first, in pixels of `image.pixels`."""
    look = detector(search.detector)
    least = search.min_face * image.pixels.width / image.width
    rows = passes.faces_in(image.pixels, look, least, largest=search.largest)
    found = [Face(row[0], row[1], row[2], row[3], float(row[14]), row[4:14].reshape(5, 2)) for row in rows]
    found = [face for face in found if min(face.width, face.height) >= least]
    found.sort(key=lambda face: (-face.width * face.height, face.x, face.y))
    return _closer(image, found[:1] if search.largest else found, look)


def _closer(image: GrayImage, found: Sequence[Face], look: Detector) -> list[Face]:
    """The faces with the landmarks of a second look, at all of them at once, each CLOSE pixels large.

    By those of the first, a small face that is tilted seems more upright than it is.
    """
    if not found:
        return []
    frames = [_frame(face, AROUND) for face in found]
    seen = look(np.stack([np.asarray(_cut(image, frame, CLOSE)) for frame in frames]))
    return [_landmarks_of(*one) for one in zip(found, frames, seen, strict=True)]


def _landmarks_of(face: Face, frame: _Frame, rows: NDArray[np.float64]) -> Face:
    """The face with the landmarks of the one that was seen in the middle of its frame, if there was one."""
    middle = rows[:, :2] + rows[:, 2:4] / 2 - CLOSE / 2
    off = np.abs(middle).max(axis=1, initial=0)
    if not len(rows) or off.min() > CLOSE / 4:
        return face
    landmarks = rows[off.argmin(), 4:14].reshape(5, 2) * (frame.side / CLOSE) @ frame.axes + frame.corner
    return replace(face, landmarks=landmarks)


def is_crop(image: GrayImage, found: Sequence[Face]) -> bool:
    """Whether the largest of the faces found in an image fills it."""
    return bool(found) and _frame(found[0], 0).side >= FILLS * min(image.pixels.size)


def box(face: Face, image: GrayImage) -> Box:
    """The face's box in whole pixels of the upright image, within its borders."""
    across, down = image.width / image.pixels.width, image.height / image.pixels.height
    left, top = max(0, round(face.x * across)), max(0, round(face.y * down))
    left, top = min(left, image.width - 1), min(top, image.height - 1)
    right, bottom = round((face.x + face.width) * across), round((face.y + face.height) * down)
    width, height = min(right, image.width) - left, min(bottom, image.height) - top
    return Box(left, top, max(1, width), max(1, height), round(min(1.0, face.score), DIGITS))


def crop(image: GrayImage, face: Face, margin: float = 0.0) -> Image.Image:
    """The face as the networks want it, a gray square at its own resolution; `margin` adds to each side a share of it.

    At most the image's resolution, at least SMALLEST_CROP pixels.
    """
    frame = _frame(face, margin)
    return _cut(image, frame, max(SMALLEST_CROP, round(frame.side)))


@dataclass(frozen=True, slots=True)
class _Frame:
    """A square in an image: its upper left corner, the directions of its sides, their length in pixels."""

    corner: Points  # (2,)
    axes: Points  # (2, 2): to the right, down
    side: float


def _cut(image: GrayImage, frame: _Frame, side: int) -> Image.Image:
    """What is in the frame, as a square of `side` pixels."""
    across, down = frame.axes * (frame.side / side)
    matrix = (across[0], down[0], frame.corner[0], across[1], down[1], frame.corner[1])
    return image.pixels.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _frame(face: Face, margin: float) -> _Frame:
    """Where TEMPLATE's square comes to lie when its landmarks are laid on the face's.

    As near as turning, scaling and shifting can bring them; the square is then widened by the margin on each side.
    """
    wanted, there = TEMPLATE - TEMPLATE.mean(0), face.landmarks - face.landmarks.mean(0)
    cosine = float((wanted * there).sum())
    sine = float((wanted[:, 0] * there[:, 1] - wanted[:, 1] * there[:, 0]).sum())
    length = max(float(np.hypot(cosine, sine)), 1e-9)
    right = np.array((cosine, sine)) / length
    axes = np.array((right, (-right[1], right[0])))
    side = max(length / float((wanted**2).sum()), 1.0)
    place = TEMPLATE.mean(0) + margin  # of the landmarks' middle, from the corner
    wide = 1 + 2 * margin
    corner = face.landmarks.mean(0) - side * (place @ axes)
    return _Frame(corner, axes, side * wide)
