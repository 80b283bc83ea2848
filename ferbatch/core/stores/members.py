"""Members of archives in stores, each fetched by the range of bytes that it takes."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from ferbatch.core.places import ENDLESS, LOCAL_HEADER, NAMES, ArchiveError, check_readable, data_in, inflated, span_of
from ferbatch.core.records import Version
from ferbatch.core.stores.answers import StoreError
from ferbatch.core.stores.known import Member, member_of

Span = Callable[[bytes, int, int, Version], Awaitable[bytes]]
TOGETHER, GAP = 2**18, 2**13  # bytes that are fetched at once of several members, and that may lie between two
FIRST = 4_096  # packed bytes, of which the first ones of a member come


async def content(span: Span, member: Member, most: int = ENDLESS) -> bytes:
    """A member's content, or its first `most` bytes; StoreError where it cannot be had, or is damaged.

    span: fetches some of an archive's bytes, from where and to where, of a version.
    """
    archive, version, is_zip, place = member
    try:
        if is_zip:
            check_readable(place)
        if most != ENDLESS:
            place = place._replace(packed=min(place.packed, FIRST), size=min(place.size, most))
        start, end = span_of(place, is_zip)
        end = min(end, version.size)
        data = await span(archive, start, end, version) if end > start else b""
        if not is_zip:
            return data
        before = data_in(data.ljust(LOCAL_HEADER, b"\0"))
        if len(data) < before + place.packed <= version.size - start:
            data = await span(archive, start, start + before + place.packed, version)
        return inflated(data[before : before + place.packed], place, most)
    except ArchiveError as error:
        raise StoreError("unreadable", str(error.strerror)) from None
    except zlib.error as error:
        raise StoreError("unreadable", f"damaged in its archive: {error}") from None


async def contents(span: Span, several: Sequence[Member]) -> list[bytes | StoreError]:
    """The contents of members that `beside` found together, or why one of them cannot be had.

    StoreError where none can, for now.
    """
    archive, version, *_ = several[0]
    start, end = _start(several[0]), min(_end(several[-1]), version.size)
    data = await span(archive, start, end, version)

    async def part(archive: bytes, first: int, last: int, version: Version) -> bytes:
        return data[first - start : last - start] if last <= end else await span(archive, first, last, version)

    found: list[bytes | StoreError] = []
    for member in several:
        try:
            found.append(await content(part, member))
        except StoreError as error:
            if error.passing:
                raise
            found.append(error)
    return found


def beside(file: bytes, following: Iterable[bytes]) -> Iterator[bytes]:
    """Of files that are to be fetched next, those that lie so near behind a member that one range holds them all."""
    first = last = member_of(file)
    for other in following if first is not None else ():
        member = member_of(other)
        if first is None or last is None or member is None or member.archive != first.archive:
            return
        if not _end(last) - NAMES <= _start(member) <= _end(last) + GAP or _end(member) - _start(first) > TOGETHER:
            return
        yield other
        last = member


def _start(member: Member) -> int:
    return span_of(member.place, member.is_zip)[0]


def _end(member: Member) -> int:
    return span_of(member.place, member.is_zip)[1]
