"""The truth in the forms people have it: class folders, or a table of paths and labels."""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ferbatch.core import archives
from ferbatch.core.errors import NoImagesError, UsageError
from ferbatch.core.names import decode_path, escape, listed, shown
from ferbatch.core.records import NONE, USUAL, Rules
from ferbatch.sources import tables
from ferbatch.sources.labels import class_of, folded, label_of
from ferbatch.sources.listing import Listing, found_aside, list_images
from ferbatch.sources.matching import real_path

LABEL_COLUMNS = ("truth", "label", "class", "expression", "emotion")


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


def parse_classes(text: str | None, labels: Sequence[str]) -> dict[str, str]:
    """`0=happy,1=sad` as name in lower case -> label; UsageError where it says something else."""
    classes: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in (text or "").split(","))):
        name, equals, spelling = pair.partition("=")
        label = label_of(spelling, labels)
        if not equals or not name.strip() or label is None:
            raise UsageError(f"--classes {escape(pair)}: say NAME=LABEL,NAME=LABEL,… with the labels {listed(labels)}")
        if classes.setdefault(folded(name), label) != label:
            raise UsageError(f"--classes says two things of {escape(name.strip())}")
    return classes


def read_truth(path: str, labels: Sequence[str], classes: Mapping[str, str], rules: Rules = USUAL) -> Truth:
    """The images of a folder of class folders, or of a csv, json, jsonl or parquet table with path and label.

    Raises UsageError where it is neither or no image of it has a label, NoImagesError where there is no image.
    `rules` say what counts in folders, and are none of a table's.
    """
    truth = read_classes(path, labels, classes, rules=rules)
    if not truth.has_label.any():
        _refuse(path, truth)
    return truth


def read_classes(
    path: str,
    labels: Sequence[str],
    classes: Mapping[str, str],
    splits: Callable[[str], bool] = lambda name: False,
    rules: Rules = USUAL,
) -> Truth:
    """As `read_truth`, whether or not any image has one of the labels.

    splits: whether a folder of this name holds class folders, rather than being one; where a folder directly in `path`
        does, they all do.
    """
    if os.path.isdir(path) or archives.holds_folders(os.fsencode(path)):
        truth = _of_folders(path, labels, classes, splits, rules)
    elif os.path.exists(path):
        if rules != USUAL:
            raise UsageError(f"--hidden, --exclude and --follow-links are of folders: {shown(path)} is a table")
        truth = _of_table(path, labels, classes)
    else:
        raise UsageError(f"no such file or folder: {shown(path)}")
    if not len(truth.images):
        raise NoImagesError(f"no images found under {shown(path)}{found_aside(truth.images)}")
    return truth


def _refuse(path: str, truth: Truth) -> None:
    """UsageError that says why nothing there has a label, and what would help."""
    others = [escape(name) for name, _ in truth.others().most_common(8)]
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
    path: str, labels: Sequence[str], classes: Mapping[str, str], splits: Callable[[str], bool], rules: Rules
) -> Truth:
    """The images of class folders, each with the class of the folders that it lies in."""
    listing = list_images([path], labels, classes=classes, rules=rules)
    number = {name: index for index, name in enumerate(labels)}
    root = os.fsencode(path).rstrip(b"/") + b"/"
    tops = [prefix[len(root) :].partition(b"/") for prefix, _ in listing.folders]
    is_split = any(splits(os.fsdecode(top)) for top, _, _ in tops)
    code_of_folder = []
    for (prefix, truth), (_, _, below_split) in zip(listing.folders, tops, strict=True):
        inside = below_split if is_split else prefix[len(root) :]
        if truth is None and not inside:  # beside the class folders, in none
            code_of_folder.append(NONE)
        else:
            code_of_folder.append(number.setdefault(truth or class_of(inside), len(number)))
    codes = np.array(code_of_folder, np.int32)[np.array(listing.folder_of, np.int64)]
    below = _Below(listing, len(root))
    parts = {folded(os.fsdecode(part)) for prefix, _ in listing.folders for part in prefix.split(b"/")}
    unused = _unused(classes, parts)
    return Truth(listing, below, codes, _shown(list(number), labels), tuple(labels), aside=listing.aside, unused=unused)


def _of_table(path: str, labels: Sequence[str], classes: Mapping[str, str]) -> Truth:
    """The images of a table, each path once; one that is given two classes is left out."""
    frame = tables.read_table(path)
    paths = [decode_path(value) for value in frame[tables.column(frame, tables.PATH_COLUMNS, path)]]
    label_column = tables.column(frame, LABEL_COLUMNS, path)
    given = [value.strip() for value in frame[label_column]]
    if len(frame) and not any(given):
        raise UsageError(f"the column {escape(label_column)} of {shown(path)} is empty")
    if b"" in paths:
        raise UsageError(f"row {paths.index(b'') + 1} of {shown(path)} names no image")
    base, listing = _base(path, paths), Listing()
    class_: dict[bytes, str] = {}
    first: dict[bytes, bytes] = {}  # file -> the first spelling of its path
    conflicting: set[bytes] = set()
    for file, name in zip(paths, given, strict=True):
        file = first.setdefault(real_path(os.path.join(base, file)), file)
        name = label_of(name, labels, classes) or name
        if class_.setdefault(file, name) != name:
            conflicting.add(file)
    names = [*labels, *sorted(set(class_.values()) - {"", *labels})]
    number = {name: index for index, name in enumerate(names)} | {"": NONE}
    numbers, below = array("i"), list[bytes]()
    for file, name in class_.items():
        if file in conflicting:
            continue
        folder, base_name = os.path.split(os.path.join(base, file))
        listing.add(folder + b"/" if folder else b"", base_name, name if name in labels else None)
        numbers.append(number[name])
        below.append(file)
    unused = _unused(classes, {folded(name) for name in given})
    codes = np.array(numbers, np.int32)
    return Truth(listing, below, codes, _shown(names, labels), tuple(labels), len(conflicting), unused)


def _unused(classes: Mapping[str, str], there: set[str]) -> tuple[str, ...]:
    return tuple(escape(name) for name in classes if name not in there)


def _base(path: str, files: Sequence[bytes]) -> bytes:
    """The folder that a table's paths start from: its own, or the working folder where only that one has them."""
    own = os.path.dirname(os.fsencode(path))
    some = files[:: max(1, len(files) // 100)]
    if not any(os.path.lexists(os.path.join(own, file)) for file in some) and any(map(os.path.lexists, some)):
        return b""
    return own


def _shown(names: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    return (*labels, *(escape(name) for name in names[len(labels) :]))
