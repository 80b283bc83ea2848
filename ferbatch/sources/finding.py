"""Where the images are that a table names: as it names them, else where exactly one file fits."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ferbatch.core.errors import UsageError
from ferbatch.core.names import count, encode_path, shown
from ferbatch.core.options import TableOptions
from ferbatch.core.stores.urls import below, fetchable, folder_of, is_remote
from ferbatch.images.formats import type_of_name
from ferbatch.sources.listing import list_images
from ferbatch.sources.matching import BY_NAME, UNMATCHED, WAYS, match, plain, spelled, spelled_row

if TYPE_CHECKING:
    from ferbatch.sources.tables import Table

ROOTED = re.compile(rb"[/\\]|[A-Za-z]+:")  # how a path begins that leads elsewhere on another machine
LOOKED_THROUGH = 10_000  # names in a folder, to show one of an image


@dataclass(frozen=True, slots=True)
class Found:
    """Where N paths of a table lead."""

    files: Mapping[bytes, bytes]  # each path -> the file to open, whether or not it is there
    notes: tuple[str, ...] = ()  # what is said of those that are spelled otherwise
    none: bool = False  # whether none of them is there
    absent: str = ""  # how many of how many are there, with an example of each side; empty where all are


def find(table: str, paths: Sequence[bytes], images: str | None) -> Found:
    """The files that a table's paths mean; each path once.

    A path starts from `images` (by --images), else from the table's folder, or from the working folder where only that
    one has some and the table is a file. One that leads nowhere so is the file whose name is spelled otherwise, by the
    last part of the path that leads somewhere; with `images`, the file below it whose path ends alike, or that alone
    has that name.
    A URL leads where it says, unless `images` is a folder with a file that it could mean; where `images` is in a store,
    relative paths lead there, too. Whether something is there shows when it is fetched.
    UsageError where `images` is no folder, or a URL is not to be fetched.
    """
    is_away = images is None and is_remote(os.fsencode(table))
    base = folder_of(os.fsencode(table)) if is_away else base_of(images)
    away = {path: based(base, path) for path in paths if is_remote(path)} if images is None else {}
    if is_remote(base):
        away = {path: based(base, path) for path in paths if not ROOTED.match(path) or is_remote(path)}
    near = [path for path in paths if path not in away]
    if not away:
        return _near(table, near, images)
    found = _near(table, near, None, "local image") if near else Found({})
    return replace(found, files={path: away.get(path) or found.files[path] for path in paths}, none=False)


def files_of(table: Table, paths: Sequence[bytes], choice: TableOptions) -> Found:
    """Where the images are that a table names, each once, or that are its own rows."""
    if table.of_pixels or (table.of_images and choice.path_column is None):
        if choice.images is not None:
            raise UsageError(f"--images: the images of {shown(table.path)} are in it")
        return Found({path: os.path.join(os.fsencode(table.path), path) for path in paths})
    return find(table.path, paths, choice.images)


def base_of(images: str | None) -> bytes:
    """The folder that --images says, empty for none; UsageError where there is none such."""
    base = os.fsencode(images or "")
    if images is not None and not is_remote(base) and not os.path.isdir(base):
        raise UsageError(f"--images: no folder {shown(images)}")
    return base


def based(base: bytes, path: bytes) -> bytes:
    """Where a path leads from a folder, which may be in a store; UsageError for a URL that is not to be fetched."""
    if is_remote(path) or not is_remote(base):
        return fetchable(os.path.join(base, path) if not is_remote(path) else path)
    return path if ROOTED.match(path) else fetchable(below(base, path))


def _near(table: str, paths: Sequence[bytes], images: str | None, noun: str = "image") -> Found:
    """What `find` says of paths to files."""
    own = os.fsencode(os.path.dirname(table) if images is None else images)
    bases = list(dict.fromkeys([own, b""])) if images is None else [own]
    base = next((base for base in bases if any(os.path.lexists(os.path.join(base, path)) for path in paths)), None)
    files = {path: os.path.join(own if base is None else base, path) for path in paths}
    lost = {path: None for path, file in files.items() if not os.path.lexists(file)}
    if not lost:
        return Found(files)
    guesses: dict[bytes, bytes] = {}
    for place in bases if base is None else [base]:
        guesses = guesses or _spelled_otherwise(place, list(lost))
    if images is not None and len(guesses) < len(lost):
        guesses |= _below(images, [path for path in lost if path not in guesses])
    # A file that a path leads to is not the one of another path, and one that two paths could mean is of neither.
    uses = Counter(map(os.path.normpath, guesses.values()))
    uses.update(os.path.normpath(file) for path, file in files.items() if path not in lost)
    guesses = {path: file for path, file in guesses.items() if uses[os.path.normpath(file)] == 1}
    said = [
        f"{count(len(guesses), 'image')} of {shown(table)} found, though written otherwise:"
        f" {_named(path)} is {_named(file)}"
        for path, file in itertools.islice(guesses.items(), 1)
    ]
    files |= guesses
    files |= {path: fetchable(path) for path in lost if path not in guesses and is_remote(path)}
    absent = {path: None for path in lost if path not in guesses and not is_remote(path)}
    why = _absent(table, files, absent, own, images, noun) if absent else ""
    return Found(files, tuple(said), len(absent) == len(files), why)


def _named(path: bytes) -> str:
    return brief_path(encode_path(path))


def brief_path(path: str, most: int = 80) -> str:
    """A path as printed, less its beginning where it is long."""
    return path if len(path) <= most else f"...{path[3 - most :]}"


def _spelled_otherwise(base: bytes, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """The paths that lead to one file, names being spelled otherwise.

    Of one that begins at the root of a machine, or of the web, the longest end that leads to one counts.
    """
    names_of = lru_cache(maxsize=4096)(_names)
    found = {}
    for path in paths:
        parts = spelled_row(path).split(b"/")
        for start in range(len(parts) if ROOTED.match(path) else 1):
            file = base
            for at in range(start, len(parts)):
                names = names_of(file)
                fitting = names.get(parts[at], ())
                if at == len(parts) - 1 and not fitting and not type_of_name(path):
                    fitting = names.get(parts[at] + SUFFIX, ())
                if len(fitting) > 1:  # one may be spelled as the path is, part by part
                    own = plain(path.replace(b"\\", b"/")).split(b"/")[-len(parts) :][at]
                    fitting = (own,) if own in fitting else ()
                file = os.path.join(file, *fitting) if fitting else b""
                if not file:
                    break
            if file and not os.path.isdir(file):
                found[path] = file
                break
    return found


SUFFIX = b"\0"  # stands for whichever suffix a name has


def _names(folder: bytes) -> dict[bytes, tuple[bytes, ...]]:
    """What is in a folder by how it may be spelled: files as well with SUFFIX for theirs, if it is an image's."""
    names: dict[bytes, tuple[bytes, ...]] = {}
    with suppress(OSError, ValueError):
        for name in os.listdir(folder or b"."):
            key = spelled(name)
            for one in (key, os.path.splitext(key)[0] + SUFFIX) if type_of_name(name) else (key,):
                names[one] = (*names.get(one, ()), name)
    return names


