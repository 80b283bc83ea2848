"""Images decoded, and on CPUs labelled, in processes that may die: a crash costs an image a row, nothing else.

Neither torch's DataLoader nor concurrent.futures outlives the death of a worker, and a pool whose workers share a lock
can be left with the lock held by a dead one. Here every worker has a pipe of its own.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ferbatch.core.errors import WorkerError
from ferbatch.core.files import version_of
from ferbatch.core.process import default_workers
from ferbatch.core.records import WHOLE, Decoding, Failure, ImageRef, Search, Workers
from ferbatch.stream.read import Decoded
from ferbatch.stream.worker import Answer, Compute, unpack, work

FROM = 1_000  # images: with fewer, starting processes would cost time; with more it saves some
FROM_BYTES = 2**24  # of files: with more, starting processes saves time, however few the files are
FROM_SEARCHED, FROM_BYTES_SEARCHED = 4, 2**20  # images, and bytes of their files, where faces are looked for in them
SAMPLE = 64  # the number of files looked at to tell how large all of them are
SPAN = 64  # images handed to a worker at once, the most
SPAN_OF_PIXELS = 256  # images handed out at once where their pixels come back: small messages would keep a GPU waiting
SPAN_BYTES = 2**23  # of files, as far as those before tell: large photos are handed out few at a time
SPAN_NAMES = 2**15  # bytes of their paths, at the most: a pipe takes two spans without waiting for its reader
HANDED_AHEAD = 4_096  # images handed out before the first of them is back; what is decoded waits for its turn
STARTS = 3  # of workers in a row that died before they began; then something else is wrong

Task = list[tuple[int, ImageRef]]  # a span: images with their indices


def pays_for(refs: Sequence[ImageRef], search: Search = WHOLE) -> bool:
    """Whether images are so many, or their files so large, that processes save more time than starting them takes."""
    if len(refs) >= FROM:
        return True
    searched = search.mode != "whole" and len(refs) >= FROM_SEARCHED
    least = FROM_BYTES_SEARCHED if searched else FROM_BYTES
    versions = [version_of(refs[index].file) for index in range(0, len(refs), max(1, len(refs) // SAMPLE))]
    return sum(version.size for version in versions if version) * len(refs) >= least * max(1, len(versions))


@dataclass
class _Worker:
    """A process, and what this one knows of it."""

    process: Any
    pipe: Connection
    current: Any  # shared with it, the index of the image that it decodes just now, or -1
    spans: deque[Task] = field(default_factory=deque)


def can_compute() -> bool:
    """Whether processes can share this one's network: by fork, which only Linux's libraries bear."""
    return sys.platform == "linux"


class Pool:
    """Processes that decode, each with a pipe of its own.

    With `compute`, which makes of model inputs what a model says of them, they do that as well, each on a core of its
    own: no pixels travel, and no process waits for another's interpreter.
    An image at which one dies twice is `crashed`; one that takes more than `timeout` seconds is `timeout`. The rest of
    a dead process's images goes to a new one; unless the processes are isolated, a death is a WorkerError.
    """

    def __init__(
        self, decoding: Decoding, workers: Workers, *, compute: Compute | None = None, span: int = SPAN
    ) -> None:
        """Start the processes; WorkerError where that cannot be done.

        decoding: how files become model inputs.
        workers: how many processes, whether they may die, and the seconds for an image.
        compute: makes of model inputs what a model says of them; None: the inputs themselves come back.
        span: images handed to a process at once, at the most.
        """
        self.forgiving = bool(workers.isolate)
        methods = multiprocessing.get_all_start_methods()
        # Where there is no network to share, not fork: this process has threads by now. But the Python API, which
        # forgives nothing, forks where it can: anything else would run its host's main module again.
        fresh = "forkserver" if "forkserver" in methods else "spawn"
        self.forks = bool(compute) or (not self.forgiving and can_compute())
        self.context: Any = multiprocessing.get_context("fork" if self.forks else fresh)
        if self.context.get_start_method() == "forkserver":
            self.context.set_forkserver_preload(["__main__", __name__])  # once, not in every process
        self.decoding, self.timeout, self.compute = decoding, workers.timeout, compute
        self.most = self.span = span  # images to hand out at once: at the most, and just now
        self.suspects: set[int] = set()  # images at which a worker died once
        self.idle_deaths = 0
        self.decoded: dict[int, Decoded] = {}
        self.workers: list[_Worker] = []
        try:
            for _ in range(workers.number or default_workers()):
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
        current = self.context.RawValue("q", -1)
        process = self.context.Process(
            target=work,
            args=(theirs, current, self.decoding, self.timeout, self.compute, self.forks),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, current)

    def decode(self, refs: Sequence[ImageRef]) -> Generator[Decoded, None, None]:
        """Each image, in order, decoded and perhaps computed; the processes end with the last or the reader."""
        try:
            yield from self._decode(refs)
        finally:
            self.kill()

    def _decode(self, refs: Sequence[ImageRef]) -> Iterator[Decoded]:
        handed = 0  # images that were handed out so far
        for index in range(len(refs)):
            if index not in self.decoded:
                handed = self._hand_out(refs, handed, index)
            while index not in self.decoded:
                self._receive()
                handed = self._hand_out(refs, handed, index)
            yield self.decoded.pop(index)

    def _hand_out(self, refs: Sequence[ImageRef], handed: int, index: int) -> int:
        """Give every worker two spans, while the first image that is waited for is `index`; how many are out now."""
        for spans in range(2):
            for worker in self.workers:
                if len(worker.spans) <= spans and handed < min(len(refs), index + HANDED_AHEAD):
                    first = version_of(refs[handed].file)
                    span = _span(refs, handed, min(self.span, self._fitting(first.size if first else 0)))
                    self._hand(worker, span)
                    handed += len(span)
        for worker in self.workers if handed == len(refs) else ():
            if not worker.spans:
                worker.pipe.close()  # which ends the process, while others are still at work
        return handed

    def _hand(self, worker: _Worker, span: Task) -> None:
        worker.spans.append(span)
        with suppress(OSError):  # it has died; its pipe will say so
            worker.pipe.send(
                [(number, ref.file, ref.path if self.decoding.search.crops else "") for number, ref in span]
            )

    def _receive(self) -> None:
        """Wait for what some worker has to say, which may be its end."""
        for pipe in wait([worker.pipe for worker in self.workers if worker.spans]):
            worker = next(one for one in self.workers if one.pipe is pipe)
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if isinstance(answer, Exception):
                raise answer
            self.idle_deaths = 0
            self._take(worker.spans.popleft(), answer)

    def _take(self, span: Task, answer: Answer) -> None:
        """What came back; the next spans are cut by the size of its files."""
        size = 0
        images = unpack(answer, [ref for _, ref in span], self.decoding.size)
        for (index, _), decoded in zip(span, images, strict=True):
            self.decoded[index] = decoded
            size += decoded.version.size if decoded.version else 0
        self.span = self._fitting(size // len(span))

    def _fitting(self, size: int) -> int:
        """How many images of so many bytes make a span."""
        return max(1, min(self.most, SPAN_BYTES // max(1, size)))

    def _replace(self, worker: _Worker) -> None:
        """A new worker for what a dead one had left, less the image that killed it."""
        worker.process.join()
        worker.pipe.close()
        if not self.forgiving:
            raise WorkerError("a decode process died, perhaps for want of memory; --isolate goes on where one does")
        culprit, code = worker.current.value, worker.process.exitcode
        self.idle_deaths = self.idle_deaths + 1 if culprit < 0 else 0
        if self.idle_deaths > STARTS * len(self.workers):
            raise WorkerError(f"the decode workers of --isolate end before they begin ({_cause(code)})")
        timed_out = code == -getattr(signal, "SIGALRM", 0)
        new = self._start()
        self.workers[self.workers.index(worker)] = new
        for span in worker.spans:
            rest = [(index, ref) for index, ref in span if index != culprit]
            if len(rest) < len(span):
                ref = next(ref for index, ref in span if index == culprit)
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


def _span(refs: Sequence[ImageRef], start: int, most: int) -> Task:
    """The next images to hand out: one, or more while their paths are short."""
    span: Task = []
    size = 0
    for index in range(start, min(start + most, len(refs))):
        ref = refs[index]
        size += len(ref.path) + len(ref.file)
        if span and size > SPAN_NAMES:
            break
        span.append((index, ref))
    return span


def _cause(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"
