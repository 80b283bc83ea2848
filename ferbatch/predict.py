"""Classifier: card + tensors + device. Its stream() is the one loop that label, evaluate and train share."""

from __future__ import annotations

import contextlib
import copy
import itertools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ferbatch import images, isolation, models, weights
from ferbatch.errors import ModelError, UnreadableImageError, UsageError, WorkerError
from ferbatch.networks import Network
from ferbatch.paths import escape
from ferbatch.process import STOPPING, end_with_parent, interrupt, until_stopped
from ferbatch.reading import Decoded, read
from ferbatch.records import BATCH_SIZE, DEFAULT_MODEL, DIGITS, Card, Failure, ImageRef, Prediction

# Images the network runs on at a time, always exactly so many. On a CPU as many as keep a block's work small: with
# twice as many the study's network would be 7 % faster, but the peak of memory would differ by 37 MB from run to run,
# not by 25.
BLOCK = {"cuda": 256, "mps": 256}
CPU_BLOCK = 16
LIGHT_CPU_BLOCK = 64  # a light network's layers are over before a small block has paid for starting them
LIGHT = 30_000_000  # multiply-adds


class ImageFiles(Dataset[Decoded]):
    """The decode stage: index -> Decoded. Runs in DataLoader workers."""

    def __init__(self, refs: Sequence[ImageRef], size: int) -> None:
        self.refs = refs
        self.size = size

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Decoded:
        return read(self.refs[index], self.size)


def loader(files: Dataset[Any], batch_size: int, workers: int, **options: Any) -> DataLoader[Any]:
    """A DataLoader over decoded images whose batches are plain lists, in order."""
    return DataLoader(
        files, batch_size=batch_size, num_workers=workers, collate_fn=list, worker_init_fn=_start_worker, **options
    )


def _start_worker(_: int) -> None:
    """Leave signals to the main process, which stops its workers itself."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _decode(files: ImageFiles, batch_size: int, workers: int) -> Iterator[Decoded]:
    """Every image of `files` in order; where that ends early, the workers are ended with it.

    WorkerError when one of them dies, raised where an image is waited for: torch's own handler of that raises wherever
    the process is just then.
    """
    dead = WorkerError("a decode process died, perhaps for want of memory; --isolate goes on where one does")
    before = set(multiprocessing.active_children())
    handled = workers and hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if handled else None
    batches = iter(loader(files, batch_size, workers))
    started = set(multiprocessing.active_children()) - before
    if handled:
        signal.signal(signal.SIGCHLD, lambda *_: interrupt(dead) if any(one.exitcode for one in started) else None)
    try:
        yield from itertools.chain.from_iterable(batches)
    except RuntimeError as error:  # torch looks now and then as well
        raise (dead if "DataLoader worker" in str(error) else error) from None
    finally:
        if handled:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
        for worker in started:
            worker.kill()
        for worker in started:
            worker.join()


def choose_device(name: str) -> torch.device:
    """The torch device for auto | cpu | cuda | cuda:N | mps; UsageError if there is none such here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    known = re.fullmatch(r"(cpu|mps|cuda)(?:(?<=cuda):([0-9]+))?", name)
    if not known:
        raise UsageError(f"no device called '{escape(name)}' (known: auto, cpu, cuda, cuda:N, mps)")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if int(known[2] or 0) >= there[known[1]]:
        raise UsageError(f"device {name} is not available here")
    return torch.device(name)


def default_workers(device: torch.device) -> int:
    """Decode processes to start: none beside a CPU network, which wants every core; up to 8 beside a GPU."""
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def normalise(pixels: Tensor, card: Card) -> Tensor:
    """uint8 (B, size, size) -> float32 (B, 1, size, size), channels last, by the card's mean and std."""
    x = pixels.unsqueeze(1).to(torch.float32).div_(255).sub_(card.mean).div_(card.std)
    return x.contiguous(memory_format=torch.channels_last)


