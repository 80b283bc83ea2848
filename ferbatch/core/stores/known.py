"""What is known of objects in stores before they are fetched: their versions, 24 bytes for each that was listed."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ferbatch.core.places import Place, Places
from ferbatch.core.records import Version
from ferbatch.core.stores import urls
from ferbatch.core.stores.urls import is_remote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

told: dict[bytes, Version] = {}  # of what this process was handed by one that listed it


class Member(NamedTuple):
    """A member of an archive in a store, which is fetched by its range."""

    archive: bytes
    version: Version  # of the archive
    is_zip: bool  # or a tar
    place: Place


class Packed(NamedTuple):
    """An archive in a store, of which each member can be fetched by itself."""

    version: Version
    is_zip: bool
    places: Places


packed: dict[bytes, Packed] = {}  # by path, those that were looked into
told_members: dict[bytes, Member] = {}  # of what this process was handed


def member_of(file: bytes) -> Member | None:
    """The member that a path leads to in one of those archives; None where it leads to none."""
    if not packed:
        return told_members.get(file)
    if (path := urls.above(file, packed)) is None:
        return None
    version, is_zip, places = packed[path]
    place = places.find(file[len(path) + 1 :])
    return None if place is None else Member(path, version, is_zip, place)


class Index:
    """The versions of objects that were listed or looked at; 24 bytes each."""

    def __init__(self) -> None:
        self.new = {name: array("q") for name in ("key", *Version._fields)}
        self.sorted: list[NDArray[np.int64]] = []  # keys, ascending; sizes; times
        # The same, to look one up in: NumPy would let go of the interpreter for that, and wait for it afterwards.
        self.views: list[memoryview] = []

    def add(self, file: bytes, version: Version) -> None:
        """What is said of an object now; of what was said before, it is forgotten."""
        for column, value in zip(self.new.values(), (hash(file), *version), strict=True):
            column.append(value)

    def find(self, file: bytes) -> Version | None:
        """The version of an object; None where it is not known."""
        if self.new["key"]:
            self._sort()
        if not self.views:
            return None
        keys, sizes, times = self.views
        at = bisect_left(keys, hash(file))
        return Version(sizes[at], times[at]) if at < len(keys) and keys[at] == hash(file) else None

    def _sort(self) -> None:
        """Take in what is new, the last that was said of each."""
        import numpy as np  # archives ask here as well, and most commands need neither

        columns = [np.array(column, np.int64) for column in self.new.values()]
        if self.sorted:
            columns = [np.concatenate(pair) for pair in zip(self.sorted, columns, strict=True)]
        for column in self.new.values():
            del column[:]
        order = columns[0].argsort(kind="stable")
        keys = columns[0][order]
        last = order[np.append(keys[1:] != keys[:-1], True)]
        self.sorted = [column[last] for column in columns]
        self.views = [column.data for column in self.sorted]


index = Index()


def version_of(file: bytes) -> Version | None:
    """The version of an object by its listing, or by a look at it; None where there was neither."""
    if (packed or told_members) and (member := member_of(file)) is not None:
        return Version(member.place.size, member.place.version)
    return told.get(file) or index.find(file)


def is_unlisted(file: bytes) -> bool:
    """Whether only its store could say how large it is."""
    return is_remote(file) and version_of(file) is None


class Known(NamedTuple):
    """What a process that was not forked has to know to read a file in a store."""

    version: Version | None
    url: tuple[bytes, str] | None  # what is signed, and how
    member: Member | None = None
    stream: bytes | None = None  # the path of an archive that is read from its beginning


def tell(files: Sequence[bytes]) -> list[Known] | None:
    """What there is to know of these files; None where none is in a store."""
    return [*map(_known, files)] if any(map(urls.scheme_of, files)) else None


def _known(file: bytes) -> Known:
    if urls.scheme_of(file) is None:
        return Known(None, None)
    member, stream = member_of(file), urls.stream_of(file)
    fetched = member.archive if member else stream or file
    url = urls.secret.get(fetched)
    return Known(index.find(file), None if url is None else (fetched, url), member, stream)


def learn(files: Sequence[bytes], known: Sequence[Known] | None) -> None:
    """Take over what another process knows of these files, until they are forgotten."""
    for file, (version, url, member, stream) in zip(files, known or (), strict=False):
        if version is not None:
            told[file] = version
        if url is not None:
            urls.secret[url[0]] = url[1]
        if member is not None:
            told_members[file] = member
        if stream is not None:
            urls.streams.add(stream)


def forget(files: Sequence[bytes]) -> None:
    """Let go of what another process knew of these files."""
    for file in files if told or told_members else ():
        told.pop(file, None)
        told_members.pop(file, None)
