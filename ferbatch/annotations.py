"""Tables that speak of images whose truth is known: labels given earlier, people's votes, metadata for slices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ferbatch import tables
from ferbatch.agreement import Votes
from ferbatch.errors import UsageError
from ferbatch.joins import UNMATCHED, Join, join
from ferbatch.paths import count, decode_path, escape
from ferbatch.records import NONE, ImageRef
from ferbatch.scores import UNIT, Scores
from ferbatch.sources import label_of
from ferbatch.truth import Truth

VOTES_PREFIX = "votes_"
OTHER_ANSWERS = frozenset(  # votes for no label
    ["anger", "angry", "disgust", "fear", "contempt", "unknown", "nf", "other"]
)
MOST_VALUES = 50  # of a column of metadata; one with more divides nothing
NOT_THERE, EMPTY = "(no row)", "(empty)"  # values of a slice


@dataclass(frozen=True, slots=True)
class Joined:
    """How a table met the images, for the report."""

    file: str  # as printed
    rows: int
    by_real_path: int  # images
    by_tail: int  # images joined by what both paths end in
    missing: int  # images without a row
    missing_example: str | None
    surplus: int  # rows without an image
    surplus_example: str | None
    ambiguous: int


@dataclass(frozen=True, slots=True)
class LabelsFile:
    """A labels file made earlier."""

    path: str
    labels: tuple[str, ...]
    frame: pd.DataFrame

    @classmethod
    def read(cls, path: str) -> LabelsFile:
        """UsageError where it is missing or no labels file."""
        if not os.path.exists(path):
            raise UsageError(f"no such file: {tables.shown(path)}")
        frame = tables.read_labels(path)
        names = [str(name) for name in frame.columns]
        try:
            labels = tuple(names[names.index("confidence") + 1 : names.index("status")])
        except ValueError as error:
            raise UsageError(f"{tables.shown(path)} is no labels file: {error}") from error
        if len(labels) < 2:
            raise UsageError(f"{tables.shown(path)} is no labels file: no columns of probabilities")
        if "face" in names:  # several faces of one image: the largest stands for it
            frame = frame[~(frame["face"] > 0)].reset_index(drop=True)
        return cls(path, labels, frame)

    def scores(self, truth: Truth, strip_prefix: str | None) -> tuple[Scores, Joined, NDArray[np.int64]]:
        """The scores of the images of `truth`, how they were joined, and which of them had a row.

        UsageError where fewer than half of the images with a label have one.
        """
        joined = self._join(truth, strip_prefix)
        has_row = joined.rows != UNMATCHED
        wanted = truth.has_label
        if 2 * (has_row & wanted).sum() < wanted.sum():
            raise UsageError(self._too_few(truth, joined))
        met = _met(self.path, joined, truth, self.frame["path"])
        at = np.flatnonzero(has_row)
        scores = self._scores(joined.rows[at], truth.codes[at])
        return scores, met, at

    def truth(self) -> Truth:
        """The file's own column `truth`; UsageError where it is empty."""
        number = {label: at for at, label in enumerate(self.labels)}
        codes = np.array([number.get(value, NONE) for value in self.frame["truth"]], np.int16)
        if not (codes != NONE).any():
            raise UsageError(f"{tables.shown(self.path)} names no truth: say --truth")
        files = [decode_path(path) for path in self.frame["path"]]
        images = [
            ImageRef(path, file, truth or None)
            for path, file, truth in zip(self.frame["path"], files, self.frame["truth"], strict=True)
        ]
        return Truth(images, files, codes, self.labels, self.labels)

    def _scores(self, rows: NDArray[np.int64], truth: NDArray[np.int16]) -> Scores:
        chosen = self.frame.iloc[rows]
        number = {label: at for at, label in enumerate(self.labels)}
        predicted = np.array([number.get(value, NONE) for value in chosen["label"]], np.int16)
        written = chosen[list(self.labels)].to_numpy(np.float64)
        probabilities = np.nan_to_num(np.round(written * UNIT)).clip(0, UNIT).astype(np.uint16)
        truth = np.where(truth < len(self.labels), truth, NONE).astype(np.int16)
        return Scores(self.labels, truth, predicted, probabilities)

    def _join(self, truth: Truth, strip_prefix: str | None) -> Join:
        rows = [decode_path(path) for path in self.frame["path"]]
        prefix = None if strip_prefix is None else os.fsencode(strip_prefix)
        return join([ref.file for ref in truth.images], list(truth.below), rows, prefix)

    def _too_few(self, truth: Truth, joined: Join) -> str:
        wanted = np.flatnonzero(truth.has_label)
        lonely = next(int(at) for at in wanted if joined.rows[at] == UNMATCHED)
        other = self.frame["path"].iloc[int(joined.surplus[0])] if len(joined.surplus) else "none left over"
        matched = int((joined.rows[wanted] != UNMATCHED).sum())
        ambiguous = f"; {joined.ambiguous:,} could be more than one" if joined.ambiguous else ""
        return (
            f"{tables.shown(self.path)} has a row for only {matched:,} of {count(len(wanted), 'image')} of the truth"
            f"{ambiguous}; an image without: {truth.images[lonely].path}; a row without: {other};"
            " --strip-prefix takes the beginning off the rows' paths"
        )


