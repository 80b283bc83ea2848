"""The detector by PyTorch on a device: the same faces as on the cores, whatever a picture comes with.

The CPU is such a device, too: what is held here for it is what a GPU runs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support import Ferbatch, depth, draw_face
from test_detector import overlap, portrait, scene, sizes
from test_faces import landscape

from ferbatch.core import process
from ferbatch.core.errors import DeviceError
from ferbatch.core.options import BenchOptions, searched_on
from ferbatch.core.records import Decoding, Search, Workers
from ferbatch.core.stores import remote
from ferbatch.images import faces, on_device, yunet
from ferbatch.images.decode import GrayImage
from ferbatch.images.looks import Looking, answered_together
from ferbatch.images.on_device import OnDevice
from ferbatch.sources.listing import list_images
from ferbatch.stream import read as reading
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.pool import Pool

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", id="gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    ),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pictures(n: int, most: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [scene(rng, (int(width), int(height))) for width, height in sizes(rng, n, most=most)]


def test_a_device_finds_what_the_cores_find(device: str) -> None:
    cores, there = yunet.YuNet(), OnDevice(device)
    shown = [*pictures(depth(30, 400), most=700), np.asarray(portrait())]
    together = there.candidates_of([picture[None] for picture in shown])
    counted, found = 0, 0
    for picture, (candidates,) in zip(shown, together, strict=True):
        wanted = yunet.surest(cores.candidates(picture[None])[0], yunet.SAME)
        rows = yunet.surest(candidates, yunet.SAME)
        if len(rows) == len(wanted):
            counted += 1
            found += len(rows)
            assert all(overlap(one, other) > 0.99 for one, other in zip(rows, wanted, strict=True))
            assert np.abs(rows[:, 4:14] - wanted[:, 4:14]).max(initial=0) < 0.1  # pixels
    assert found > 8
    assert counted >= 0.995 * len(shown)


def test_a_picture_gives_the_same_numbers_on_a_device_whatever_it_comes_with(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yunet, "LEAST_LOGIT", -np.inf)  # every place is a candidate
    monkeypatch.setattr(yunet, "MIN_SCORE", 0.0)
    there, rng = OnDevice(device), np.random.default_rng(1)
    shown = pictures(depth(20, 100), most=300, seed=1)
    alone = [there.candidates(picture[None])[0].tobytes() for picture in shown]
    assert all(alone)
    for _ in range(depth(3, 20)):
        order = rng.permutation(np.repeat(np.arange(len(shown)), 2))
        others = [rng.integers(0, 255, (2, *shown[at].shape), np.uint8) for at in order]
        asked = [np.stack((other[0], shown[at], other[1])) for at, other in zip(order, others, strict=True)]
        for at, (_, rows, _) in zip(order, there.candidates_of(asked), strict=True):
            assert rows.tobytes() == alone[at], shown[at].shape


def test_pictures_of_a_padded_size_share_blocks_and_a_thin_one_has_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    there, blocks = OnDevice("cpu"), list[tuple[tuple[int, int], int]]()
    launch = there._launch

    def watched(size: tuple[int, int], some: Any) -> torch.Tensor:
        blocks.append((size, len(some)))
        return launch(size, some)

    monkeypatch.setattr(there, "_launch", watched)
    asked = [
        np.zeros(shape, np.uint8) for shape in ((1, 120, 130), (3, 128, 160), (2, 97, 129), (1, 9, 400), (0, 90, 90))
    ]
    assert [len(rows) for rows in there.candidates_of(asked)] == [1, 3, 2, 1, 0]
    assert blocks == [((128, 160), 4), ((128, 160), 2)]
    assert there._block((128, 160)) == 4
    assert there._block((1_280, 1_280)) == 1


def test_searches_that_are_answered_together_find_what_each_finds_alone(device: str) -> None:
    search = Search("detect", device=device)
    images = [GrayImage(Image.fromarray(one), one.shape[1], one.shape[0]) for one in pictures(depth(9, 60), most=500)]
    images += [GrayImage(portrait().rotate(angle), 512, 512) for angle in (0, 10, 180)]
    together = faces.find_all(images, search)
    assert sum(map(len, together)) > 3
    for image, found in zip(images, together, strict=True):
        assert [described(face) for face in found] == [described(face) for face in faces.find(image, search)]
    assert faces.find_all([], search) == []


def described(face: faces.Face) -> Any:
    return face.x, face.y, face.width, face.height, face.score, face.close_score, face.landmarks.tolist()


def test_each_search_is_sent_what_answers_it() -> None:
    class Echo:
        """Of each picture, its first pixel."""

        def __init__(self) -> None:
            self.rounds = list[int]()

        def candidates(self, grays: NDArray[np.uint8]) -> list[yunet.Rows]:
            return [one[:1, :1].astype(np.float64) for one in grays]

        def candidates_of(self, asked: Any) -> list[list[yunet.Rows]]:
            self.rounds.append(len(asked))
            return [self.candidates(grays) for grays in asked]

    def counting(start: int, n: int) -> Looking[list[int]]:
        found = []
        for step in range(n):
            (rows,) = yield np.full((1, 2, 2), start + step, np.uint8)
            found.append(int(rows[0, 0]))
        return found

    echo = Echo()
    found = answered_together([counting(10, 3), counting(20, 0), counting(30, 1), counting(40, 2)], echo)
    assert found == [[10, 11, 12], [], [30], [40, 41]]
    assert echo.rounds == [3, 2, 1]
    assert answered_together(list[Looking[int]](), echo) == []


# The command. Its images: photos, a cropped face, one that cannot be read.


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    folder.mkdir()
    draw_face(1).save(folder / "crop.png")
    (folder / "junk.jpg").write_bytes(b"no")
    landscape((300, 200)).save(folder / "none.png")
    for number, angle in enumerate((0, 10, 180)):
        picture = landscape((400, 320)).convert("L")
        picture.paste(portrait().resize((300, 300)).rotate(angle), (40 + 5 * number, 10))
        picture.save(folder / f"photo{number}.png")
    portrait().save(folder / "portrait.png")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_on_a_device_the_rows_are_the_same_by_whatever_process_and_their_faces_those_of_the_cores(
    device: str, mixed: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    common = ("label", "mixed", "-q", "--device", device, "--precision", "fp32")
    assert ferbatch_in(*common, "-o", "cores.csv", "--faces-on", "cores").returncode == 3
    outputs = set()
    for options in (("--workers", "0"), ("--isolate", "--workers", "2"), ("--batch-size", "2", "--no-isolate")):
        done = ferbatch_in(*common, "-o", "device.csv", "--faces-on", "device", "--overwrite", *options)
        assert done.returncode == 3, done.stderr
        outputs.add((tmp_path / "device.csv").read_bytes())
    assert len(outputs) == 1
    found = 0
    for one, other in zip(rows_of(tmp_path / "cores.csv"), rows_of(tmp_path / "device.csv"), strict=True):
        assert [one[name] for name in ("path", "label", "status", "face")] == [
            other[name] for name in ("path", "label", "status", "face")
        ]
        if one["face"]:
            found += 1
            boxes = (np.array([float(row[name]) for name in ("x", "y", "width", "height")]) for row in (one, other))
            assert overlap(*boxes) > 0.9
    assert found >= 4
    sidecar = json.loads((tmp_path / "device.csv.run.json").read_text())
    assert f"torch {torch.__version__.partition('+')[0]} on {device}, search" in sidecar["options"]["detector"]


def test_labels_of_another_detector_are_made_again_by_incremental_which_says_so(
    mixed: Path, ferbatch_in: Ferbatch
) -> None:
    common = ("label", "mixed", "--device", "cpu", "--incremental")
    assert ferbatch_in(*common).returncode == 3
    done = ferbatch_in(*common, "--faces-on", "device")
    assert done.returncode == 3
    assert b"detector was face_detection_yunet_2023mar, " in done.stderr
    assert b" on cpu, search" in done.stderr
    again = ferbatch_in(*common, "--faces-on", "device")
    assert b"detector was" not in again.stderr


@pytest.fixture
def few_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_TOGETHER", 3)


def found_in(folder: Path, workers: Workers) -> dict[str, int | str]:
    """Of each image, in order, how many crops it gave, or the kind of its failure."""
    found: dict[str, int | str] = {}
    with Pool(Decoding(48, search=Search("auto", device="cpu")), workers, 16) as pool:
        for batch in pool.batches(list_images([folder], ())):
            for place, path in enumerate(batch.references.paths):
                failure = batch.failures.get(place)
                found[Path(path).stem] = failure.kind if failure else int(batch.crops_of[place])
    return found


def test_an_image_that_kills_its_process_has_a_row_and_the_others_are_found(
    mixed: Path, fault: Callable[..., None], few_together: None
) -> None:
    (mixed / "photo1.png").rename(mixed / "segv.png")
    fault("decoder_with_holes")
    found = found_in(mixed, Workers(1, True))
    assert found == {
        "crop": 1,
        "junk": "unreadable",
        "none": 0,
        "photo0": 1,
        "photo2": 1,
        "portrait": 1,
        "segv": "crashed",
    }


@pytest.mark.parametrize("timeout", [None, 1.5])
def test_an_image_at_which_a_search_of_several_ends_or_hangs_has_a_row_and_the_others_are_found(
    timeout: float | None, mixed: Path, fault: Callable[..., None], few_together: None
) -> None:
    fault("detector_with_holes", deadly=201, endless=202 if timeout else 0)
    for name, width in (("deadly0", 201), ("deadly1", 201), ("n", 202), ("z", 203)):
        landscape((width, 150)).save(mixed / f"{name}.png")
    with_holes = found_in(mixed, Workers(1, True, timeout))
    assert with_holes == {
        "crop": 1,
        "deadly0": "crashed",
        "deadly1": "crashed",
        "junk": "unreadable",
        "n": "timeout" if timeout else 0,
        "none": 0,
        "photo0": 1,
        "photo1": 1,
        "photo2": 1,
        "portrait": 1,
        "z": 0,
    }


def test_all_that_are_searched_together_may_be_to_blame_and_none_while_a_store_is_waited_for(
    mixed: Path, few_together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, to_blame = list[range](), range(0)

    def watch(number: int | None, together: int = 1) -> None:
        nonlocal to_blame
        to_blame = range(0) if number is None else range(number, number + together)

    def search(images: Any, search: Search) -> list[list[faces.Face]]:
        told.append(to_blame)
        return [[] for _ in images]

    def wait(_: bytes) -> None:
        told.append(to_blame)

    monkeypatch.setattr(remote, "wait_for", wait)
    monkeypatch.setattr(faces, "find_all", search)
    references = list_images([mixed], ()).references(range(4))
    for device in ("cpu", None):
        told.clear()
        for _ in reading.batches(10, references, Decoding(48, search=Search("detect", device=device)), watch):
            assert not to_blame
        assert told == [range(0)] * 3 + ([range(10, 13)] if device else []) + [range(0)] + (
            [range(13, 14)] if device else []
        )


def failing(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """Have a device's memory be too small for pictures from so many pixels on."""
    launch = OnDevice._launch

    def too_much(self: OnDevice, size: tuple[int, int], some: Any) -> torch.Tensor:
        if size[0] * size[1] >= least:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
        return launch(self, size, some)

    monkeypatch.setattr(OnDevice, "_launch", too_much)


