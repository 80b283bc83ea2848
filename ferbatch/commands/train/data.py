"""What `ferbatch train` learns from: class folders or a table, looked at once, as pixels, labels and votes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from ferbatch.commands.train.classes import left_out, with_every_class
from ferbatch.commands.train.pixels import AT_ONCE, SIZE, Pixels, framed
from ferbatch.core.errors import UsageError
from ferbatch.core.names import brief, count, escape, listed, shown
from ferbatch.core.options import TableOptions, TrainOptions
from ferbatch.core.records import MOST_VALUES, NONE
from ferbatch.scoring.agreement import Votes, majority
from ferbatch.sources import tables, truth
from ferbatch.sources.contents import is_of_folders
from ferbatch.sources.hub import split_of
from ferbatch.sources.labels import LABELS
from ferbatch.sources.metadata import VOTES_PREFIX, read_slices, read_values, read_votes
from ferbatch.sources.truth import Truth

# What folders, or values of the columns above, are called.
TRAIN_WORDS = frozenset(["train", "training"])
VALIDATION_WORDS = frozenset(["validation", "valid", "val", "dev", "publictest"])
# A recipe's word -> views.
FRAMINGS_OF = {"whole": ("whole",), "levelled": ("levelled",), "both": ("whole", "levelled")}
Mask = NDArray[np.bool_]
Sources = tuple[tuple[str, ...], NDArray[np.int64]]  # names; for each image which of them is its own


@dataclass(frozen=True, slots=True)
class Split:
    """The readable images of one split."""

    views: Pixels  # (V, N, size, size), the same images framed in V ways; in a file that is gone when nothing uses it
    labels: NDArray[np.int64]  # (N,) index into `names`
    votes: NDArray[np.float32]  # (N, labels) people's votes for each label; zeros where there are none
    # (N,) index of people's commonest answer, NONE without one; past the labels: none of them
    commonest: NDArray[np.int64]
    sources: NDArray[np.int64]  # (N,) index into Data.sources; zeros where there are none
    names: tuple[str, ...] = LABELS  # what the labels are called, in the order of the outputs

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> dict[str, int]:
        """Images per label, in alphabetical order."""
        return dict(sorted(Counter(self.names[index] for index in self.labels.tolist()).items()))


@dataclass(frozen=True, slots=True)
class Data:
    """A data folder or table, looked at once before the first epoch."""

    train: Split
    validation: Split
    mean: float  # of the training pixels, scaled to 0..1
    std: float  # of the training pixels, scaled to 0..1
    skipped: Sequence[tuple[str, str]]  # path and reason of each unreadable image, in either split
    notes: Sequence[str]  # what else the user should know, a sentence each
    sources: tuple[str, ...] = ()  # the collections that the images are of, where a table tells them apart
    framings: tuple[str, ...] = ("whole",)  # what the views are, values of FRAMINGS_OF

    @property
    def labels(self) -> tuple[str, ...]:
        """What there is to tell apart, in the order of the outputs."""
        return self.train.names

    @property
    def has_votes(self) -> bool:
        return bool(self.train.votes.any())

    @property
    def sha256(self) -> str:
        """Of everything that training sees."""
        digest = hashlib.sha256(b"" if self.labels == LABELS else json.dumps(self.labels).encode())
        for part in (self.train, self.validation):
            for array in (part.views, part.labels, part.votes, part.commonest, *([part.sources] * bool(self.sources))):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Splits:
    """The images of both splits and what people said of them, before any is read."""

    parts: tuple[tuple[Truth, Votes | None], tuple[Truth, Votes | None]]
    notes: Sequence[str]
    names: tuple[str, ...]  # of the sources, where a table tells them apart
    sources: tuple[NDArray[np.int64], NDArray[np.int64]]  # of the images of both parts, as in Split

    @property
    def labels(self) -> tuple[str, ...]:
        return self.parts[0][0].labels

    def __len__(self) -> int:
        return sum(len(images.codes) for images, _ in self.parts)


def list_splits(options: TrainOptions, holdout: float, seed: int, source_column: str = "source") -> Splits:
    """The images of class folders or of a table, as training and validation; nothing is decoded yet.

    A folder holds train/ and validation/ with a folder per label in each, or the label folders themselves; a table has
    the columns path and label, perhaps votes_*, split and `source_column`. What is not split gives `holdout` (0..1) of
    its images, in every label's share, to validation. `options.labels` say which classes are labels, and their order;
    all are, where they are None. UsageError where that cannot be made of it.
    """
    data, labels = options.data, options.labels
    votes: Path | str | None = options.votes
    table = replace(options.table, source_column=source_column)
    known, classes = LABELS if labels is None else labels, truth.parse_classes(table.classes, labels)
    images = truth.read_classes(str(data), known, classes, _is_split, table, options.rules)
    if is_of_folders(str(data)):
        train, validation = _splits_of_folders(data, images)
    else:
        train, validation, votes = _splits_of_table(data, images, votes, table)
    if labels is None:
        images = with_every_class(data, images, train | validation)
    notes = left_out(images.where(train | validation), labels)
    if images.none_is_there:
        raise UsageError(images.absent)
    if not validation.any():
        train, validation, note = _held_out(data, images, train & images.has_label, holdout, seed)
        notes.append(note)
    elif unused := int(((images.has_label if labels else images.codes != NONE) & ~train & ~validation).sum()):
        notes.append(f"{count(unused, 'image')} in neither split left out")
    chosen = images.has_label & (train | validation)
    images, train, validation = images.where(chosen), train[chosen], validation[chosen]
    cast = _votes(votes, images, notes, table) if votes and len(images.codes) else None
    parts = [(images.where(part), cast.where(part) if cast else None) for part in (train, validation)]
    names, codes = _sources_of_table(data, images, notes, table)
    return Splits((parts[0], parts[1]), notes, names, (codes[train], codes[validation]))


def _sources_of_table(data: Path | str, images: Truth, notes: list[str], table: TableOptions) -> Sources:
    """The collections that a table's column says the images are of; no names where it does not tell them apart."""
    column = table.source_column
    nothing = (), np.zeros(len(images.codes), np.int64)
    if is_of_folders(str(data)) or not len(images.codes):
        return nothing
    found = read_values(str(data), column, images, table)
    if found and len(found[0]) > MOST_VALUES:
        notes.append(f"the column {escape(column)} has {len(found[0]):,} values: they are not taken for sources")
    return found if found and len(found[0]) <= MOST_VALUES else nothing


