"""A file in a store, open for reading: fetched by ranges, and ahead of whoever reads it to its end."""

from __future__ import annotations

import io
import os
from concurrent.futures import Future
from typing import Any

from ferbatch.core.records import Version
from ferbatch.core.stores import remote

BLOCK = 2**20  # bytes that are fetched at once
SOON = 4  # blocks that are fetched before they are read, where the ones before were
KEPT = 8  # blocks that are held


class Ranged(io.RawIOBase):
    """What a store has at a path, of which the version is known.

    Reading raises UnreadableImageError where it cannot be had, or is not that version any more.
    """

    def __init__(self, path: bytes, version: Version) -> None:
        self.path, self.version, self.position, self.last = path, version, 0, -2
        self.blocks: dict[int, Future[bytes]] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.version.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.version.size - self.position)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left:
            number, start = divmod(self.position, BLOCK)
            part = self._block(number)[start : start + left]
            self.position += len(part)
            left -= len(part)
            parts.append(part)
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _block(self, number: int) -> bytes:
        """A block of the file; those after it are being fetched from then on, if the one before was read last."""
        most = (self.version.size - 1) // BLOCK
        wanted = range(number, min(number + (SOON if number == self.last + 1 else 0), most) + 1)
        for one in wanted if number != self.last else range(number, number + 1):
            if one not in self.blocks:
                end = min((one + 1) * BLOCK, self.version.size)
                self.blocks[one] = remote.ahead().span(self.path, one * BLOCK, end, self.version)
        if len(self.blocks) > KEPT:
            self.blocks = {one: block for one, block in self.blocks.items() if one in wanted}
        self.last = number
        try:
            return remote.result_of(self.blocks[number])
        except BaseException:
            self.blocks.clear()  # they may be had when they are asked for again
            raise