@pytest.mark.parametrize("least", [0, 100_000])  # at the start, or later
@pytest.mark.parametrize("options", [("--workers", "0"), ("--isolate", "--workers", "1")])
def test_a_device_that_fails_ends_the_run_with_a_sentence(
    least: int, options: tuple[str, ...], mixed: Path, ferbatch_here: Ferbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, least)
    faces.OF_THREAD.__dict__.clear()
    done = ferbatch_here("label", "mixed", "-q", "--device", "cpu", "--faces-on", "device", *options)
    faces.OF_THREAD.__dict__.clear()
    assert done.returncode == 71
    said = "faces cannot be looked for on cpu (CUDA out of memory. Tried to allocate 2.00 GiB)"
    assert done.stderr.decode().startswith(f"ferbatch: {said}; fewer --workers or --faces-on cores need less")
    assert done.stderr.count(b"\n") == 1


def test_what_raises_otherwise_is_a_bug_and_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    there = OnDevice("cpu")
    monkeypatch.setattr(there, "_launch", lambda *_: dict[str, Any]()["no"])
    with pytest.raises(KeyError):
        there.candidates(np.zeros((1, 64, 64), np.uint8))
    failing(monkeypatch, 0)
    with pytest.raises(DeviceError):
        OnDevice("cpu")