def _is_split(folder: str) -> bool:
    """Whether a folder is called like one of the two splits."""
    return folder.casefold() in TRAIN_WORDS | VALIDATION_WORDS


def _splits_of_folders(data: Path | str, images: Truth) -> tuple[Mask, Mask]:
    """Which images lie in a folder of DATA, or in a table in it, that is called like a split.

    All are training images where none does.
    """
    tops = np.array([(split_of(path) or os.fsdecode(path.split(b"/", 1)[0])).casefold() for path in images.below])
    train, validation = (np.isin(tops, sorted(words)) for words in (TRAIN_WORDS, VALIDATION_WORDS))
    if validation.any() and not train.any():
        raise UsageError(f"{shown(data)} has a folder {escape(tops[validation][0])} but no folder train")
    return (train if train.any() else np.ones(len(tops), bool)), validation


def _splits_of_table(
    path: Path | str, images: Truth, votes: Path | str | None, choice: TableOptions
) -> tuple[Mask, Mask, Path | str | None]:
    """Which images the table's column for it puts in which split, and where votes are: in the table, if it has some."""
    table = tables.read_table(str(path))
    frame = table.frame
    if votes is None and any(name.casefold().startswith(VOTES_PREFIX) for name in frame.columns):
        votes = path
    nothing = np.zeros(len(images.codes), bool)
    column = table.first_of(tables.SPLIT_COLUMNS)
    if column is None or set(frame[column].str.strip().str.casefold()) <= TRAIN_WORDS:
        return ~nothing, nothing, votes
    slices, _ = read_slices(str(path), images, choice)
    if column not in slices.columns:  # it has one value only, or very many
        raise UsageError(f"the column {escape(column)} of {shown(path)} names no training and validation images")
    values, codes = slices.columns[column]
    words = (TRAIN_WORDS, VALIDATION_WORDS)
    train, validation = (np.array([value.strip().casefold() in each for value in values])[codes] for each in words)
    for part, each in zip((train, validation), words, strict=True):
        if not part.any():
            said = f"the column {escape(column)} of {shown(path)} says {' or '.join(sorted(each))}"
            raise UsageError(f"{said} of no image (it says: {brief(listed(values, 6), 120)})")
    return train, validation, votes


