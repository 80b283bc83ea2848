"""Tables that speak of images whose truth is known: people's votes, and metadata for slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ferbatch.core.errors import UsageError
from ferbatch.core.names import brief, count, escape, listed, shown
from ferbatch.core.options import SAYS_ALL, TableOptions
from ferbatch.core.records import MOST_VALUES
from ferbatch.scoring.agreement import Votes
from ferbatch.sources import tables
from ferbatch.sources.finding import brief_path
from ferbatch.sources.labels import OTHER_ANSWERS, label_of
from ferbatch.sources.matching import UNMATCHED, Match, match
from ferbatch.sources.truth import Truth

VOTES_PREFIX = "votes_"
MOST_VOTES = 1e9  # more votes for one answer to one image are no votes
NOT_THERE, EMPTY = "(no row)", "(empty)"  # what a slice calls images without a row, or with an empty value


@dataclass(frozen=True, slots=True)
class Matched:
    """How a table met the images, for the report."""

    file: str  # as printed
    rows: int  # of the table
    by_real_path: int  # images matched by the file that both paths lead to
    by_tail: int  # images matched by what both paths end in
    missing: int  # images without a row
    missing_example: str | None
    surplus: int  # rows without an image
    surplus_example: str | None
    ambiguous: int  # images that more than one row could speak of
    by_spelling: int = 0  # of those matched by what both paths end in, the ones that the row spells otherwise
    notes: tuple[str, ...] = ()  # how the table was read, a sentence each


def matched(
    path: str, match: Match, truth: Truth, names: Sequence[str] | pd.Series[str], notes: tuple[str, ...] = ()
) -> Matched:
    """What a report says of a match; images are missing where they have a label and no row.

    path: of the table.
    match: how it met the images of `truth`.
    names: of the images in its rows, as printed.
    notes: how it was read.
    """
    missing = match.missing[truth.has_label[match.missing]]
    return Matched(
        file=shown(path),
        rows=len(names),
        by_real_path=match.by_real_path,
        by_tail=match.by_tail,
        missing=len(missing),
        missing_example=truth.images[int(missing[0])].path if len(missing) else None,
        surplus=len(match.surplus),
        surplus_example=list(names)[int(match.surplus[0])] if len(match.surplus) else None,
        ambiguous=match.ambiguous,
        by_spelling=match.by_spelling,
        notes=notes,
    )


def _read_about(path: str, truth: Truth, choice: TableOptions) -> tuple[pd.DataFrame, str, Match, Matched]:
    """A table about images, its column that names them, and how it met the images; UsageError if it met none."""
    table = tables.read_table(path)
    key = table.path_column(choice.path_column, must=False)
    names = [escape(value) for value in table.frame[key]]
    found = match([ref.file for ref in truth.images], list(truth.below), table.paths(key))
    if not (found.rows != UNMATCHED).any():
        example = f"; its first row is {brief_path(names[0])}, the first image" if names else "; the first image is"
        ambiguous = f", {found.ambiguous:,} could be more than one" if found.ambiguous else ""
        raise UsageError(
            f"{shown(path)} speaks of none of the images ({count(len(names), 'row')},"
            f" {count(len(truth.images), 'image')}{ambiguous}){example} {brief_path(truth.images[0].path)}"
        )
    return table.frame, key, found, matched(path, found, truth, names, table.notes)


def read_votes(path: str, truth: Truth, choice: TableOptions = SAYS_ALL) -> tuple[Votes, Matched]:
    """People's votes for the images of `truth`: a column `votes_ANSWER` (or `ANSWER`) for each answer.

    Columns whose answers mean the same label are added up. UsageError where a label has no column, a value is no
    number of votes, or no row speaks of an image.
    """
    frame, _, found, about = _read_about(path, truth, choice)
    if {"confidence", "status"} <= set(frame.columns):
        raise UsageError(f"{shown(path)} is a labels file, not people's votes")
    prefixed = [name for name in frame.columns if name.casefold().startswith(VOTES_PREFIX)]
    columns: dict[str, list[str]] = {label: [] for label in truth.labels}
    for name in prefixed or frame.columns:
        answer = name[len(VOTES_PREFIX) :] if prefixed else name
        label = label_of(answer, truth.labels)
        if label or prefixed or answer.strip().casefold() in OTHER_ANSWERS:
            columns.setdefault(label or escape(answer), []).append(name)
    silent = [label for label in truth.labels if not columns[label]]
    if silent:
        raise UsageError(f"{shown(path)} has no column of votes for {listed(silent)}")
    numbers = {name: _numbers(frame, name, path) for names in columns.values() for name in names}
    counts = np.stack([sum(numbers[name] for name in names) for names in columns.values()], axis=1)
    counts = np.vstack([counts, np.zeros(counts.shape[1])])  # a last row, -1, for the images without one
    return Votes(tuple(columns), counts[found.rows]), about


def _numbers(frame: pd.DataFrame, name: str, path: str) -> NDArray[np.float64]:
    values = pd.to_numeric(frame[name].replace("", "0"), errors="coerce").to_numpy(np.float64)
    fit = (values >= 0) & (values < MOST_VOTES)
    if not fit.all():
        wrong = frame[name].iloc[int(np.argmin(fit))]
        raise UsageError(f"{shown(path)}, column {brief(name, 40)}: '{brief(wrong, 40)}' is no number of votes")
    return values


@dataclass(frozen=True, slots=True)
class Slices:
    """How metadata divides N images: per column the values, and for each image which of them is its own."""

    columns: dict[str, tuple[tuple[str, ...], NDArray[np.int64]]]  # name -> values, (N,) index of each image's value
    left_out: tuple[str, ...]  # columns that divide nothing: one value only, or too many

    def where(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Slices:
        """The images that a mask or a list of indices chooses."""
        columns = {name: (values, codes[which]) for name, (values, codes) in self.columns.items()}
        return Slices(columns, self.left_out)


def read_values(
    path: str, column: str, truth: Truth, choice: TableOptions = SAYS_ALL
) -> tuple[tuple[str, ...], NDArray[np.int64]] | None:
    """The values of one column of a table about the images of `truth`, and for each image which of them is its own.

    The column's name may be in any case; None where the table has none such.
    """
    frame, _, found, _ = _read_about(path, truth, choice)
    name = next((name for name in frame.columns if name.casefold() == column.casefold()), None)
    return None if name is None else _factorised(frame[name], found)


def _factorised(column: pd.Series[str], found: Match) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """A column's different values, sorted, and for each image the index of its own."""
    values = pd.Series([*(escape(value.strip()) or EMPTY for value in column), NOT_THERE], dtype=object)
    codes, different = pd.factorize(values.to_numpy()[found.rows], sort=True)
    return tuple(map(str, different)), codes


def read_slices(path: str, truth: Truth, choice: TableOptions = SAYS_ALL) -> tuple[Slices, Matched]:
    """The columns of a table about the images of `truth`; UsageError where it speaks of none of them."""
    frame, key, found, about = _read_about(path, truth, choice)
    columns: dict[str, tuple[tuple[str, ...], NDArray[np.int64]]] = {}
    left_out = []
    for name in frame.columns:
        if name == key:
            continue
        different, codes = _factorised(frame[name], found)
        if not 1 < len(different) <= MOST_VALUES:
            left_out.append(escape(name))
        else:
            columns[escape(name)] = different, codes
    return Slices(columns, tuple(left_out)), about
