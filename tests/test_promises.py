"""What holds at scale: the same bytes whatever the batches, bounded memory, a speed near the network's own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support import ENVIRONMENT, Ferbatch, crossed, depth, draw_face, drawn, face_file, made_once, rows_of, some

from ferbatch.commands.label import run as label_run
from ferbatch.commands.label.plan import plan
from ferbatch.core.batch import Batch
from ferbatch.core.options import Existing, Options
from ferbatch.core.records import UNIT, Decoding, Workers
from ferbatch.model import weights
from ferbatch.sources.listing import Listing, list_images
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.read import read
from ferbatch.stream.source import Batches, loader

MANY = depth(1_100, 5_000)  # images: enough for decode processes to be started


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many different drawn faces, in a folder `images`."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        drawn = [np.asarray(draw_face(seed)).astype(int) for seed in range(250)]
        (folder / "images").mkdir()
        for number in range(MANY):
            pixels = np.roll(drawn[number % 250], rng.integers(-3, 4, 2), (0, 1)) + rng.integers(-40, 40)
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / f"images/{number:05}.jpg", quality=92)

    return made_once(tmp_path_factory, "many", make) / "images"


def test_the_same_bytes_at_any_batch_size_and_worker_count(many: Path, ferbatch_in: Ferbatch) -> None:
    outputs = set()
    for batch_size, workers in crossed((1, 7, 64, 256), (0, 2)):
        options = ["--batch-size", str(batch_size), "--workers", str(workers)]
        done = ferbatch_in("label", "images", "-q", "-o", "-", *options, cwd=many.parent)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    (only,) = outputs
    assert only.count(b"\n") == MANY + 1


@pytest.mark.parametrize("name", ["cnn", "cnn-lite"])
def test_an_image_gets_the_same_numbers_wherever_it_stands_in_its_block(name: str, many: Path) -> None:
    classifier = Classifier.load(name, "cpu")
    listing = list_images([many], classifier.card.labels)
    listing = listing.where(np.arange(depth(512, 1_024)))
    inputs = np.concatenate([batch.inputs for batch in loader(Batches(listing, Decoding(48), 64))])

    def all_of(order: NDArray[np.int64]) -> NDArray[np.float64]:
        blocks = (order[at : at + classifier.block] for at in range(0, len(order), classifier.block))
        return np.concatenate([classifier.probabilities(inputs[block]) for block in blocks])

    straight = np.arange(len(inputs))
    order = np.random.default_rng(1).permutation(len(inputs))
    difference = np.abs(all_of(straight)[order] - all_of(order)).max()
    print(f"largest difference of a probability between two places: {difference:.1e}")
    assert difference < 1e-6


CHILDS_PEAK = (  # asked for in a small process between: a child's peak begins as that of the process that started it
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def peak_of(folder: Path) -> float:
    """Peak resident memory, in MB, of labelling `folder` in a process of its own."""
    output = folder.parent / f"{folder.name}.csv"
    label = [sys.executable, "-m", "ferbatch", "label", folder, "-q", "--overwrite", "-o", output]
    command = [sys.executable, "-c", CHILDS_PEAK, *label]
    usual = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, env=usual, check=True, stdout=subprocess.PIPE)
    return int(done.stdout) / (1024 if sys.platform != "darwin" else 1024**2)


@pytest.mark.usefixtures("in_turn")
def test_memory_does_not_grow_with_the_folder_or_the_pictures(tmp_path: Path) -> None:
    def fill(name: str, n: int, pictures: list[Path]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(n):
            picture = pictures[number % len(pictures)]
            os.link(picture, folder / f"{number:06}{picture.suffix}")
        return folder

    sources = tmp_path / "sources"
    sources.mkdir()
    small, large = [], []
    for seed in range(20):
        small.append(sources / f"small{seed}.jpg")
        small[-1].write_bytes(face_file(seed))
    for seed in range(3):
        picture = draw_face(seed).resize((4000, 3000)).convert("RGB")
        large.append(sources / f"large{seed}.jpg")
        picture.save(large[-1], quality=90)
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    for name, kind in (("rgb", picture), ("rgba", picture.convert("RGBA")), ("deep", deep)):
        large.append(sources / f"{name}.png")
        kind.save(large[-1], compress_level=1)
    thousand = fill("thousand", 1_000, small)
    base = max(peak_of(thousand) for _ in range(2))  # two runs differ by up to 20 MB
    n, photos, mixed = depth(10_000, 20_000), depth(40, 300), depth(12, 24)
    peaks = {
        f"{n:,} faces": (peak_of(fill("faces", n, small)), 200 * (n - 1_000) / 2**20),
        f"{photos} pictures of 12 megapixels": (peak_of(fill("megapixels", photos, large[:3])), 0),
        f"{mixed} pictures of 12 megapixels, half PNG": (peak_of(fill("mixed", mixed, large)), 96),  # two in flight
    }
    for what, (peak, _) in peaks.items():
        print(f"peak memory: {base:.0f} MB for 1,000 faces, {peak:.0f} MB for {what}")
    for what, (peak, more) in peaks.items():
        assert peak - base < 30 + more, what


class Silent:
    """A watcher that looks away."""

    def warned(self, sentence: str) -> None: ...
    def noted(self, sentence: str) -> None: ...
    def started(self, listing: Listing, classifier: Classifier, to_label: int) -> None: ...
    def progressed(self, batch: Batch) -> None: ...


def rate(n: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


@pytest.mark.bench
def test_labelling_runs_at_least_at_half_the_rate_of_the_bare_network(many: Path, tmp_path: Path) -> None:
    """A benchmark: a ratio of medians, both halves measured in turn in one process."""
    n = 1_280
    listed = [bytes(many / f"{number % MANY:05}.jpg") for number in range(n)]
    classifier = Classifier.load("cnn", "cpu")
    block = np.stack([read("", file, Decoding(48))[0][0] for file in listed[: classifier.block]])

    def forward_only() -> None:
        for _ in range(n // classifier.block):
            classifier.probabilities(block)

    def end_to_end() -> None:
        output = plan(str(tmp_path / "labels.csv"), None)
        options = Options(paths=("-",), model="cnn", device="cpu")
        label_run.run(options, output, existing=Existing(overwrite=True), listed=listed, watcher=Silent())

    forward_only()
    rounds = [(rate(n, forward_only), rate(n, end_to_end)) for _ in range(3)]
    forward, whole = (statistics.median(values) for values in zip(*rounds, strict=True))
    print(f"forward only {forward:,.0f} images/s, end to end {whole:,.0f} images/s, ratio {whole / forward:.2f}")
    assert whole / forward >= 0.5


@pytest.mark.bench
def test_cnn_lite_is_several_times_as_fast_as_cnn() -> None:
    """A benchmark of two networks on decoded images, measured in turn in one process; it prints what it finds."""
    n = 1_280
    pixels = np.stack([np.asarray(draw_face(seed)) for seed in range(64)]).repeat(n // 64, axis=0)
    light, heavy = (Classifier.load(name, "cpu") for name in ("cnn-lite", "cnn"))
    rates: dict[str, list[float]] = {"light": [], "heavy": []}
    for _ in range(6):
        rates["light"].append(rate(n, lambda: light.probabilities(pixels)))
        rates["heavy"].append(rate(n, lambda: heavy.probabilities(pixels)))
    fast, slow = (statistics.median(each[1:]) for each in rates.values())
    print(f"{light.card.name} {fast:,.0f} images/s, {heavy.card.name} {slow:,.0f}: {fast / slow:.1f} times as fast")
    assert fast > 4 * slow


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
CLOSE = {"fp32": 2e-4, "bf16": 0.05}  # to the CPU's fp32


@cuda
@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_says_what_the_cpu_says(many: Path, workers: int, precision: str) -> None:
    listing = list_images([many], ("happy",))
    labelled = {}
    for device, computed in (("cpu", "fp32"), ("cuda", precision)):
        stream = Classifier.load(device=device, precision=computed).stream(listing, workers=Workers(workers))
        labelled[device] = np.concatenate([batch.units for batch in stream]) / UNIT
    np.testing.assert_allclose(labelled["cpu"], labelled["cuda"], atol=CLOSE[precision])
    assert (labelled["cpu"].argmax(1) == labelled["cuda"].argmax(1)).mean() > 0.98


@cuda
@pytest.mark.parametrize("precision", CLOSE)
def test_a_gpu_gives_the_same_bytes_at_any_batch_size_and_worker_count(precision: str, many: Path) -> None:
    outputs = set()
    for options in (("--batch-size", "1"), ("--batch-size", "64"), ("--workers", "0"), ("--isolate",), ()):
        command = [sys.executable, "-m", "ferbatch", "label", "images", "-q", "-o", "-", "--device", "cuda"]
        command += ["--precision", precision, *options]
        outputs.add(
            subprocess.run(command, cwd=many.parent, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE).stdout
        )
    (only,) = outputs
    assert only.count(b"\n") == MANY + 1


@cuda
@pytest.mark.parametrize("precision", CLOSE)
def test_on_a_gpu_a_row_depends_on_neither_its_place_nor_its_neighbours(precision: str) -> None:
    classifier = Classifier.load("cnn", "cuda", precision=precision)
    faces = drawn(classifier.block)
    whole = classifier.probabilities(faces)
    assert np.array_equal(classifier.probabilities(faces[:7]), whole[:7])
    faces[1:] = 0
    assert np.array_equal(classifier.probabilities(faces)[0], whole[0])


@cuda
@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_travel_to_a_gpu_from_pinned_memory(many: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    copy = torch.Tensor.copy_

    def watched(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if target.is_cuda and target.dtype == torch.uint8:
            sent.append((source.is_pinned(), non_blocking))
        return copy(target, source, non_blocking)

    classifier = Classifier.load(device="cuda")
    wanted = np.concatenate([batch.units for batch in classifier.stream(list_images([many], ()), workers=Workers(0))])
    monkeypatch.setattr(torch.Tensor, "copy_", watched)
    stream = classifier.stream(list_images([many], ()), workers=Workers(workers))
    assert np.array_equal(np.concatenate([batch.units for batch in stream]), wanted)
    assert set(sent) == {(True, True)}


@cuda
@pytest.mark.parametrize("chosen_by_speed", [False, True])
@pytest.mark.parametrize("allow_tf32", [False, True])
def test_cudnn_is_as_its_host_had_it_afterwards(chosen_by_speed: bool, allow_tf32: bool) -> None:
    def flags() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    pixels = np.stack([np.asarray(draw_face(seed)) for seed in range(20)]).repeat(40, axis=0)
    classifier = Classifier.load(device="cuda", precision="fp32")
    wanted = classifier.probabilities(pixels)
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=chosen_by_speed, deterministic=False, allow_tf32=allow_tf32
    ):
        before = flags()
        found = classifier.probabilities(pixels)
        assert flags() == before
    assert np.array_equal(found, wanted)


@cuda
def test_auto_is_bf16_on_a_gpu_that_computes_in_it() -> None:
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert Classifier.load(device="cuda").precision == ("bf16" if native else "fp32")


@pytest.fixture(scope="module")
def validation(real_faces: Path) -> Path:
    return real_faces / "validation"


@pytest.mark.parametrize("name", some(reversed(weights.shipped()), 2))
def test_the_cards_accuracy_is_reproduced_to_the_image(name: str, validation: Path, ferbatch_in: Ferbatch) -> None:
    done = ferbatch_in("label", validation, "--model", name, "-o", "-", "-q", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit('",', 1)[1].split(",") for line in done.stdout.decode().splitlines()[1:]]
    score = weights.read_card(name).scores[0]
    assert len(rows) == score["n"]
    assert sum(row[0] == row[1] for row in rows) == score["correct"]
    assert score["value"] >= 0.74


def test_tta_is_the_mean_of_an_image_and_its_mirror_image_in_label_and_evaluate_alike(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    for name, first in (("happy", 0), ("sad", 20)):
        (tmp_path / "mirrored" / name).mkdir(parents=True)
        for file in list(faces(f"test/{name}", 20, first=first).iterdir()):
            picture = Image.open(file)
            picture.save(file.with_suffix(".png"))
            mirror = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mirror.save(tmp_path / "mirrored" / name / f"{file.stem}.png")
            file.unlink()
    found = {}
    for name, folder, options in (("plain", "test", ()), ("mirror", "mirrored", ()), ("tta", "test", ("--tta",))):
        done = ferbatch_here("label", folder, "-o", f"{name}.csv", "-q", *options)
        assert done.returncode == 0, done.stderr
        rows = rows_of(tmp_path / f"{name}.csv")
        found[name] = np.array(
            [[float(row[label]) for label in ("happy", "sad", "neutral", "surprise")] for row in rows]
        )
    assert not np.allclose(found["plain"], found["mirror"], atol=0.01)
    assert found["tta"] == pytest.approx((found["plain"] + found["mirror"]) / 2, abs=1.01e-4)  # all three are rounded
    assert json.loads((tmp_path / "tta.csv.run.json").read_text())["options"]["tta"] is True
    run = json.loads(ferbatch_here("evaluate", "--truth", "test", "--tta", "--format", "json", "-q").stdout)
    assert run["results"][0]["model"]["tta"] is True
    assert run["results"] == json.loads((tmp_path / "tta.csv.report.json").read_text())["results"]
    refused = ferbatch_here("evaluate", "--truth", "test", "--tta", "--predictions", "plain.csv")
    assert refused.returncode == 2
