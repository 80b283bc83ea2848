"""The truth in the forms people have it: class folders, or a table of paths and labels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import NoImagesError, UsageError
from ferbatch.core.names import brief, count, escape, listed, shown
from ferbatch.core.options import SAYS_ALL, TableOptions
from ferbatch.core.records import NONE, USUAL, Rules
from ferbatch.sources import tables
from ferbatch.sources.class_folders import check_whole, list_classes, of_split
from ferbatch.sources.contents import is_of_folders, is_table
from ferbatch.sources.finding import files_of
from ferbatch.sources.labels import folded, label_of
from ferbatch.sources.listing import Listing, found_aside
from ferbatch.sources.matching import real_path
from ferbatch.sources.tables import Table

TEST_PART = "PrivateTest"  # of FER2013: what a model is held against
OF_TABLES_WITHIN = ("--label-column", "--split")  # options of a table, and of those of images in a folder


@dataclass(frozen=True, slots=True)
class Truth:
    """N images and what each one shows: a label, a class that is no label (angry, say), or nothing known."""

    images: Listing
    below: Sequence[bytes]  # the images' paths from the truth folder or table on
    codes: NDArray[np.int32]  # (N,) index into `names`, NONE where no class is given
    names: tuple[str, ...]  # of all classes, the labels first
    labels: tuple[str, ...]  # that a model can give
    conflicts: int = 0  # paths that a table gives two classes; not among the images
    unused: tuple[str, ...] = ()  # names in --classes that nothing is called
    aside: str = ""  # what a folder held besides images, in words
    notes: tuple[str, ...] = ()  # how a table was read, a sentence each
    none_is_there: bool = False  # of the images of a table: they are looked for in the wrong place
    absent: str = ""  # how many of a table's images are there, where not all are, with an example of each side

    def others(self) -> Counter[str]:
        """Images per class that is no label."""
        return Counter(self.names[code] for code in self.codes.tolist() if code >= len(self.labels))

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """(N,) whether the image's truth is one of the labels."""
        return np.asarray((self.codes != NONE) & (self.codes < len(self.labels)))

    @property
    def is_other(self) -> NDArray[np.bool_]:
        """(N,) whether the image belongs to a class that is no label."""
        return np.asarray(self.codes >= len(self.labels))

    def labelled_as(self, labels: Sequence[str], label_of: Mapping[str, str]) -> Truth:
        """The images with these labels, by which label each class stands for; other classes stay what they are."""
        names = [*labels, *(name for name in self.names if name not in label_of)]
        number = {name: index for index, name in enumerate(names)}
        codes = np.array([*(number[label_of.get(name, name)] for name in self.names), NONE], np.int32)
        return replace(self, codes=codes[self.codes], names=tuple(names), labels=tuple(labels))

    def where(self, which: NDArray[np.bool_]) -> Truth:
        """The images that a mask chooses; what was met besides images (conflicts, `unused`, `aside`) stays known."""
        indices = np.flatnonzero(which)
        images, below = self.images.where(indices), _chosen(self.below, indices)
        return replace(self, images=images, below=below, codes=self.codes[which])


class _Chosen(Sequence[bytes]):
    """Some of many paths, each made only when asked for."""

    def __init__(self, paths: Sequence[bytes], indices: NDArray[np.signedinteger]) -> None:
        self.paths, self.indices = paths, indices.astype(np.int32)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # no slices: nothing needs them
        return self.paths[int(self.indices[index])]


def _chosen(paths: Sequence[bytes], indices: NDArray[np.int64]) -> Sequence[bytes]:
    """The paths at these indices; of some that were chosen themselves, no second list of indices is kept."""
    return _Chosen(paths.paths, paths.indices[indices]) if isinstance(paths, _Chosen) else _Chosen(paths, indices)


class _Below(Sequence[bytes]):
    """The paths of a listing from the truth folder on."""

    def __init__(self, listing: Listing, start: int) -> None:
        self.listing, self.start = listing, start

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        return self.listing[index].file[self.start :]


def of_labels(codes: NDArray[np.int32], labels: Sequence[str]) -> NDArray[np.int16]:
    """Codes of classes as indices of labels, NONE for those that are none."""
    return np.where(codes < len(labels), codes, NONE).astype(np.int16)


