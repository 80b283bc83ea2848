"""Decoding in processes that may die: a crash costs its image, nothing else."""

from __future__ import annotations

import csv
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ferbatch

from ferbatch import isolation
from ferbatch.errors import WorkerError
from ferbatch.isolation import Pool
from ferbatch.predict import Classifier
from ferbatch.reading import Decoded, read
from ferbatch.records import ImageRef
from ferbatch.sources import list_images

posix = pytest.mark.skipif(os.name != "posix", reason="signals end processes so on POSIX systems only")


def dangerous(ref: ImageRef, size: int) -> Decoded:
    """`read` with a decoder that has holes: what the file's name says happens."""
    name = os.path.basename(ref.file)
    if name.startswith(b"segv"):
        faulthandler.disable()  # pytest's, which would tell of it
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith(b"oom"):  # as the kernel does it
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith(b"exit"):
        os._exit(7)
    if name.startswith(b"hang"):
        time.sleep(1_000)
    if name.startswith(b"big"):
        bytearray(5 * 2**30)
    return read(ref, size)


@pytest.fixture
def holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that decode with `dangerous`; forked, for a worker that is started afresh knows no monkeypatch."""
    monkeypatch.setattr(isolation, "read", dangerous)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["fork"])
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _=None: context)


def seen(decoded: list[Decoded]) -> list[tuple[bytes, str | None]]:
    return [(os.path.basename(one.ref.file), one.error.kind if one.error else None) for one in decoded]


@pytest.mark.parametrize("workers", [1, 3])
def test_isolated_images_are_those_decoded_here_in_the_same_order(workers: int, faces: Callable[..., Path]) -> None:
    folder = faces("images", 130)
    (folder / "0007x.jpg").write_bytes(b"no image")
    listing = list_images([folder], ())
    wanted = [read(listing[at], 48) for at in range(len(listing))]
    found = list(Pool(48, workers, 60).decode(listing))
    assert len(found) == 131
    for one, want in zip(found, wanted, strict=True):
        assert (one.ref, one.error, one.version) == (want.ref, want.error, want.version)
        assert want.pixels is None or (one.pixels == want.pixels).all()  # type: ignore[union-attr]


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
    found = list(Pool(48, workers, 1.0).decode(listing))
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
        kinds = dict(seen(list(Pool(48, 1, None).decode(list_images([folder], ())))))
    except MemoryError:
        pytest.fail("the run ended for one image's sake")
    assert kinds.pop(b"big.jpg") in ("too_large", "crashed")
    assert set(kinds.values()) == {None}


@posix
def test_workers_that_others_kill_cost_no_image(faces: Callable[..., Path]) -> None:
    listing = list_images([faces("images", 100)], ())
    over, killed = threading.Event(), []

    def kill_now_and_then() -> None:
        while not over.wait(0.15):
            for worker in multiprocessing.active_children()[:1]:
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        deadline = time.monotonic() + 60
        while len(killed) < 10 and time.monotonic() < deadline:
            found = list(Pool(48, 2, None).decode(listing))
            assert [one.ref for one in found] == list(listing)
            assert not any(one.error for one in found)
    finally:
        over.set()
        killer.join()
    assert len(killed) >= 10


def test_long_paths_do_not_stop_the_flow(faces: Callable[..., Path]) -> None:
    """A span of them would fill a pipe whose reader waits to be read itself."""
    folder = faces("images", 1)
    deep = folder.joinpath(*["d" * 250] * 13)
    deep.mkdir(parents=True)
    for number in range(200):
        os.link(folder / "0000.jpg", deep / f"{number}.jpg")
    listing = list_images([folder], ())
    found = list(Pool(48, 2, None).decode(listing))
    assert [one.ref for one in found] == list(listing)
    assert not any(one.error for one in found)


@posix
def test_processes_that_cannot_be_started_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, faces: Callable[..., Path]
) -> None:
    def refuse(_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Pool, "_launch", refuse)
    listing = list_images([faces("images", 2)], ())
    with pytest.raises(WorkerError, match="a decode process could not be started: Too many open files"):
        list(Pool(48, 2, None).decode(listing))


@posix
def test_workers_that_cannot_start_end_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, faces: Callable[..., Path]
) -> None:
    monkeypatch.setattr(isolation, "_work", os.abort)  # refuses its arguments: the process ends at once
    listing = list_images([faces("images", 2)], ())
    with pytest.raises(WorkerError, match="end before they begin"):
        list(Pool(48, 1, None).decode(listing))


def test_no_worker_is_left_when_the_reader_goes(faces: Callable[..., Path]) -> None:
    listing = list_images([faces("images", 300)], ())
    images = Pool(48, 2, None).decode(listing)
    next(images)
    assert len(multiprocessing.active_children()) == 2
    images.close()  # type: ignore[attr-defined]
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
    assert len(list(csv.reader((tmp_path / "apart.csv").open()))) == 152


@pytest.mark.parametrize(
    "options", [("--timeout", "3"), *(("--isolate", "--timeout", value) for value in ("0", "-1", "nan", "inf", "1e9"))]
)
def test_a_time_limit_needs_isolation_and_some_time(options: tuple[str, ...], ferbatch_in: Ferbatch) -> None:
    done = ferbatch_in("label", "images", *options)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"--timeout needs --isolate" in done.stderr


def test_where_no_process_can_be_started_the_default_does_without_and_the_option_says_so(
    monkeypatch: pytest.MonkeyPatch, faces: Callable[..., Path]
) -> None:
    tried = []

    def refuse(_: object) -> None:
        tried.append(True)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Pool, "_launch", refuse)
    monkeypatch.setattr(isolation, "FROM", 5)
    listing = list_images([faces("images", 6)], ())
    classifier = Classifier.load(device="cpu")
    assert len(list(classifier.stream(listing, isolate=None))) == 6
    assert tried == [True]
    assert len(list(classifier.stream(listing, isolate=None, workers=0))) == 6
    assert tried == [True]
    with pytest.raises(WorkerError, match="Resource temporarily unavailable"):
        list(classifier.stream(listing, isolate=True))
