"""The network in processes of its own, one a core, that share one set of weights."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
import torch
from forks import Forks
from PIL import Image
from support import images_of, linked

from ferbatch.core.batch import Batch
from ferbatch.core.errors import ModelError
from ferbatch.core.records import Workers
from ferbatch.model.engine import openmp
from ferbatch.sources.listing import list_images
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.pool import Pool, can_compute
from ferbatch.stream.worker import Span

pytestmark = pytest.mark.skipif(not can_compute(), reason="processes share a network on Linux only")


def labelled(classifier: Classifier, folder: Path, isolate: bool, number: int | None = None) -> list[Batch]:
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
    wanted = images_of(labelled(classifier, folder, isolate=False))
    assert len(wanted) == 200
    assert [at for at, one in enumerate(wanted) if one["failure"]] == [50, 51, 52]
    for workers in (1, 3):
        assert images_of(labelled(classifier, folder, isolate=True, number=workers)) == wanted


def test_pixels_stay_in_the_process_that_labels_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[Batch] = []
    take = Pool._take

    def watched(pool: Pool, worker: Any, seconds: float, batch: Batch) -> None:
        came.append(batch)
        take(pool, worker, seconds, batch)

    monkeypatch.setattr(Pool, "_take", watched)
    labelled(Classifier.load("cnn-lite", "cpu"), folder, isolate=True)
    assert sum(map(len, came)) == 200
    assert not any(batch.inputs.size or batch.references.files for batch in came)
    assert all(len(batch.units) == len(batch.image) for batch in came)


def test_a_whole_block_is_handed_out_however_short_a_batch_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    hand = Pool._hand

    def watched(pool: Pool, worker: Any, span: Span) -> None:
        sizes.append(len(span[1].files))
        hand(pool, worker, span)

    monkeypatch.setattr(Pool, "_hand", watched)
    classifier = Classifier.load("cnn-lite", "cpu")
    for batch_size in (classifier.block, 7):
        sizes.clear()
        stream = classifier.stream(list_images([folder], ()), workers=Workers(1, True), batch_size=batch_size)
        batches = list(stream)
        assert sum(map(len, batches)) == sum(sizes) == 200
        assert max(map(len, batches)) == batch_size
        assert max(sizes) == sizes[0] == classifier.block


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
    assert len(images_of(labelled(classifier, folder, isolate=True))) == 200
    assert torch.get_num_threads() == before


def test_no_thread_but_the_one_that_starts_the_others_looks_for_libraries(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the linker's lock it would wait for the interpreter, which an import has that waits for the lock."""
    looked, limited = [], set()
    compute, look = Classifier._compute, threadpoolctl.ThreadpoolController.__init__

    def looking(self: Any) -> None:
        looked.append(threading.current_thread())
        look(self)

    def computing(self: Classifier, block: Any) -> Any:
        limited.add((torch.get_num_threads(), threading.current_thread() is threading.main_thread()))
        return compute(self, block)

    monkeypatch.setattr(threadpoolctl.ThreadpoolController, "__init__", looking)
    monkeypatch.setattr(Classifier, "_compute", computing)
    openmp.cache_clear()
    assert len(images_of(labelled(Classifier.load("cnn-lite", "cpu"), folder, isolate=False, number=0))) == 200
    assert looked == [threading.main_thread()]
    assert limited == {(1, False)}


def test_a_network_without_numbers_is_said_as_anywhere(folder: Path, fault: Callable[..., None]) -> None:
    classifier = Classifier.load("cnn-lite", "cpu")
    fault("network_without_numbers", model=classifier)
    with pytest.raises(ModelError, match="gives no numbers for some images"):
        labelled(classifier, folder, isolate=True)


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
