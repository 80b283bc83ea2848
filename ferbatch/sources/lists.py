"""Lists of images among PATHS: tables with a column of paths or URLs, and texts with one a line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from ferbatch.core.errors import UsageError
from ferbatch.core.names import count, shown
from ferbatch.core.options import SAYS_ALL, TableOptions
from ferbatch.core.records import MAX_BYTES
from ferbatch.core.stores.urls import cleaned, is_remote, without_secret
from ferbatch.images.formats import type_of_name
from ferbatch.sources import contents
from ferbatch.sources.contents import is_table
from ferbatch.sources.expansion import expanded
from ferbatch.sources.finding import Found, base_of, based, files_of, find
from ferbatch.sources.kinds import SUFFIXES, TEXTS, suffix_of
from ferbatch.sources.listing import STDIN, Lists, read_list

BY_ROWS = frozenset([*TEXTS, "jsonl"])  # suffixes of tables of which the first rows can be read alone
LOOSE = frozenset(["txt", "lst", "json"])  # that hold other things as well; those that name no image are no lists


def lists_in(
    paths: Sequence[str | os.PathLike[str]],
    choice: TableOptions,
    listed: Iterable[bytes] | None = None,
    *,
    is_own: Callable[[str], bool] = lambda path: False,
) -> tuple[Lists, list[str]]:
    """Which of PATHS stand for other paths, and for which; and how they were read, a sentence each.

    UsageError where a table names no images, or none that are there, or `choice` speaks of lists and there is none.
    Among other PATHS, as a shell makes them of `*`, nobody may have meant it for a list: there it is none, which is
    said, and so is how many images a list names.

    choice: what a table does not say of itself; its `images` are where relative paths start from, on stdin as well.
    listed: the paths that `-` stands for.
    is_own: whether the run itself writes to a path, which is then no list among others.
    """
    found: dict[bytes, Iterable[bytes]] = {}
    notes: list[str] = []
    named = [*chain.from_iterable(map(_standing_for, paths))]
    may_be_some = {path for path in named if is_table(path)}
    among = choice == SAYS_ALL and not all(path == "-" or path in may_be_some for path in named)
    for path in named:
        if path in may_be_some:
            files, said = _read_among(path, is_own) if among else _read(path, choice)
            if files is not None:
                found[os.fsencode(path)] = files
            notes += said
    contents.let_go()
    if listed is not None:
        found[STDIN] = listed if choice.images is None else _from(choice.images, listed)
    if choice != SAYS_ALL and not found:
        option = "--images" if choice.images is not None else "--path-column"
        raise UsageError(f"{option} needs a list among the PATHS: faces.csv, say")
    return found, notes


def _standing_for(path: str | os.PathLike[str]) -> list[str]:
    """One of PATHS as it may be written; in place of a pattern of tables in a store, those."""
    name = without_secret(os.fsdecode(path))
    if suffix_of(name) in SUFFIXES and is_remote(os.fsencode(name)):
        return [os.fsdecode(one) for one in expanded([os.fsencode(name)])]
    return [name]


def _from(images: str, listed: Iterable[bytes]) -> Iterator[bytes]:
    """The paths of a list from the folder on that --images says."""
    base = base_of(images)
    return (based(base, path) for path in listed)


def _read_among(path: str, is_own: Callable[[str], bool]) -> tuple[Sequence[bytes] | None, Sequence[str]]:
    """As `_read`, of what somebody may have named for its folder's sake: what is no list is none, with a note."""
    if is_own(path):
        return None, ()
    try:
        files, notes = _read(path, SAYS_ALL)
    except UsageError as error:
        return None, [_no_list(path, error)]
    if files is None:
        return None, notes
    return files, [f"{shown(path)} is read as a list of {count(len(files), 'image')}", *notes]


def _no_list(path: str, error: UsageError) -> str:
    return f"{shown(path)} is not read as a list of images: {error}"


def _read(path: str, choice: TableOptions) -> tuple[Sequence[bytes] | None, Sequence[str]]:
    """The files that a list names, and how it was read, or why not; None where it names none, or holds images."""
    notes: tuple[str, ...] = ()
    may_be_none = suffix_of(path) in LOOSE and choice == SAYS_ALL
    if suffix_of(path) in LOOSE and choice.path_column is None and _is_plain(path):
        with contents.opened(path) as stream:
            found = find(path, [*dict.fromkeys(map(cleaned, read_list(stream, b"\n", shown(path))))], choice.images)
    else:
        try:
            table = None if may_be_none and contents.size_of(path) > MAX_BYTES else _of_table(path, choice)
        except UsageError as error:
            if may_be_none:
                return None, [_no_list(path, error)]
            raise
        if table is None:
            return None, ()
        found, notes = table
        if may_be_none and not found.files:  # two words of prose
            return None, ()
    if found.none:
        raise UsageError(found.absent)
    return [*found.files.values()], (*notes, *found.notes, *filter(None, [found.absent]))


def _of_table(path: str, choice: TableOptions) -> tuple[Found, tuple[str, ...]] | None:
    """Where the images are that a table names, and how it was read; None where its images are in it as in an archive.

    UsageError where it names none.
    """
    from ferbatch.sources import tables

    if suffix_of(path) == "parquet" and choice.path_column is None and tables.of_images(path):
        return None
    if suffix_of(path) in BY_ROWS:  # so that what names no images is not read whole
        tables.read_table(path, tables.LOOKED_AT).path_column(choice.path_column)
    table = tables.read_table(path)
    paths = table.paths(table.path_column(choice.path_column))
    if b"" in paths:
        raise UsageError(f"row {paths.index(b'') + 1:,} of {shown(path)} names no image")
    return files_of(table, [*dict.fromkeys(paths)], choice), table.notes


def _is_plain(path: str) -> bool:
    """Whether it is a text with a path a line, rather than a table: by its first line."""
    with contents.opened(path) as stream, suppress(UsageError):  # for it is no text
        line = next(read_list(stream, b"\n"), b"")
        return type_of_name(line) is not None or (is_remote(line) and not re.search(rb"[\s,;]", line))
    return False
