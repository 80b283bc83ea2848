"""What `ferbatch train` learns from: class folders or a table, looked at once, as pixels and targets."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from ferbatch import tables, truth
from ferbatch.agreement import Votes, majority
from ferbatch.annotations import VOTES_PREFIX, read_slices, read_votes
from ferbatch.errors import UsageError
from ferbatch.paths import count, escape
from ferbatch.predict import ImageFiles, loader
from ferbatch.records import NONE, ImageRef
from ferbatch.truth import Truth

LABELS = ("happy", "sad", "neutral", "surprise")  # the study's order
SIZE = 48  # pixels, the study's
TRAIN_FOLDERS = ("train", "training")
VALIDATION_FOLDERS = ("validation", "valid", "val")
SPLIT_COLUMNS = ("split", "usage", "subset", "set")
TRAIN_WORDS = frozenset(["train", "training"])
VALIDATION_WORDS = frozenset([*VALIDATION_FOLDERS, "dev", "publictest"])
BATCH = 256  # images to decode at a time


@dataclass(frozen=True, slots=True)
class Part:
    """The readable images of one split."""

    pixels: NDArray[np.uint8]  # (N, size, size); in a file that is gone when nothing uses it, not in memory
    labels: NDArray[np.int64]  # (N,) index into LABELS
    votes: NDArray[np.float32]  # (N, labels) people's votes for each label; zeros where there are none
    commonest: NDArray[np.int64]  # (N,) index of people's commonest answer, NONE without one; above 3: no label

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> dict[str, int]:
        """Images per label, in alphabetical order."""
        return dict(sorted(Counter(LABELS[at] for at in self.labels.tolist()).items()))


@dataclass(frozen=True, slots=True)
class Data:
    """A data folder or table, looked at once before the first epoch."""

    train: Part
    validation: Part
    mean: float  # of the training pixels scaled to 0..1
    std: float
    skipped: Sequence[tuple[str, str]]  # path and reason of each unreadable image, in either split
    notes: Sequence[str]  # what else the user should know, a sentence each

    @property
    def has_votes(self) -> bool:
        return bool(self.train.votes.any())

    @property
    def sha256(self) -> str:
        """Of everything that training sees."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            for array in (part.pixels, part.labels, part.votes, part.commonest):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of both splits and what people said of them, before any is read."""

    parts: tuple[tuple[Truth, Votes | None], tuple[Truth, Votes | None]]
    notes: Sequence[str]

    def __len__(self) -> int:
        return sum(len(images.codes) for images, _ in self.parts)


def list_images(data: Path, votes: Path | None, holdout: float, seed: int) -> Listing:
    """The images of class folders or of a table, as training and validation; nothing is decoded yet.

    A folder holds train/ and validation/ with a folder per label in each, or the label folders themselves; a table has
    the columns path and label, perhaps votes_* and split. What is not split gives `holdout` (0..1) of its images, in
    every label's share, to validation. UsageError where that cannot be made of it.
    """
    if not data.is_dir():
        return _of_table(data, votes, holdout, seed)
    train, validation = (_subfolder(data, names) for names in (TRAIN_FOLDERS, VALIDATION_FOLDERS))
    if train and validation:
        return _listing([_truth(train), _truth(validation)], votes, ())
    if validation:
        raise UsageError(f"{escape(str(data))} has a folder {validation.name} but no folder train")
    return _held_out(_truth(train or data), data, votes, holdout, seed)


def _subfolder(data: Path, names: Sequence[str]) -> Path | None:
    return next((data / name for name in names if (data / name).is_dir()), None)


def _truth(path: Path) -> Truth:
    return truth.read_truth(str(path), LABELS, {})


def _of_table(path: Path, votes: Path | None, holdout: float, seed: int) -> Listing:
    images = _truth(path)
    frame = tables.read_table(str(path))
    if votes is None and any(name.casefold().startswith(VOTES_PREFIX) for name in frame.columns):
        votes = path
    by_name = {name.casefold(): name for name in frame.columns}
    column = next((by_name[name] for name in SPLIT_COLUMNS if name in by_name), None)
    if column is None or set(frame[column].str.strip().str.casefold()) <= TRAIN_WORDS:
        return _held_out(images, path, votes, holdout, seed)
    slices, _ = read_slices(str(path), images)
    if column not in slices.columns:  # one value, or very many
        raise UsageError(f"the column {escape(column)} of {escape(str(path))} names no training and validation images")
    values, codes = slices.columns[column]
    chosen = [[value.strip().casefold() in words for value in values] for words in (TRAIN_WORDS, VALIDATION_WORDS)]
    parts = [images.where(np.array(each)[codes]) for each in chosen]
    for part, words in zip(parts, (TRAIN_WORDS, VALIDATION_WORDS), strict=True):
        if not len(part.codes):
            said = f"the column {escape(column)} of {escape(str(path))} says"
            raise UsageError(f"{said} {' or '.join(sorted(words))} of no image (it says: {', '.join(values)})")
    unused = len(images.codes) - sum(len(part.codes) for part in parts)
    note = [f"{count(unused, 'image')} in neither split, by the column {escape(column)}"] if unused else []
    return _listing(parts, votes, note)


