"""The kinds of archives, a class each: which members a file holds, and the bytes of one."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path, escape
from ferbatch.core.places import LOCAL_HEADER, ArchiveError, Place, check_readable, data_in, inflated
from ferbatch.core.stores.ranged import Ranged

CHUNK = 2**20  # bytes
ENCRYPTED = 0x1  # a zip's flag
BINARY = ("binary", "large_binary", "binary_view")  # of Arrow's types
LOOKED_AT = 16  # values by which a column is known to hold images
UTF8 = 0x800  # a zip's flag: names are in UTF-8


File = bytes | Ranged  # a path, or what is open of a store


def name_of(file: File) -> bytes:
    """The path of an archive, wherever it is."""
    return file if isinstance(file, bytes) else file.path


class Container(Protocol):
    """An open archive."""

    in_order: bool  # whether members are to be read in its own order: each step back costs as much as the beginning

    def members(self) -> Iterator[tuple[bytes, Place]]:
        """The name of each file in it, as it stands there, and its place."""

    def read(self, place: Place) -> bytes:
        """A member's content, no longer than its place says."""

    def close(self) -> None: ...


class Zip:
    """What zipfile finds; the members are unpacked here, for it would keep a kilobyte about each."""

    in_order = False

    def __init__(self, file: File) -> None:
        self.stream: IO[bytes] = _opened(file)

    def members(self) -> Iterator[tuple[bytes, Place]]:
        with zipfile.ZipFile(self.stream) as archive:
            for info in archive.infolist():
                if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                    continue
                readable = (
                    info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & ENCRYPTED
                )
                name = info.filename.encode("utf-8" if info.flag_bits & UTF8 else "cp437", "surrogateescape")
                if b"/" not in name and info.create_system == 0:  # old programs for Windows
                    name = name.replace(b"\\", b"/")
                method = info.compress_type if readable else -1
                yield name, Place(info.header_offset, info.compress_size, info.file_size, info.CRC, method)

    def read(self, place: Place) -> bytes:
        check_readable(place)
        header = _bytes(self.stream, place.offset, LOCAL_HEADER)
        return inflated(_bytes(self.stream, place.offset + data_in(header), place.packed), place)

    def close(self) -> None:
        self.stream.close()


class Tar:
    """A tar, packed or not."""

    def __init__(self, file: File, opener: Callable[..., Any]) -> None:
        self.file, self.opener = file, opener
        self.in_order = opener is not _opened
        self.stream: IO[bytes] = opener(file, "rb")

    def members(self) -> Iterator[tuple[bytes, Place]]:
        with tarfile.open(fileobj=self.stream, mode="r:") as archive:
            for info in archive:
                archive.members = []  # type: ignore[attr-defined]  # or it keeps them all
                if info.isfile() and not info.issparse():
                    name = info.name.encode("utf-8", "surrogateescape")
                    yield name, Place(info.offset_data, info.size, info.size, round(info.mtime * 10**9))
            while self.in_order and self.stream.read(CHUNK):  # to the checksum at the end
                pass

    def read(self, place: Place) -> bytes:
        if self.in_order and place.offset < self.stream.tell():  # not every one of them can go back by itself
            self.stream.close()
            if not isinstance(self.file, bytes):
                self.file.seek(0)
            self.stream = self.opener(self.file, "rb")
        return _bytes(self.stream, place.offset, place.size)

    def close(self) -> None:
        self.stream.close()


