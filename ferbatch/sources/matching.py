"""Matches images with the rows of a table that speaks of them: by real path, else by what both paths end in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

UNMATCHED = -1


@dataclass(frozen=True, slots=True)
class Match:
    """For each of N images its row in a table."""

    rows: NDArray[np.int64]  # (N,) index of the row, UNMATCHED where there is none
    surplus: NDArray[np.int64]  # indices of the rows that no image has
    by_real_path: int  # images matched by the file that both paths lead to
    by_tail: int  # images matched by what both paths end in
    ambiguous: int  # images that could have more than one row, or share one with another image; they have none

    @property
    def missing(self) -> NDArray[np.int64]:
        """Indices of the images without a row."""
        return np.flatnonzero(self.rows == UNMATCHED)


def match(images: Sequence[bytes], below: Sequence[bytes], rows: Sequence[bytes | None]) -> Match:
    """Find the row of each image.

    `images` are paths to open, `below` the same paths from the folder (or table) of the truth on, `rows` the paths
    that the table gives, relative ones from the working folder on (None: of no image). What the real path does not
    match is matched where, in whole parts, the row's path ends in the image's `below`, or the image's path ends in the
    row's, and no second image or row would fit.
    """
    found = _by_real_path(images, rows)
    by_path = int((found != UNMATCHED).sum())
    taken = set(found.tolist())
    left = {row: path for row, path in enumerate(rows) if path is not None and row not in taken}
    open_images = np.flatnonzero(found == UNMATCHED).tolist()
    pairs, crowded = _tails(open_images, left, images, below) if open_images and left else ([], set())
    uses = Counter(image for image, _ in pairs), Counter(row for _, row in pairs)
    for image, row in pairs:
        if uses[0][image] == 1 and uses[1][row] == 1 and image not in crowded:
            found[image] = row
        else:
            crowded.add(image)
    matched = int((found != UNMATCHED).sum())
    surplus = np.setdiff1d(np.arange(len(rows)), found)
    return Match(found, surplus, by_path, matched - by_path, len(crowded))


def stripped(path: bytes, prefix: bytes) -> bytes | None:
    """A row's path after a prefix of whole parts; None where it does not begin so."""
    path, prefix = (os.path.normpath(one) for one in (path, prefix))
    return path[len(prefix) :].lstrip(b"/") if path.startswith(prefix.rstrip(b"/") + b"/") else None


def _by_real_path(images: Sequence[bytes], rows: Sequence[bytes | None]) -> NDArray[np.int64]:
    """A row per image by the very path, else by the file that it leads to; the first row where there are several."""
    found = np.full(len(images), UNMATCHED)
    for same in (os.path.abspath, real_path):
        by_path: dict[bytes, int] = {}
        for row, path in enumerate(rows):
            if path is not None:
                by_path.setdefault(same(path), row)
        for image in np.flatnonzero(found == UNMATCHED).tolist():
            found[image] = by_path.get(same(images[image]), UNMATCHED)
        if (found != UNMATCHED).all():
            break
    return found


def real_path(path: bytes) -> bytes:
    """The path with every link followed; the folder's once only for all files in it."""
    folder, name = os.path.split(path)
    if os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_real_folder(folder), name)


@lru_cache(maxsize=4096)
def _real_folder(folder: bytes) -> bytes:
    return os.path.realpath(folder or b".")


def _tails(
    open_images: Sequence[int], left: Mapping[int, bytes], images: Sequence[bytes], below: Sequence[bytes]
) -> tuple[list[tuple[int, int]], set[int]]:
    """Every (image, row) that the ends of their paths make a pair, and the images that several rows could be of."""
    by_below: dict[bytes, list[int]] = {}
    for image in open_images:
        by_below.setdefault(_plain(below[image]), []).append(image)
    pairs: dict[tuple[int, int], None] = {}
    crowded: set[int] = set()
    crowds: set[bytes] = set()  # ends that several images have
    by_row: dict[bytes, list[int]] = {}
    for row, path in left.items():
        plain = _plain(path)
        by_row.setdefault(plain, []).append(row)
        end = next((tail for tail in _ends(plain) if tail in by_below), None)
        if end is not None and len(by_below[end]) == 1:
            pairs[by_below[end][0], row] = None
        elif end is not None:
            crowds.add(end)
    for end in crowds:
        crowded.update(by_below[end])
    for image in open_images:
        rows = next((by_row[tail] for tail in _ends(_plain(os.path.abspath(images[image]))) if tail in by_row), [])
        if len(rows) == 1:
            pairs[image, rows[0]] = None
        elif rows:
            crowded.add(image)
    return list(pairs), crowded


def _plain(path: bytes) -> bytes:
    return os.path.normpath(path).lstrip(b"/")


def _ends(path: bytes) -> Iterator[bytes]:
    """The path, then what is left of it without its first part, its first two, ..."""
    yield path
    slash = path.find(b"/")
    while slash != -1:
        yield path[slash + 1 :]
        slash = path.find(b"/", slash + 1)
