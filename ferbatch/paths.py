"""File names are bytes: how they are written so that nothing acts on a terminal, and how they come back."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from ferbatch.errors import OutputError

_FORMULA = tuple("=+-@\t\r")  # what a spreadsheet would run
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_LINE_AND_DIRECTION = frozenset("\u2028\u2029\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _acts(char: str) -> bool:
    """Whether a character would do something other than be seen: controls, line and direction marks, odd bytes."""
    return char == "\\" or unicodedata.category(char) in ("Cc", "Cs") or char in _LINE_AND_DIRECTION


def escape(text: str) -> str:
    r"""The text on one harmless line: what acts, is no UTF-8 or is a backslash becomes `\xNN`, byte by byte."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join("".join(f"\\x{b:02x}" for b in os.fsencode(c)) if _acts(c) else c for c in text)


def count(n: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def encode_path(name: bytes) -> str:
    """A file name as every output writes it; one that looks like a formula gets a leading `./`."""
    text = os.fsdecode(name)
    return escape("./" + text if text.startswith(_FORMULA) else text)


def decode_path(path: str) -> bytes:
    """The file name's bytes, from the `path` column of any output; opens the same file."""
    return _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), os.fsencode(path))


@contextmanager
def replace_file(path: str) -> Iterator[BinaryIO]:
    """A stream into `path`.part, renamed to `path` when all went well: there is the whole new file or the old one.

    Raises OutputError where it cannot be written; whatever ends the block early removes the part.
    """
    part = f"{path}.part"
    try:
        with open(part, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
        _sync_folder(os.path.dirname(path) or ".")
    except BaseException as error:
        with suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError):
            raise OutputError(f"{escape(path)} could not be written: {error.strerror}") from error
        raise


def _sync_folder(folder: str) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
