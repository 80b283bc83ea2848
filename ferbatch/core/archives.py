"""Zip and tar archives, read in place: what they hold, and one member's bytes by a path that leads into the archive.

A member's file is the archive's path, a slash and the member's name, `faces.zip/happy/1.jpg`: no system opens that, so
whoever meets NotADirectoryError asks here. Names are cleaned: none leads out of its archive, and of several with the
same one the later ones are called `NAME#2`, `NAME#3`. In memory a member costs 42 bytes.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import posixpath
import stat
import sys
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path

IN_ONE = -1  # in place of the number of links to a file: it is in an archive
OPENED = 4  # archives that a process keeps open
CHUNK = 2**20  # bytes
LOCAL_HEADER = 30  # bytes of what stands before a zip's member, without its name and extra field
ENCRYPTED, DEFLATED = 0x1, 8  # a zip's flag and method


class ArchiveError(OSError):
    """A member that cannot be read: its `strerror` says why."""

    def __init__(self, why: str) -> None:
        super().__init__(None, why)


class _Member(NamedTuple):
    name: bytes  # cleaned
    offset: int  # bytes, of its data in a tar, of its header in a zip
    packed: int  # bytes that it takes
    size: int  # bytes
    version: int  # its time in a tar (ns), its CRC in a zip
    method: int  # of a zip; negative where it cannot be read


def _zstd(path: bytes, mode: str) -> Any:
    try:
        return importlib.import_module("zstandard").open(path, mode)
    except ImportError as error:
        raise UsageError(f"{encode_path(path)} needs zstandard: pip install 'ferbatch[zstd]'") from error


# By what an archive's name ends in: what opens its bytes. Those of the first two can be read in any order.
OPENERS: dict[bytes, Callable[..., Any]] = {
    **dict.fromkeys((b".zip", b".tar"), open),
    **dict.fromkeys((b".tar.gz", b".tgz"), gzip.open),
    **dict.fromkeys((b".tar.bz2", b".tbz2"), bz2.open),
    **dict.fromkeys((b".tar.xz", b".txz"), lzma.open),
    **dict.fromkeys((b".tar.zst", b".tzst"), _zstd),
}


def suffix_of(path: bytes) -> bytes | None:
    """What the name of an archive ends in; None where it is no archive's."""
    name = os.path.basename(path).lower()
    return next((suffix for suffix in OPENERS if name.endswith(suffix)), None)


def is_archive(path: bytes) -> bool:
    """Whether it is a file that is called like an archive."""
    return suffix_of(path) is not None and os.path.isfile(path)


def in_order(path: bytes) -> bool:
    """Whether its members are to be read in its own order: each step back would unpack it from the start."""
    return suffix_of(path) not in (b".zip", b".tar")


def _is_zip(path: bytes) -> bool:
    return suffix_of(path) == b".zip"


def _open(path: bytes) -> IO[bytes]:
    stream: IO[bytes] = OPENERS[suffix_of(path) or b""](path, "rb")
    return stream


def _version(path: bytes) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_size, info.st_mtime_ns


def stat_of(file: bytes) -> os.stat_result:
    """What os.stat would say of a member; OSError where there is none such."""
    archive, at = _found(file)
    numbers = (stat.S_IFREG | 0o444, 0, 0, IN_ONE, 0, 0, int(archive.sizes[at]), 0, 0, 0)
    return os.stat_result(numbers, {"st_mtime_ns": int(archive.versions[at])})


def read(file: bytes) -> bytes:
    """A member's content, as many bytes as its archive says; OSError where it cannot be had."""
    archive, at = _found(file)
    try:
        return archive.read(at)
    except ArchiveError:
        raise
    except _damages() as error:
        raise ArchiveError(f"damaged in its archive: {error}") from error


def _found(file: bytes) -> tuple[Archive, int]:
    """The archive that a path leads into, and the member's place in it."""
    path = os.path.dirname(file)
    while path and not os.path.isfile(path):
        path, before = os.path.dirname(path), path
        if path == before:
            break
    if not is_archive(path):
        raise NotADirectoryError
    try:
        archive = _opened(path)
    except UsageError as error:
        raise ArchiveError("in an archive that cannot be read any more") from error
    return archive, archive.place(file[len(path) + 1 :])


@lru_cache(OPENED)
def _opened(path: bytes) -> Archive:
    return Archive.of(path)


def forget() -> None:
    """Look into every archive anew."""
    _opened.cache_clear()


