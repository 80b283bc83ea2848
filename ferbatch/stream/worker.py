"""The life of a decode process: spans of images in, an Answer for each."""

from __future__ import annotations

import os
import signal
import stat
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import FerbatchError, OutputError
from ferbatch.core.process import ONE_CORE, STOPPING, end_with_parent
from ferbatch.core.records import Decoding, Failure, ImageRef
from ferbatch.stream.read import Decoded, Scored, read

MEMORY = 4 * 2**30  # bytes a worker may take; more is an image that is too large
Compute = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Scored]]
Boxes = Sequence[tuple[int, int, int, int, float]]
# What a worker makes of a span: the model inputs of its images on end or, if it computes, what the model says of them;
# and for each image why it is not readable, whether it is a whole picture, its file's size and mtime_ns, and its faces.
Answer = tuple[bytes, Sequence[Scored], Sequence[tuple[Failure | None, bool, tuple[int, int] | None, Boxes | None]]]


def work(
    pipe: Connection,
    at: Any,
    decoding: Decoding,
    timeout: float | None,
    compute: Compute | None,
    forked: bool,
) -> None:
    """A worker's life: spans in, an Answer for each, until the pipe closes.

    pipe: to the process that hands out the images.
    at: shared with it, the number of the image that is decoded just now, -1 for none.
    decoding: how files become model inputs.
    timeout: seconds that one image may take; then the process ends.
    compute: makes of model inputs what a model says of them; None: the inputs themselves are answered.
    forked: whether the process holds the files that its parent has open.
    """
    for number in STOPPING:  # whoever stops the run ends its workers as well
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    os.environ[ONE_CORE] = "1"
    if forked:
        _let_go_of_files()
    _limit_memory()
    with suppress(EOFError, OSError):
        while True:
            found = []
            for number, file, path in pipe.recv():
                at.value = number
                if timeout is not None:
                    signal.setitimer(signal.ITIMER_REAL, timeout)  # SIGALRM ends the process, whatever it is doing
                try:
                    found.append(read(ImageRef(path, file), decoding))
                except OutputError as error:  # of crops; anything else ends the process, as a crash of the decoder does
                    pipe.send(error)
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            at.value = -1
            try:
                pipe.send(_answer(found, compute))
            except FerbatchError as error:
                pipe.send(error)
            except Exception:  # a bug, to be one in the main process as well
                pipe.send(RuntimeError(traceback.format_exc()))


def _answer(found: Sequence[Decoded], compute: Compute | None) -> Answer:
    said = [(one.error, one.whole_picture, _file(one), _boxes(one)) for one in found]
    if compute:
        return b"", compute([pixels for one in found for pixels in one.inputs]), said
    return b"".join(one.pixels.tobytes() for one in found if one.pixels is not None), (), said


def _file(one: Decoded) -> tuple[int, int] | None:
    return (one.version.size, one.version.mtime_ns) if one.version else None


def _boxes(one: Decoded) -> Boxes | None:
    if one.boxes is None:
        return None
    return [(box.x, box.y, box.width, box.height, box.score) for box in one.boxes]


def _let_go_of_files() -> None:
    """Close the run's files that a forked process holds as well: with its lock it would outlive the run."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(int(name)).st_mode):
                os.close(int(name))


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # not everywhere
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY + _data()
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash of a decoder is no news to keep


def _data() -> int:
    """Bytes that this process has already, of what RLIMIT_DATA counts; 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    return 0
