"""Several objects of a store by one of PATHS, as a shell has it for files: `shard-{000..009}.tar`, `shards/*.tar`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path
from ferbatch.core.stores import remote, urls
from ferbatch.core.stores.answers import StoreError
from ferbatch.sources import buckets

NUMBERS = re.compile(rb"\{(\d+)\.\.(\d+)\}")
MOST = 100_000  # paths that one may stand for


def expanded(paths: Iterable[bytes]) -> list[bytes]:
    """PATHS, and in place of those into stores that are patterns the paths that they stand for, in order.

    UsageError where a pattern stands for none, or for too many.
    """
    found: list[bytes] = []
    for path in paths:
        if not urls.is_remote(path):
            found.append(path)
            continue
        for one in _numbered(path):
            name = one.rstrip(b"/").rpartition(b"/")[2]
            found += _fitting(one, name) if b"*" in name and b"?" not in one else [one]
    return found


def _numbered(path: bytes) -> Iterator[bytes]:
    """A path with each number in place of its braces, written as the first one is."""
    parts = NUMBERS.split(path)
    ranges = [range(int(first), int(last) + 1) for first, last in zip(parts[1::3], parts[2::3], strict=True)]
    n = math.prod(map(len, ranges))
    if not 1 <= n <= MOST:
        raise UsageError(f"{encode_path(path)[:200]} stands for {n:,} paths: it may for 1 to {MOST:,}")
    for numbers in itertools.product(*ranges):
        written = [b"%0*d" % (len(first), number) for first, number in zip(parts[1::3], numbers, strict=True)]
        yield b"".join(itertools.chain.from_iterable(itertools.zip_longest(parts[::3], written, fillvalue=b"")))


def _fitting(path: bytes, pattern: bytes) -> Sequence[bytes]:
    """What is directly in the folder of a path and fits its last part."""
    urls.check_installed(urls.scheme_of(path) or "")
    folder = path.rstrip(b"/")[: -len(pattern)]
    try:
        if urls.is_ordered(path):
            entries = [entry for page in remote.ahead().pages(folder, deep=False) for entry in page]
        else:
            entries = remote.ahead().folder(folder)
    except StoreError as error:
        raise buckets.unfit(folder, error) from None
    names = sorted(entry.name for entry in entries if fnmatchcase(entry.name.rstrip(b"/"), pattern))
    if not names:
        raise UsageError(f"nothing in {encode_path(folder)[:200]} is called like {encode_path(pattern)[:80]}")
    return [folder + name for name in names]
