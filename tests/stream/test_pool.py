"""Decoding in processes that may die: a crash costs its image, nothing else."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ENVIRONMENT, ROOT, TESTS, Ferbatch, draw_face, linked, rows_of

from ferbatch.core import process
from ferbatch.core.errors import WorkerError
from ferbatch.core.records import Decoding, ImageRef, Workers
from ferbatch.sources.listing import Listing, list_images
from ferbatch.stream import pool
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.pool import FROM, FROM_BYTES, HANDED_AHEAD, SAMPLE, SPAN, Pool, Task, pays_for
from ferbatch.stream.read import Decoded, read

posix = pytest.mark.skipif(os.name != "posix", reason="signals end processes so on POSIX systems only")


@pytest.fixture
def holes(fault: Callable[..., None]) -> None:
    fault("decoder_with_holes")


def seen(decoded: list[Decoded]) -> list[tuple[bytes, str | None]]:
    return [(os.path.basename(one.ref.file), one.error.kind if one.error else None) for one in decoded]


def listing_of(folder: Path, n: int) -> Listing:
    """So many names of one image."""
    return list_images([linked(folder, n)], ())


@pytest.mark.parametrize("workers", [1, 3])
def test_isolated_images_are_those_decoded_here_in_the_same_order(workers: int, faces: Callable[..., Path]) -> None:
    folder = faces("images", 130)
    (folder / "0007x.jpg").write_bytes(b"no image")
    (folder / "0008.jpg").unlink()
    os.symlink("nowhere", folder / "0008.jpg")
    draw_face(5, 600).save(folder / "0009.jpg")
    listing = list_images([folder], ())
    wanted = [read(listing[at], Decoding(48)) for at in range(len(listing))]
    found = list(Pool(Decoding(48), Workers(workers, True, 60)).decode(listing))
    assert len(found) == 131
    for one, want in zip(found, wanted, strict=True):
        for name in ("ref", "error", "version", "whole_picture"):
            assert getattr(one, name) == getattr(want, name)
        assert one.inputs.tolist() == want.inputs.tolist()


@posix
@pytest.mark.usefixtures("holes")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_ends_its_worker_is_a_row_and_the_others_are_labelled(
    workers: int, faces: Callable[..., Path]
) -> None:
    folder = faces("images", 100)
    kinds = {"segv": "crashed", "oom": "crashed", "exit": "crashed", "hang": "timeout"}
    for at, name in enumerate(kinds):
        os.link(folder / f"{at * 25:04}.jpg", folder / f"{name}.jpg")
        os.link(folder / f"{at * 25:04}.jpg", folder / f"0{at * 25:03}{name}.jpg")
        os.rename(folder / f"0{at * 25:03}{name}.jpg", folder / f"{name}{at * 25:04}.jpg")
    listing = list_images([folder], ())
    found = list(Pool(Decoding(48), Workers(workers, True, 1.0)).decode(listing))
    wanted = [
        (
            listing[at].file.rsplit(b"/", 1)[1],
            next((kind for name, kind in kinds.items() if name.encode() in listing[at].file), None),
        )
        for at in range(len(listing))
    ]
    assert seen(found) == wanted
    assert len(found) == 108
    messages = {one.error.message for one in found if one.error}
    assert messages == {
        "the decoder crashed (SIGSEGV)",
        "the decoder crashed (SIGKILL)",
        "the decoder crashed (exit code 7)",
        "not decoded within 1 s",
    }


@posix
@pytest.mark.usefixtures("holes")
def test_an_image_that_takes_too_much_memory_is_too_large_or_a_crash(faces: Callable[..., Path]) -> None:
    folder = faces("images", 3)
    os.rename(folder / "0001.jpg", folder / "big.jpg")
    try:
        kinds = dict(seen(list(Pool(Decoding(48), Workers(1, True)).decode(list_images([folder], ())))))
    except MemoryError:
        pytest.fail("the run ended for one image's sake")
    assert kinds.pop(b"big.jpg") in ("too_large", "crashed")
    assert set(kinds.values()) == {None}


class HuntedPool(Pool):
    """One whose workers are killed from outside: after every answer one of them, each in turn.

    But never at an image at which one was killed before: that would look like the image's doing.
    """

    killed = 0

    def _take(self, span: Any, answer: Any) -> None:
        super()._take(span, answer)
        worker = self.workers[self.killed % len(self.workers)]
        if worker.current.value not in self.suspects:
            worker.process.kill()
            self.killed += 1


@posix
def test_workers_that_others_kill_cost_no_image(tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", 1_000)
    pool = HuntedPool(Decoding(48), Workers(2, True))
    found = list(pool.decode(listing))
    assert pool.killed >= 10
    assert [one.ref for one in found] == list(listing)
    assert not any(one.error for one in found)


def test_long_paths_do_not_stop_the_flow(faces: Callable[..., Path]) -> None:
    """A span of them would fill a pipe whose reader waits to be read itself."""
    folder = faces("images", 1)
    deep = folder.joinpath(*["d" * 250] * 13)
    deep.mkdir(parents=True)
    for number in range(200):
        os.link(folder / "0000.jpg", deep / f"{number}.jpg")
    listing = list_images([folder], ())
    found = list(Pool(Decoding(48), Workers(2, True)).decode(listing))
    assert [one.ref for one in found] == list(listing)
    assert not any(one.error for one in found)


@posix
def test_processes_that_cannot_be_started_are_a_sentence(
    fault: Callable[..., None], faces: Callable[..., Path]
) -> None:
    fault("no_processes", number=24, said="Too many open files")
    listing = list_images([faces("images", 2)], ())
    with pytest.raises(WorkerError, match="a decode process could not be started: Too many open files"):
        list(Pool(Decoding(48), Workers(2, True)).decode(listing))


@posix
def test_workers_that_cannot_start_end_the_run_with_a_sentence(
    fault: Callable[..., None], faces: Callable[..., Path]
) -> None:
    fault("workers_that_cannot_start")
    listing = list_images([faces("images", 2)], ())
    with pytest.raises(WorkerError, match="end before they begin"):
        list(Pool(Decoding(48), Workers(1, True)).decode(listing))


def test_no_worker_is_left_when_the_reader_goes(tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", 6_000)
    images = Pool(Decoding(48), Workers(2, True)).decode(listing)
    next(images)
    assert len(multiprocessing.active_children()) == 2
    images.close()
    assert not multiprocessing.active_children()


def test_isolate_changes_no_byte_of_the_labels(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 150)
    (folder / "broken.jpg").write_bytes(b"no")
    for name, options in {"plain": (), "apart": ("--isolate", "--timeout", "60")}.items():
        done = ferbatch_in("label", "images", "-o", f"{name}.csv", "-q", *options)
        assert done.returncode == 3, done.stderr
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "apart.csv").read_bytes()
    assert len(rows_of(tmp_path / "apart.csv")) == 151


@pytest.mark.parametrize(
    "options", [("--timeout", "3"), *(("--isolate", "--timeout", value) for value in ("0", "-1", "nan", "inf", "1e9"))]
)
def test_a_time_limit_needs_isolation_and_some_time(options: tuple[str, ...], ferbatch_in: Ferbatch) -> None:
    done = ferbatch_in("label", "images", *options)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"--timeout needs --isolate" in done.stderr


def test_where_no_process_can_be_started_the_default_does_without_and_the_option_says_so(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None], faces: Callable[..., Path]
) -> None:
    tried: list[bool] = []
    fault("no_processes", number=11, said="Resource temporarily unavailable", tried=tried)
    monkeypatch.setattr(pool, "FROM", 5)
    listing = list_images([faces("images", 6)], ())
    classifier = Classifier.load(device="cpu")
    assert len(list(classifier.stream(listing, workers=Workers(isolate=None)))) == 6
    assert tried == [True]
    assert len(list(classifier.stream(listing, workers=Workers(0, isolate=None)))) == 6
    assert tried == [True]
    with pytest.raises(WorkerError, match="Resource temporarily unavailable"):
        list(classifier.stream(listing, workers=Workers(isolate=True)))


def test_many_images_pay_for_processes_and_few_small_ones_do_not(tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", FROM)
    assert pays_for(listing)
    assert not pays_for([listing[at] for at in range(FROM - 1)])
    assert not pays_for([])


@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65, 200, 999])
def test_large_files_pay_for_processes_whatever_their_number(n: int, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    refs = [ImageRef("large.jpg", bytes(file))] * n
    for size, wanted in ((FROM_BYTES // n + 1, True), (FROM_BYTES // n - 1, False)):
        file.touch()
        os.truncate(file, size)  # holes take no room
        assert pays_for(refs) == wanted, size


def test_to_tell_whether_processes_pay_only_a_sample_of_the_files_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listing = listing_of(tmp_path / "images", FROM - 1)
    asked = []
    monkeypatch.setattr(pool, "version_of", lambda file: asked.append(file))
    assert not pays_for(listing)  # files that are gone say nothing
    assert SAMPLE / 2 < len(asked) < 2 * SAMPLE


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """To which process, by its number, how many images are handed out at once, time after time."""
    handed: list[tuple[int, int]] = []
    hand = Pool._hand

    def watched(pool: Pool, worker: Any, span: Task) -> None:
        handed.append((worker.process.pid, len(span)))
        hand(pool, worker, span)

    monkeypatch.setattr(Pool, "_hand", watched)
    return handed


def test_files_of_megabytes_are_handed_out_a_few_at_a_time(
    faces: Callable[..., Path], spans: list[tuple[int, int]]
) -> None:
    folder = faces("images", 1)
    with (folder / "0000.jpg").open("ab") as stream:
        stream.write(bytes(3 * 2**20))  # after the image's end: as large, and quickly read
    listing = listing_of(folder, 400)
    found = list(Pool(Decoding(48), Workers(2, True)).decode(listing))
    assert [one.ref for one in found] == list(listing)
    assert all(n <= 2 for _, n in spans)


def test_a_few_large_photos_are_shared_out_among_the_processes(
    faces: Callable[..., Path], spans: list[tuple[int, int]]
) -> None:
    folder = faces("images", 1)
    with (folder / "0000.jpg").open("ab") as stream:
        stream.write(bytes(3 * 2**20))
    listing = listing_of(folder, 40)
    assert pays_for(listing)
    assert len(list(Pool(Decoding(48), Workers(2, True)).decode(listing))) == 40
    of_each = Counter[int]()
    for number, n in spans:
        of_each[number] += n
    assert len(of_each) == 2
    assert all(n <= 2 for _, n in spans)


def test_small_files_are_handed_out_by_the_span(spans: list[tuple[int, int]], tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", 1_000)
    found = list(Pool(Decoding(48), Workers(2, True), span=50).decode(listing))
    assert [one.ref for one in found] == list(listing)
    assert max(n for _, n in spans) == 50
    assert sum(n for _, n in spans) == 1_000
    assert len(spans) < 1_000 / 50 + 10


def test_where_large_files_follow_small_ones_the_spans_become_short(
    faces: Callable[..., Path], spans: list[tuple[int, int]]
) -> None:
    folder = faces("images", 1)
    linked(folder, 1_000)
    for number in range(200):
        with (folder / f"zz{number:03}.jpg").open("wb") as stream:
            stream.write((folder / "0000.jpg").read_bytes())
            stream.truncate(3 * 2**20)
    assert len(list(Pool(Decoding(48), Workers(1, True)).decode(list_images([folder], ())))) == 1_200
    assert all(n <= 2 for _, n in spans[-20:])


def test_what_is_decoded_does_not_run_far_ahead_of_its_reader(spans: list[tuple[int, int]], tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", 3 * HANDED_AHEAD)
    images = Pool(Decoding(48), Workers(2, True)).decode(listing)
    for _ in range(3):
        next(images)
        time.sleep(0.3)
    assert sum(n for _, n in spans) < HANDED_AHEAD + 2 * SPAN
    images.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process can be bound to a core here")
def test_by_default_there_is_a_worker_for_each_core_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    assert process.default_workers() == min(process.MOST_WORKERS, len(before))
    try:
        os.sched_setaffinity(0, {min(before)})
        assert process.default_workers() == 1
    finally:
        os.sched_setaffinity(0, before)


PLACES = {"a prediction": 100, "the network": 0, "a decoded image": 3}  # what fails, and after how many calls
WAYS = [(), ("--isolate", "--workers", "3"), ("--no-isolate", "--workers", "2")]
API = """
import pytest, ferbatch, faults
faults.switch_on(pytest.MonkeyPatch(), "bug", place="a prediction", after=100)
for _ in ferbatch.label("images", device="cpu"):
    pass
