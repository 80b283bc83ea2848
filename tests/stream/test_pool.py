"""Decoding in processes that may die: a crash costs its image, nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import ENVIRONMENT, ROOT, TESTS, Ferbatch, draw_face, images_of, linked, rows_of

from ferbatch.core import process
from ferbatch.core.batch import Batch, Images, References
from ferbatch.core.errors import WorkerError
from ferbatch.core.options import BATCH_SIZE, EXAMPLE
from ferbatch.core.records import NO_VERSION, Decoding, Search, Workers
from ferbatch.sources.listing import Listing, list_images
from ferbatch.stream import pool
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.pool import AHEAD, FROM, FROM_BYTES, SAMPLE, Pool, pays_for
from ferbatch.stream.source import Batches, loader
from ferbatch.stream.worker import Span

posix = pytest.mark.skipif(os.name != "posix", reason="signals end processes so on POSIX systems only")


@pytest.fixture
def holes(fault: Callable[..., None]) -> None:
    fault("decoder_with_holes")


Seen = list[dict[str, Any]]


def decoded(images: Images, workers: Workers, batch_size: int = BATCH_SIZE, decoding: Decoding | None = None) -> Seen:
    """The images as processes decode them."""
    decoding = decoding or Decoding(48)
    with Pool(decoding, workers, batch_size) as processes:
        return images_of(loader(Batches(images, decoding, batch_size, processes)))


def seen(images: Seen) -> list[tuple[bytes, str | None]]:
    return [(os.path.basename(one["file"]), one["failure"].kind if one["failure"] else None) for one in images]


def assert_whole(images: Seen, listing: Listing) -> None:
    """Every image of the listing is there, in order, and none failed."""
    assert [(one["path"], one["file"], one["truth"]) for one in images] == [
        (ref.path, ref.file, ref.truth) for ref in listing
    ]
    assert not any(one["failure"] for one in images)
    assert all(len(one["inputs"]) == 1 for one in images)


def listing_of(folder: Path, n: int) -> Listing:
    """So many names of one image."""
    return list_images([linked(folder, n)], ())


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (3, 7), (8, 4_096)])
def test_isolated_images_are_those_decoded_here_in_the_same_order(
    workers: int, batch_size: int, faces: Callable[..., Path]
) -> None:
    folder = faces("images", 130)
    (folder / "0007x.jpg").write_bytes(b"no image")
    (folder / "0008.jpg").unlink()
    os.symlink("nowhere", folder / "0008.jpg")
    draw_face(5, 600).save(folder / "0009.jpg")
    listing = list_images([folder], ())
    wanted = images_of(loader(Batches(listing, Decoding(48), 50)))
    assert len(wanted) == 131
    assert [at for at, one in enumerate(wanted) if one["failure"]] == [8, 9]
    assert decoded(listing, Workers(workers, True, 60), batch_size) == wanted


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
    found = decoded(listing, Workers(workers, True, 1.0))
    wanted = [
        (
            listing[at].file.rsplit(b"/", 1)[1],
            next((kind for name, kind in kinds.items() if name.encode() in listing[at].file), None),
        )
        for at in range(len(listing))
    ]
    assert seen(found) == wanted
    assert len(found) == 108
    messages = {one["failure"].message for one in found if one["failure"]}
    assert messages == {
        "the decoder crashed (SIGSEGV)",
        "the decoder crashed (SIGKILL)",
        "the decoder crashed (exit code 7)",
        "not decoded within 1 s",
    }


@posix
@pytest.mark.usefixtures("holes")
@pytest.mark.parametrize("name", ["segv", "hang"])
def test_what_a_process_answered_before_it_died_is_not_done_again(
    name: str, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch, faces: Callable[..., Path]
) -> None:
    fault("an_answer_for_each_image")
    folder = faces("images", 20)
    (folder / "0007.jpg").rename(folder / name)
    listing = list_images([folder / (name if at == 7 else f"{at:04}.jpg") for at in range(20)], ())
    began: list[int] = []
    hand = Pool._hand

    def watched(pool: Pool, worker: Any, span: Span) -> None:
        began.append(span[0])
        hand(pool, worker, span)

    monkeypatch.setattr(Pool, "_hand", watched)
    found = decoded(listing, Workers(1, True, 2.0))
    assert [at for at, one in enumerate(found) if one["failure"]] == [7]
    assert [one["file"] for one in found] == [ref.file for ref in listing]
    assert began[0] == 0
    assert not set(range(1, 7)) & set(began)
    assert 8 in began


@posix
@pytest.mark.usefixtures("holes")
def test_an_image_that_ends_its_worker_leaves_no_crops_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    file = tmp_path / "images/one.jpg"
    shutil.copy(EXAMPLE, file)
    decoding = Decoding(48, search=Search("detect", crops=str(tmp_path / "crops")))
    assert len(decoded(list_images([file], ()), Workers(1, True), decoding=decoding)[0]["inputs"]) == 1
    (crop,) = [path for path in (tmp_path / "crops").rglob("*") if path.is_file()]
    crashing = file.rename(file.with_name("segv.jpg"))
    crop.rename(crop.with_name(crop.name.replace("one", "segv")))
    assert decoded(list_images([crashing], ()), Workers(1, True), decoding=decoding)[0]["failure"]
    assert not [path for path in (tmp_path / "crops").rglob("*") if path.is_file()]


@posix
@pytest.mark.usefixtures("holes")
def test_an_image_that_takes_too_much_memory_is_too_large_or_a_crash(faces: Callable[..., Path]) -> None:
    folder = faces("images", 3)
    os.rename(folder / "0001.jpg", folder / "big.jpg")
    try:
        kinds = dict(seen(decoded(list_images([folder], ()), Workers(1, True))))
    except MemoryError:
        pytest.fail("the run ended for one image's sake")
    assert kinds.pop(b"big.jpg") in ("too_large", "crashed")
    assert set(kinds.values()) == {None}


@posix
def test_a_process_that_dies_while_it_sends_pixels_costs_no_image(
    fault: Callable[..., None], faces: Callable[..., Path], tmp_path: Path
) -> None:
    listing = list_images([faces("images", 20)], ())
    wanted = decoded(listing, Workers(1, True))
    fault("death_while_pixels_are_sent", at=tmp_path / "died")
    found = decoded(listing, Workers(1, True))
    assert (tmp_path / "died").exists()
    assert_whole(found, listing)
    assert all(np.array_equal(one["inputs"], other["inputs"]) for one, other in zip(found, wanted, strict=True))


def test_pixels_come_back_to_the_room_that_is_given(faces: Callable[..., Path]) -> None:
    rooms = []

    def room(shape: tuple[int, ...], dtype: type[np.uint8]) -> NDArray[np.uint8]:
        rooms.append(np.empty(shape, dtype))
        return rooms[-1]

    listing = list_images([faces("images", 20)], ())
    with Pool(Decoding(48), Workers(2, True), 5) as processes:
        processes.room = room
        found = [batch.inputs for batch in processes.batches(listing)]
    assert sum(map(len, found)) == 20
    assert all(any(np.shares_memory(one, place) for place in rooms) for one in found)


class HuntedPool(Pool):
    """One whose workers are killed from outside: after every answer one of them, each in turn.

    But never at an image at which one was killed before: that would look like the image's doing.
    """

    killed = 0

    def _take(self, worker: Any, seconds: float, batch: Batch) -> None:
        super()._take(worker, seconds, batch)
        worker = self.workers[self.killed % len(self.workers)]
        if worker.current.value not in self.suspects:
            worker.process.kill()
            self.killed += 1


@posix
@pytest.mark.parametrize("in_parts", [False, True])
def test_workers_that_others_kill_cost_no_image(in_parts: bool, fault: Callable[..., None], tmp_path: Path) -> None:
    if in_parts:
        fault("an_answer_for_each_image")
    listing = listing_of(tmp_path / "images", 200 if in_parts else 1_000)
    with HuntedPool(Decoding(48), Workers(2, True), 50) as hunted:
        assert_whole(images_of(hunted.batches(listing)), listing)
    assert hunted.killed >= 10


def test_long_paths_do_not_stop_the_flow(faces: Callable[..., Path]) -> None:
    """A span of them would fill a pipe whose reader waits to be read itself."""
    folder = faces("images", 1)
    deep = folder.joinpath(*["d" * 250] * 13)
    deep.mkdir(parents=True)
    for number in range(200):
        os.link(folder / "0000.jpg", deep / f"{number}.jpg")
    listing = list_images([folder], ())
    assert_whole(decoded(listing, Workers(2, True)), listing)


@posix
def test_processes_that_cannot_be_started_are_a_sentence(
    fault: Callable[..., None], faces: Callable[..., Path]
) -> None:
    fault("no_processes", number=24, said="Too many open files")
    listing = list_images([faces("images", 2)], ())
    with pytest.raises(WorkerError, match="a decode process could not be started: Too many open files"):
        decoded(listing, Workers(2, True))


@posix
def test_workers_that_cannot_start_end_the_run_with_a_sentence(
    fault: Callable[..., None], faces: Callable[..., Path]
) -> None:
    fault("workers_that_cannot_start")
    listing = list_images([faces("images", 2)], ())
    with pytest.raises(WorkerError, match="end before they begin"):
        decoded(listing, Workers(1, True))


def test_no_worker_is_left_when_the_reader_goes(tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", 6_000)
    with Pool(Decoding(48), Workers(2, True), BATCH_SIZE) as processes:
        next(processes.batches(listing))
        assert len(multiprocessing.active_children()) == 2
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
    assert len(images_of(classifier.stream(listing, workers=Workers(isolate=None)))) == 6
    assert tried == [True]
    assert len(images_of(classifier.stream(listing, workers=Workers(0, isolate=None)))) == 6
    assert tried == [True]
    with pytest.raises(WorkerError, match="Resource temporarily unavailable"):
        list(classifier.stream(listing, workers=Workers(isolate=True)))


def test_many_images_pay_for_processes_and_few_small_ones_do_not(tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", FROM)
    assert pays_for(listing)
    assert not pays_for(listing.where(np.arange(FROM - 1)))
    assert not pays_for(listing.where(np.arange(0)))


@dataclass
class OneFile:
    """So many images that are one file."""

    file: Path
    n: int

    def __len__(self) -> int:
        return self.n

    def references(self, indices: Sequence[int]) -> References:
        return References(*([one] * len(indices) for one in (self.file.name, bytes(self.file), None)))


@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65, 200, 999])
def test_large_files_pay_for_processes_whatever_their_number(n: int, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    for size, wanted in ((FROM_BYTES // n + 1, True), (FROM_BYTES // n - 1, False)):
        file.touch()
        os.truncate(file, size)  # holes take no room
        assert pays_for(OneFile(file, n)) == wanted, size


def test_to_tell_whether_processes_pay_only_a_sample_of_the_files_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listing = listing_of(tmp_path / "images", FROM - 1)
    asked = []
    monkeypatch.setattr(pool, "version_of", lambda file: asked.append(file) or NO_VERSION)
    assert not pays_for(listing)  # files that are gone say nothing
    assert SAMPLE / 2 < len(asked) < 2 * SAMPLE


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """To which process, by its number, how many images are handed out at once, time after time."""
    handed: list[tuple[int, int]] = []
    hand = Pool._hand

    def watched(pool: Pool, worker: Any, span: Span) -> None:
        handed.append((worker.process.pid, len(span[1].files)))
        hand(pool, worker, span)

    monkeypatch.setattr(Pool, "_hand", watched)
    return handed


def test_a_few_large_photos_are_shared_out_among_the_processes(
    fault: Callable[..., None], spans: list[tuple[int, int]], tmp_path: Path
) -> None:
    fault("slow_decoder", seconds=0.1)
    listing = listing_of(tmp_path / "images", 40)
    assert_whole(decoded(listing, Workers(4, True)), listing)
    of_each = {number: sum(n for one, n in spans if one == number) for number, _ in spans}
    assert len(of_each) == 4
    assert all(n <= 20 for n in of_each.values())
    assert spans[-1][1] == 1  # so that all end together


def test_images_that_take_long_are_handed_out_a_few_at_a_time(
    fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch, spans: list[tuple[int, int]], tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "MOST", 0.2)
    fault("slow_decoder", seconds=0.1)
    listing = listing_of(tmp_path / "images", 40)
    assert_whole(decoded(listing, Workers(4, True)), listing)
    assert all(n <= 2 for _, n in spans[8:])  # each has its two by then, cut when nothing was known


def test_small_files_are_handed_out_by_the_batch(spans: list[tuple[int, int]], tmp_path: Path) -> None:
    listing = listing_of(tmp_path / "images", 1_000)
    assert_whole(decoded(listing, Workers(2, True), 50), listing)
    assert max(n for _, n in spans) == 50
    assert sum(n for _, n in spans) == 1_000
    assert len(spans) < 1_000 / 50 + 10


def test_where_slow_images_follow_quick_ones_the_spans_become_short(
    fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch, spans: list[tuple[int, int]], tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "LEAST", 0.0005)
    monkeypatch.setattr(pool, "MOST", 0.1)
    fault("slow_decoder", seconds=0.02, name=b"zz")
    folder = linked(tmp_path / "images", 1_000)
    for number in range(60):
        os.link(folder / "0000.jpg", folder / f"zz{number:03}.jpg")
    listing = list_images([folder], ())
    assert_whole(decoded(listing, Workers(1, True)), listing)
    assert max(n for _, n in spans[:5]) > 5
    assert all(n <= 5 for _, n in spans[-3:])


@pytest.mark.parametrize("batch_size", [1, 16])
def test_what_is_decoded_does_not_run_far_ahead_of_its_reader(
    batch_size: int, spans: list[tuple[int, int]], tmp_path: Path
) -> None:
    listing = listing_of(tmp_path / "images", 1_000)
    with Pool(Decoding(48), Workers(2, True), batch_size) as processes:
        batches = processes.batches(listing)
        for _ in range(3):
            at = next(batches).first
            time.sleep(0.3)
            assert sum(n for _, n in spans) <= at + 2 * AHEAD * 2 * batch_size


def test_processes_take_other_images_when_they_are_done_and_not_before(tmp_path: Path) -> None:
    one, other = listing_of(tmp_path / "one", 100), listing_of(tmp_path / "other", 50)
    with Pool(Decoding(48), Workers(2, True), 10) as processes:
        assert_whole(images_of(processes.batches(one)), one)
        assert_whole(images_of(processes.batches(other)), other)
        next(processes.batches(one))
        with pytest.raises(ValueError, match="still at other images"):
            next(processes.batches(other))


def test_where_processes_are_spawned_they_give_the_same(
    monkeypatch: pytest.MonkeyPatch, faces: Callable[..., Path]
) -> None:
    """As on Windows and macOS."""
    folder = faces("images", 30)
    (folder / "0007.jpg").write_bytes(b"no image")
    listing = list_images([folder], ())
    wanted = images_of(loader(Batches(listing, Decoding(48), 50)))
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert decoded(listing, Workers(2, True)) == wanted


@posix
def test_processes_are_not_left_where_not_all_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launch = Pool._launch

    def launched(pool: Pool) -> Any:
        if len(pool.workers) == 2:
            raise OSError(24, "Too many open files")
        return launch(pool)

    monkeypatch.setattr(Pool, "_launch", launched)
    with pytest.raises(WorkerError, match="Too many open files"):
        decoded(listing_of(tmp_path / "images", 10), Workers(3, True))
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_of_the_program_that_ends_takes_no_process_with_it(tmp_path: Path) -> None:
    linked(tmp_path / "images", 1_500)
    code = """