def parse_classes(text: str | None, labels: Sequence[str] | None) -> dict[str, str]:
    """`0=happy,1=sad` as name in lower case -> label; UsageError where it says something else.

    `labels` are those that a model can give; None where any name may become one.
    """
    classes: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in (text or "").split(","))):
        name, equals, spelling = pair.partition("=")
        label = (spelling.strip() or None) if labels is None else label_of(spelling, labels)
        if not equals or not name.strip() or label is None:
            which = "" if labels is None else f" with the labels {listed(labels)}"
            raise UsageError(f"--classes {brief(pair)}: say NAME=LABEL,NAME=LABEL,…{which}")
        if classes.setdefault(folded(name), label) != label:
            raise UsageError(f"--classes says two things of {escape(name.strip())}")
    return classes


def read_truth(
    path: str,
    labels: Sequence[str],
    classes: Mapping[str, str],
    choice: TableOptions = SAYS_ALL,
    rules: Rules = USUAL,
) -> Truth:
    """The images of a folder of class folders, or of a table with path and label.

    Of FER2013's own table, without --split, those of its PrivateTest alone. Raises UsageError where it is neither or
    no image of it has a label, NoImagesError where there is no image.

    choice: what a table does not say of itself.
    rules: what counts in folders; they are none of a table's.
    """
    truth = read_classes(path, labels, classes, choice=replace(choice, of_pixels=TEST_PART), rules=rules)
    if not truth.has_label.any():
        _refuse(path, truth)
    return truth


def read_classes(
    path: str,
    labels: Sequence[str],
    classes: Mapping[str, str],
    splits: Callable[[str], bool] | None = None,
    choice: TableOptions = SAYS_ALL,
    rules: Rules = USUAL,
) -> Truth:
    """As `read_truth`, whether or not any image has one of the labels.

    splits: whether a folder of this name holds class folders, rather than being one; where a folder directly in `path`
        does, they all do. None: no folder does.
    choice: what a table does not say of itself.
    """
    if is_of_folders(path):
        if asked := [option for option in choice.of_truth if os.path.isfile(path) or option not in OF_TABLES_WITHIN]:
            what = "an archive of folders" if os.path.isfile(path) else "a folder"
            raise UsageError(f"{asked[0]} needs a table, and {shown(path)} is {what}")
        truth = _of_folders(path, labels, classes, splits, choice, rules)
    elif os.path.exists(path) or is_table(path):
        if rules != USUAL:
            raise UsageError(f"--hidden, --exclude and --follow-links are of folders: {shown(path)} is a table")
        truth = _of_table(path, labels, classes, choice)
    else:
        raise UsageError(f"no such file or folder: {shown(path)}")
    if not len(truth.images):
        raise NoImagesError(f"no images found under {shown(path)}{found_aside(truth.images)}")
    return truth


def _refuse(path: str, truth: Truth) -> None:
    """UsageError that says why nothing there has a label, and what would help."""
    others = [brief(name, 20) for name, _ in truth.others().most_common(8)]
    numbers = [name for name in others if re.fullmatch(r"\d+", name)]
    if numbers:
        pairs = ",".join(f"{name}=LABEL" for name in sorted(numbers, key=int))
        raise UsageError(
            f"the classes of {shown(path)} are numbers: say what they mean with --classes {pairs}"
            f" (labels: {listed(truth.labels)})"
        )
    found = f" (found: {', '.join(others)})" if others else ""
    raise UsageError(
        f"nothing in {shown(path)} is named like a label: {listed(truth.labels)}{found};"
        f" --classes NAME=LABEL says what other names mean{found_aside(truth.images)}"
    )


def _of_folders(
    path: str,
    labels: Sequence[str],
    classes: Mapping[str, str],
    splits: Callable[[str], bool] | None,
    choice: TableOptions,
    rules: Rules,
) -> Truth:
    """The images of class folders and of tables of images, each with its class."""
    found = list_classes(path, labels, classes, rules, splits, choice.label_column)
    check_whole(found, path, choice.split)
    listing, names = found.images, _shown(found.names, labels)
    truth = Truth(
        listing,
        _Below(listing, found.start),
        found.codes,
        names,
        tuple(labels),
        aside=listing.aside,
        unused=found.unused,
    )
    return truth if choice.split is None else truth.where(of_split(found, choice.split, path))


