"""What share of real faces is found that are hard to find: small, turned, half covered, blurred, dark; on drawn people.

`pytest -m bench --thorough -n 0 -s tests/images/test_hard_faces.py` prints the guide's table, and how often faces in
turned photos have the label that they have upright.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from support import SHARED, depth, some
from test_faces import landscape

from ferbatch.core.records import Search
from ferbatch.images import faces, frames
from ferbatch.images.crops import crop
from ferbatch.images.decode import GrayImage
from ferbatch.images.inputs import model_input
from ferbatch.scoring.measures import wilson
from ferbatch.stream.classifier import Classifier

SIZE = (720, 576)  # of a scene, in pixels
HEAD = 0.9  # of a face's picture, RAF-DB's, that a box of the detector is wide, hair and all
UNIT = 400  # pixels of a person as it is drawn, before it is scaled
USUAL = 80  # pixels that a face is wide
Point = NDArray[np.float64]  # (2,)


def person(face: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A drawn head with hair, neck and shoulders, LA, 2 UNIT pixels a side; the face in the middle, UNIT / 2 wide."""
    skin, hair, cloth = int(np.median(np.asarray(face))), int(rng.integers(10, 90)), int(rng.integers(20, 235))
    layer, mask = (Image.new("L", (2 * UNIT, 2 * UNIT)) for _ in range(2))
    ear, middle = UNIT / 4, UNIT  # half of the face's picture, and where its middle is

    def around(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
        return tuple(middle + ear * side for side in (left, top, right, bottom))

    for picture, grays in ((layer, (hair, skin, cloth)), (mask, (255, 255, 255))):
        pen = ImageDraw.Draw(picture)
        pen.ellipse(around(-1.05, -1.35, 1.05, 1.1), fill=grays[0])
        pen.rectangle(around(-0.5, 0, 0.5, 2), fill=grays[1])
        pen.ellipse(around(-2.4, 1.4, 2.4, 8), fill=grays[2])
    side = UNIT // 2
    oval = Image.new("L", (side, side))
    ImageDraw.Draw(oval).ellipse((0.06 * side, 0, 0.94 * side, side), fill=255)
    layer.paste(
        face.resize((side, side), Image.Resampling.BICUBIC),
        (UNIT - side // 2,) * 2,
        oval.filter(ImageFilter.GaussianBlur(6)),
    )
    return Image.merge("LA", (layer, mask))


def scene(
    face: Image.Image, rng: np.random.Generator, width: float = USUAL, degrees: float = 0.0
) -> tuple[Image.Image, Point]:
    """A landscape with a person in it, the face so many pixels wide and turned clockwise, and the face's middle."""
    side = round(4 * width / HEAD)
    layer = person(face, rng).rotate(-degrees, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BOX)
    picture = landscape(SIZE, int(rng.integers(6))).convert("L")
    room = np.array(SIZE) - 1.2 * width
    middle = np.round(rng.uniform(0.6 * width, room + 0.6 * width)).astype(int)
    corner = middle - side // 2
    picture.paste(layer.getchannel("L"), (int(corner[0]), int(corner[1])), layer.getchannel("A"))
    return picture, middle.astype(np.float64)


def covered(left: float, top: float, right: float, bottom: float, gray: int) -> Callable[[Image.Image], Image.Image]:
    """What lays a box over a face, its sides as shares of the face's picture."""

    def cover(face: Image.Image) -> Image.Image:
        face, (w, h) = face.copy(), face.size
        ImageDraw.Draw(face).rectangle((left * w, top * h, right * w, bottom * h), fill=gray)
        return face

    return cover


def blurred(share: float) -> Callable[[Image.Image], Image.Image]:
    """What blurs a scene by a share of a face's width."""
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(share * USUAL))


def darkened(by: int) -> Callable[[Image.Image], Image.Image]:
    """What leaves a part of the light."""
    return lambda picture: picture.point([value // by for value in range(256)])


@dataclass(frozen=True)
class Case:
    """How a face is made hard to find, and the share of faces that is found at the least, so made."""

    least: float
    width: float = USUAL
    degrees: float = 0.0
    of_face: Callable[[Image.Image], Image.Image] = lambda face: face
    of_scene: Callable[[Image.Image], Image.Image] = lambda picture: picture


CASES = {
    f"upright, {USUAL} pixels wide": Case(0.9),
    "40 pixels wide": Case(0.9, width=40),
    "28 pixels wide": Case(0.8, width=28),
    "22 pixels wide": Case(0.4, width=22),
    "turned by 30 degrees": Case(0.8, degrees=30),
    "turned by 45 degrees": Case(0.6, degrees=45),
    "turned by 90 degrees": Case(0.6, degrees=90),
    "hanging": Case(0.6, degrees=180),
    "the left half covered": Case(0.6, of_face=covered(0, 0, 0.5, 1, 60)),
    "a mask: the lower 45 % covered": Case(0.6, of_face=covered(0.1, 0.55, 0.9, 1, 210)),
    "dark glasses: a band over the eyes": Case(0.6, of_face=covered(0.1, 0.25, 0.9, 0.45, 20)),
    "blurred by a sixteenth of its width": Case(0.8, of_scene=blurred(1 / 16)),
    "blurred by a tenth of its width": Case(0.2, of_scene=blurred(1 / 10)),
    "darkened to a quarter": Case(0.8, of_scene=darkened(4)),
    "darkened to a tenth": Case(0.5, of_scene=darkened(10)),
}


@pytest.fixture(scope="module")
def people() -> list[Image.Image]:
    """RAF-DB's validation faces, in an order without a meaning."""
    table, archive = SHARED / "data" / "more_labels.csv", SHARED / "data" / "more_faces.zip"
    if not (table.exists() and archive.exists()):
        pytest.skip("the real faces are not beside this checkout (they may not be redistributed)")
    with table.open(newline="") as lines, zipfile.ZipFile(archive) as files:
        rows = csv.DictReader(lines)
        names = [row["file"] for row in rows if (row["source"], row["usage"]) == ("rafdb", "validation")]
        order = np.random.default_rng(0).permutation(sorted(names))
        return [Image.open(files.open(name)).convert("L") for name in order[: depth(40, len(order))]]


def found(case: Case, people: Sequence[Image.Image], rng: np.random.Generator) -> float:
    """The share of people whose face is found."""
    hits = 0
    for face in people:
        picture, middle = scene(case.of_face(face), rng, case.width, case.degrees)
        picture = case.of_scene(picture)
        hits += any(
            math.dist(middle, (one.x + one.width / 2, one.y + one.height / 2)) < case.width / 2
            for one in faces.find(GrayImage(picture, *picture.size), Search("detect"))
        )
    return hits / len(people)


@pytest.mark.parametrize("name", some(CASES, 5))
def test_hard_faces_are_found_as_often_as_is_said(name: str, people: list[Image.Image]) -> None:
    assert found(CASES[name], people[: depth(15, 100)], np.random.default_rng(0)) >= CASES[name].least


@pytest.mark.bench
def test_the_table_of_the_guide(people: list[Image.Image]) -> None:
    some_of_them = people[:200]
    print(f"\n| {len(some_of_them)} faces | found |\n|---|---|")
    for name, case in CASES.items():
        share = found(case, some_of_them, np.random.default_rng(0))
        print(f"| {name} | {share:.3f} |", flush=True)
        assert share >= case.least


def crop_at(picture: Image.Image, middle: Point) -> NDArray[np.uint8] | None:
    """The model input of the face in the middle; None where none is found there."""
    image = GrayImage(picture, *picture.size)
    for face in faces.find(image, Search("detect")):
        if math.dist(middle, (face.x + face.width / 2, face.y + face.height / 2)) < face.width / 2:
            return model_input(crop(image, face), 48)
    return None


def turned(picture: Image.Image, middle: Point, degrees: int) -> tuple[Image.Image, Point]:
    """A picture turned clockwise, whole, and where its middle comes to lie."""
    whole = picture.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)  # quarters without resampling
    return whole, (middle - np.array(picture.size) / 2) @ frames.axes(degrees) + np.array(whole.size) / 2


@pytest.mark.bench
def test_faces_in_turned_photos_have_their_labels(people: list[Image.Image]) -> None:
    rng, model = np.random.default_rng(0), Classifier.load(device="cpu", precision="fp32")
    scenes = [scene(face, rng, float(np.exp(rng.uniform(math.log(40), math.log(160))))) for face in people]
    upright = {at: seen for at, one in enumerate(scenes) if (seen := crop_at(*one)) is not None}
    print(f"\nupright, {len(upright)} of {len(scenes)} faces are found")
    for degrees in (30, 60, 90, 180, 270):
        again = {at: seen for at in upright if (seen := crop_at(*turned(*scenes[at], degrees))) is not None}
        pairs = [np.stack([seen[at] for at in again]) for seen in (upright, again)]
        before, now = (model.probabilities(inputs).argmax(1) for inputs in pairs)
        same = int((before == now).sum())
        low, high = wilson(same, len(again))
        print(f"turned by {degrees}: {same / len(again):.3f} ({low:.3f} to {high:.3f}, n = {len(again)})", flush=True)
        assert same / len(again) > 0.93