import ferbatch, os, sys
rows = ferbatch.label("images", device="cpu", workers=2)
next(rows)
if os.fork() == 0:
    sys.exit(5)
print(os.waitstatus_to_exitcode(os.wait()[1]), sum(1 for _ in rows))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"5 1499\n"), done.stderr


ENDS = {"": 0, "sys.exit(3)": 3, "raise KeyboardInterrupt": -2, "for row in rows: raise KeyboardInterrupt": -2}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_though_it_holds_rows_that_it_has_not_read(end: str, tmp_path: Path) -> None:
    linked(tmp_path / "images", 1_500)
    code = f"""
import ferbatch, sys
rows = ferbatch.label("images", device="cpu", workers=2)
next(rows)
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert done.returncode in (ENDS[end], 128 - ENDS[end])
    assert (b"Traceback" in done.stderr) == ("Interrupt" in end)


def test_nothing_makes_no_batch(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert decoded(list_images([tmp_path / "images"], ()), Workers(2, True)) == []
    assert images_of(loader(Batches(list_images([tmp_path / "images"], ()), Decoding(48), 16))) == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process can be bound to a core here")
def test_by_default_there_is_a_worker_for_each_core_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    assert process.default_workers() == min(process.MOST_WORKERS, len(before))
    try:
        os.sched_setaffinity(0, {min(before)})
        assert process.default_workers() == 1
    finally:
        os.sched_setaffinity(0, before)


PLACES = {"what it says of a batch": 2, "the network": 0, "a decoded batch": 2}  # what fails, and after how many calls
WAYS = [(), ("--isolate", "--workers", "3"), ("--no-isolate", "--workers", "2")]
API = """
import pytest, ferbatch, faults
faults.switch_on(pytest.MonkeyPatch(), "bug", place="a batch's predictions", after=2)
for _ in ferbatch.label("images", device="cpu"):
    pass
"""


@pytest.mark.parametrize(
    ("place", "way"),
    [(place, way) for place in PLACES for way in WAYS if place != "a decoded batch" or way],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "as it likes",
)
def test_a_bug_in_the_midst_of_a_run_ends_it_with_its_traceback(
    place: str, way: tuple[str, ...], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    linked(tmp_path / "images", 1_500)
    bug = {"bug": {"place": place, "after": PLACES[place]}}
    done = ferbatch_in("label", "images", "-q", "--batch-size", "100", *way, faults=bug)
    assert_ends_with_a_traceback(done, tmp_path)


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
