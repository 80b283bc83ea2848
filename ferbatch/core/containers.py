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
USUAL = ("image", "img")  # what the column of images is called, where several are some
HELD = 2**26  # bytes of a row group that are held at once, and
ROWS = 128  # rows of it
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

    in_order = True  # by row groups, and in those as well
    holding: Parquet | None = None  # the one of all whose rows are held

    def __init__(self, file: File) -> None:
        name = encode_path(name_of(file))
        try:
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise UsageError(f"{name} needs pyarrow: pip install 'ferbatch[parquet]'") from error
        self.file = parquet.ParquetFile(for_pyarrow(file) if isinstance(file, bytes) else file, buffer_size=CHUNK)
        self.version = os.stat(file).st_mtime_ns if isinstance(file, bytes) else file.version.mtime_ns
        found = image_column(self.file)
        if found is None:
            there = ", ".join(escape(name)[:40] for name in self.file.schema_arrow.names[:8])
            raise UsageError(f"{name} has no column of images (bytes, or bytes and path); it has {there}")
        self.column, self.named = found
        # Of the rows that are held: their group, the first one's number in it, their values; and the rows after them.
        self.group, self.start, self.images = -1, 0, list[Any]()
        self.batches: Iterator[Any] = iter(())

    def members(self) -> Iterator[tuple[bytes, Place]]:
        row = 0
        for group in range(self.file.num_row_groups):
            n = self.file.metadata.row_group(group).num_rows
            names: list[str | None] = [None] * n
            if self.named:
                table = self.file.read_row_group(group, columns=[f"{self.column}.path"], use_threads=False)
                names = [value and value["path"] for value in column_of(table, self.column).to_pylist()]
            for at, name in enumerate(names):
                called = (name or f"{row:09d}").encode("utf-8", "surrogateescape")
                yield called, Place(group, at, 0, self.version)
                row += 1

    def read(self, place: Place) -> bytes:
        if self.group != place.offset or place.packed < self.start:
            self._begin(place.offset)
        while place.packed >= self.start + len(self.images):
            self.start += len(self.images)
            self.images = []  # before the next ones are read
            self.images = column_of(next(self.batches), self.column)
        value = self.images[place.packed - self.start].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise ArchiveError("no bytes in its row of the table")
        return bytes(data)

    def _begin(self, group: int) -> None:
        """Read a row group from its first row on; what is held of another table is let go."""
        if Parquet.holding is not None:
            Parquet.holding._let_go()
        said = self.file.metadata.row_group(group)
        rows = max(1, min(ROWS, said.num_rows * HELD // max(1, said.total_byte_size)))
        self.batches = self.file.iter_batches(rows, row_groups=[group], columns=[self.column], use_threads=False)
        self.group, Parquet.holding = group, self

    def _let_go(self) -> None:
        self.group, self.start, self.images, self.batches, Parquet.holding = -1, 0, [], iter(()), None

    def close(self) -> None:
        if Parquet.holding is self:
            self._let_go()
        self.file.close()


def for_pyarrow(path: bytes) -> Any:
    """What pyarrow opens of a file: its path, unless that is no UTF-8, which pyarrow takes for none."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        arrow: Any = importlib.import_module("pyarrow")
        return arrow.OSFile(path)


def image_column(file: Any) -> tuple[str, bool] | None:
    """The column of an open Parquet table that holds images, and whether it names them; None where there is none.

    Of several the one that is called so usually, else the first.
    """
    for field in sorted(file.schema_arrow, key=lambda field: field.name.casefold() not in USUAL):
        inner = _of_struct(field)
        if inner.get("bytes") in BINARY:
            if not file.metadata.num_rows or first_values(file, field.name):
                return field.name, inner.get("path") in ("string", "large_string")
        elif str(field.type) in BINARY and any(map(_is_no_text, first_values(file, field.name))):
            return field.name, False
    return None


def names_files(file: Any) -> bool:
    """Whether an open Parquet table has a column as that of images is, but of their paths alone."""
    return any({"bytes", "path"} <= _of_struct(field).keys() for field in file.schema_arrow)


def _of_struct(field: Any) -> dict[str, str]:
    """What each of a column's values is made of, by name, and its type; nothing where it is one thing."""
    return {part.name: str(part.type) for part in field.type} if str(field.type).startswith("struct<") else {}


def first_values(file: Any, column: str) -> list[bytes]:
    """The first of the bytes that a column of an open Parquet table holds, alone or beside a path."""
    groups = [at for at in range(file.num_row_groups) if _holds_some(file.metadata.row_group(at), column)]
    for batch in file.iter_batches(LOOKED_AT, row_groups=groups, columns=[column], use_threads=False) if groups else ():
        values = column_of(batch, column).to_pylist()
        held = (value["bytes"] if isinstance(value, dict) else value for value in values)
        if found := [value for value in held if value]:
            return found
    return []


def _holds_some(group: Any, column: str) -> bool:
    """Whether a row group may hold bytes in a column, rather than nothing at all."""
    chunks = [group.column(at) for at in range(group.num_columns)]
    said = [chunk.statistics for chunk in chunks if chunk.path_in_schema in (column, f"{column}.bytes")]
    return any(one is None or not one.has_null_count or one.null_count < group.num_rows for one in said)


def column_of(table: Any, name: str) -> Any:
    """A column that was asked for by its name: pyarrow brings `a.b` with `a`, be that a part of it or another one."""
    return table.column(table.schema.get_all_field_indices(name)[0])


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
    of_packages = (("zstandard", "ZstdError"), ("pyarrow", "ArrowException"))
    return (*known, *(getattr(sys.modules[name], error) for name, error in of_packages if name in sys.modules))