@dataclass
class Archive:
    """An archive, and where each of its N members is."""

    path: bytes
    version: tuple[int, int]  # its size and time when it was looked into: another one holds other members
    process: int  # that opened the stream: where two share one, each moves the other's place in it
    stream: IO[bytes]
    # In the order of `keys`, which are hashes of their names:
    keys: NDArray[np.int64] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    packed: NDArray[np.int64] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)
    versions: NDArray[np.int64] = field(repr=False)
    methods: NDArray[np.int16] = field(repr=False)

    @classmethod
    def of(cls, path: bytes) -> Archive:
        columns = array("q"), array("q"), array("q"), array("q"), array("q"), array("h")
        for name, *numbers in members(path):
            for column, value in zip(columns, (hash(name), *numbers), strict=True):
                column.append(value)
        values = [np.frombuffer(column, column.typecode) for column in columns if len(column)] or [
            np.zeros(0, column.typecode) for column in columns
        ]
        order = values[0].argsort(kind="stable")
        return cls(path, _version(path), os.getpid(), _open(path), *(column[order] for column in values))

    def __del__(self) -> None:
        self.stream.close()

    def _reopen(self) -> None:
        self.stream.close()
        self.stream, self.process = _open(self.path), os.getpid()

    def place(self, name: bytes) -> int:
        at = int(np.searchsorted(self.keys, hash(name)))
        if at == len(self.keys) or self.keys[at] != hash(name):
            raise FileNotFoundError
        return at

    def read(self, at: int) -> bytes:
        """A member's content."""
        if self.version != _version(self.path):
            raise ArchiveError("its archive was changed meanwhile")
        if self.process != os.getpid():
            self._reopen()
        if self.methods[at] < 0:
            raise ArchiveError("encrypted, or packed in a way that is not supported")
        size, packed, offset = int(self.sizes[at]), int(self.packed[at]), int(self.offsets[at])
        if not _is_zip(self.path):
            return self._bytes(offset, size)
        header = self._bytes(offset, LOCAL_HEADER)
        offset += LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = self._bytes(offset, packed)
        if self.methods[at] == DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)  # whatever more it may hold
        if len(data) != size or zlib.crc32(data) != self.versions[at]:
            raise ArchiveError("damaged in its archive: its checksum does not fit")
        return data

    def _bytes(self, offset: int, size: int) -> bytes:
        try:
            self.stream.seek(offset)
        except OSError:  # a stream that goes forward only
            self._reopen()
            self.stream.seek(offset)
        data = b""
        while len(data) < size and (more := self.stream.read(size - len(data))):
            data += more
        return data


def _damages() -> tuple[type[Exception], ...]:
    """What libraries raise for a damaged archive."""
    known = (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
    return (*known, sys.modules["zstandard"].ZstdError) if "zstandard" in sys.modules else known


def members(path: bytes) -> Iterator[_Member]:
    """The files in an archive, in its order, but for folders, links and the like; UsageError where it is none."""
    seen: dict[int, int] = {}
    walk = _in_zip if _is_zip(path) else _in_tar
    try:
        for member in walk(path):
            name = posixpath.normpath(b"/" + member.name.replace(b"\0", b"")).lstrip(b"/")
            times = seen[hash(name)] = seen.get(hash(name), 0) + 1
            yield member._replace(name=name if times == 1 else b"%b#%d" % (name, times))
    except _damages() as error:
        said = str(error) or type(error).__name__
        raise UsageError(f"{encode_path(path)} cannot be read as an archive: {said[:120]}") from error


def _in_zip(path: bytes) -> Iterator[_Member]:
    with zipfile.ZipFile(os.fsdecode(path)) as archive:
        for info in archive.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            readable = info.compress_type in (zipfile.ZIP_STORED, DEFLATED) and not info.flag_bits & ENCRYPTED
            name = info.filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "surrogateescape")
            if b"/" not in name and info.create_system == 0:  # old programs for Windows
                name = name.replace(b"\\", b"/")
            method = info.compress_type if readable else -1
            yield _Member(name, info.header_offset, info.compress_size, info.file_size, info.CRC, method)


def _in_tar(path: bytes) -> Iterator[_Member]:
    with _open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # or it keeps them all
            if info.isfile() and not info.issparse():
                name = info.name.encode("utf-8", "surrogateescape")
                version = round(info.mtime * 10**9)
                yield _Member(name, info.offset_data, info.size, info.size, version, 0)
        while in_order(path) and stream.read(CHUNK):  # to the checksum at the end
            pass
