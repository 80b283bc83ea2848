"""The decode stage in worker processes that may die: a crash costs its image a row with an error, nothing else.

Neither torch's DataLoader nor concurrent.futures outlives the death of a worker, and a pool whose workers share a lock
can be left with the lock held by a dead one. Here every worker has a pipe of its own.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ferbatch.errors import WorkerError
from ferbatch.process import STOPPING, end_with_parent
from ferbatch.reading import Decoded, read, version_of
from ferbatch.records import Failure, ImageRef

FROM = 1_000  # images: with fewer, starting processes would cost time; with more it saves some
SPAN = 32  # images handed to a worker at once
SPAN_BYTES = 2**15  # of their paths, at the most: a pipe takes two spans without waiting for its reader
AHEAD = 4  # spans handed out per worker; what is decoded waits for its turn
MEMORY = 4 * 2**30  # bytes a worker may take; more is an image that is too large
STARTS = 3  # of workers in a row that died before they began; then something else is wrong

Task = list[tuple[int, ImageRef]]


@dataclass
class _Worker:
    """A process, its pipe, the spans it has, and (shared with it) the number of the image it is at, or -1."""

    process: Any
    pipe: Connection
    at: Any
    spans: deque[Task] = field(default_factory=deque)


class Pool:
    """Processes that decode, each with a pipe of its own.

    An image at which one dies twice is `crashed`; one that takes more than `timeout` seconds is `timeout`. The rest of
    a dead process's images goes to a new one. WorkerError where none can be started.
    """

    def __init__(self, size: int, workers: int, timeout: float | None = None) -> None:
        methods = multiprocessing.get_all_start_methods()
        # Not fork: the process has threads by now, and all of torch's memory.
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if self.context.get_start_method() == "forkserver":
            self.context.set_forkserver_preload([__name__])
        self.size, self.timeout = size, timeout
        self.suspects: set[int] = set()  # images at which a worker died once
        self.idle_deaths = 0
        self.decoded: dict[int, Decoded] = {}
        self.workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self.workers.append(self._start())
        except BaseException:
            self.kill()
            raise

    def _start(self) -> _Worker:
        try:
            return self._launch()
        except OSError as error:
            raise WorkerError(f"a decode process could not be started: {error.strerror}") from error

    def _launch(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        at = self.context.RawValue("q", -1)
        process = self.context.Process(target=_work, args=(theirs, at, self.size, self.timeout), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, at)

    def decode(self, refs: Sequence[ImageRef]) -> Iterator[Decoded]:
        """Each image, (size, size) pixels or an error, in order; the processes end with the last or the reader."""
        try:
            yield from self._decode(refs)
        finally:
            self.kill()

    def _decode(self, refs: Sequence[ImageRef]) -> Iterator[Decoded]:
        handed = 0  # images
        for number in range(len(refs)):
            while number not in self.decoded:
                for worker in sorted(self.workers, key=lambda one: len(one.spans)):
                    ahead = handed < min(len(refs), number + AHEAD * SPAN * len(self.workers))
                    if ahead and len(worker.spans) < 2:
                        span = _span(refs, handed)
                        self._hand(worker, span)
                        handed += len(span)
                self._receive()
            yield self.decoded.pop(number)

    def _hand(self, worker: _Worker, span: Task) -> None:
        worker.spans.append(span)
        with suppress(OSError):  # it has died; its pipe will say so
            worker.pipe.send(span)

    def _receive(self) -> None:
        """Wait for what some worker has to say, which may be its end."""
        for pipe in wait([worker.pipe for worker in self.workers if worker.spans]):
            worker = next(one for one in self.workers if one.pipe is pipe)
            try:
                found = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            self.idle_deaths = 0
            for (number, _), decoded in zip(worker.spans.popleft(), found, strict=True):
                self.decoded[number] = decoded

    def _replace(self, worker: _Worker) -> None:
        """A new worker for what a dead one had left, less the image that killed it."""
        worker.process.join()
        worker.pipe.close()
        culprit, code = worker.at.value, worker.process.exitcode
        self.idle_deaths = self.idle_deaths + 1 if culprit < 0 else 0
        if self.idle_deaths > STARTS * len(self.workers):
            raise WorkerError(f"the decode workers of --isolate end before they begin ({_cause(code)})")
        timed_out = code == -getattr(signal, "SIGALRM", 0)
        new = self._start()
        self.workers[self.workers.index(worker)] = new
        for span in worker.spans:
            rest = [one for one in span if one[0] != culprit]
            if len(rest) < len(span):
                ref = next(ref for number, ref in span if number == culprit)
                if timed_out or culprit in self.suspects:
                    self.decoded[culprit] = Decoded(
                        ref, error=self._failure(timed_out, code), version=version_of(ref.file)
                    )
                else:  # it may have been killed for another reason
                    self.suspects.add(culprit)
                    rest.append((culprit, ref))
            if rest:
                self._hand(new, rest)

    def _failure(self, timed_out: bool, code: int) -> Failure:
        if timed_out:
            return Failure("timeout", f"not decoded within {self.timeout:g} s")
        return Failure("crashed", f"the decoder crashed ({_cause(code)})")

    def kill(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(1)  # no longer: what hangs in the system cannot be killed


def _span(refs: Sequence[ImageRef], start: int) -> Task:
    """The next images to hand out: one, or more while their paths are short."""
    span: Task = []
    size = 0
    for number in range(start, min(start + SPAN, len(refs))):
        ref = refs[number]
        size += len(ref.path) + len(ref.file)
        if span and size > SPAN_BYTES:
            break
        span.append((number, ref))
    return span


def _cause(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"


def _work(pipe: Connection, at: Any, size: int, timeout: float | None) -> None:
    """A worker's life: spans in, lists of Decoded out, until the pipe closes."""
    for number in STOPPING:  # whoever stops the run ends its workers as well
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    _limit_memory()
    with suppress(EOFError, OSError):
        while True:
            found = []
            for number, ref in pipe.recv():
                at.value = number
                if timeout is not None:
                    signal.setitimer(signal.ITIMER_REAL, timeout)  # SIGALRM ends the process, whatever it is doing
                found.append(read(ref, size))
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            at.value = -1
            pipe.send(found)


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # not everywhere
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY if hard < 0 else min(MEMORY, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash of a decoder is no news to keep