def _held_out(data: Path | str, images: Truth, train: Mask, holdout: float, seed: int) -> tuple[Mask, Mask, str]:
    """The training images parted in two, and a sentence that says so; UsageError where they are too few.

    data: what messages name.
    images: all there are.
    train: which of them may be trained on.
    holdout: the share (0..1) that goes to validation.
    seed: draws them.
    """
    chosen = np.flatnonzero(train)
    codes = images.codes[chosen]
    labels = len(images.labels)
    if few := [label for number, label in enumerate(images.labels) if (codes == number).sum() < 2]:
        said = f"fewer than 2 images of {listed(few)}; none can be held out for validation"
        raise UsageError(f"{shown(data)}: {said} (--labels can leave a label out)")
    size = holdout if round(len(chosen) * holdout) >= labels else labels
    kept, held = train_test_split(chosen, test_size=size, random_state=seed, stratify=codes)
    unseen = np.setdiff1d(codes, images.codes[held])  # labels too rare for their share to be an image
    moved = [kept[np.flatnonzero(images.codes[kept] == code)[0]] for code in unseen.tolist()]
    kept, held = np.setdiff1d(kept, moved), np.concatenate([held, np.array(moved, held.dtype)])
    note = (
        f"{shown(data)} has no validation split: {len(held):,} of {len(chosen):,} images, taken at random, are held"
        " out (near copies of training images among them make the figures too good)"
    )
    numbers = np.arange(len(train))
    return np.isin(numbers, kept), np.isin(numbers, held), note


def _votes(path: Path | str, images: Truth, notes: list[str], table: TableOptions) -> Votes:
    votes, matched = read_votes(str(path), images, table)
    notes.extend(note for note in matched.notes if note not in notes)
    if matched.missing:
        notes.append(f"no votes for {count(matched.missing, 'image')}, {matched.missing_example} for one")
    if matched.ambiguous:
        notes.append(f"votes that could be of more than one image left aside: {matched.ambiguous:,}")
    return votes


def read(
    data: Path | str, splits: Splits, framing: str = "whole", tick: Callable[[int], None] = lambda n: None
) -> Data:
    """Read every image once, whole and as its face is found in it; UsageError where a split has none of a label.

    data: what messages name.
    splits: the images.
    framing: one of recipe.FRAMINGS.
    tick: is told of images as they are read.
    """
    skipped: list[tuple[str, str]] = []
    notes = list(splits.notes)
    train, validation = (
        _read(*part, sources, framing, (skipped, notes, tick))
        for part, sources in zip(splits.parts, splits.sources, strict=True)
    )
    missing = [
        f"no {'readable ' if skipped else ''}{name} image of {listed(absent)}"
        for name, part in (("train", train), ("validation", validation))
        if (absent := [label for label in splits.labels if label not in part.counts])
    ]
    if missing:
        raise UsageError(f"{shown(data)}: {'; '.join(missing)}")
    mean, std = _moments(train.views.reshape(-1, SIZE, SIZE))
    return Data(train, validation, mean, std, skipped, notes, splits.names, FRAMINGS_OF[framing])


Hearers = tuple[list[tuple[str, str]], list[str], Callable[[int], None]]  # of skipped images, of notes, of progress


def _read(images: Truth, votes: Votes | None, sources: NDArray[np.int64], framing: str, heard: Hearers) -> Split:
    """The readable images of one split.

    images: all there are.
    votes: for them, where there are some.
    sources: their own, as in Split.
    framing: one of recipe.FRAMINGS.
    heard: paths and reasons of images that cannot be read, sentences, and counts of images as they are read go there.
    """
    skipped, notes, tick = heard
    read, views, faceless = framed(images.images, framing, tick)
    skipped.extend(read.failures)
    if faceless:
        notes.append(f"no face was found in {count(faceless, 'image')}: taken whole")
    chosen = read.found
    counts = votes.counts[chosen] if votes else np.zeros((len(chosen), len(images.labels)))
    voted = counts.sum(1) > 0
    commonest = np.where(voted, majority(counts), NONE) if len(chosen) else np.empty(0, np.int64)
    labels = images.codes[chosen].astype(np.int64)
    of_labels = counts[:, : len(images.labels)].astype(np.float32)
    return Split(views, labels, of_labels, commonest, sources[chosen], images.labels)


def _moments(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of pixels scaled to 0..1, four digits."""
    total, squares = 0.0, 0.0
    for block in np.array_split(pixels, range(AT_ONCE, len(pixels), AT_ONCE)):
        scaled = block / 255
        total, squares = total + scaled.sum(), squares + (scaled**2).sum()
    mean = total / pixels.size
    return round(float(mean), 4), round(float(np.sqrt(squares / pixels.size - mean**2)), 4)