class Parquet:
    """A Parquet table with a column of images: bytes, or `{bytes, path}` as Hugging Face's datasets have it."""

    in_order = True  # by row groups

    def __init__(self, file: File) -> None:
        name = encode_path(name_of(file))
        try:
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise UsageError(f"{name} needs pyarrow: pip install 'ferbatch[parquet]'") from error
        self.file = parquet.ParquetFile(os.fsdecode(file) if isinstance(file, bytes) else file)
        self.version = os.stat(file).st_mtime_ns if isinstance(file, bytes) else file.version.mtime_ns
        found = image_column(self.file)
        if found is None:
            there = ", ".join(escape(name)[:40] for name in self.file.schema_arrow.names[:8])
            raise UsageError(f"{name} has no column of images (bytes, or bytes and path); it has {there}")
        self.column, self.named = found
        self.group: tuple[int, Any] = -1, None  # the one that was read last, and its images' bytes

    def members(self) -> Iterator[tuple[bytes, Place]]:
        row = 0
        for group in range(self.file.num_row_groups):
            n = self.file.metadata.row_group(group).num_rows
            names: list[str | None] = [None] * n
            if self.named:
                table = self.file.read_row_group(group, columns=[f"{self.column}.path"], use_threads=False)
                names = [value and value["path"] for value in table.column(0).to_pylist()]
            for at, name in enumerate(names):
                called = (name or f"{row:09d}").encode("utf-8", "surrogateescape")
                yield called, Place(group, at, 0, self.version)
                row += 1

    def read(self, place: Place) -> bytes:
        if self.group[0] != place.offset:
            table = self.file.read_row_group(place.offset, columns=[self.column], use_threads=False)
            self.group = place.offset, table.column(0)
        value = self.group[1][place.packed].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise ArchiveError("no bytes in its row of the table")
        return bytes(data)

    def close(self) -> None:
        self.file.close()


def image_column(file: Any) -> tuple[str, bool] | None:
    """The column of an open Parquet table that holds images, and whether it names them; None where there is none."""
    for field in file.schema_arrow:
        inner = {part.name: str(part.type) for part in field.type} if str(field.type).startswith("struct<") else {}
        if inner.get("bytes") in BINARY and any(value["bytes"] for value in first_values(file, field.name)):
            return field.name, inner.get("path") in ("string", "large_string")
        if str(field.type) in BINARY and any(map(_is_no_text, first_values(file, field.name))):
            return field.name, False
    return None


def first_values(file: Any, column: str) -> list[Any]:
    """Some values of a column of an open Parquet table, those that are there."""
    batch = next(file.iter_batches(batch_size=LOOKED_AT, columns=[column], use_threads=False), None)
    return [value for value in batch.column(0).to_pylist() if value is not None] if batch else []


def _is_no_text(value: bytes) -> bool:
    """Whether bytes are an image's, say, rather than a name that was written as bytes."""
    try:
        return b"\0" in value or value.decode() is None
    except UnicodeDecodeError:
        return True


def _bytes(stream: IO[bytes], offset: int, size: int) -> bytes:
    stream.seek(offset)
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def _opened(file: File, mode: str = "rb") -> Any:
    return open(file, mode) if isinstance(file, bytes) else file


def _zstd(file: File, mode: str) -> Any:
    try:
        return importlib.import_module("zstandard").open(file, mode)
    except ImportError as error:
        raise UsageError(f"{encode_path(name_of(file))} needs zstandard: pip install 'ferbatch[zstd]'") from error


def _tar(opener: Callable[..., Any]) -> Callable[[File], Container]:
    return lambda file: Tar(file, opener)


CONTAINERS: dict[bytes, Callable[[File], Container]] = {  # by what an archive's name ends in
    b".zip": Zip,
    b".tar": _tar(_opened),
    **dict.fromkeys((b".tar.gz", b".tgz"), _tar(gzip.open)),
    **dict.fromkeys((b".tar.bz2", b".tbz2"), _tar(bz2.open)),
    **dict.fromkeys((b".tar.xz", b".txz"), _tar(lzma.open)),
    **dict.fromkeys((b".tar.zst", b".tzst"), _tar(_zstd)),
    b".parquet": Parquet,
}


def damages() -> tuple[type[Exception], ...]:
    """What libraries raise for a damaged archive."""
    known = (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
    return (*known, sys.modules["zstandard"].ZstdError) if "zstandard" in sys.modules else known
