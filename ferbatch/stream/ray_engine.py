"""RayEngine: what a Classifier is, on a Ray cluster: tasks read images, actors ask the model, this process orders.

Ray Data would decode and label as well, but it writes rows in files of its own form, and all of them again after a
restart. Here each span of the listing is handed out, and again where a process or a node dies with it, until its one
answer is taken: so each image has its rows once, in its order, and journal, writers and counts are the usual ones.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch

from ferbatch.core import process
from ferbatch.core.batch import Batch, Images, References
from ferbatch.core.errors import FerbatchError, WorkerError
from ferbatch.core.names import escape
from ferbatch.core.options import BATCH_SIZE
from ferbatch.core.records import Decoding, Doubt, Workers
from ferbatch.core.stores import known
from ferbatch.core.stores.urls import scheme_of
from ferbatch.stream import ray_worker
from ferbatch.stream.pool import AT_FIRST, LEAST
from ferbatch.stream.ray_cluster import MOST_WHY, Cluster
from ferbatch.stream.ray_worker import Computing, Labeller, Reading

if TYPE_CHECKING:
    from ferbatch.model.weights import Card

MOST = 1.0  # seconds of reading that are handed out at once, as far as the images before tell
BATCHES, BYTES = 8, 2**23  # batches, and bytes of pixels of cropped faces, that are handed out at once, at the most
AHEAD = 2  # spans handed to each task that may run, and to each actor
FAR = 16  # spans for each task that may run, that may wait for one before them
POLL = 0.2  # seconds after which a signal is looked for
FETCH = 60.0  # seconds that an answer may take to come here from its node
DEATHS = 4  # of processes or nodes at one span; then it is taken to be the span's fault
STARTS = 3  # of actors, for each, without one answer in between


@dataclass(eq=False, slots=True)
class _Span:
    """Images that are handed out together."""

    first: int
    references: References
    deaths: int = 0
    pixels: Any = None  # the reference to what was read


@dataclass(eq=False, slots=True)
class _Actor:
    handle: Any
    starting: Any  # the reference to the end of its start; None: it has started
    load: int = 0  # spans that it has


@dataclass(frozen=True, slots=True)
class Asked:
    """How the model is to be asked."""

    device: torch.device  # of all actors
    precision: str
    tta: bool
    actors: int | None  # that hold the model; None: one for each GPU, or each CPU where there are none


class RayEngine:
    """A model on the nodes of a cluster; `card`, `device`, `precision` and `tta` as of a Classifier."""

    def __init__(self, cluster: Cluster, card: Card, tensors: Mapping[str, torch.Tensor], how: Asked) -> None:
        """Nothing is started yet."""
        self.cluster, self.card, self.tensors, self.actors = cluster, card, tensors, how.actors
        self.device, self.precision, self.tta = how.device, how.precision, how.tta

    def stream(
        self,
        images: Images,
        decoding: Decoding | None = None,
        workers: Workers | None = None,
        *,
        doubt: Doubt | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Generator[Batch, None, None]:
        """Every image, in order, with what the model says of it. Arguments as of Classifier.stream.

        A decoder that crashes costs an image a row unless `workers.isolate` is False. Its `number` is that of the tasks
        that read at a time. A signal that is deferred ends the stream after a whole batch.
        """
        decoding, workers, doubt = decoding or Decoding(self.card.size), workers or Workers(), doubt or Doubt()
        tasks = workers.number or max(1, self.cluster.cpus)
        decoding = replace(decoding, connections=max(1, decoding.connections // tasks))
        same = ray_worker.reads_by(decoding)
        reading = Reading(decoding, workers.isolate is not False, workers.timeout, batch_size, tuple(same.items()))
        needed = (("ferbatch", same["ferbatch"]), ("torch", torch.__version__))
        computing = Computing(self.device.type, self.precision, self.tta, doubt, needed)
        yield from _Run(self, images, reading, computing, tasks).batches()


class _Run:
    """One way through the images."""

    def __init__(self, engine: RayEngine, images: Images, reading: Reading, computing: Computing, tasks: int) -> None:
        self.cluster, self.ray, self.images, self.reading = engine.cluster, engine.cluster.ray, images, reading
        self.computing, self.tasks = computing, tasks
        self.model = self.ray.put((engine.card, dict(engine.tensors)))
        self.read = self.ray.remote(num_cpus=1, num_returns=2, max_retries=0)(ray_worker.read)
        on_gpu = computing.device == "cuda"
        # An actor on a CPU asks for none, or tasks would wait for ever where nodes die: it shares its core with them.
        self.actor = self.ray.remote(num_cpus=0, num_gpus=int(on_gpu), max_restarts=0, max_task_retries=0)(Labeller)
        self.number = engine.actors or (self.cluster.gpus if on_gpu else self.cluster.cpus) or 1
        self.places = cycle(self.cluster.places() or [None])
        self.cost = AT_FIRST  # seconds an image, by the last answer
        self.deaths = 0  # of actors since the last answer
        self.lost: deque[_Span] = deque()  # to be read again
        self.reads: dict[Any, _Span] = {}  # by the reference to the seconds it takes
        self.ready: deque[_Span] = deque()  # read, and not handed to an actor yet
        self.labels: dict[Any, tuple[_Span, _Actor]] = {}  # by the reference to the answer
        self.actors: list[_Actor] = []
        self.done: dict[int, list[Batch]] = {}  # by the number of the first image

    def batches(self) -> Iterator[Batch]:
        """The images in order, until a signal comes."""
        handed = at = 0  # images that were handed out, and handed on, so far
        while at < len(self.images) and not process.stopped():
            while len(self.actors) < self.number:
                self._start()
            handed = self._hand_out(handed, at)
            self._hand_over()
            if at not in self.done:
                self._receive()
            for batch in self.done.pop(at, ()):
                at = batch.end
                yield batch

    def _start(self) -> None:
        """One more actor, on the node whose turn it is, or on another one where that is gone."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        how: dict[str, Any] = {}
        if self.computing.device == "cpu" and (place := next(self.places)):
            how["scheduling_strategy"] = NodeAffinitySchedulingStrategy(place, soft=True)
        handle = self.actor.options(**how).remote()
        self.actors.append(_Actor(handle, handle.start.remote(self.model, self.computing)))

    def _hand_out(self, handed: int, at: int) -> int:
        """Have images read, while the one that is waited for is `at`; how many are handed out now."""
        most = min(BATCHES * self.reading.batch_size, max(1, BYTES // self.reading.decoding.size**2))
        furthest = min(len(self.images), at + FAR * self.tasks * most)
        while len(self.reads) + len(self.ready) < AHEAD * (self.tasks + self.number):
            if self.lost:
                span = self.lost.popleft()
            elif handed < furthest:
                end = min(furthest, handed + self._fitting(len(self.images) - handed, most))
                span, handed = _Span(handed, self.images.references(range(handed, end))), end
            else:
                break
            files = span.references.files
            named = self.reading.decoding.search.crops is not None  # crops are called as their images are
            paths = span.references.paths if named else [""] * len(files)
            there = References(paths, [_from_anywhere(file) for file in files], ())
            seconds, span.pixels = self.read.remote(there, known.tell(files), self.reading)
            self.reads[seconds] = span
        return handed

    def _fitting(self, left: int, most: int) -> int:
        """How many of the images that are left make a span: few where they take long, and so that all end together."""
        share = max(left // (AHEAD * self.tasks), int(LEAST / self.cost), 1)
        return min(most, share, max(1, int(MOST / self.cost)))

    def _hand_over(self) -> None:
        """Give what is read to the actors that have least to do."""
        while self.ready:
            free = [actor for actor in self.actors if actor.starting is None and actor.load < AHEAD]
            if not free:
                return
            actor, span = min(free, key=lambda one: one.load), self.ready.popleft()
            self.labels[actor.handle.label.remote(span.pixels)] = span, actor
            actor.load += 1

    def _receive(self) -> None:
        """Wait for answers, and for deaths."""
        starts = {actor.starting: actor for actor in self.actors if actor.starting is not None}
        waited = [*self.reads, *self.labels, *starts]
        found, left = self.ray.wait(waited, timeout=POLL, fetch_local=False)
        if found and left:
            found += self.ray.wait(left, num_returns=len(left), timeout=0, fetch_local=False)[0]
        for reference in found:
            answer = self._get(reference)
            if reference in self.reads:
                self._take_read(self.reads.pop(reference), answer)
            elif reference in self.labels:
                self._take_labels(*self.labels.pop(reference), answer)
            else:
                starts[reference].starting = None
                self._mind(starts[reference], answer)

    def _get(self, reference: Any) -> Any:
        """What a task or an actor answers; Ray's error where it is lost. An error of ours is raised."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference, timeout=FETCH)
        except errors.RayTaskError as error:
            if isinstance(error.cause, FerbatchError):
                raise error.cause from None
            if isinstance(error.cause, errors.RayError):  # of what it was given
                return error.cause
            if "No module named 'ferbatch" in str(error):
                raise WorkerError("a node of the Ray cluster has no ferbatch: it has to be installed on each") from None
            raise RuntimeError(str(error)) from None  # a bug
        except errors.RayError as error:
            return error

    def _take_read(self, span: _Span, answer: Any) -> None:
        """The seconds that a span took to read, or why there are none."""
        if isinstance(answer, Exception):
            self._lose(span, answer)
        else:
            self.cost = max(answer, 1e-6) / len(span.references.files)
            self.ready.append(span)

    def _take_labels(self, span: _Span, actor: _Actor, answer: Any) -> None:
        """The batches of a span, or why there are none."""
        actor.load -= 1
        span.pixels = None
        self._mind(actor, answer)
        if isinstance(answer, Exception):
            self._lose(span, answer)
            return
        self.deaths = 0
        self.done[span.first] = [
            replace(batch.of(span.references.part(batch.first, batch.end)), first=span.first + batch.first)
            for batch in answer
        ]

    def _mind(self, actor: _Actor, answer: Any) -> None:
        """Have another actor in the place of one that has died; WorkerError where they all do."""
        if not isinstance(answer, Exception) or actor not in self.actors:
            return
        if isinstance(answer, self.ray.exceptions.RayActorError):
            self.actors.remove(actor)
            self.ray.kill(actor.handle)  # if it was merely out of reach
            self.deaths += 1
            if self.deaths > STARTS * self.number:
                raise WorkerError(f"the actors of --engine ray die before they label anything: {_why(answer)}")

    def _lose(self, span: _Span, why: Exception) -> None:
        """Have a span read again; WorkerError where it seems to be what kills."""
        span.deaths += 1
        if span.deaths > DEATHS:
            helps = "" if self.reading.isolate else "; --isolate goes on where a decoder crashes"
            where = f"{len(span.references.paths):,} images from {span.references.paths[0]} on"
            raise WorkerError(f"{span.deaths} processes of the Ray cluster died at {where} ({_why(why)}){helps}")
        self.lost.append(span)


def _from_anywhere(file: bytes) -> bytes:
    """A path that leads to the same file from every folder."""
    return file if scheme_of(file) else os.path.join(os.getcwdb(), file)


def _why(error: Exception) -> str:
    """The beginning of what Ray says."""
    return escape(" ".join(str(error).split())[:MOST_WHY])
