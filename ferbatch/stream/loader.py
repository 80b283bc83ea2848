"""Images as a torch DataLoader hands them on, where this process decodes them."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ferbatch.core.records import ImageRef, Search
from ferbatch.stream.read import WHOLE, Decoded, read


class ImageFiles(Dataset[Decoded]):
    """The decode stage as a Dataset: index -> Decoded."""

    def __init__(self, refs: Sequence[ImageRef], size: int, *, by_pillow: bool = False, search: Search = WHOLE) -> None:
        self.refs, self.size, self.by_pillow, self.search = refs, size, by_pillow, search

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Decoded:
        return read(self.refs[index], self.size, by_pillow=self.by_pillow, search=self.search)


def loader(files: Dataset[Any], batch_size: int) -> DataLoader[Any]:
    """A DataLoader over decoded images whose batches are plain lists, in order, in this process."""
    return DataLoader(files, batch_size=batch_size, collate_fn=list)


def decode_all(files: ImageFiles, batch_size: int) -> Generator[Decoded, None, None]:
    """Every image of `files` in order, in this process."""
    yield from itertools.chain.from_iterable(loader(files, batch_size))
