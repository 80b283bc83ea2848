"""Images as a torch DataLoader hands them on, where this process decodes them."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ferbatch.core.records import Decoding, ImageRef
from ferbatch.stream.read import Decoded, read


class ImageFiles(Dataset[Decoded]):
    """The decode stage as a Dataset: index -> Decoded."""

    def __init__(self, refs: Sequence[ImageRef], decoding: Decoding) -> None:
        self.refs, self.decoding = refs, decoding

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Decoded:
        return read(self.refs[index], self.decoding)


def loader(files: Dataset[Any], batch_size: int) -> DataLoader[Any]:
    """A DataLoader over decoded images whose batches are plain lists, in order, in this process."""
    return DataLoader(files, batch_size=batch_size, collate_fn=list)


def decode_all(refs: Sequence[ImageRef], decoding: Decoding, batch_size: int) -> Generator[Decoded, None, None]:
    """Every image in order, decoded in this process."""
    yield from itertools.chain.from_iterable(loader(ImageFiles(refs, decoding), batch_size))
