"""The detector and the search plan: the same picture has the same faces, by either engine, and the reference's."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from support import depth
from test_faces import landscape

from ferbatch.core.errors import ModelError
from ferbatch.core.options import EXAMPLE
from ferbatch.core.records import Search
from ferbatch.images import crops, engines, faces, frames, passes, yunet
from ferbatch.images.decode import GrayImage, from_memory
from ferbatch.images.looks import answered
from ferbatch.images.onnx_file import simplified

INSTALLED = [name for name, engine in engines.ENGINES.items() if engine.version]


@pytest.fixture(params=INSTALLED)
def detector(request: pytest.FixtureRequest) -> yunet.YuNet:
    return yunet.YuNet(engines.ENGINES[request.param])


@cache
def portrait() -> Image.Image:
    with Image.open(EXAMPLE) as image:
        return image.convert("L")


def scene(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A landscape with none to three portraits in it, tilted, lighter or darker, some of them cut by its border."""
    picture = landscape(size, int(rng.integers(8))).convert("L")
    for _ in range(rng.integers(4)):
        side = int(np.exp(rng.uniform(np.log(60), np.log(700))))
        angle = rng.uniform(-20, 20)
        face = ImageEnhance.Brightness(portrait().resize((side, side))).enhance(rng.uniform(0.5, 1.4))
        mask = Image.new("L", face.size, 255).rotate(angle)
        corner = [int(rng.integers(-side // 3, max(length - side // 3, 1))) for length in size]
        picture.paste(face.rotate(angle, Image.Resampling.BICUBIC), (corner[0], corner[1]), mask)
    return np.asarray(picture)


def sizes(rng: np.random.Generator, n: int, least: int = 16, most: int = 1_500) -> NDArray[np.int64]:
    """(n, 2) widths and heights, as many small as large; every third narrow one way or the other."""
    found = np.exp(rng.uniform(np.log(least), np.log(most), (n, 2)))
    for at in range(0, n, 3):
        found[at, rng.integers(2)] = rng.integers(least, 2 * least)
    return found.astype(np.int64)


def overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection of two boxes as a share of their union."""
    start, end = np.maximum(one[:2], other[:2]), np.minimum(one[:2] + one[2:4], other[:2] + other[2:4])
    shared = (end - start).clip(0).prod()
    return float(shared / (one[2:4].prod() + other[2:4].prod() - shared))


def test_a_picture_gives_the_same_numbers_every_time(detector: yunet.YuNet) -> None:
    rng = np.random.default_rng(0)
    pictures = [scene(rng, (int(width), int(height))) for width, height in sizes(rng, depth(24, 100))]

    def numbers(grays: NDArray[np.uint8]) -> list[bytes]:
        """What the network says of each picture."""
        levels = detector.network(yunet.padded(grays))
        return [b"".join(level[one].tobytes() for level in levels) for one in range(len(grays))]

    alone = [numbers(picture[None])[0] for picture in pictures]
    for _ in range(depth(3, 20)):
        for at in rng.permutation(len(pictures)):  # after larger and smaller ones
            others = rng.integers(0, 255, (2, *pictures[at].shape), np.uint8)
            together = np.stack((others[0], pictures[at], others[1]))
            assert numbers(together)[1] == alone[at], pictures[at].shape


def yunet_rows(detector: yunet.YuNet, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    (rows,) = detector.candidates(picture[None])
    return yunet.surest(rows, yunet.SAME)


def test_the_rows_of_a_photo_are_the_same_whatever_was_searched_before(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    photos = [from_memory(scene(rng, (int(width), int(height)))) for width, height in sizes(rng, depth(12, 60))]
    photos += [GrayImage(Image.fromarray(rng.integers(0, 255, (81, 601), np.uint8)), 601, 81)]

    def found(photo: GrayImage) -> list[Any]:
        return [crops.box(face, photo) for face in faces.find(photo, Search("detect"))]

    for name in INSTALLED:
        monkeypatch.setattr(faces, "detector", cache(lambda _, name=name: yunet.YuNet(engines.ENGINES[name])))
        first = [found(photo) for photo in photos]
        for at in rng.permutation(np.repeat(np.arange(len(photos)), depth(3, 12))):
            assert found(photos[at]) == first[at]


def test_no_box_lies_outside_its_picture() -> None:
    rng = np.random.default_rng(2)
    for name in INSTALLED:
        look = yunet.YuNet(engines.ENGINES[name])
        for width, height in sizes(rng, depth(30, 200), most=400):
            for values in (scene(rng, (int(width), int(height))), rng.integers(0, 255, (height, width), np.uint8)):
                rows = answered(passes.faces_in(Image.fromarray(values), 1, largest=False), look)
                middles = rows[:, :2] + rows[:, 2:4] / 2
                assert ((middles >= 0) & (middles <= (width, height))).all()
    photo = Image.new("L", (176, 144))
    inside, outside = ([x, 20, 60, 70, *frames.TEMPLATE.ravel(), 0.999] for x in (20, 1_099))
    search = passes.faces_in(photo, 20, largest=False)
    assert next(search).shape == (1, 144, 176)
    with pytest.raises(StopIteration) as end:
        search.send([np.array([inside, outside])])
    found = end.value.value
    assert found[:, 0].tolist() == [20]


def test_either_engine_finds_what_opencvs_own_detector_finds(detector: yunet.YuNet) -> None:
    import cv2  # the plain install has it

    data = np.frombuffer(yunet.onnx(), np.uint8)
    reference = cv2.FaceDetectorYN.create("onnx", data, np.empty(0, np.uint8), (320, 320), yunet.MIN_SCORE, 0.3, 5_000)
    rng = np.random.default_rng(3)
    pictures = [scene(rng, (int(width), int(height))) for width, height in sizes(rng, depth(80, 400), least=64)]
    pictures = [one for one in pictures if min(one.shape) > 32] + [np.asarray(portrait())]
    counted = 0
    for picture in pictures:
        reference.setInputSize(picture.shape[::-1])
        _, wanted = reference.detect(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
        wanted = np.empty((0, 15)) if wanted is None else wanted
        rows = yunet_rows(detector, picture)
        if len(rows) == len(wanted):
            counted += 1
            assert all(overlap(one, other) > 0.99 for one, other in zip(rows, wanted, strict=True))
            assert np.abs(rows[:, 4:14] - wanted[:, 4:14]).max(initial=0) < 0.1  # pixels
    assert counted >= 0.995 * len(pictures)


def test_what_is_run_is_the_files_network() -> None:
    import cv2  # the plain install has it

    file = yunet.onnx()
    net = cv2.dnn.readNetFromONNX(np.frombuffer(file, np.uint8))
    pixels = np.random.default_rng(4).uniform(0, 255, (1, 1, 96, 64)).astype(np.float32)
    net.setInput(np.repeat(pixels, 3, axis=1))
    names = [f"{head}_{stride}" for stride in yunet.STRIDES for head in ("cls", "obj", "bbox", "kps")]
    whole = dict(zip(names, net.forward(names), strict=True))
    for name in INSTALLED:
        for stride, level in zip(yunet.STRIDES, engines.ENGINES[name].load(simplified(file))(pixels), strict=True):
            values = level[0].reshape(16, -1).T
            values[:, :2] = 1 / (1 + np.exp(-values[:, :2]))
            parts = [whole[f"{head}_{stride}"][0] for head in ("cls", "obj", "bbox", "kps")]
            np.testing.assert_allclose(values, np.concatenate(parts, 1), atol=1e-4)


@pytest.mark.parametrize("size", [(1_280, 960), (960, 1_280), (512, 1_024), (16_384, 64), (64, 16_384), (736, 736)])
def test_a_large_picture_gives_the_same_numbers_strip_by_strip_as_at_once(size: tuple[int, int]) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is installed with ferbatch[photos]")
    network = simplified(yunet.onnx())
    pixels = np.random.default_rng(5).uniform(0, 255, (2, 1, *size)).astype(np.float32)
    assert pixels[0].size >= engines.LARGE
    at_once, in_strips = engines._session(network), engines.ENGINES["onnxruntime"].load(network)
    for one, other in zip(at_once(pixels), in_strips(pixels), strict=True):
        assert one.tobytes() == other.tobytes()


def test_onnx_runtime_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: engine.version for name, engine in engines.ENGINES.items()}
    assert (engines.best() or engines.ENGINES["opencv"]).version == next(filter(None, known.values()))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "onnxruntime" else find_spec(name, *more)
    )
    assert (yunet.YuNet.version()).startswith("face_detection_yunet_2023mar, opencv ")
    monkeypatch.setattr(engines, "ENGINES", {})
    with pytest.raises(ModelError, match=r"faces cannot be looked for: OpenCV is not installed; pip install"):
        yunet.YuNet.version()


class Looks(yunet.YuNet):
    """A detector that remembers the pictures it was shown: how many, how high and how wide."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def candidates(self, grays: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        self.shapes.append(grays.shape)
        return super().candidates(grays)

    @property
    def sides(self) -> list[int]:
        return [max(shape[1:]) for shape in self.shapes]


@pytest.mark.parametrize(
    ("longest", "least", "wanted"),
    [
        (48, 20, [160]),  # scaled up
        (320, 20, [320]),  # one look sees them all
        (350, 20, [350, 160]),  # the second because the first finds nothing
        (559, 200, [559, 160]),
        (560, 20, [160, 560]),
        (720, 20, [205, 720]),
        (4_000, 20, [365, 1_280]),
        (1_280, 168, [365, 1_280]),
        (1_280, 169, [365]),  # a face of 169 pixels is 48 large there
        (4_000, 527, [365]),
    ],
)
def test_no_look_is_taken_that_could_not_add_a_face_that_is_asked_for(
    longest: int, least: float, wanted: list[int]
) -> None:
    looks = Looks()
    answered(passes.faces_in(landscape((longest, longest * 3 // 4)).convert("L"), least, largest=False), looks)
    assert looks.sides == wanted


def test_where_the_largest_face_alone_is_wanted_the_first_look_that_sees_one_clearly_is_the_last() -> None:
    large, small = landscape((1_280, 900)).convert("L"), landscape((1_280, 900)).convert("L")
    large.paste(portrait().resize((1_600, 1_600)).crop((0, 0, 1_280, 900)), (0, 0))
    small.paste(portrait().resize((400, 400)), (100, 100))
    for picture, wanted in ((large, [365]), (small, [365, 1_280])):
        looks = Looks()
        (first,) = answered(passes.faces_in(picture, 20, largest=True), looks)
        assert looks.sides == wanted
        (same,) = answered(passes.faces_in(picture, 20, largest=False), looks)  # whichever looks were taken
        assert first.tolist() == same.tolist()


def test_all_faces_of_a_photo_are_looked_at_again_at_once() -> None:
    look = Looks()

    picture = landscape((900, 600)).convert("L")
    for x, side in ((20, 300), (420, 480)):
        picture.paste(portrait().resize((side, side)), (x, 60))
    image = GrayImage(picture, *picture.size)
    rows = answered(passes.faces_in(picture, 20, largest=False), look)
    found = [faces.Face(*row[:4], row[14], row[4:14].reshape(5, 2)) for row in rows]
    look.shapes.clear()
    closer = answered(faces._closer(image.pixels, found, faces.CLOSE), look)
    assert look.shapes == [(2, faces.CLOSE, faces.CLOSE)]
    alone = [answered(faces._closer(image.pixels, [one], faces.CLOSE), look)[0] for one in found]
    assert [one.landmarks.tolist() for one in alone] == [one.landmarks.tolist() for one in closer]


assert INSTALLED  # with none, nothing above would be tried
