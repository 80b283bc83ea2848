"""fp32 and bf16: each gives the same bytes however it is run, and which of them it was is on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import Forks
from numpy.typing import NDArray
from PIL import Image
from support import ENVIRONMENT, Ferbatch, crossed, depth, draw_face, drawn, some

import ferbatch
from ferbatch.core.errors import UsageError
from ferbatch.core.records import Decoding
from ferbatch.images import jpeg
from ferbatch.model import devices, engine
from ferbatch.model.weights import shipped
from ferbatch.sources.listing import list_images
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.source import Batches, loader

CPU = torch.device("cpu")
PRECISIONS = tuple(devices.DTYPES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 drawn faces of several sizes, one of them broken; whole blocks of every network and a part."""
    folder = tmp_path_factory.mktemp("precision") / "images"
    folder.mkdir()
    for seed in range(140):
        draw_face(seed, 48 if seed % 3 else 60).save(folder / f"{seed:04}.jpg")
    (folder / "0070.jpg").write_bytes(b"broken")
    return folder


Labels = Callable[..., bytes]


@pytest.fixture(scope="module")
def labels(folder: Path, commands: Forks | None) -> Labels:
    """The labels of the folder with these options; `threads` in a Python that is started with so many."""

    def label(*options: str, threads: str | None = None) -> bytes:
        argv = ["label", "images", "-o", "-", "-q", "--device", "cpu", *options]
        if commands and not threads:
            ended = commands(folder.parent, *argv)
            assert ended.code == 3, ended.stderr
            return ended.stdout
        environment = {**ENVIRONMENT, **({"OMP_NUM_THREADS": threads} if threads else {})}
        command = [sys.executable, "-m", "ferbatch", *argv]
        done = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 3, done.stderr
        return done.stdout

    return label


@pytest.fixture(scope="module")
def usual(labels: Labels) -> dict[str, bytes]:
    """The labels of each precision, in the usual way."""
    return {precision: labels("--precision", precision) for precision in PRECISIONS}


WAYS = {
    "images one by one": (("--batch-size", "1"), None),
    "odd batches": (("--batch-size", "7"), None),
    "decode processes": (("--workers", "2"), None),
    "isolated": (("--isolate",), None),
    "not isolated": (("--no-isolate", "--workers", "1"), None),
    "one thread": ((), "1"),
    "two threads": ((), "2"),
    "five threads": ((), "5"),
}


@pytest.mark.parametrize(("way", "precision"), crossed(WAYS, PRECISIONS))
def test_a_precision_gives_the_same_bytes_however_it_is_run(
    way: str, precision: str, labels: Labels, usual: dict[str, bytes]
) -> None:
    options, threads = WAYS[way]
    assert labels("--precision", precision, *options, threads=threads) == usual[precision]


def test_the_two_precisions_are_not_the_same(usual: dict[str, bytes]) -> None:
    assert usual["fp32"] != usual["bf16"]