def _of_table(path: str, labels: Sequence[str], classes: Mapping[str, str], choice: TableOptions) -> Truth:
    """The images of a table, each path once; one that is given two classes is left out."""
    table = tables.read_table(path)
    paths, given, notes = _rows(table, choice)
    found = files_of(table, list(dict.fromkeys(paths)), choice)
    class_: dict[bytes, str] = {}
    first: dict[bytes, bytes] = {}  # file -> the first spelling of its path
    conflicting: set[bytes] = set()
    for file, name in zip(paths, given, strict=True):
        file = first.setdefault(real_path(found.files[file]), file)
        meant = tables.EMOTIONS.get(name, name) if table.of_pixels else name
        name = label_of(name, labels, classes) or label_of(meant, labels, classes) or meant
        if class_.setdefault(file, name) != name:
            conflicting.add(file)
    names = [*labels, *sorted(set(class_.values()) - {"", *labels})]
    number = {name: index for index, name in enumerate(names)} | {"": NONE}
    chosen = {file: name for file, name in class_.items() if file not in conflicting}
    listing = Listing()
    for file, name in chosen.items():
        opened = found.files[file]
        base_name = os.path.basename(opened)
        listing.add(opened[: len(opened) - len(base_name)], base_name, name if name in labels else None)
    return Truth(
        listing,
        list(chosen),
        np.array([number[name] for name in chosen.values()], np.int32),
        _shown(names, labels),
        tuple(labels),
        conflicts=len(conflicting),
        unused=_unused(classes, {folded(name) for name in given}),
        notes=(*table.notes, *notes, *found.notes),
        none_is_there=found.none,
        absent=found.absent,
    )


def _rows(table: Table, choice: TableOptions) -> tuple[list[bytes], list[str], list[str]]:
    """The paths in a table, what each is called, and what is said of the choice; UsageError where it has none."""
    path_column, label_column = table.path_column(choice.path_column), table.label_column(choice.label_column)
    rows, notes = _chosen_rows(table, choice)
    every, labelled = table.paths(path_column), table.frame[label_column].tolist()
    paths, given = [every[row] for row in rows], [labelled[row].strip() for row in rows]
    if given and not any(given):
        raise UsageError(f"the column {brief(label_column)} of {shown(table.path)} is empty")
    if b"" in paths:
        raise UsageError(f"row {rows[paths.index(b'')] + 1} of {shown(table.path)} names no image")
    return paths, given, notes


def _chosen_rows(table: Table, choice: TableOptions) -> tuple[Sequence[int], list[str]]:
    """Which rows are taken, and what is said of it; UsageError where --split speaks of none."""
    rows, part = range(len(table.frame)), choice.of_pixels if table.of_pixels else None
    column = table.first_of(tables.SPLIT_COLUMNS)
    if choice.split is None and (part is None or column is None):
        return rows, []
    if column is None:
        raise UsageError(f"--split: {shown(table.path)} has none of the columns {', '.join(tables.SPLIT_COLUMNS)}")
    wanted, values = folded(choice.split or part or ""), list(map(folded, table.frame[column]))
    chosen = [row for row in rows if values[row] == wanted]
    if choice.split is not None:
        if not chosen:
            there = listed([brief(value, 20) for value in dict.fromkeys(table.frame[column])], 6)
            raise UsageError(
                f"--split: no row of {shown(table.path)} says {brief(choice.split, 40)} (it says: {there})"
            )
        return chosen, []
    said = f"{shown(table.path)}: the {count(len(chosen), 'image')} of {part} alone (--split takes another part)"
    return (chosen, [said]) if chosen else (rows, [])


def _unused(classes: Mapping[str, str], there: set[str]) -> tuple[str, ...]:
    return tuple(escape(name) for name in classes if name not in there)


def _shown(names: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    return (*labels, *(escape(name) for name in names[len(labels) :]))
