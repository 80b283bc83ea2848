"""How a text table is laid out: its encoding, what separates its values, and whether its first row names them."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ferbatch.core.errors import UsageError
from ferbatch.core.names import shown
from ferbatch.core.stores.urls import is_remote
from ferbatch.images import pixel_rows
from ferbatch.images.formats import type_of_name
from ferbatch.sources.contents import opened

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "spaces"}  # -> what messages call them
BOMS = {  # UTF-32's first, for UTF-16's begins alike
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HEAD = 2**18  # bytes of a table that are looked at
ROWS = 100  # of those in them, at the most


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text table is laid out."""

    encoding: str  # as codecs calls it
    separator: str  # a key of SEPARATORS
    header: tuple[str, ...] | None  # the names of the columns; None where the first row is of an image
    width: int  # values of the first row
    names: tuple[str, ...] | None = None  # of the columns, where the first row has none, or none in the encoding

    @property
    def of_pixels(self) -> bool:
        """Whether the rows are images themselves."""
        return self.header is not None and pixel_rows.COLUMN in map(plain, self.header)


def encoding_of(path: str) -> str:
    """The encoding that a text begins to be in, by its byte order mark; without one it is UTF-8.

    Bytes that are no UTF-8 stay what they are, for names of files may hold them. UsageError for NULs, which UTF-16
    without a mark has in most places.
    """
    with opened(path) as stream:
        head = stream.read(HEAD)
    for bom, encoding in BOMS.items():
        if head.startswith(bom):
            return encoding
    even, odd = (set(head[start : len(head) // 2 * 2 : 2]) for start in (0, 1))
    if head and (odd == {0} or even == {0}):  # the other byte of each character in ASCII
        return "utf-16-le" if odd == {0} else "utf-16-be"
    if b"\0" in head:
        raise UsageError(f"{shown(path)} holds NUL bytes, as no text does: save it as UTF-8")
    return "utf-8-sig"


def errors_of(encoding: str) -> str:
    """What becomes of bytes that are none of the encoding's: of UTF-8's they stay, any other text is refused."""
    return "surrogateescape" if encoding == "utf-8-sig" else "strict"


def layout_of(path: str, names: Collection[str]) -> Layout:
    """The layout of a text table; UsageError where it is no text.

    names: what `plain` makes of the names of columns that tables of images have, by which a header is known.
    """
    encoding = encoding_of(path)
    with opened(path) as stream:
        head = stream.read(HEAD)
    decoder = codecs.getincrementaldecoder(encoding)(
        "replace" if errors_of(encoding) == "strict" else "surrogateescape"
    )
    lines = decoder.decode(head).splitlines(keepends=True)
    if len(head) == HEAD:
        lines = lines[:-1] or lines  # the last one was cut
    found = {separator: _rows(lines, separator) for separator in SEPARATORS}
    separator = _separator(found, names)
    first = found[separator][0] if found[separator] else []
    named = any(plain(name) in names for name in first)
    is_header = named or not any(map(is_name, first))
    if is_header:
        _check_urls(path, separator, found[separator])
    header = tuple(map(_readable, first))
    if not is_header:
        return Layout(encoding, separator, None, len(first), tuple(str(number + 1) for number in range(len(first))))
    return Layout(encoding, separator, header, len(first), header if [*header] != first else None)


def _check_urls(path: str, separator: str, rows: Sequence[Sequence[str]]) -> None:
    """UsageError where a URL was parted, being one in which values are separated."""
    for number, row in enumerate(rows):
        if len(row) > len(rows[0]) and any(is_remote(value.encode("utf-8", "replace")) for value in row):
            values = f"{len(row)} values, its header {len(rows[0])}"
            raise UsageError(
                f"row {number:,} of {shown(path)} has {values}: a URL that holds {SEPARATORS[separator]} needs quotes"
            )


def plain(name: str) -> str:
    """What is the same of a column's name however it is typed."""
    return "".join("_" if char in " -." else char for char in name.strip().casefold())


def is_name(value: str) -> bool:
    """Whether a value names an image: by its suffix, or by its store."""
    name = value.strip().encode("utf-8", "replace")
    return is_remote(name) or type_of_name(name) is not None


def _readable(name: str) -> str:
    """A name whose bytes are no UTF-8 as Windows writes it where it is not told to write that."""
    odd = any("\udc80" <= char <= "\udcff" for char in name)
    return name.encode("utf-8", "surrogateescape").decode("cp1252", "replace") if odd else name


def _rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The first rows by one separator, empty ones aside, without what they have at their end beyond the first row."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=separator, skipinitialspace=separator == " "):
            while row and not row[-1] and (not rows or len(row) > len(rows[0])):
                row.pop()
            if row:
                rows.append(row)
            if len(rows) == ROWS:
                break
    except csv.Error:  # a value of very many characters
        pass
    return rows


def _separator(found: dict[str, list[list[str]]], names: Collection[str]) -> str:
    """What separates the values: by what the header has names that are known, else every row as many values.

    Spaces count only where nothing else does, for names of files and answers hold some.
    """

    def score(separator: str) -> tuple[bool, float]:
        rows = found[separator]
        named = any(plain(name) in names for name in rows[0])
        return named, sum(len(row) == len(rows[0]) for row in rows) / len(rows)

    parted = [separator for separator, rows in found.items() if rows and len(rows[0]) > 1]
    if best := max((one for one in parted if one != " "), key=score, default=None):
        return best
    whole = found[","][0][0] if found[","] else ""
    is_one = plain(whole) in names or is_name(whole)
    return " " if " " in parted and score(" ")[1] == 1 and not is_one else ","
