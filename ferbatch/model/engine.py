"""Engine: a network on a device, run so that the same image gives the same numbers, whatever it comes with."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TypeVar

import numpy as np
import threadpoolctl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferbatch.core.errors import ModelError
from ferbatch.core.names import escape
from ferbatch.model import registry
from ferbatch.model.devices import DTYPES, choose_device, choose_precision
from ferbatch.model.networks import Network
from ferbatch.model.weights import Card

CUDNN = threading.Lock()  # held while cuDNN's flags, which are the whole process's, are set

# Images the network runs on at a time, always exactly so many: enough that starting its layers on a GPU costs little.
BLOCK = {"cuda": 1_024, "mps": 256}
CPU_BLOCK = 16  # on a CPU, where layers' values stay near the core: with 64 the study's network is no faster
LIGHT_CPU_BLOCK = 64  # on a CPU, of a light network: its layers are over before a small block has paid for starting
LIGHT = 30_000_000  # multiply-adds of the largest light network
BLOCKS_AHEAD = 3  # blocks begun for each that is computed
# Seconds that images may wait for their block to be full: on a GPU a short block costs as much as a full one, and what
# is computed there is over before the next images come.
PATIENCE = {"cuda": 0.05, "mps": 0.05}

T = TypeVar("T")


@dataclass(slots=True)
class _Block:
    """Model inputs that are computed together, from the arrays they came in."""

    inputs: list[NDArray[np.uint8]] = field(default_factory=list)
    size: int = 0  # of them
    since: float = 0.0  # time.monotonic() of the first of them
    rows: Future[NDArray[np.float64]] | _Launched | None = None  # their probabilities, once it has begun

    def take(self, inputs: NDArray[np.uint8]) -> _Part:
        """Some more inputs; the part of the block that they are."""
        self.since = self.since if self.inputs else time.monotonic()
        self.inputs.append(inputs)
        self.size += len(inputs)
        return _Part(self, self.size - len(inputs), self.size)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a block."""

    block: _Block
    start: int
    stop: int

    @property
    def is_done(self) -> bool:
        return self.block.rows is not None and self.block.rows.done()

    @property
    def rows(self) -> NDArray[np.float64]:
        assert self.block.rows is not None
        return self.block.rows.result()[self.start : self.stop]


class _Launched:
    """A block that a CUDA device computes, told to by this very thread: others would only wait for its interpreter."""

    def __init__(self, engine: Engine, inputs: Sequence[NDArray[np.uint8]]) -> None:
        self.engine, self.inputs = engine, inputs  # which must be there until they are copied
        self.features, self.size = engine.launch(inputs)
        self.end = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.end.record(torch.cuda.current_stream(engine.device))

    def done(self) -> bool:
        return bool(self.end.query())  # type: ignore[no-untyped-call]

    def result(self) -> NDArray[np.float64]:
        """The probabilities, once they are there."""
        if not hasattr(self, "rows"):
            self.rows = self.engine.finish(self.features, self.size)
        return self.rows


