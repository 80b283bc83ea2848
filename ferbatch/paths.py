"""File names are bytes: how they are written so that nothing acts on a terminal, and how they come back."""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

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
    return "".join("".join(f"\\x{b:02x}" for b in _bytes(c)) if _acts(c) else c for c in text)


def _bytes(text: str) -> bytes:
    """UTF-8 whatever the locale; odd bytes as they were. A surrogate that stands for none, as in JSON, is its three."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b"".join(
            c.encode("utf-8", "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass") for c in text
        )


def count(n: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def encode_path(name: bytes) -> str:
    """A file name as every output writes it; one that looks like a formula gets a leading `./`."""
    text = name.decode("utf-8", "surrogateescape")
    return escape("./" + text if text.startswith(_FORMULA) else text)


def decode_path(path: str) -> bytes:
    """The file name's bytes, from the `path` column of any output; opens the same file."""
    return _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), _bytes(path))


class OutputStream(io.BufferedWriter):
    """A binary stream whose failures are OutputErrors that name it; a reader that went away stays BrokenPipeError."""

    def __init__(self, raw: io.RawIOBase, shown: str) -> None:
        super().__init__(raw)
        self.shown = shown

    def write(self, data: Any) -> int:
        try:  # `writing` would do, but costs as much as the rest, for every row
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(self.shown, error) from error

    def flush(self) -> None:
        with writing(self.shown):
            super().flush()


@contextmanager
def writing(shown: str) -> Iterator[None]:
    """OutputError for what the system says against writing to what is `shown` so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(shown, error) from error


def _unwritten(shown: str, error: OSError) -> OutputError:
    return OutputError(f"{shown} could not be written: {error.strerror}")


@contextmanager
def replace_file(path: str) -> Iterator[OutputStream]:
    """A stream into `path`.part, renamed to `path` when all went well: there is the whole new file or the old one.

    The new file has the old one's permissions. Raises OutputError where it cannot be written; whatever ends the block
    early removes the part.
    """
    part, shown = f"{path}.part", encode_path(os.fsencode(path))
    with writing(shown):
        with suppress(FileNotFoundError):
            os.unlink(part)
        raw = io.FileIO(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb")
    try:
        with OutputStream(raw, shown) as stream:
            yield stream
            stream.flush()
            with writing(shown):
                if os.path.exists(path):
                    os.chmod(part, stat.S_IMODE(os.stat(path).st_mode))
                os.fsync(stream.fileno())
        with writing(shown):
            os.replace(part, path)
        sync_folder(os.path.dirname(path) or ".")
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def sync_folder(folder: str) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
