"""Images decoded, and on CPUs labelled, in processes that may die: a crash costs an image a row, nothing else.

Neither torch's DataLoader nor concurrent.futures outlives the death of a worker, and a pool whose workers share a lock
can be left with the lock held by a dead one. Here every worker has a pipe of its own.
"""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import Batch, Images, References
from ferbatch.core.errors import WorkerError
from ferbatch.core.files import version_of
from ferbatch.core.process import default_workers, signals_deferred
from ferbatch.core.records import WHOLE, Decoding, Failure, Search, Workers
from ferbatch.core.stores import known
from ferbatch.images.face_files import settle, write_crops
from ferbatch.stream.read import Content, gathered
from ferbatch.stream.worker import NO_IMAGE, SEVERAL, Compute, Span, work

FROM = 1_000  # images: with fewer, starting processes would cost time; with more it saves some
FROM_BYTES = 2**24  # of files: with more, starting processes saves time, however few the files are
FROM_SEARCHED, FROM_BYTES_SEARCHED = 4, 2**20  # images, and bytes of their files, where faces are looked for in them
SAMPLE = 64  # the number of files looked at to tell how large all of them are
AT_FIRST = 1 / 32  # seconds that an image is taken to cost until one has been decoded
LEAST, MOST = 0.02, 2.0  # seconds of work that are handed out at once, as far as the images before tell
ROOM = 2**20  # bytes of answers that may wait in a pipe
AHEAD = 2  # spans handed to each worker; as many more may wait for their turn, decoded
TIMED_OUT = -getattr(signal, "SIGALRM", 0)  # the exit code of a worker at whose image the time was over
STARTS = 3  # of workers in a row that died before they began; then something else is wrong