def test_what_pytorch_says_is_cut_between_words() -> None:
    there, sentence = OnDevice("cpu"), "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"
    said = re.escape(f"({sentence} 79.11 GiB of which...);")
    with pytest.raises(DeviceError, match=said), there._at_work():
        raise torch.OutOfMemoryError(f"{sentence} 79.11 GiB of which 23.06 MiB is free. Including non-PyTorch memory")


def test_a_process_that_opens_a_gpu_is_no_fork() -> None:
    for workers in (Workers(1, True), Workers(1, False)):
        pool = Pool(Decoding(48, search=Search("auto", device="cuda")), workers, 8)
        assert not pool.forks
        assert pool.context.get_start_method() in ("forkserver", "spawn")


def test_a_host_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        OnDevice("cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--faces-on", "gpu"), "--faces-on is cores or device, not 'gpu'"),
        (("--faces-on", "device", "--faces", "whole"), "--faces-on device needs faces to be looked for"),
        (("--faces-on", "device", "--engine", "ray"), "--faces-on device is not for --engine ray"),
        (("--faces-on", "device", "--device", "cuda:99"), "device cuda:99 is not available here"),
    ],
)
def test_what_cannot_be_is_said(options: tuple[str, ...], sentence: str, mixed: Path, ferbatch_here: Ferbatch) -> None:
    done = ferbatch_here("label", "mixed", *options)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"ferbatch: {sentence}")


