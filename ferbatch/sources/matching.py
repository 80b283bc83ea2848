"""Matches images with the rows of a table that speaks of them: by real path, else by what both paths end in.

Where that finds none, names count as the same that people take for it: in another case, with accents coded otherwise,
with a backslash for a slash, without the suffix.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.stores.urls import is_remote
from ferbatch.images.formats import type_of_name
from ferbatch.sources.labels import folded

UNMATCHED = -1
UPLOADED = re.compile(rb"(?:^|/)upload/(?:.*/)?(?:[0-9a-f]{8}-)?([^/]+)$")  # by Label Studio, which puts its mark first
SERVED = b"?d="  # before the path of a file that Label Studio serves from a folder
ALIGNED = b"_aligned"  # what RAF-DB's faces are called besides what its list calls them


@dataclass(frozen=True, slots=True)
class Match:
    """For each of N images its row in a table."""

    rows: NDArray[np.int64]  # (N,) index of the row, UNMATCHED where there is none
    surplus: NDArray[np.int64]  # indices of the rows that no image has
    by_real_path: int  # images matched by the file that both paths lead to
    by_tail: int  # images matched by what both paths end in
    by_spelling: int  # of those, images whose names are spelled otherwise than the row's
    ambiguous: int  # images that could have more than one row, or share one with another image; they have none

    @property
    def missing(self) -> NDArray[np.int64]:
        """Indices of the images without a row."""
        return np.flatnonzero(self.rows == UNMATCHED)


Key = Callable[[bytes], bytes | None]  # of a path: what is the same of two that fit; None: it fits none


def plain(path: bytes) -> bytes:
    """The path without what does not change where it leads."""
    return os.path.normpath(path).lstrip(b"/")


def spelled(path: bytes) -> bytes:
    """The path but for case, for how its accents are coded, and for which slashes it has."""
    path = plain(path.replace(b"\\", b"/"))
    if path.isascii():
        return path.strip().lower()
    try:
        text = path.decode()
    except UnicodeDecodeError:  # as Windows writes where it is not told to write UTF-8
        text = path.decode("cp1252", "surrogateescape")
    return folded(text).encode("utf-8", "surrogateescape")


def spelled_row(path: bytes) -> bytes:
    """A row's path as `spelled` has it; of a file that was uploaded to Label Studio, the name that it had before."""
    path = unquote_to_bytes(path.partition(SERVED)[2]) if SERVED in path else path
    uploaded = UPLOADED.search(path) if b"upload/" in path else None
    return spelled(uploaded[1] if uploaded else path)


def without_suffix(path: bytes) -> bytes:
    """An image's path as `spelled` has it, less its suffix."""
    return os.path.splitext(spelled(path))[0]


def suffixless(path: bytes) -> bytes | None:
    """A row's path as `spelled` has it, where it has no suffix of an image."""
    return None if type_of_name(path) else spelled_row(path)


def unaligned(path: bytes) -> bytes | None:
    """An aligned image's path as RAF-DB's list has it."""
    stem, suffix = os.path.splitext(spelled(path))
    return stem.removesuffix(ALIGNED) + suffix if stem.endswith(ALIGNED) else None


# What is compared of an image's path and a row's, the next only of what fits none by those before.
WAYS: tuple[tuple[Key, Key], ...] = (
    (plain, plain),
    (spelled, spelled_row),
    (without_suffix, suffixless),
    (unaligned, spelled_row),
)
BY_NAME: tuple[Key, Key] = (
    lambda path: os.path.basename(spelled(path)),
    lambda path: os.path.basename(spelled_row(path)),
)


def match(
    images: Sequence[bytes],
    below: Sequence[bytes],
    rows: Sequence[bytes | None],
    ways: Sequence[tuple[Key, Key]] = WAYS,
) -> Match:
    """Find the row of each image.

    What the real path does not match is matched where, in whole parts, the row's path ends in the image's `below`, or
    the image's path ends in the row's, and no second image or row would fit.

    images: paths to open.
    below: the same paths from the folder (or table) of the truth on.
    rows: the paths that the table gives, relative ones from the working folder on; None: of no image.
    ways: which paths count as the same, the surest first.
    """
    found = _by_real_path(images, rows)
    matched = [int((found != UNMATCHED).sum())]
    crowded: set[int] = set()
    for of_image, of_row in ways:
        taken = set(found.tolist())
        left = {row: path for row, path in enumerate(rows) if path is not None and row not in taken}
        open_images = [image for image in np.flatnonzero(found == UNMATCHED).tolist() if image not in crowded]
        if open_images and left:
            pairs, several = _tails(open_images, left, images, below, of_image, of_row)
            crowded |= several
            uses = Counter(image for image, _ in pairs), Counter(row for _, row in pairs)
            for image, row in pairs:
                if uses[0][image] == 1 and uses[1][row] == 1 and image not in crowded:
                    found[image] = row
                else:
                    crowded.add(image)
        matched.append(int((found != UNMATCHED).sum()))
    surplus = np.setdiff1d(np.arange(len(rows)), found)
    return Match(found, surplus, matched[0], matched[-1] - matched[0], matched[-1] - matched[1], len(crowded))


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
    if is_remote(path):
        return path
    folder, name = os.path.split(path)
    if os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_real_folder(folder), name)


@lru_cache(maxsize=4096)
def _real_folder(folder: bytes) -> bytes:
    return os.path.realpath(folder or b".")


def _tails(
    open_images: Sequence[int],
    left: Mapping[int, bytes],
    images: Sequence[bytes],
    below: Sequence[bytes],
    of_image: Key,
    of_row: Key,
) -> tuple[list[tuple[int, int]], set[int]]:
    """Every (image, row) that the ends of their paths make a pair, and the images that several rows could be of.

    open_images: indices of the images without a row.
    left: paths of the rows without an image.
    images, below: as in `match`.
    of_image, of_row: what is compared of them.
    """
    by_below = _grouped({image: below[image] for image in open_images}, of_image)
    by_row = _grouped(left, of_row)
    pairs: dict[tuple[int, int], None] = {}
    crowds: set[bytes] = set()  # ends that several images have
    for path, rows in by_row.items():
        end = next((tail for tail in _ends(path) if tail in by_below), None)
        if end is not None and len(by_below[end]) == 1:
            pairs |= {(by_below[end][0], row): None for row in rows}
        elif end is not None:
            crowds.add(end)
    crowded = {image for end in crowds for image in by_below[end]}
    for image in open_images:
        key = of_image(os.path.abspath(images[image]))
        rows = next((by_row[tail] for tail in _ends(key) if tail in by_row), []) if key is not None else []
        if len(rows) == 1:
            pairs[image, rows[0]] = None
        elif rows:
            crowded.add(image)
    return list(pairs), crowded


def _grouped(paths: Mapping[int, bytes], of: Key) -> dict[bytes, list[int]]:
    """The numbers of paths, by what is compared of them."""
    numbers: dict[bytes, list[int]] = {}
    for number, path in paths.items():
        if (key := of(path)) is not None:
            numbers.setdefault(key, []).append(number)
    return numbers


def _ends(path: bytes) -> Iterator[bytes]:
    """The path, then what is left of it without its first part, its first two, ..."""
    yield path
    slash = path.find(b"/")
    while slash != -1:
        yield path[slash + 1 :]
        slash = path.find(b"/", slash + 1)