def pays_for(images: Images, search: Search = WHOLE) -> bool:
    """Whether images are so many, or their files so large, that processes save more time than starting them takes."""
    if len(images) >= FROM:
        return True
    looked_for = search.mode != "whole" and len(images) >= FROM_SEARCHED
    least = FROM_BYTES_SEARCHED if looked_for else FROM_BYTES
    some = images.references(range(0, len(images), max(1, len(images) // SAMPLE))).files
    sizes = (max(0, version_of(file).size) for file in some if not known.is_unlisted(file))
    return sum(sizes) * len(images) >= least * max(1, len(some))


@dataclass
class _Worker:
    """A process, and what this one knows of it."""

    process: Any
    questions: Connection  # to it
    answers: Connection  # from it
    current: Any  # shared with it, the number of the image that it decodes just now, or NO_IMAGE, or SEVERAL
    spans: deque[Span] = field(default_factory=deque)


def can_compute() -> bool:
    """Whether processes can share this one's network: by fork, which only Linux's libraries bear."""
    return sys.platform == "linux"


class Pool:
    """Processes that decode, each with a pipe of its own; they are there from `with` to its end.

    With `compute`, which asks a model about a batch, they do that as well, each on a core of its own: no pixels travel,
    and no process waits for another's interpreter.
    An image at which one dies twice is `crashed`; one that takes more than `timeout` seconds is `timeout`. The rest of
    a dead process's images goes to a new one; unless the processes are isolated, a death is a WorkerError.
    """

    def __init__(self, decoding: Decoding, workers: Workers, batch_size: int, compute: Compute | None = None) -> None:
        """Nothing is started yet.

        decoding: how files become model inputs.
        workers: how many processes, whether they may die, and the seconds for an image.
        batch_size: images handed to a process at once, at the most.
        compute: asks a model about a batch; None: the inputs themselves come back.
        """
        self.room: Callable[..., NDArray[np.uint8]] = np.empty  # gives the memory that inputs come back to
        self.forgiving = bool(workers.isolate)
        methods = multiprocessing.get_all_start_methods()
        # Where there is no network to share, not fork: this process has threads by now. But the Python API, which
        # forgives nothing, forks where it can: anything else would run its host's main module again.
        # Nor where they find faces on a GPU: a fork of a process that has opened it cannot.
        fresh = "forkserver" if "forkserver" in methods else "spawn"
        on_gpu = decoding.search.device not in (None, "cpu")
        self.forks = (bool(compute) or (not self.forgiving and can_compute())) and not on_gpu
        self.context: Any = multiprocessing.get_context("fork" if self.forks else fresh)
        if self.context.get_start_method() == "forkserver":
            torch = ["torch"] if decoding.search.device else []
            self.context.set_forkserver_preload(["__main__", __name__, *torch])  # once, not in every process
        self.timeout, self.compute = workers.timeout, compute
        self.number, self.batch_size = workers.number or default_workers(), batch_size
        self.decoding = replace(decoding, connections=max(1, decoding.connections // self.number))
        self.cost = AT_FIRST  # seconds an image, by the last answer
        self.suspects: set[int] = set()  # images at which a worker died once
        self.idle_deaths = 0
        self.ready: dict[int, Batch] = {}  # by the number of the first image
        self.workers: list[_Worker] = []
        self.owner = os.getpid()

    def __enter__(self) -> Pool:
        """Start the processes; WorkerError where that cannot be done."""
        atexit.register(self.kill)  # else a program that ends while it holds the batches would wait for them for ever
        try:
            for _ in range(self.number):
                self._start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with signals_deferred(in_forks=True):
            self.kill()

    def kill(self) -> None:
        atexit.unregister(self.kill)
        if os.getpid() != self.owner:  # a fork of this program ends, or lets go of its batches
            return
        for worker in self.workers:
            worker.process.kill()
            worker.questions.close()
            worker.answers.close()
        for worker in self.workers:
            worker.process.join(1)  # no longer: what hangs in the system cannot be killed

    def _start(self) -> _Worker:
        """A new worker, among the others before any signal can part it from them."""
        try:
            with signals_deferred(in_forks=True):
                self.workers.append(self._launch())
        except (OSError, EOFError) as error:  # EOFError: the fork server has died
            why = getattr(error, "strerror", None) or "the process that starts them has died"
            raise WorkerError(f"a decode process could not be started: {why}") from error
        return self.workers[-1]

    def _launch(self) -> _Worker:
        asked, questions = self.context.Pipe(duplex=False)
        answers, answered = self.context.Pipe(duplex=False)
        _make_roomy(answered)
        current = self.context.RawValue("q", NO_IMAGE)
        process = self.context.Process(
            target=work,
            args=((asked, answered), current, self.decoding, self.timeout, self.compute, self.forks),
            daemon=True,
        )
        process.start()
        asked.close()
        answered.close()
        return _Worker(process, questions, answers, current)

    def batches(self, images: Images) -> Iterator[Batch]:
        """The images in order, decoded and perhaps computed; ValueError while others were not handed on to the last."""
        if self.ready or any(worker.spans for worker in self.workers):
            raise ValueError("the processes are still at other images")
        handed = at = 0  # images that were handed out, and handed on, so far
        while at < len(images):
            handed = self._hand_out(images, handed, at)
            if at in self.ready:
                batch = self.ready.pop(at)
                at = batch.end
                yield batch
            else:
                self._receive()

    def _hand_out(self, images: Images, handed: int, at: int) -> int:
        """Give every worker its spans, while the image that is waited for is `at`; how many are handed out now."""
        furthest = min(len(images), at + 2 * AHEAD * self.number * self.batch_size)
        for spans in range(AHEAD):
            for worker in self.workers:
                if len(worker.spans) <= spans and handed < furthest:
                    end = min(furthest, handed + self._fitting(len(images) - handed))
                    self._hand(worker, (handed, images.references(range(handed, end))))
                    handed = end
        return handed

    def _fitting(self, left: int) -> int:
        """How many of the images that are left make a span: few where they take long, and so that all end together."""
        share = max(left // (AHEAD * self.number), int(LEAST / self.cost), 1)
        return min(self.batch_size, share, max(1, int(MOST / self.cost)))

    def _hand(self, worker: _Worker, span: Span) -> None:
        first, references = span
        paths = references.paths if self.decoding.search.crops else [""] * len(references.paths)
        worker.spans.append(span)
        with suppress(OSError):  # it has died; its pipe will say so
            told = None if self.forks else known.tell(references.files)
            worker.questions.send((first, References(paths, references.files, ()), told))

    def _receive(self) -> None:
        """Wait for answers, and for deaths."""
        by_pipe = {worker.answers: worker for worker in self.workers}
        for pipe in wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                seconds, batch = self._answer_in(worker.answers)
            except (EOFError, OSError):
                self._replace(worker)
                continue
            self.idle_deaths = 0
            self._take(worker, seconds, batch)

    def _answer_in(self, pipe: Connection) -> tuple[float, Batch]:
        """What comes: the seconds that a batch took, and the batch; an error that comes in their place is raised."""
        answer = pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        seconds, batch, shape = answer
        batch.inputs = self.room(shape, np.uint8)
        if batch.inputs.size:
            pipe.recv_bytes_into(batch.inputs.reshape(-1))
        return seconds, batch

    def _take(self, worker: _Worker, seconds: float, batch: Batch) -> None:
        """What came back: the images of a span from its beginning."""
        first, references = worker.spans.popleft()
        if batch.first != first:
            raise ValueError(f"an answer about image {batch.first} in place of {first}")
        self.cost = max(seconds, 1e-6) / len(batch)
        self.ready[first] = batch.of(references.part(0, len(batch)))
        if len(batch) < len(references.files):
            worker.spans.appendleft((batch.end, references.part(len(batch))))

    def _replace(self, worker: _Worker) -> None:
        """A new worker for what a dead one had left, less the image that killed it.

        Where it was any of several, each is done alone from then on, so that the one is known.
        """
        worker.process.join()
        self.workers.remove(worker)
        worker.questions.close()
        worker.answers.close()
        if not self.forgiving:
            raise WorkerError("a decode process died, perhaps for want of memory; --isolate goes on where one does")
        culprit, code = worker.current.value, worker.process.exitcode
        self.idle_deaths = self.idle_deaths + 1 if culprit == NO_IMAGE else 0
        if self.idle_deaths > STARTS * self.number:
            raise WorkerError(f"the decode workers of --isolate end before they begin ({_cause(code)})")
        guilty = code == TIMED_OUT or culprit in self.suspects  # else it may have been killed for another reason
        if culprit >= 0:
            self.suspects.add(culprit)
        new = self._start()
        for span, (first, references) in enumerate(worker.spans):
            at, end = culprit - first, len(references.files)
            cuts = range(end) if culprit == SEVERAL and span == 0 else (at, at + 1)
            for start, stop in itertools.pairwise(sorted({0, end, *(cut for cut in cuts if 0 < cut < end)})):
                part = references.part(start, stop)
                if guilty and start == at:
                    self.ready[culprit] = self._failed(culprit, part, code)
                else:
                    self._hand(new, (first + start, part))

    def _failed(self, number: int, references: References, code: int) -> Batch:
        failure = Failure("crashed", f"the decoder crashed ({_cause(code)})")
        if code == TIMED_OUT:
            failure = Failure("timeout", f"not decoded within {self.timeout:g} s")
        write_crops(self.decoding.search.crops, references.paths[0])  # some may have been there before it died
        settle(self.decoding.search.crops)
        content = Content(failure=failure)
        return gathered(number, references, self.decoding.size, [content], [version_of(references.files[0])])


def _make_roomy(pipe: Connection) -> None:
    """Let a batch's pixels lie in a pipe, so that neither side waits for the other, where the system can do so."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, ROOM)


def _cause(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"