def _below(folder: str, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """The images below a folder that these paths mean, by what both end in, or else by their names alone."""
    listing = list_images([folder], ())
    start = len(os.fsencode(folder).rstrip(b"/")) + 1
    files = [ref.file for ref in listing]
    rows = match(files, [file[start:] for file in files], paths, (*WAYS, BY_NAME)).rows
    return {paths[int(rows[index])]: files[index] for index in np.flatnonzero(rows != UNMATCHED).tolist()}


def _absent(
    table: str, files: Mapping[bytes, bytes], absent: Mapping[bytes, None], folder: bytes, images: str | None, noun: str
) -> str:
    """How many images of a table are there, one that is not, and one that is, in words.

    table: as it was named.
    files: what was looked for, by the path in the table.
    absent: the paths that lead nowhere.
    folder: in which an image is looked for, to name one that there is.
    images: what --images says.
    noun: what the images are called.
    """
    n = len(files) - len(absent)
    there = (file for path, file in files.items() if path not in absent) if n else _some_image(folder)
    how_many = f"{n:,} of the" if n else "none of the"
    where = "--images DIR says which folder they are in" if images is None else f"--images is {shown(images)}"
    return (
        f"{how_many} {count(len(files), noun)} of {shown(table)} {'is' if n < 2 else 'are'} there: looked for"
        f" {_named(files[next(iter(absent))])}, there is {next(map(_named, there), 'no image')} ({where})"
    )


def _some_image(folder: bytes) -> Iterator[bytes]:
    """Images below a folder, of the first names in it."""
    names = (os.path.join(top, name) for top, _, inside in os.walk(folder or b".") for name in sorted(inside))
    return (os.path.normpath(name) for name in itertools.islice(names, LOOKED_THROUGH) if type_of_name(name))
