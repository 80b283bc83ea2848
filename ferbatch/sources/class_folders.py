"""Images of class folders, and of the tables of images in a folder, each with the class that it is in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ferbatch.core import archives
from ferbatch.core.errors import UsageError
from ferbatch.core.names import brief, escape, listed, shown
from ferbatch.core.records import NONE, Rules
from ferbatch.sources.hub import split_of
from ferbatch.sources.labels import class_of, folded, label_of
from ferbatch.sources.listing import Listing
from ferbatch.sources.walk import Walk


class Classes(NamedTuple):
    """N images below a folder, and their classes."""

    images: Listing
    start: int  # of the path below the folder, in the paths of images
    codes: NDArray[np.int32]  # (N,) index into `names`, NONE where no class is given
    names: tuple[str, ...]  # of all classes, the labels first
    unused: tuple[str, ...]  # names that were said to stand for a label, and that nothing is called
    tables: int  # of images, that were among them

    def below(self) -> Iterator[bytes]:
        """The path of each image from the folder on."""
        return (file[self.start :] for file in self.images.files())


def list_classes(
    path: str,
    labels: Sequence[str],
    classes: Mapping[str, str],
    rules: Rules,
    splits: Callable[[str], bool] | None = None,
    column: str | None = None,
) -> Classes:
    """The images below a folder, each with the class of the folders that it lies in, or of its row in a table.

    UsageError where it cannot be listed, or a table of images has no such column.

    labels, classes, rules: as `list_images` has them.
    splits: whether a folder of this name holds class folders, rather than being one; where a folder directly in `path`
        does, they all do. None: no folder does.
    column: what the tables of images call the one that says the class.
    """
    listing, rows = Listing(), _Rows(column)
    walk = Walk(partial(label_of, labels=labels, classes=classes), True, rules, listing.add, classes_in=rows.of)
    walk.add_all([os.fsencode(path)], {})
    listing.left = walk.left
    if column is not None and not rows.tables:
        raise UsageError(_without_tables("--label-column", path))
    number = {name: index for index, name in enumerate(labels)}
    root = os.fsencode(path).rstrip(b"/") + b"/"
    tops = [prefix[len(root) :].partition(b"/") for prefix, _ in listing.folders]
    is_split = splits is not None and any(splits(os.fsdecode(top)) for top, _, _ in tops)
    code_of_folder = []
    for (prefix, truth), (_, _, below_split) in zip(listing.folders, tops, strict=True):
        inside = below_split if is_split else prefix[len(root) :]
        if truth is None and (not inside or rows.say(prefix)):  # beside the class folders, in none
            code_of_folder.append(NONE)
        else:
            code_of_folder.append(number.setdefault(truth or class_of(inside), len(number)))
    listing.folders = [(prefix, truth if truth in labels else None) for prefix, truth in listing.folders]
    codes = np.array(code_of_folder, np.int32)[np.array(listing.folder_of, np.int64)]
    parts = {folded(os.fsdecode(part)) for prefix, _ in listing.folders for part in prefix.split(b"/")}
    unused = tuple(escape(name) for name in classes if name not in parts | rows.names)
    return Classes(listing, len(root), codes, tuple(number), unused, len(rows.tables))


class _Rows:
    """What the rows of tables show, read once each; and what all of them are called."""

    def __init__(self, column: str | None) -> None:
        self.column, self.names, self.tables = column, set[str](), dict[bytes, bool]()

    def of(self, path: bytes) -> Sequence[str] | None:
        """What each row of a table shows; None where it does not say it, or is no table but an archive."""
        if not path.lower().endswith(b".parquet"):
            return None
        from ferbatch.sources.parquet import shows  # imports pandas

        found = shows(path, self.column)
        self.tables[path] = found is not None
        self.names |= {folded(name) for name in set(found or ())}
        return found

    def say(self, prefix: bytes) -> bool:
        """Whether a folder is in a table that says what its rows show."""
        return any(says and prefix.startswith(path + b"/") for path, says in self.tables.items())


def check_whole(found: Classes, path: str, asked: str | None) -> None:
    """UsageError where a table of images is damaged, for then it is not known what is missing of the truth.

    path: of the folder.
    asked: by --split: those of others may be damaged.
    """
    for below in found.below():
        if not below.lower().endswith(archives.TABLE) or archives.is_table(below):
            continue
        split = split_of(below + b"/")
        if asked is None or split is None or folded(split) == folded(asked):
            named = shown(os.path.join(path, os.fsdecode(below)))
            raise UsageError(
                f"{named} is damaged or not there, and so is a part of the truth (--exclude leaves it out)"
            )


def of_split(found: Classes, asked: str, path: str) -> NDArray[np.bool_]:
    """(N,) whether an image is of a split; UsageError where the tables' names say no such one.

    asked: by --split.
    path: of the folder.
    """
    if not found.tables:
        raise UsageError(_without_tables("--split", path))
    splits = [split_of(below) for below in found.below()]
    chosen = np.array([split is not None and folded(split) == folded(asked) for split in splits], bool)
    if not chosen.any():
        there = listed([brief(split, 20) for split in dict.fromkeys(splits) if split], 6) or "none"
        raise UsageError(f"--split: no table in {shown(path)} is called like {brief(asked, 40)} (there is: {there})")
    return chosen


def _without_tables(option: str, path: str) -> str:
    return f"{option} needs a table, and {shown(path)} is a folder without one of images"