class Classifier:
    """A model ready to label images.

    The network runs on blocks of one fixed shape (a short block is padded) and its head in float64, so that an
    image's probabilities do not depend on the batch it came in. With `tta` (test-time augmentation) they are the mean
    of those of the image and of its mirror image, at twice the work.
    """

    def __init__(self, card: Card, network: Network, device: str | torch.device = "auto", *, tta: bool = False) -> None:
        self.card = card
        self.tta = tta
        self.device = choose_device(device) if isinstance(device, str) else device
        self.block = BLOCK.get(self.device.type, LIGHT_CPU_BLOCK if card.multiply_adds < LIGHT else CPU_BLOCK)
        self.features = models.folded(network.features).to(self.device).to(memory_format=torch.channels_last)
        self.head = _float64(network.head)

    @classmethod
    def load(cls, name: str = DEFAULT_MODEL, device: str | torch.device = "auto", *, tta: bool = False) -> Classifier:
        """The model of this name (or at this path); ModelError if it cannot be loaded or verified."""
        card, tensors = weights.load(name)
        return cls(card, models.load(card, tensors), device, tta=tta)

    def probabilities(self, block: Sequence[NDArray[np.uint8] | None]) -> NDArray[np.float64]:
        """(N, labels) probabilities of N <= `block` model inputs, each (size, size) uint8.

        The row of a None has no meaning; it keeps its place, so that no image moves for another's sake.
        """
        pixels = np.zeros((self.block, self.card.size, self.card.size), dtype=np.uint8)
        for at, image in enumerate(block):
            if image is not None:
                pixels[at] = image
        found = self._run(pixels)
        if self.tta:
            found = (found + self._run(np.ascontiguousarray(pixels[:, :, ::-1]))) / 2
        return found[: len(block)]

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(block, labels) probabilities of a whole block."""
        with torch.inference_mode(), _exact_convolutions(self.device):
            features = self.features(normalise(torch.from_numpy(pixels).to(self.device), self.card))
            logits = self.head(features.cpu().to(torch.float64))
            if not bool(logits.isfinite().all()):
                raise ModelError(f"the model '{escape(self.card.name)}' gives no numbers for some images")
            return torch.softmax(logits / self.card.temperature, dim=1).numpy()

    def probabilities_of(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, labels) probabilities of any number of model inputs (N, size, size) uint8, a block at a time."""
        starts = range(0, len(pixels), self.block)
        found = [self.probabilities(list(pixels[at : at + self.block])) for at in starts]
        return np.concatenate(found) if found else np.empty((0, len(self.card.labels)))

    def stream(
        self,
        refs: Sequence[ImageRef],
        *,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        min_confidence: float = 0.0,
        isolate: bool | None = False,
        timeout: float | None = None,
    ) -> Generator[tuple[Decoded, Prediction], None, None]:
        """Every image of `refs` with what the model says of it, in order; memory does not grow with their number.

        With `isolate`, images are decoded in processes that may die, each within `timeout` seconds; None leaves that to
        their number, and does without where no process can be started. A signal that is deferred
        (process.signals_deferred) ends the stream after a whole block.
        """
        pool = None
        if isolate or (isolate is None and workers != 0 and len(refs) >= isolation.FROM):
            many = workers or min(8, os.cpu_count() or 1)
            with contextlib.suppress(*(() if isolate else (WorkerError,))):
                pool = isolation.Pool(self.card.size, many, timeout)
        if pool:
            decoded = pool.decode(refs)
        else:
            workers = default_workers(self.device) if workers is None else workers
            decoded = _decode(ImageFiles(refs, self.card.size), batch_size, workers)
        yield from self.predict(until_stopped(decoded), min_confidence)

    def predict(self, decoded: Iterable[Decoded], min_confidence: float = 0.0) -> Iterator[tuple[Decoded, Prediction]]:
        """Each Decoded with its Prediction, a block at a time; those without pixels become rows with status `error`."""
        waiting = iter(decoded)
        while block := list(itertools.islice(waiting, self.block)):
            rows = self.probabilities([one.pixels for one in block])
            for one, row in zip(block, rows, strict=True):
                if one.error:
                    yield one, failure(one.ref, one.error)
                else:
                    yield one, self._prediction(one.ref, row, min_confidence)

    def _prediction(self, ref: ImageRef, row: NDArray[np.float64], min_confidence: float) -> Prediction:
        rounded = [round(float(p), DIGITS) for p in row]
        best = int(row.argmax())
        status = "ok" if rounded[best] >= min_confidence else "uncertain"
        by_label = dict(zip(self.card.labels, rounded, strict=True))
        return Prediction(ref.path, ref.truth, status, self.card.labels[best], rounded[best], by_label)

    def __call__(self, image: Any) -> Any:
        """The Prediction for one image, or a list of them for a list.

        An image is a PIL image of any mode or an array (H, W), (H, W, 3) or (H, W, 4) of uint8. As in
        `ferbatch label`, the whole image is taken for one face. An image that cannot be used (all one value) gives
        status `error`.
        """
        many = image if isinstance(image, list | tuple) else [image]
        predictions = [prediction for _, prediction in self.predict(map(self._from_memory, many))]
        return predictions if many is image else predictions[0]

    def _from_memory(self, image: Image.Image | NDArray[np.uint8]) -> Decoded:
        ref = ImageRef("", b"")
        try:
            gray = images.from_memory(image)
        except UnreadableImageError as error:
            return Decoded(ref, error=Failure(error.kind, str(error)))
        return Decoded(ref, images.model_input(gray.pixels, self.card.size))


def failure(ref: ImageRef, error: Failure) -> Prediction:
    """The row of an image that could not be read."""
    return Prediction(ref.path, ref.truth, "error", error_kind=error.kind, error=error.message)


def _float64(head: nn.Module) -> nn.Module:
    return copy.deepcopy(head).eval().to("cpu", torch.float64)


def _exact_convolutions(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On CUDA: no TF32, no choosing of algorithms by their speed, for this block of code only."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
