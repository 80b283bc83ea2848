"""Classifier: card + tensors + device. Its stream() is the one loop that label, evaluate and the Python API share."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core import process
from ferbatch.core.errors import UnreadableImageError, WorkerError
from ferbatch.core.options import BATCH_SIZE, DEFAULT_MODEL
from ferbatch.core.process import until_stopped
from ferbatch.core.records import DIGITS, MIN_FACE, Box, Decoding, Failure, ImageRef, Prediction, Search, Workers
from ferbatch.images import faces
from ferbatch.images.decode import from_memory
from ferbatch.images.inputs import model_input
from ferbatch.model import registry, weights
from ferbatch.model.engine import Engine
from ferbatch.model.weights import Card
from ferbatch.stream.loader import decode_all
from ferbatch.stream.pool import SPAN_OF_PIXELS, Pool, can_compute, pays_for
from ferbatch.stream.read import Decoded, Scored, searched

Place = tuple[int | None, Box | None]  # the number of a face and where it is
WHOLE_IMAGE: Place = (None, None)


class Classifier(Engine):
    """An Engine that labels images: files by their references, or what is in memory.

    `card` says what the model is, `device`, `precision` and `tta` how it computes.
    """

    @classmethod
    def load(
        cls,
        name: str = DEFAULT_MODEL,
        device: str | torch.device = "auto",
        *,
        precision: str = "auto",
        tta: bool = False,
        card: Card | None = None,
    ) -> Classifier:
        """The model of this name (or at this path); ModelError if it cannot be loaded or verified.

        name: of a shipped model, or a path.
        device, precision, tta: as an Engine takes them.
        card: the model's, where it was read before.
        """
        card, tensors = weights.load(name, card)
        return cls(card, registry.load(card, tensors), device, precision=precision, tta=tta)

    def stream(
        self,
        refs: Sequence[ImageRef],
        decoding: Decoding | None = None,
        workers: Workers | None = None,
        *,
        min_confidence: float = 0.0,
        batch_size: int = BATCH_SIZE,
    ) -> Generator[tuple[Decoded, list[Prediction]], None, None]:
        """Every image with its rows, in order; memory does not grow with their number.

        There is a row for each face where a search found some, else one.
        A signal that is deferred (process.signals_deferred) ends the stream after a whole block.

        refs: the images.
        decoding: how they become inputs of this model; None: each is taken whole.
        workers: the processes that decode. Isolated ones may die, and on a CPU label as well; where it is left to the
            images' number and size whether to isolate them, it is done without where no process can be started. The
            death of one that is not isolated ends it all.
        min_confidence: predictions less sure than this (0..1) get the status `uncertain`.
        batch_size: images that a decode step hands on at once, where this process decodes.
        """
        decoding = decoding or Decoding(self.card.size)
        pool = self._pool(refs, decoding, workers or Workers())
        decoded = pool.decode(refs) if pool else decode_all(refs, decoding, batch_size)
        with contextlib.closing(decoded):  # whatever ends this, the processes end
            waiting = until_stopped(decoded)
            for image in waiting if pool and pool.compute else self._scored(waiting):
                yield image, self._rows_of(image, min_confidence)

    def _pool(self, refs: Sequence[ImageRef], decoding: Decoding, workers: Workers) -> Pool | None:
        """The processes that are to decode these images; None where this process does."""
        on_cpu, number = self.device.type == "cpu", workers.number
        isolated = workers.isolate or (workers.isolate is None and number != 0 and pays_for(refs, decoding.search))
        if number is None and not isolated:  # few images: a CPU's network wants every core
            number = 0 if on_cpu else process.default_workers()
        if not isolated and not number:
            return None
        computes = isolated and on_cpu and can_compute()
        number = number or (torch.get_num_threads() if computes else process.default_workers())
        with contextlib.suppress(*((WorkerError,) if isolated and not workers.isolate else ())):
            return Pool(
                decoding,
                Workers(number, isolated, workers.timeout),
                compute=self._scored_alone if computes else None,
                span=self.block if computes else SPAN_OF_PIXELS,
            )
        return None

    def _scored(self, images: Iterable[Decoded]) -> Iterator[Decoded]:
        """Each image with what the model says of it."""
        waiting = iter(images)
        groups = iter(lambda: self._group(waiting), [])
        inputs = ((group, [pixels for image in group for pixels in image.inputs]) for group in groups)
        for group, probabilities in self.ahead(inputs):
            scored = iter(_best_and_rounded(probabilities))
            for image in group:
                image.scored = list(itertools.islice(scored, len(image.inputs)))
                yield image

    def _group(self, waiting: Iterator[Decoded]) -> list[Decoded]:
        """The next images, about as many as make a block."""
        group: list[Decoded] = []
        inputs = 0
        while len(group) < self.block and inputs < self.block and (image := next(waiting, None)):
            group.append(image)
            inputs += len(image.inputs)
        return group

    def _scored_alone(self, inputs: Sequence[NDArray[np.uint8]]) -> list[Scored]:
        """What the model says of inputs, in a process of its own, which is to take one core."""
        return _best_and_rounded(self.alone(inputs))

    def _rows_of(self, decoded: Decoded, min_confidence: float) -> list[Prediction]:
        """The image's rows."""
        ref, error = decoded.ref, decoded.error
        if error:
            return [Prediction(ref.path, ref.truth, "error", error_kind=error.kind, error=error.message)]
        if decoded.boxes is None:
            return [self._prediction(ref, decoded.scored[0], min_confidence, WHOLE_IMAGE)]
        if not decoded.boxes:
            return [Prediction(ref.path, ref.truth, "no_face")]
        return [
            self._prediction(ref, scored, min_confidence, place)
            for scored, place in zip(decoded.scored, enumerate(decoded.boxes), strict=True)
        ]

    def _prediction(self, ref: ImageRef, scored: Scored, min_confidence: float, place: Place) -> Prediction:
        best, values = scored
        labels, confidence = self.card.labels, values[best]
        status = "ok" if confidence >= min_confidence else "uncertain"
        probabilities = dict(zip(labels, values, strict=True))
        return Prediction(ref.path, ref.truth, status, labels[best], confidence, probabilities, None, None, *place)

    def __call__(self, image: Any) -> Any:
        """The Prediction for one image, or a list of them for a list.

        An image is a PIL image of any mode or an array (H, W), (H, W, 3) or (H, W, 4) of uint8. The whole image is
        taken for one face; `faces` looks for them. An image that cannot be used (all one value) gives status `error`.
        """
        many = image if isinstance(image, list | tuple) else [image]
        predictions = [self._rows_of(one, 0.0)[0] for one in self._scored(map(self._from_memory, many))]
        return predictions if many is image else predictions[0]

    def faces(
        self,
        image: Image.Image | NDArray[np.uint8],
        *,
        min_face: int = MIN_FACE,
        face_margin: float = 0.0,
        largest_face: bool = False,
    ) -> list[Prediction]:
        """A Prediction for each face that is found in a photo, the largest first; none where there is no face.

        `min_face` is in pixels, `face_margin` a share of the crop's side. Raises FerbatchError where the detector is
        not there.
        """
        search = Search("detect", min_face, face_margin, largest_face)
        faces.check(search)
        ref = ImageRef("", b"")
        try:
            gray = from_memory(image)
        except UnreadableImageError:
            return []
        found = searched(ref, gray, faces.find(gray, search), Decoding(self.card.size, search=search))
        return [row for one in self._scored([found]) for row in self._rows_of(one, 0.0) if row.label is not None]

    def _from_memory(self, image: Image.Image | NDArray[np.uint8]) -> Decoded:
        ref = ImageRef("", b"")
        try:
            gray = from_memory(image)
        except UnreadableImageError as error:
            return Decoded(ref, error=Failure(error.kind, str(error)))
        return Decoded(ref, model_input(gray.pixels, self.card.size)[np.newaxis])


def _best_and_rounded(probabilities: NDArray[np.float64]) -> list[Scored]:
    return list(zip(probabilities.argmax(axis=1).tolist(), probabilities.round(DIGITS).tolist(), strict=True))
