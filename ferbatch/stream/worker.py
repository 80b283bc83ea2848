"""The life of a decode process: references to images in, Batches out."""

from __future__ import annotations

import gc
import os
import queue
import signal
import stat
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from ferbatch.core.batch import Batch, References
from ferbatch.core.errors import DeviceError, FerbatchError, OutputError
from ferbatch.core.process import ONE_CORE, STOPPING
from ferbatch.core.records import Decoding
from ferbatch.core.stores import remote
from ferbatch.core.stores.known import Known, learn
from ferbatch.images import faces
from ferbatch.stream.read import batches

MEMORY = 4 * 2**30  # bytes a worker may take; an image that needs more is too large
NO_IMAGE, SEVERAL = -1, -2  # in place of the number of the image that is to blame
NOWHERE = References((), (), ())  # in place of a batch's references, which stay where they are
Compute = Callable[[Batch], Batch]
Span = tuple[int, References]  # images to decode: the number of the first, and references
Asked = tuple[
    int, References, Sequence[Known] | None
]  # a span, and what is known of those of its files that are in stores


def work(
    pipes: tuple[Connection, Connection],
    current: Any,
    decoding: Decoding,
    timeout: float | None,
    compute: Compute | None,
    forked: bool,
) -> None:
    """A worker's life: spans in, answers out, until the first pipe closes.

    pipes: from the process that hands out the images, and to it.
    current: shared with it, the number of the image that is decoded just now, or NO_IMAGE, or SEVERAL.
    decoding: how files become model inputs.
    timeout: seconds that one image may take, and so many of several each; then the process ends.
    compute: asks a model about a batch; None: it goes back as it is.
    forked: whether the process holds the files that its parent has open.
    """
    asked, answered = pipes
    _settle(forked)
    if not _prepared(decoding, answered):
        return

    def watch(number: int | None, together: int = 1) -> None:
        current.value = NO_IMAGE if number is None else number if together == 1 else SEVERAL
        if timeout is not None:  # SIGALRM ends the process, whatever it is doing
            signal.setitimer(signal.ITIMER_REAL, 0 if number is None else together * timeout)

    with suppress(EOFError, OSError):
        for first, references in iter(_inbox(asked, decoding.connections).get, None):
            start = at_work()
            try:
                for batch in batches(first, references, decoding, watch):
                    _answer(answered, start, batch, compute)
                    start = at_work()
            except (OutputError, DeviceError) as error:  # of crops; anything else is as a crash of the decoder
                answered.send(error)


def _settle(forked: bool) -> None:
    """Be one of a run's processes: with one core, and an end that is its parent's."""
    for number in STOPPING:  # whoever stops the run ends its workers, too, and in order
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    os.environ[ONE_CORE] = "1"
    if forked:
        _let_go_of_files()
    gc.freeze()  # else a fifth of its time, where it reads stores, goes into searching all that for cycles


def _prepared(decoding: Decoding, answered: Connection) -> bool:
    """Open the device that finds faces, if one does, and limit memory; where that fails, say why."""
    try:
        faces.prepare(decoding.search)  # before the limit: what a GPU's driver maps is not an image's
    except FerbatchError as error:
        answered.send(error)
        return False
    _limit_memory()
    return True


def _end_with_parent() -> None:
    """Have this process end when the one that started it is gone, whatever it is at."""
    started_by, parent = parent_process(), os.getppid()
    assert started_by

    def watch() -> None:
        # The first tells of a parent that was gone before this process looked, but where the parent's other forks have
        # its files it tells late; and a fork server that is the parent lives on.
        while started_by.is_alive() and os.getppid() == parent:
            started_by.join(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def at_work() -> float:
    """The time in seconds, but for what this process has waited for stores."""
    return time.monotonic() - remote.waited()


def _inbox(pipe: Connection, connections: int) -> queue.SimpleQueue[Span | None]:
    """What comes, read at once, so that whoever sends it never waits; None at the end.

    What of it is in stores is being fetched from then on, by so many connections.
    """
    inbox: queue.SimpleQueue[Span | None] = queue.SimpleQueue()

    def receive() -> None:
        with suppress(EOFError, OSError):
            while True:
                first, references, told = pipe.recv()
                learn(references.files, told)
                remote.expect(references.files, connections)
                inbox.put((first, references))
        inbox.put(None)

    threading.Thread(target=receive, daemon=True).start()
    return inbox


def _answer(pipe: Connection, start: float, batch: Batch, compute: Compute | None) -> None:
    """Send the seconds of work since `start`, and the batch, or the error that it came to."""
    try:
        batch = replace(compute(batch) if compute else batch, references=NOWHERE)
        pixels = batch.inputs  # not pickled: that would copy them more than once
        pipe.send((at_work() - start, replace(batch, inputs=pixels[:0]), pixels.shape))
        if pixels.size:
            pipe.send_bytes(pixels.reshape(-1).data)
    except FerbatchError as error:
        pipe.send(error)
    except Exception:  # a bug: let it be one in the main process
        pipe.send(RuntimeError(traceback.format_exc()))


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