"""


@pytest.mark.parametrize(
    ("place", "way"),
    [(place, way) for place in PLACES for way in WAYS if place != "a decoded image" or "--no-isolate" not in way],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "as it likes",
)
def test_a_bug_in_the_midst_of_a_run_ends_it_with_its_traceback(
    place: str, way: tuple[str, ...], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    linked(tmp_path / "images", 1_500)
    bug = {"bug": {"place": place, "after": PLACES[place]}}
    assert_ends_with_a_traceback(ferbatch_in("label", "images", "-q", *way, faults=bug), tmp_path)


def test_a_bug_in_the_midst_of_a_run_of_the_api_ends_its_program(tmp_path: Path) -> None:
    linked(tmp_path / "images", 1_500)
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])}
    command = [sys.executable, "-c", API]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert_ends_with_a_traceback(done, tmp_path)


def assert_ends_with_a_traceback(done: subprocess.CompletedProcess[bytes], folder: Path) -> None:
    assert done.returncode == 1, done.stderr.decode()
    assert b"Traceback" in done.stderr
    assert done.stderr.rstrip().endswith(b"RuntimeError: a bug of ours")
    assert not (folder / "labels.csv").exists()


def test_a_reader_of_the_api_that_raises_leaves_no_process(tmp_path: Path) -> None:
    linked(tmp_path / "images", 1_500)
    code = """
import multiprocessing, ferbatch
def read():
    for number, _ in enumerate(ferbatch.label("images", device="cpu", workers=2)):
        if number == 100:
            raise RuntimeError("a bug of theirs")
try:
    read()
except RuntimeError:
    pass
print(len(multiprocessing.active_children()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")
