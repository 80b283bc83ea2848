"""What runs on the nodes of a Ray cluster: tasks that read images, actors that ask a model. Without Ray itself."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbatch.core.batch import Batch, References
from ferbatch.core.errors import FerbatchError
from ferbatch.core.process import ONE_CORE, be_quick
from ferbatch.core.records import Decoding, Doubt, Workers
from ferbatch.core.stores import known
from ferbatch.core.version import __version__
from ferbatch.images import faces, jpeg
from ferbatch.stream.pool import Pool
from ferbatch.stream.read import batches
from ferbatch.stream.worker import NOWHERE, at_work

if TYPE_CHECKING:
    from torch import Tensor

    from ferbatch.model.weights import Card


class NodeError(FerbatchError):
    """A node of the cluster cannot do this run's work, or not as the others do (EX_OSERR)."""

    exit_code = 71


@dataclass(frozen=True, slots=True)
class Reading:
    """How a task reads images."""

    decoding: Decoding
    isolate: bool  # whether a decoder may crash at an image, which gets a row that says so
    timeout: float | None  # seconds for an image, with isolate
    batch_size: int  # images of a batch, at the most
    needed: tuple[tuple[str, str], ...]  # what must be the same on all nodes: its name and version


@dataclass(frozen=True, slots=True)
class Computing:
    """How an actor asks the model."""

    device: str  # cpu or cuda
    precision: str
    tta: bool
    doubt: Doubt
    needed: tuple[tuple[str, str], ...]  # as of Reading


def reads_by(decoding: Decoding) -> dict[str, str]:
    """What pixels and faces depend on, besides the images: name -> version."""
    decoder = jpeg.decoders()[-1 if decoding.by_pillow else 0]
    return {"ferbatch": __version__, "decoder": decoder, "detector": faces.version(decoding.search) or "none"}


def check(needed: Mapping[str, str], here: Mapping[str, str]) -> None:
    """NodeError where this node has something else than it needs."""
    for name, wanted in needed.items():
        if here[name] != wanted:
            node = socket.gethostname()
            raise NodeError(f"the nodes are not alike: {name} is {here[name]} on {node}, and {wanted} where it began")


@dataclass(frozen=True, slots=True)
class _Some:
    """Images that this process was handed."""

    all: References

    def __len__(self) -> int:
        return len(self.all.files)

    def references(self, indices: Sequence[int]) -> References:
        return self.all.part(indices[0], indices[-1] + 1)


def read(references: References, told: Sequence[known.Known] | None, how: Reading) -> tuple[float, list[Batch]]:
    """A task: the seconds of work that these images took, and what they hold, as batches without their references.

    told: what is known of those of their files that are in stores.
    """
    decode = _decoder(how)
    start = at_work()
    known.learn(references.files, told)
    read = [replace(batch, references=NOWHERE) for batch in decode(_Some(references))]
    return at_work() - start, read


@lru_cache(maxsize=1)  # for as long as the process is one of this run's
def _decoder(how: Reading) -> Any:
    """Images -> batches of what they hold. Where the decoder may crash, it runs in a process beside this one."""
    os.environ[ONE_CORE] = "1"
    check(dict(how.needed), reads_by(how.decoding))
    if not how.isolate:
        return lambda images: _in_this_process(images, how)
    vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's, which processes beside this one would import as well
    pool = Pool(how.decoding, Workers(1, True, how.timeout), how.batch_size)
    return pool.__enter__().batches  # it ends with this process


def _in_this_process(images: _Some, how: Reading) -> Iterator[Batch]:
    for first in range(0, len(images), how.batch_size):
        yield from batches(first, images.all.part(first, first + how.batch_size), how.decoding)


class Labeller:
    """An actor: a model on a core, or on a GPU."""

    def start(self, model: tuple[Card, Mapping[str, Tensor]], how: Computing) -> None:
        """Take the model; FerbatchError where this node cannot compute with it as the others do."""
        be_quick()
        import torch  # here, for a task needs none of it

        from ferbatch.model import registry
        from ferbatch.model.engine import Engine

        torch.set_num_threads(1)
        check(dict(how.needed), {"ferbatch": __version__, "torch": torch.__version__})
        self.doubt = how.doubt
        card, tensors = model
        self.engine = Engine(card, registry.load(card, tensors), how.device, precision=how.precision, tta=how.tta)

    def label(self, read: Sequence[Batch]) -> list[Batch]:
        """The same batches with what the model says, in place of their pixels."""
        size = self.engine.card.size
        inputs = np.concatenate([np.zeros((0, size, size), np.uint8), *(batch.inputs for batch in read)])
        probabilities = self.engine.probabilities(inputs)
        ends = np.cumsum([len(batch.image) for batch in read])[:-1]
        parts = np.split(probabilities, ends)
        return [batch.scored(part, self.doubt) for batch, part in zip(read, parts, strict=True)]