class Engine:
    """A network on a device: model inputs in, probabilities out. It knows nothing of files or rows.

    The network runs on blocks of one fixed shape (a short block is padded), each on one core, and its head in float64,
    so that an image's probabilities depend neither on the batch it came in nor on the number of cores.
    """

    def __init__(
        self,
        card: Card,
        network: Network,
        device: str | torch.device = "auto",
        *,
        precision: str = "auto",
        tta: bool = False,
    ) -> None:
        """Copy the network to the device.

        card: of the network; its size, mean, std and temperature are applied.
        network: with its weights; it is left as it is.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: of the network's body: fp32, bf16, or auto for bf16 where the device computes in it and the card has
            scores.
        tta: test-time augmentation: the mean of the image's and its mirror image's probabilities, at twice the work.
        """
        self.card = card
        self.tta = tta
        self.device = choose_device(device) if isinstance(device, str) else device
        self.precision = choose_precision(precision, self.device, measured=bool(card.scores))
        self.dtype = DTYPES[self.precision]
        self.block = BLOCK.get(self.device.type, LIGHT_CPU_BLOCK if card.multiply_adds < LIGHT else CPU_BLOCK)
        # Blocks in work at a time: one a core; of two on a GPU, one is sent while the other is computed.
        self.streams = torch.get_num_threads() if self.device.type == "cpu" else 2
        self.take(network)

    def take(self, network: Network) -> None:
        """Compute with a copy of this network's weights from now on."""
        features = registry.folded(network.features).to(self.device, self.dtype)
        self.features = features.to(memory_format=torch.channels_last)
        self.head = in_float64(network.head)

    def probabilities(self, inputs: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, labels) probabilities of N model inputs, (N, size, size) uint8, several blocks at a time."""
        return next(self.ahead([(None, inputs)]))[1]

    def ahead(self, things: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, NDArray[np.float64]]]:
        """Of (anything, its model inputs): each thing with its probabilities, in order; the next are computed already.

        The inputs of several things share a block; one that is not full begins where nothing else is being computed,
        on a GPU no sooner than PATIENCE allows.
        """
        begun: deque[tuple[T, list[_Part]]] = deque()
        block = _Block()
        for thing, inputs in things:
            parts, at = list[_Part](), 0
            while at < len(inputs):
                part = inputs[at : at + self.block - block.size]
                parts.append(block.take(part))
                at += len(part)
                if block.size == self.block:
                    block = self._begin(block)
            begun.append((thing, parts))
            if block.size and self._is_due(block, begun):
                block = self._begin(block)
            while begun and (_is_done(begun[0][1]) or self._is_far(begun)):
                yield self._result(*begun.popleft())
        self._begin(block)
        while begun:
            yield self._result(*begun.popleft())

    def alone(self, inputs: NDArray[np.uint8]) -> NDArray[np.float64]:
        """As `probabilities`, in a process of its own, which is to take one core."""
        torch.set_num_threads(1)
        blocks = range(0, len(inputs), self.block)
        return self._rows([self._compute([inputs[start : start + self.block]]) for start in blocks])

    def _begin(self, block: _Block) -> _Block:
        """Have a block computed, if there is something in it; the next one."""
        if block.size:
            on_cuda = self.device.type == "cuda"
            block.rows = _Launched(self, block.inputs) if on_cuda else self._threads.submit(self._compute, block.inputs)
        return _Block()

    def _is_due(self, block: _Block, begun: Iterable[tuple[object, Sequence[_Part]]]) -> bool:
        """Whether a block begins though more would fit into it: it has waited, and the device has nothing to do."""
        waited = time.monotonic() - block.since >= PATIENCE.get(self.device.type, 0.0)
        return waited and all(one.is_done for _, parts in begun for one in parts if one.block is not block)

    def _is_far(self, begun: Sequence[tuple[object, Sequence[_Part]]]) -> bool:
        """Whether enough is begun for the first of it to be waited for."""
        blocks = {id(part.block) for _, parts in begun for part in parts if part.block.rows}
        return len(blocks) > BLOCKS_AHEAD * self.streams and all(part.block.rows for part in begun[0][1])

    def _result(self, thing: T, parts: Sequence[_Part]) -> tuple[T, NDArray[np.float64]]:
        return thing, self._rows([part.rows for part in parts])

    def _rows(self, found: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(found) if found else np.empty((0, len(self.card.labels)))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.streams, initializer=partial(on_one_core, openmp()))

    def _compute(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(N, labels) probabilities of up to `block` inputs, from one or more arrays."""
        return self.finish(*self.launch(inputs))

    def launch(self, inputs: Sequence[NDArray[np.uint8]]) -> tuple[list[Tensor], int]:
        """What the body makes of up to `block` inputs (and of their mirror images), and how many they are.

        A GPU may still be at it, and at fetching the inputs.
        """
        pixels = torch.zeros((self.block, self.card.size, self.card.size), dtype=torch.uint8, device=self.device)
        at = 0
        for part in inputs:
            there = torch.from_numpy(part if part.flags.writeable else part.copy())  # else torch warns
            pixels[at : at + len(part)].copy_(there, non_blocking=True)
            at += len(part)
        with torch.inference_mode(), exact_convolutions(self.device):
            x = normalise(pixels, self.card, self.dtype)
            return [self.features(seen) for seen in ((x, x.flip(3)) if self.tta else (x,))], at

    def finish(self, features: Sequence[Tensor], n: int) -> NDArray[np.float64]:
        """(N, labels) probabilities from what the body made of a block of which n are inputs."""
        with torch.inference_mode():
            said = [self._softmax(one) for one in features]
        return sum(said[1:], said[0])[:n] / len(said)

    def _softmax(self, features: Tensor) -> NDArray[np.float64]:
        """(block, labels) probabilities."""
        logits = self.head(features.cpu().to(torch.float64))  # .cpu() waits for a GPU
        if not bool(logits.isfinite().all()):
            raise ModelError(f"the model '{escape(self.card.name)}' gives no numbers for some images")
        return torch.softmax(logits / self.card.temperature, dim=1).numpy()


def _is_done(parts: Iterable[_Part]) -> bool:
    return all(part.is_done for part in parts)


def normalise(pixels: Tensor, card: Card, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (B, size, size) -> `dtype` (B, 1, size, size), channels last, by the card's mean and std."""
    return standardise_(scale(pixels), card).to(dtype, memory_format=torch.channels_last)


def scale(pixels: Tensor) -> Tensor:
    """uint8 (B, size, size) -> float32 (B, 1, size, size) in 0..1."""
    return pixels.unsqueeze(1).to(torch.float32).div_(255)


def standardise_(x: Tensor, card: Card) -> Tensor:
    """Images in 0..1, in place, by the card's mean and std."""
    return x.sub_(card.mean).div_(card.std)


@cache
def openmp() -> threadpoolctl.ThreadpoolController:
    """What sets a thread's OpenMP threads, looked for once.

    Not in a new thread: threadpoolctl before 3.7 looks with the linker's lock held, and then waits for the interpreter;
    a thread that has that and imports a module waits for the linker's lock.
    """
    return threadpoolctl.ThreadpoolController()


def on_one_core(openmp: threadpoolctl.ThreadpoolController) -> None:
    """Have this thread compute by itself. Its host's other threads go on as they did."""
    torch.get_num_threads()  # at first it sets the number itself
    openmp.limit(limits=1, user_api="openmp")


def in_float64(head: nn.Module) -> nn.Module:
    return copy.deepcopy(head).eval().to("cpu", torch.float64)


@contextlib.contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA: no TF32, no choosing of algorithms by their speed, for this block of code only."""
    if device.type != "cuda":
        yield
        return
    with CUDNN, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
