"""Archives, read in place: what they hold, and one member's bytes by a path that leads into the archive.

A member's file is the archive's path, a slash and the member's name, `faces.zip/happy/1.jpg`: no system opens that, so
whoever meets NotADirectoryError asks here. Names are cleaned: none leads out of its archive, and of several with the
same one the later ones are called `NAME#2`, `NAME#3`. In memory a member costs 42 bytes.
"""

from __future__ import annotations

import os
import posixpath
import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterator

from ferbatch.core.containers import CONTAINERS, ArchiveError, Container, Place, damages
from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path

IN_ONE = -1  # in place of the number of links to a file: it is in an archive
TABLE = b".parquet"
OPENED = 4  # archives that a process keeps open
CODES = {"key": "q", **dict.fromkeys(Place._fields, "q"), "method": "h"}  # of the columns of an index


_open_ones: dict[bytes, Archive] = {}  # of this process, the one that was used last at the end

_of_parents: list[Container] = []


def suffix_of(path: bytes) -> bytes | None:
    """What the name of an archive ends in; None where it is no archive's."""
    name = os.path.basename(path).lower()
    return next((suffix for suffix in CONTAINERS if name.endswith(suffix)), None)


def is_archive(path: bytes) -> bool:
    """Whether it is a file that is called like an archive."""
    return suffix_of(path) is not None and os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, or an archive of files, which counts as one."""
    name = os.fsencode(path)
    return os.path.isdir(name) or (is_archive(name) and suffix_of(name) != TABLE)


def is_table(file: bytes) -> bool:
    """Whether it is a member of a table, of which each is an image by the column that it stands in."""
    return TABLE + b"/" in file.lower()


def look_into(path: bytes) -> tuple[list[bytes], bool]:
    """The names of its members in an archive's own order, and whether they are to be read in it.

    UsageError where it is no archive, or is damaged where it says what it holds.
    """
    names: list[bytes] = []
    archive = _keep(Archive(path, names))
    return names, archive.container.in_order


def stat_of(file: bytes) -> os.stat_result:
    """What os.stat would say of a member; OSError where there is none such."""
    _, place = _found(file)
    numbers = (stat.S_IFREG | 0o444, 0, 0, IN_ONE, 0, 0, place.size, 0, 0, 0)
    return os.stat_result(numbers, {"st_mtime_ns": place.version})


def read(file: bytes) -> bytes:
    """A member's content; OSError where it cannot be had."""
    archive, place = _found(file)
    try:
        return archive.read(place)
    except ArchiveError:
        raise
    except damages() as error:
        raise ArchiveError(f"damaged in its archive: {error}") from error


def _found(file: bytes) -> tuple[Archive, Place]:
    """The archive that a path leads into, and the member's place in it."""
    path = os.path.dirname(file)
    while path and not os.path.isfile(path):
        path, before = os.path.dirname(path), path
        if path == before:
            break
    if not is_archive(path):
        raise NotADirectoryError
    try:
        archive = _keep(_open_ones.get(path) or Archive(path))
    except UsageError as error:
        raise ArchiveError("in an archive that cannot be read any more") from error
    return archive, archive.place(file[len(path) + 1 :])


def _keep(archive: Archive) -> Archive:
    """Have it at hand for the next member, and let one go that is long unused."""
    _open_ones.pop(archive.path, None)
    _open_ones[archive.path] = archive
    if len(_open_ones) > OPENED:
        _open_ones.pop(next(iter(_open_ones)))
    return archive


class Archive:
    """An archive, and where each of its members is."""

    def __init__(self, path: bytes, names: list[bytes] | None = None) -> None:
        """UsageError where it is none, or is damaged where it says what it holds; `names` gets those of its members."""
        self.path, self.version = path, _version(path)
        self.process, self.container = os.getpid(), _open(path)
        columns = {name: array(code) for name, code in CODES.items()}
        for name, place in self._members():
            if names is not None:
                names.append(name)
            for column, value in zip(columns.values(), (hash(name), *place), strict=True):
                column.append(value)
        order = sorted(range(len(columns["key"])), key=columns["key"].__getitem__)
        self.keys, *self.places = (  # hashes of names, ascending
            array(column.typecode, (column[at] for at in order)) for column in columns.values()
        )

    def _members(self) -> Iterator[tuple[bytes, Place]]:
        """The files in it, by cleaned names and in its order, but for folders, links and the like."""
        seen: dict[int, int] = {}
        try:
            for said, place in self.container.members():
                name = posixpath.normpath(b"/" + said.replace(b"\0", b"")).lstrip(b"/")
                times = seen[hash(name)] = seen.get(hash(name), 0) + 1
                yield name if times == 1 else b"%b#%d" % (name, times), place
        except damages() as error:
            raise _unfit(self.path, error) from error

    def place(self, name: bytes) -> Place:
        """Where a member is; FileNotFoundError where there is none such."""
        at = bisect_left(self.keys, hash(name))
        if at == len(self.keys) or self.keys[at] != hash(name):
            raise FileNotFoundError
        return Place(*(column[at] for column in self.places))

    def read(self, place: Place) -> bytes:
        """A member's content."""
        if self.version != _version(self.path):  # another one holds other members
            raise ArchiveError("its archive was changed meanwhile")
        if self.process != os.getpid():  # where two share a stream, each moves the other's place in it
            _of_parents.append(self.container)  # not closed: what it had open may be a number of other files here
            self.container, self.process = _open(self.path), os.getpid()
        return self.container.read(place)

    def __del__(self) -> None:
        if hasattr(self, "container"):
            self.container.close()


def _open(path: bytes) -> Container:
    try:
        return CONTAINERS[suffix_of(path) or b""](path)
    except damages() as error:
        raise _unfit(path, error) from error


def _unfit(path: bytes, error: Exception) -> UsageError:
    said = " ".join(str(error).split()) or type(error).__name__
    return UsageError(f"{encode_path(path)} cannot be read as an archive: {said[:120]}")


def _version(path: bytes) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_size, info.st_mtime_ns
