"""Objects of stores and the web in place of files: what `files.stat_of` and `images.decode.read_bytes` ask for them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from ferbatch.core.records import CONNECTIONS, NO_VERSION, Version
from ferbatch.core.stores import known
from ferbatch.core.stores.urls import is_remote

if TYPE_CHECKING:
    from ferbatch.core.stores.ahead import Ahead

T = TypeVar("T")

REMOTE = -2  # in place of the number of links to a file: it is in a store

_ahead: Ahead | None = None  # of this process


def ahead(connections: int = CONNECTIONS) -> Ahead:
    """What fetches in this process; a process that was forked has one of its own."""
    global _ahead
    if _ahead is None or _ahead.process != os.getpid():
        from ferbatch.core.stores.ahead import Ahead

        _ahead = Ahead(connections, before=_ahead)
    return _ahead


def stat_of(file: bytes) -> os.stat_result | None:
    """What os.stat would say of an object: what its listing said, or its own answer; None where it has none."""
    version = known.version_of(file) or ahead().version(file)
    if version == NO_VERSION:
        return None
    numbers = (stat.S_IFREG | 0o444, 0, 0, REMOTE, 0, 0, max(version.size, 0), 0, 0, 0)
    return os.stat_result(numbers, {"st_mtime_ns": version.mtime_ns})


def look_at(files: Sequence[bytes]) -> dict[bytes, Version]:
    """What stores say of those of these files that are in one and were not listed, asked about many at once."""
    unknown = [file for file in files if known.is_unlisted(file)]
    found = dict(zip(unknown, ahead().versions(unknown), strict=True)) if unknown else {}
    for file, version in found.items():
        if version != NO_VERSION:
            known.index.add(file, version)
    return found


def read(file: bytes) -> bytes:
    """An object's content; UnreadableImageError where it cannot be had."""
    return ahead().take(file)


def result_of(future: Future[T]) -> T:
    """What comes of what was begun by `ahead`; to wait for it is to wait for stores."""
    return ahead().waited_for(future)


def expect(files: Sequence[bytes], connections: int = CONNECTIONS) -> None:
    """Fetch what is in stores of these files, in their order, before it is asked for; by so many connections."""
    there = [file for file in files if is_remote(file)]
    if there:
        ahead(connections).expect(there)


def forget(files: Sequence[bytes]) -> None:
    """Let go of what is done with, or was expected and will not be asked for."""
    known.forget(files)
    if _ahead is not None and _ahead.process == os.getpid():
        _ahead.forget(files)


def wait_for(file: bytes) -> None:
    """Wait until what was expected is there, or why not."""
    if is_remote(file):
        ahead().wait_for(file)


def waited() -> float:
    """Seconds that this process has waited for stores."""
    return _ahead.waited if _ahead is not None and _ahead.process == os.getpid() else 0.0