@pytest.mark.parametrize("name", some(shipped(), 2))
def test_bf16_is_near_fp32_but_is_really_used(name: str, request: pytest.FixtureRequest) -> None:
    pixels = drawn(depth(128, 256))
    try:
        files = list_images([request.getfixturevalue("real_faces") / "validation"], ())
        chosen = files.where(np.arange(0, len(files), len(files) // depth(128, 512)))
        pixels = np.concatenate([batch.inputs for batch in loader(Batches(chosen, Decoding(48), 64))])
    except pytest.skip.Exception:  # drawn faces will do
        pass
    found = {one: Classifier.load(name, "cpu", precision=one).probabilities(pixels) for one in PRECISIONS}
    difference = np.abs(found["bf16"] - found["fp32"]).max()
    other = (found["bf16"].argmax(1) != found["fp32"].argmax(1)).mean()
    print(f"{name}: largest difference of a probability {difference:.3f}, other labels {100 * other:.2f} %")
    assert 1e-5 < difference < 0.05
    assert other < 0.02


@pytest.mark.parametrize(("name", "precision", "tta"), some(product(["cnn", "cnn-lite"], PRECISIONS, [False, True]), 4))
def test_an_images_numbers_depend_on_neither_its_place_nor_its_neighbours(name: str, precision: str, tta: bool) -> None:
    classifier = Classifier.load(name, "cpu", precision=precision, tta=tta)
    n = classifier.block
    faces = drawn(n)
    whole = classifier.probabilities(faces)
    moved = classifier.probabilities(np.roll(faces, -3, axis=0))
    assert np.array_equal(np.roll(moved, 3, axis=0), whole)
    for at in (0, n // 2, n - 1):
        assert np.array_equal(classifier.probabilities(faces[at : at + 1]), whole[at : at + 1])
        last = np.concatenate([np.zeros((at, 48, 48), np.uint8), faces[at : at + 1]])
        assert np.array_equal(classifier.probabilities(last)[at], whole[at])
    odd = faces[:4].copy()
    odd[0], odd[2] = 255, 0
    assert np.array_equal(classifier.probabilities(odd)[1::2], whole[[1, 3]])


def test_images_of_several_things_share_blocks_and_have_the_numbers_they_have_alone() -> None:
    classifier = Classifier.load("cnn-lite", "cpu")
    faces = drawn(3 * classifier.block)
    whole = classifier.probabilities(faces)
    sizes = [0, 1, classifier.block, 5, 0, 2 * classifier.block - 10, 0, 4, 0]
    assert sum(sizes) == len(faces)
    parts = np.split(faces, np.cumsum(sizes)[:-1])
    found = list(classifier.ahead(enumerate(parts)))
    assert [thing for thing, _ in found] == list(range(len(sizes)))
    assert [len(probabilities) for _, probabilities in found] == sizes
    assert np.array_equal(np.concatenate([probabilities for _, probabilities in found]), whole)


@pytest.mark.parametrize("patience", [0.0, 3600.0])
def test_a_gpu_waits_for_whole_blocks(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.PATIENCE, "cpu", patience)
    classifier = Classifier.load("cnn-lite", "cpu")
    n, compute, computed = classifier.block, classifier._compute, list[int]()
    monkeypatch.setattr(
        classifier, "_compute", lambda inputs: (computed.append(sum(map(len, inputs))), compute(inputs))[1]
    )
    found = list(classifier.ahead(enumerate(np.split(drawn(n * 3 // 2), 6))))
    assert [thing for thing, _ in found] == list(range(6))
    if patience:
        assert sorted(computed) == [n // 2, n]
    else:  # the first of them has nothing to wait for
        assert n // 4 in computed


CAPABLE = [
    ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
    ({"amx_bf16": True}, "bf16"),
    ({"bf16": True}, "bf16"),
    ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, "fp32"),
    ({}, "fp32"),
]


@pytest.mark.parametrize(("capabilities", "wanted"), CAPABLE)
def test_auto_is_bf16_exactly_where_the_cpu_computes_in_it(
    capabilities: dict[str, bool], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert devices.computes_bf16(CPU) is (wanted == "bf16")
    assert devices.choose_precision("auto", CPU) == wanted
    assert ferbatch.load_model(device="cpu").precision == wanted
    for named in PRECISIONS:  # whatever the CPU can do
        assert devices.choose_precision(named, CPU) == named
        assert ferbatch.load_model(device="cpu", precision=named).precision == named


def test_a_pytorch_that_does_not_know_its_cpu_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert devices.choose_precision("auto", CPU) == "fp32"


def test_a_gpu_that_only_emulates_bf16_and_an_apple_one_compute_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native or including_emulation
        )
        assert devices.choose_precision("auto", torch.device("cuda")) == ("bf16" if native else "fp32")
    assert devices.choose_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize("command", ["label", "evaluate"])
@pytest.mark.parametrize("precision", ["fp16", "", "BF16", "\x1b[31m"])
def test_an_unknown_precision_is_one_sentence(
    command: str, precision: str, faces: Callable[..., Path], ferbatch_here: Ferbatch
) -> None:
    for name in ("happy", "sad"):
        faces(f"test/{name}", 2)
    paths = ("test",) if command == "label" else ("--truth", "test")
    done = ferbatch_here(command, *paths, "--precision", precision)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"no precision called '" in done.stderr
    assert b"(known: auto, fp32, bf16)" in done.stderr
    assert b"\x1b" not in done.stderr


def test_an_unknown_precision_is_an_error_of_the_api(faces: Callable[..., Path]) -> None:
    for call in (
        lambda: ferbatch.load_model(device="cpu", precision="fp64"),
        lambda: ferbatch.label(faces("images", 1), device="cpu", precision="fp64"),
    ):
        with pytest.raises(UsageError, match="no precision called 'fp64'"):
            call()


@pytest.mark.parametrize("precision", [*PRECISIONS, "auto"])
def test_the_sidecar_names_the_precision_and_the_decoder(
    precision: str, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 3)
    assert ferbatch_here("label", "images", "--device", "cpu", "--precision", precision).returncode == 0
    options = json.loads((tmp_path / "labels.csv.run.json").read_text())["options"]
    assert options["precision"] == devices.choose_precision(precision, CPU)
    assert options["decoder"] == jpeg.decoders()[0]
    header = json.loads((tmp_path / "labels.csv.run.jsonl").read_text().splitlines()[0])
    assert (header["--precision"], header["decoder"]) == (options["precision"], options["decoder"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_api_and_the_command_give_the_same_labels_in_either_precision(
    precision: str, folder: Path, usual: dict[str, bytes]
) -> None:
    rows = [line.split(",") for line in usual[precision].decode().splitlines()[1:]]
    found = list(ferbatch.label(folder, device="cpu", precision=precision))
    assert [[f"{p:.4f}" for p in one.probabilities.values()] for one in found if one.label] == [
        row[4:8] for row in rows if row[2]
    ]
    model = ferbatch.load_model(device="cpu", precision=precision)
    first = model(Image.open(folder / "0001.jpg"))
    assert first.probabilities == found[1].probabilities


def test_evaluate_computes_in_the_precision_that_is_asked_for(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, name in enumerate(("happy", "sad")):
        faces(f"test/{name}", 4, first=4 * at)
    used = []
    load = Classifier.load
    monkeypatch.setattr(
        Classifier,
        "load",
        lambda *args, **how: used.append(one := load(*args, **how)) or one,  # type: ignore[func-returns-value]
    )
    for precision in PRECISIONS:
        assert ferbatch_here("evaluate", "--truth", "test", "--precision", precision, "-q").returncode == 0
    assert [one.precision for one in used] == list(PRECISIONS)
    assert [one.dtype for one in used] == [torch.float32, torch.bfloat16]


@pytest.fixture
def three_threads() -> Iterator[None]:
    """A host that has set its own number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_api_leaves_its_host_as_it_was(precision: str, folder: Path) -> None:
    import threadpoolctl

    def state() -> tuple[object, ...]:
        pools = [(pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()]
        names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")
        environment = [os.environ.get(name) for name in names]
        return torch.get_num_threads(), sys.getswitchinterval(), sorted(pools), environment, torch.is_grad_enabled()

    def in_a_new_thread() -> tuple[object, ...]:
        found: list[tuple[object, ...]] = []
        thread = threading.Thread(target=lambda: found.append(state()))
        thread.start()
        thread.join()
        return found[0]

    before, before_there = state(), in_a_new_thread()
    assert before[0] == 3
    model = ferbatch.load_model(device="cpu", precision=precision)
    model([draw_face(seed) for seed in range(70)])
    assert state() == before
    for at, _ in enumerate(ferbatch.label(folder, device="cpu", precision=precision)):
        assert at % 50 or state() == before  # while it goes on
    assert state() == before
    assert in_a_new_thread() == before_there


def test_a_model_may_be_used_by_several_threads_at_once() -> None:
    model = Classifier.load(device="cpu")
    pixels = drawn(200)
    wanted = model.probabilities(pixels)
    found: list[NDArray[np.float64]] = []
    threads = [threading.Thread(target=lambda: found.append(model.probabilities(pixels))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(np.array_equal(one, wanted) for one in found)