def _met(path: str, joined: Join, truth: Truth, names: Sequence[str] | pd.Series[str]) -> Joined:
    missing = joined.missing[truth.has_label[joined.missing]]
    return Joined(
        file=tables.shown(path),
        rows=len(names),
        by_real_path=joined.by_real_path,
        by_tail=joined.by_tail,
        missing=len(missing),
        missing_example=truth.images[int(missing[0])].path if len(missing) else None,
        surplus=len(joined.surplus),
        surplus_example=list(names)[int(joined.surplus[0])] if len(joined.surplus) else None,
        ambiguous=joined.ambiguous,
    )


def _about(path: str, truth: Truth) -> tuple[pd.DataFrame, str, Join, Joined]:
    """A table about images, its column that names them, and how it met the images; UsageError if it met none."""
    frame = tables.read_table(path)
    key = tables.column(frame, tables.PATH_COLUMNS, path)
    names = [escape(value) for value in frame[key]]
    joined = join([ref.file for ref in truth.images], list(truth.below), [decode_path(v) for v in frame[key]])
    if not (joined.rows != UNMATCHED).any():
        example = f"; its first row is {names[0]}" if names else ""
        ambiguous = f" ({joined.ambiguous:,} could be more than one)" if joined.ambiguous else ""
        raise UsageError(f"{tables.shown(path)} speaks of none of the images{ambiguous}{example}")
    return frame, key, joined, _met(path, joined, truth, names)


def read_votes(path: str, truth: Truth) -> tuple[Votes, Joined]:
    """People's votes for the images of `truth`: a column `votes_ANSWER` (or `ANSWER`) for each answer.

    Columns whose answers mean the same label are added up. UsageError where a label has no column, a value is no
    number of votes, or no row speaks of an image.
    """
    frame, _, joined, met = _about(path, truth)
    prefixed = [name for name in frame.columns if name.casefold().startswith(VOTES_PREFIX)]
    columns: dict[str, list[str]] = {label: [] for label in truth.labels}
    for name in prefixed or frame.columns:
        answer = name[len(VOTES_PREFIX) :] if prefixed else name
        label = label_of(answer, truth.labels)
        if label or prefixed or answer.strip().casefold() in OTHER_ANSWERS:
            columns.setdefault(label or escape(answer), []).append(name)
    silent = [label for label in truth.labels if not columns[label]]
    if silent:
        raise UsageError(f"{tables.shown(path)} has no column of votes for {', '.join(silent)}")
    numbers = {name: _numbers(frame, name, path) for names in columns.values() for name in names}
    counts = np.stack([sum(numbers[name] for name in names) for names in columns.values()], axis=1)
    counts = np.vstack([counts, np.zeros(counts.shape[1])])  # the row of those without one
    return Votes(tuple(columns), counts[joined.rows]), met


def _numbers(frame: pd.DataFrame, name: str, path: str) -> NDArray[np.float64]:
    values = pd.to_numeric(frame[name].replace("", "0"), errors="coerce").to_numpy(np.float64)
    if not (values >= 0).all():
        wrong = frame[name].iloc[int(np.argmin(values >= 0))]
        raise UsageError(f"{tables.shown(path)}, column {escape(name)}: '{escape(wrong)}' is no number of votes")
    return values


@dataclass(frozen=True, slots=True)
class Slices:
    """How metadata divides N images: per column the values, and for each image which of them is its own."""

    columns: dict[str, tuple[tuple[str, ...], NDArray[np.int64]]]
    left_out: tuple[str, ...]  # columns with too many values to divide by

    def where(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Slices:
        """The images that a mask or a list of indices chooses."""
        columns = {name: (values, codes[which]) for name, (values, codes) in self.columns.items()}
        return Slices(columns, self.left_out)


def read_slices(path: str, truth: Truth) -> tuple[Slices, Joined]:
    """The columns of a table about the images of `truth`; UsageError where it speaks of none of them."""
    frame, key, joined, met = _about(path, truth)
    columns: dict[str, tuple[tuple[str, ...], NDArray[np.int64]]] = {}
    left_out = []
    for name in frame.columns:
        if name == key:
            continue
        values = np.array([*(escape(v.strip()) or EMPTY for v in frame[name]), NOT_THERE], object)[joined.rows]
        found, codes = np.unique(values.astype(str), return_inverse=True)
        if len(found) > MOST_VALUES:
            left_out.append(escape(name))
        else:
            columns[escape(name)] = tuple(found.tolist()), codes
    return Slices(columns, tuple(left_out)), met
