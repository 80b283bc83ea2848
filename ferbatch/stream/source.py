"""The source of batches: a torch DataLoader over images, decoded in processes that may die, or in this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from ferbatch.core.batch import Batch, Images, References
from ferbatch.core.errors import WorkerError
from ferbatch.core.records import Decoding, Workers
from ferbatch.core.stores import remote
from ferbatch.stream.pool import Pool, pays_for
from ferbatch.stream.read import batches


class Batches(IterableDataset[Batch]):
    """Images as Batches, in order."""

    def __init__(self, images: Images, decoding: Decoding, batch_size: int, pool: Pool | None = None) -> None:
        """`pool`: the processes that decode, as it was told; None: this process does."""
        self.images, self.decoding, self.batch_size, self.pool = images, decoding, batch_size, pool

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.pool.batches(self.images) if self.pool else self._read():
            for start in range(0, len(batch), self.batch_size):
                yield batch.part(start, start + self.batch_size)

    def _read(self) -> Iterator[Batch]:
        following = self._references(0)
        try:
            for first in range(0, len(self.images), self.batch_size):
                references, following = following, self._references(first + self.batch_size)
                for soon in (references, following):  # of what is in stores, while the images before are decoded
                    remote.expect(soon.files, self.decoding.connections)
                yield from batches(first, references, self.decoding)
        finally:
            remote.forget(following.files)

    def _references(self, first: int) -> References:
        return self.images.references(range(first, min(first + self.batch_size, len(self.images))))


def loader(batches: Batches, *, pin_memory: bool = False) -> DataLoader[Batch]:
    """A DataLoader that hands on what is a batch already; its random numbers are its own, for it draws one."""
    return DataLoader(batches, batch_size=None, pin_memory=pin_memory, generator=torch.Generator())


def pinned(shape: tuple[int, ...], _: type[np.uint8]) -> NDArray[np.uint8]:
    """Memory for pixels that a GPU can fetch them from."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


@contextmanager
def read_apart(images: Images, decoding: Decoding, batch_size: int) -> Iterator[DataLoader[Batch]]:
    """A loader of images that no model is asked about, decoded in isolated processes where that pays."""
    with ExitStack() as stack:
        pool = None
        if pays_for(images, decoding.search):
            with suppress(WorkerError):  # no process can be started: this one does it
                pool = stack.enter_context(Pool(decoding, Workers(isolate=True), batch_size))
        yield loader(Batches(images, decoding, batch_size, pool))
