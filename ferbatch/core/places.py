"""Where the members of an archive are, in 42 bytes each; and one member out of a range of its archive's bytes."""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

LOCAL_HEADER = 30  # bytes of what stands before a zip's member, without its name and extra field
NAMES = 512  # bytes that those two take, but for very few
DEFLATED = 8  # a zip's method
SLACK = 2**16  # bytes that a zip's member may take, packed, beyond twice its size
ENDLESS = 2**62


class Place(NamedTuple):
    """Where a member is, and what tells it from what it was."""

    offset: int  # bytes, of its data in a tar, of its header in a zip; the number of its row group in a table
    packed: int  # bytes that it takes; its number in the row group
    size: int  # bytes; 0 where that shows only when it is read
    version: int  # its time (ns), or in a zip its CRC
    method: int = 0  # of packing, in a zip; negative where it cannot be read


class ArchiveError(OSError):
    """A member that cannot be read: its `strerror` says why."""

    def __init__(self, why: str) -> None:
        super().__init__(None, why)


CODES = {"key": "q", **dict.fromkeys(Place._fields, "q"), "method": "h"}  # of the columns of an index


class Places:
    """The places of an archive's members, by hashes of their names, which hold in this process and its forks."""

    def __init__(self, members: Iterable[tuple[bytes, Place]]) -> None:
        columns = {name: array(code) for name, code in CODES.items()}
        for name, place in members:
            for column, value in zip(columns.values(), (hash(name), *place), strict=True):
                column.append(value)
        order = sorted(range(len(columns["key"])), key=columns["key"].__getitem__)
        self.keys, *self.places = (  # ascending by key
            array(column.typecode, (column[at] for at in order)) for column in columns.values()
        )

    def find(self, name: bytes) -> Place | None:
        """Where a member is; None where there is none such."""
        at = bisect_left(self.keys, hash(name))
        if at == len(self.keys) or self.keys[at] != hash(name):
            return None
        return Place(*(column[at] for column in self.places))


def span_of(place: Place, is_zip: bool) -> tuple[int, int]:
    """From where to where in its archive a member's bytes are; in a zip with the header before, unless that is long."""
    if not is_zip:
        return place.offset, place.offset + place.size
    return place.offset, place.offset + LOCAL_HEADER + NAMES + place.packed


def data_in(header: bytes) -> int:
    """How far behind the beginning of its header a zip's member has its data."""
    return LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def check_readable(place: Place) -> None:
    """ArchiveError for a zip's member that nothing here unpacks, or that would take much more packed than it gives."""
    if place.method < 0:
        raise ArchiveError("encrypted, or packed in a way that is not supported")
    if place.packed > 2 * place.size + SLACK:
        raise ArchiveError(f"damaged in its archive: {place.packed:,} bytes, packed, for {place.size:,}")


def inflated(data: bytes, place: Place, most: int = ENDLESS) -> bytes:
    """A zip's member out of its packed bytes, or what those give of its first `most` bytes; zlib.error for damage.

    ArchiveError where a whole one is not what its place says.
    """
    check_readable(place)
    if place.method == DEFLATED:  # whatever more it may hold
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, min(place.size + 1, most))
    if most == ENDLESS and (len(data) != place.size or zlib.crc32(data) != place.version):
        raise ArchiveError("damaged in its archive: its checksum does not fit")
    return data[:most]