def _held_out(images: Truth, data: Path, votes: Path | None, holdout: float, seed: int) -> Listing:
    images = images.where(images.has_label)
    n = len(images.codes)
    few = [label for at, label in enumerate(LABELS) if (images.codes == at).sum() < 2]
    if few or round(n * holdout) < len(LABELS):
        said = f"fewer than 2 images of {', '.join(few)}" if few else f"only {count(n, 'image')}"
        raise UsageError(f"{escape(str(data))}: {said}; none can be held out for validation")
    kept, held = train_test_split(np.arange(n), test_size=holdout, random_state=seed, stratify=images.codes)
    note = (
        f"{escape(str(data))} has no validation split: {len(held):,} of {n:,} images, taken at random, are held out"
        " (near copies of training images among them make the figures too good)"
    )
    masks = [np.isin(np.arange(n), chosen) for chosen in (kept, held)]
    return _listing([images.where(mask) for mask in masks], votes, [note])


def _listing(parts: Sequence[Truth], votes: Path | None, notes: Sequence[str]) -> Listing:
    notes = list(notes)
    others: Counter[str] = sum((part.others() for part in parts), Counter())
    if others:
        named = ", ".join(f"{name} ({n:,})" for name, n in others.most_common(12))
        notes.append(f"left out, for they are no labels: {named}")
    if conflicts := sum(part.conflicts for part in parts):
        notes.append(f"{count(conflicts, 'path')} with two different labels left out")
    train, validation = (part.where(part.has_label) for part in parts)
    return Listing(((train, _votes(votes, train)), (validation, _votes(votes, validation))), notes)


def _votes(path: Path | None, images: Truth) -> Votes | None:
    return read_votes(str(path), images)[0] if path and len(images.codes) else None


def read(data: Path, listing: Listing, tick: Callable[[int], None] = lambda n: None) -> Data:
    """Read every image once; UsageError where a split has no readable image of a label."""
    skipped: list[tuple[str, str]] = []
    train, validation = (_read(images, votes, skipped, tick) for images, votes in listing.parts)
    missing = [
        f"no {'readable ' if skipped else ''}{name} image of {', '.join(absent)}"
        for name, part in (("train", train), ("validation", validation))
        if (absent := [label for label in LABELS if label not in part.counts])
    ]
    if missing:
        raise UsageError(f"{escape(str(data))}: {'; '.join(missing)}")
    mean, std = _moments(train.pixels)
    return Data(train, validation, mean, std, skipped, listing.notes)


def _read(images: Truth, votes: Votes | None, skipped: list[tuple[str, str]], tick: Callable[[int], None]) -> Part:
    refs: Sequence[ImageRef] = images.images
    good: list[int] = []
    with tempfile.TemporaryFile() as file:
        at = 0
        for batch in loader(ImageFiles(refs, SIZE), BATCH, 0):
            for decoded in batch:
                if decoded.pixels is None:
                    skipped.append((decoded.ref.path, decoded.error.message if decoded.error else ""))
                else:
                    file.write(decoded.pixels.tobytes())
                    good.append(at)
                at += 1
            tick(len(batch))
        file.flush()
        shape = (len(good), SIZE, SIZE)
        pixels = np.memmap(file, np.uint8, "r", shape=shape) if good else np.empty(shape, np.uint8)  # outlives `file`
    chosen = np.array(good, np.int64)
    counts = votes.counts[chosen] if votes else np.zeros((len(good), len(LABELS)))
    voted = counts.sum(1) > 0
    commonest = np.where(voted, majority(counts), NONE) if len(good) else np.empty(0, np.int64)
    labels = images.codes[chosen].astype(np.int64)
    return Part(pixels, labels, counts[:, : len(LABELS)].astype(np.float32), commonest)


def _moments(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of pixels scaled to 0..1, four digits."""
    total, squares = 0.0, 0.0
    for block in np.array_split(pixels, range(BATCH, len(pixels), BATCH)):
        scaled = block / 255
        total, squares = total + scaled.sum(), squares + (scaled**2).sum()
    mean = total / pixels.size
    return round(float(mean), 4), round(float(np.sqrt(squares / pixels.size - mean**2)), 4)


def targets(part: Part, share: float) -> NDArray[np.float32]:
    """(N, labels) what each image is said to show: the label, and for `share` (0..1) of it people's votes."""
    given = np.eye(len(LABELS), dtype=np.float32)[part.labels]
    cast = part.votes.sum(1, keepdims=True)
    voted = part.votes / np.maximum(cast, 1)
    return np.where(cast > 0, (1 - share) * given + share * voted, given)
