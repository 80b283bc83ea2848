"""Archives, read in place: what they hold, and one member's bytes by a path that leads into the archive.

A member's file is the archive's path, a slash and the member's name, `faces.zip/happy/1.jpg`: no system opens that, so
whoever meets NotADirectoryError asks here. Names are cleaned: none leads out of its archive, and of several with the
same one the later ones are called `NAME#2`, `NAME#3`. In memory a member costs 42 bytes.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any

from ferbatch.core.containers import CONTAINERS, Container, Zip, damages, for_pyarrow
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.names import encode_path
from ferbatch.core.places import ArchiveError, Place, Places
from ferbatch.core.records import Version
from ferbatch.core.stores import known, remote, urls
from ferbatch.core.stores.ranged import Ranged

IN_ONE = -1  # in place of the number of links to a file: it is in an archive
TABLE = b".parquet"
AT_ONCE = 2**16  # bytes of a table that are read to look at it
OPENED = 4  # archives that a process keeps open


_open_ones: dict[bytes, Archive] = {}  # of this process, the one that was used last at the end

_streamed: dict[bytes, Archive] = {}  # all in stores that are read from their beginning, be they open or not
_of_parents: list[Container] = []


def suffix_of(path: bytes) -> bytes | None:
    """What the name of an archive ends in; None where it is no archive's."""
    name = _name_of(path).lower()
    return next((suffix for suffix in CONTAINERS if name.endswith(suffix)), None)


def stem_of(path: bytes) -> bytes:
    """The name of an archive without what it ends in."""
    return _name_of(path)[: -len(suffix_of(path) or b"")]


def _name_of(path: bytes) -> bytes:
    return os.path.basename(path.partition(b"?")[0] if urls.scheme_of(path) in urls.WEB else path)


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
    try:
        archive = Archive(path, names)
    except UnreadableImageError as error:  # of its store
        raise not_had(path, error) from None
    if urls.is_remote(path) and not archive.container.in_order:
        known.packed[path] = known.Packed(archive.version, isinstance(archive.container, Zip), archive.places)
    else:
        _keep(archive)
    return names, archive.container.in_order


def source_of(path: bytes) -> Any:
    """What pyarrow reads a table from: its file, or what is open of its store; UsageError where there is none."""
    try:
        return for_pyarrow(path) if urls.scheme_of(path) is None else Ranged(path, _version(path))
    except UnreadableImageError as error:
        raise not_had(path, error) from None


def looked_at(path: bytes) -> Any:
    """A Parquet table, open to look at its columns and first rows, of which no more is read than that."""
    parquet: Any = importlib.import_module("pyarrow.parquet")
    return parquet.ParquetFile(source_of(path), buffer_size=AT_ONCE)


def not_had(path: bytes, error: UnreadableImageError) -> UsageError:
    """The error that says why a store does not give what it has at a path."""
    return UsageError(f"{encode_path(path)} cannot be read: {error}")


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
    except UnreadableImageError:
        archive.process = -1  # it is opened anew, for where its stream stands is not known
        raise
    except damages() as error:
        raise ArchiveError(f"damaged in its archive: {error}") from error


def _found(file: bytes) -> tuple[Archive, Place]:
    """The archive that a path leads into, and the member's place in it."""
    path = urls.stream_of(file) or os.path.dirname(file)
    while path and path not in urls.streams and not os.path.isfile(path):
        path, before = os.path.dirname(path), path
        if path == before:
            break
    if path not in urls.streams and not is_archive(path):
        raise NotADirectoryError
    try:
        archive = _keep(_open_ones.get(path) or _streamed.get(path) or Archive(path))
    except UsageError as error:
        raise ArchiveError("in an archive that cannot be read any more") from error
    if (place := archive.places.find(file[len(path) + 1 :])) is None:
        raise FileNotFoundError
    return archive, place


def _keep(archive: Archive) -> Archive:
    """Have it at hand for the next member, and let one go that is long unused."""
    _open_ones.pop(archive.path, None)
    _open_ones[archive.path] = archive
    if archive.path in urls.streams:
        _streamed[archive.path] = archive
    if len(_open_ones) > OPENED:
        _open_ones.pop(next(iter(_open_ones))).let_go()
    return archive


class Archive:
    """An archive, and where each of its members is."""

    def __init__(self, path: bytes, names: list[bytes] | None = None) -> None:
        """UsageError where it is none, or is damaged where it says what it holds; `names` gets those of its members."""
        self.path, self.version = path, _version(path)
        self.process, self.container = os.getpid(), self._open()
        self.places = Places(self._members([] if names is None else names))
        if urls.scheme_of(path) is not None and self.container.in_order:
            urls.streams.add(path)

    def _members(self, names: list[bytes]) -> Iterator[tuple[bytes, Place]]:
        """The files in it, by cleaned names and in its order, but for folders, links and the like."""
        seen: dict[int, int] = {}
        try:
            for said, place in self.container.members():
                name = posixpath.normpath(b"/" + said.replace(b"\0", b"")).lstrip(b"/")
                times = seen[hash(name)] = seen.get(hash(name), 0) + 1
                names.append(name if times == 1 else b"%b#%d" % (name, times))
                yield names[-1], place
        except damages() as error:
            raise unfit(self.path, error) from error

    def read(self, place: Place) -> bytes:
        """A member's content."""
        if self.path not in urls.streams and self.version != _version(self.path):  # another one holds other members
            raise ArchiveError("its archive was changed meanwhile")
        if self.process != os.getpid():  # where two share a stream, each moves the other's place in it
            _of_parents.append(self.container)  # not closed: what it had open may be a number of other files here
            self.container, self.process = self._open(), os.getpid()
        return self.container.read(place)

    def let_go(self) -> None:
        """Close it until it is read again, if it is in a store; where its members are stays known."""
        if self.path in urls.streams and self.process == os.getpid():
            self.container.close()
            self.process = -1

    def _open(self) -> Container:
        try:
            file = self.path if urls.scheme_of(self.path) is None else Ranged(self.path, self.version)
            return CONTAINERS[suffix_of(self.path) or b""](file)
        except damages() as error:
            raise unfit(self.path, error) from error

    def __del__(self) -> None:
        if hasattr(self, "container"):
            self.container.close()


def unfit(path: bytes, error: Exception) -> UsageError:
    """The error that says what is wrong with an archive."""
    said = " ".join(str(error).split()) or type(error).__name__
    return UsageError(f"{encode_path(path)} cannot be read as an archive: {said[:120]}")


def _version(path: bytes) -> Version:
    if urls.scheme_of(path) is None:
        info = os.stat(path)
        return Version(info.st_size, info.st_mtime_ns)
    version = remote.ahead().looked_at(path)
    if version.size < 0:
        raise UsageError(f"{encode_path(path)} cannot be read: its store does not say how large it is")
    return version
