"""Names of files, and numbers of things, as text that is safe to print; and names back from it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_FORMULA = tuple("=+-@\t\r")  # what a spreadsheet would run
# Characters that would do something other than be seen, but for the line end: controls, surrogates (they stand for odd
# bytes), line and direction marks; and the backslash.
_ACTING = r"\x00-\x09\x0b-\x1f\\\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_ACTS = re.compile(rf"[\n{_ACTING}]")
_ODD = re.compile(rf"[{_ACTING}]|^[=+@-]", re.MULTILINE)  # what `encode_path` would change, in names one a line
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def escape(text: str) -> str:
    r"""The text on one harmless line: what acts, is no UTF-8 or is a backslash becomes `\xNN`, byte by byte."""
    return _ACTS.sub(lambda char: "".join(f"\\x{byte:02x}" for byte in _bytes(char[0])), text)


def brief(text: str, most: int = 60) -> str:
    """The text as `escape` has it, cut to so many characters: a message quotes what a file holds, not all of it."""
    line = escape(text[: most + 1])
    return line if len(line) <= most else f"{line[: most - 3]}..."


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


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names on one line; where there are more than `most`, the first of them and how many more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def encode_path(name: bytes) -> str:
    """A file name as every output writes it; one that looks like a formula gets a leading `./`."""
    text = name.decode("utf-8", "surrogateescape")
    return escape("./" + text if text.startswith(_FORMULA) else text)


def encode_paths(names: Sequence[bytes]) -> list[str]:
    """`encode_path` of many file names, quickly where they are as nearly all are."""
    text = b"\n".join(names).decode("utf-8", "surrogateescape")
    paths = text.split("\n")
    return paths if len(paths) == len(names) and not _ODD.search(text) else [encode_path(name) for name in names]


def shown(path: str | os.PathLike[str]) -> str:
    """A path as every message and output writes it, in the spelling of `encode_path`."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:  # no file has such a name, but a message may speak of it
        name = _bytes(os.fspath(path))
    return encode_path(name)


def decode_path(path: str) -> bytes:
    """The file name's bytes, from the `path` column of any output; opens the same file."""
    return _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), _bytes(path))
