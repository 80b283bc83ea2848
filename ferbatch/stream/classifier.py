"""Classifier: card + tensors + device. Its stream() is the one loop that label, evaluate and the Python API share."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core import process
from ferbatch.core.batch import Batch, Images, References
from ferbatch.core.errors import UnreadableImageError, WorkerError
from ferbatch.core.options import BATCH_SIZE, DEFAULT_MODEL
from ferbatch.core.records import MIN_FACE, NO_VERSION, Decoding, Doubt, Failure, Prediction, Search, Workers
from ferbatch.core.rows import predictions
from ferbatch.images import faces
from ferbatch.images.decode import from_memory
from ferbatch.images.inputs import model_input
from ferbatch.model import registry, weights
from ferbatch.model.engine import Engine
from ferbatch.model.weights import Card
from ferbatch.stream.pool import Pool, can_compute, pays_for
from ferbatch.stream.read import Content, gathered, searched
from ferbatch.stream.source import Batches, loader, pinned

OF_GPU = 3 * 2**29  # bytes of a GPU's memory for each process that finds faces there, its driver's among them


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
        images: Images,
        decoding: Decoding | None = None,
        workers: Workers | None = None,
        *,
        doubt: Doubt | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Generator[Batch, None, None]:
        """Every image, in order, with what the model says of it; memory does not grow with their number.

        A signal that is deferred (process.signals_deferred) ends the stream after a whole batch.

        images: what to label.
        decoding: how they become inputs of this model; None: each is taken whole.
        workers: the processes that decode. Isolated ones may die, and on a CPU label as well; where it is left to the
            images' number and size whether to isolate them, it is done without where no process can be started. The
            death of one that is not isolated ends it all.
        doubt: which labels are `uncertain`; None: none is.
        batch_size: images of a batch, at the most: where they take long, it has fewer.
        """
        decoding, doubt = decoding or Decoding(self.card.size), doubt or Doubt()
        with self._started(images, decoding, workers or Workers(), doubt, batch_size) as pool:
            source = loader(Batches(images, decoding, batch_size, pool), pin_memory=self.device.type == "cuda")
            batches = ((batch, batch.inputs) for batch in process.until_stopped(source))
            for batch, probabilities in self.ahead(batches):  # of no inputs, where a worker has asked already
                yield batch if batch.units.size else batch.scored(probabilities, doubt)

    @contextlib.contextmanager
    def _started(
        self, images: Images, decoding: Decoding, workers: Workers, doubt: Doubt, batch_size: int
    ) -> Iterator[Pool | None]:
        """The processes that are to decode these images; None where this process does. Arguments as of `stream`."""
        on_cpu, number = self.device.type == "cpu", workers.number
        isolated = workers.isolate or (workers.isolate is None and number != 0 and pays_for(images, decoding.search))
        if (
            number is None and not isolated
        ):  # few images: a CPU's network wants every core, and opening a GPU takes long
            number = 0 if on_cpu or decoding.search.device else process.default_workers()
        with contextlib.ExitStack() as stack:
            pool = None
            if isolated or number:
                computes = isolated and on_cpu and can_compute()
                number = number or (torch.get_num_threads() if computes else self._processes(decoding.search))
                compute = (lambda batch: batch.scored(self.alone(batch.inputs), doubt)) if computes else None
                with contextlib.suppress(*((WorkerError,) if isolated and not workers.isolate else ())):
                    at_once = max(batch_size, self.block) if computes else batch_size  # a block is computed whole
                    processes = Pool(decoding, Workers(number, isolated, workers.timeout), at_once, compute)
                    processes.room = pinned if self.device.type == "cuda" else processes.room
                    pool = stack.enter_context(processes)
            yield pool

    def _processes(self, search: Search) -> int:
        """How many are to decode: one a core, but no more than have room on the GPU where they find faces there."""
        number = process.default_workers()
        if search.device is None or self.device.type != "cuda":
            return number
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(number, free // OF_GPU))

    def __call__(self, image: Any) -> Any:
        """The Prediction for one image, or a list of them for a list.

        An image is a PIL image of any mode or an array (H, W), (H, W, 3) or (H, W, 4) of uint8. The whole image is
        taken for one face; `faces` looks for them. An image that cannot be used (all one value) gives status `error`.
        """
        many = image if isinstance(image, list | tuple) else [image]
        contents = []
        for one in many:
            try:
                contents.append(Content([model_input(from_memory(one).pixels, self.card.size)]))
            except UnreadableImageError as error:
                contents.append(Content(failure=Failure(error.kind, str(error))))
        predictions = [rows[0] for rows in self._predictions(contents)]
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
        try:
            gray = from_memory(image)
        except UnreadableImageError:
            return []
        content = searched("", gray, faces.find(gray, search), Decoding(self.card.size, search=search))
        return [row for row in self._predictions([content])[0] if row.label is not None]

    def _predictions(self, contents: Sequence[Content]) -> list[list[Prediction]]:
        """The rows of images that were in memory."""
        n = len(contents)
        references = References([""] * n, [b""] * n, [None] * n)
        batch = gathered(0, references, self.card.size, contents, [NO_VERSION] * n)
        return predictions(batch.scored(self.probabilities(batch.inputs), Doubt()), self.card.labels)
