"""The network in processes of its own, one a core, that share one set of weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import Forks
from PIL import Image
from support import linked

from ferbatch.core.errors import ModelError
from ferbatch.core.records import Decoding, Prediction, Workers
from ferbatch.sources.listing import list_images
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.pool import Pool, can_compute
from ferbatch.stream.read import Decoded

pytestmark = pytest.mark.skipif(not can_compute(), reason="processes share a network on Linux only")


def rows(
    classifier: Classifier, folder: Path, isolate: bool, number: int | None = None
) -> list[tuple[Decoded, list[Prediction]]]:
    return list(classifier.stream(list_images([folder], ()), workers=Workers(number, isolate)))


@pytest.fixture
def folder(faces: Callable[..., Path]) -> Path:
    """200 faces, one of them broken, one blank, one gone."""
    folder = faces("images", 200)
    (folder / "0050.jpg").write_bytes(b"no image")
    Image.new("L", (48, 48), 7).save(folder / "0051.jpg")
    (folder / "0052.jpg").unlink()
    (folder / "0052.jpg").symlink_to("nowhere")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tta", [False, True])
def test_processes_give_the_very_rows_of_threads(folder: Path, precision: str, tta: bool) -> None:
    classifier = Classifier.load("cnn-lite", "cpu", precision=precision, tta=tta)
    wanted = rows(classifier, folder, isolate=False)
    for workers in (1, 3):
        found = rows(classifier, folder, isolate=True, number=workers)
        assert [one for _, one in found] == [one for _, one in wanted]
        for (decoded, _), (before, _) in zip(found, wanted, strict=True):
            assert (decoded.ref, decoded.error, decoded.version) == (before.ref, before.error, before.version)
            assert decoded.scored == before.scored
            assert not len(decoded.inputs)  # they did not travel


def test_blocks_are_filled_and_large_files_are_handed_out_a_few_at_a_time(folder: Path) -> None:
    classifier = Classifier.load("cnn-lite", "cpu")
    sizes: list[int] = []
    pool = Pool(Decoding(48), Workers(1, True), compute=classifier._scored_alone, span=classifier.block)
    hand = pool._hand

    def watched(worker: Any, span: Any) -> None:
        sizes.append(len(span))
        hand(worker, span)

    pool._hand = watched  # type: ignore[method-assign]
    assert len(list(pool.decode(list_images([folder], ())))) == 200
    assert sizes == [64, 64, 64, 8]
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (1_000, 1_000, 3)).astype(np.uint8))
    for at in range(13):
        noise.save(folder / f"{at:04}.png", compress_level=0)  # 3 MB
    sizes.clear()
    for file in folder.glob("*.jpg"):
        file.unlink()
    pool = Pool(Decoding(48), Workers(1, True), compute=classifier._scored_alone, span=4)
    hand = pool._hand
    pool._hand = watched  # type: ignore[method-assign]
    assert len(list(pool.decode(list_images([folder], ())))) == 13
    assert sizes == [2] * 6 + [1]


def test_the_main_process_computes_nothing_and_leaves_its_threads_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load("cnn-lite", "cpu")
    before, main = torch.get_num_threads(), os.getpid()
    compute = Classifier._compute

    def elsewhere(self: Classifier, block: Any) -> Any:
        assert os.getpid() != main
        assert torch.get_num_threads() == 1
        return compute(self, block)

    monkeypatch.setattr(Classifier, "_compute", elsewhere)
    assert len(rows(classifier, folder, isolate=True)) == 200
    assert torch.get_num_threads() == before


def test_a_network_without_numbers_is_said_as_anywhere(folder: Path, fault: Callable[..., None]) -> None:
    classifier = Classifier.load("cnn-lite", "cpu")
    fault("network_without_numbers", classifier=classifier)
    with pytest.raises(ModelError, match="gives no numbers for some images"):
        rows(classifier, folder, isolate=True)


def test_a_killed_runs_lock_and_journal_are_free_at_once(forks: Forks, tmp_path: Path) -> None:
    linked(tmp_path / "images", 1_500)
    journal = tmp_path / "labels.csv.journal"
    for more in ([], ["--resume"]):
        slow = {"slow_network": {"seconds": 0.1}}
        running = forks.start(tmp_path, "label", "images", "-q", *more, faults=slow)
        size = journal.stat().st_size if journal.exists() else 0
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.stat().st_size < size + 20_000:
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
        running.wait()
    done = forks(tmp_path, "label", "images", "-q", "--resume")
    assert done.code == 0, done.stderr
    assert (tmp_path / "labels.csv").read_bytes().count(b"\n") == 1_501