def test_a_device_that_was_never_tried_is_refused() -> None:
    with pytest.raises(Exception, match="--faces-on device is for --device cpu and cuda, not mps"):
        searched_on(Search("auto"), "device", "mps")
    assert searched_on(Search("whole"), "device", "cuda") == Search("whole")
    assert BenchOptions().faces_on == "cores"
    assert on_device.BLOCK.keys() == {"cpu", "cuda"}


@pytest.mark.skipif(torch.cuda.is_available() or not torch.version.cuda, reason="a CUDA device, or a PyTorch without")
@pytest.mark.parametrize("isolate", [True, False])
def test_processes_that_cannot_open_a_gpu_say_so(isolate: bool, mixed: Path) -> None:
    with (
        Pool(Decoding(48, search=Search("auto", device="cuda")), Workers(1, isolate), 8) as pool,
        pytest.raises(DeviceError, match="faces cannot be looked for on cuda"),
    ):
        next(pool.batches(list_images([mixed], ())))


@pytest.mark.parametrize(("free", "wanted"), [(80 * 2**30, 16), (8 * 2**30, 5), (2**20, 1)])
def test_no_more_processes_open_a_gpu_than_have_room(free: int, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.load(device="cpu")
    monkeypatch.setattr(process, "default_workers", lambda: 16)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * 2**30))
    assert classifier._processes(Search("auto", device="cpu")) == 16
    classifier.device = torch.device("cuda")
    assert classifier._processes(Search("auto", device="cuda")) == wanted
    assert classifier._processes(Search("auto")) == 16
