"""A labels file made earlier, in place of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ferbatch.core.database import is_url, name_of
from ferbatch.core.errors import UsageError
from ferbatch.core.names import brief, count, decode_path, encode_path, escape, shown
from ferbatch.core.records import NO_FACE, NONE, UNIT
from ferbatch.core.stores.urls import is_remote
from ferbatch.model.weights import unfit
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources import tables
from ferbatch.sources.finding import brief_path
from ferbatch.sources.labels import label_of
from ferbatch.sources.listing import Listing
from ferbatch.sources.matching import UNMATCHED, Match, match, stripped
from ferbatch.sources.metadata import Matched, matched
from ferbatch.sources.truth import Truth, of_labels

MOST_BOX_PIXELS = 2**24  # from an edge of the image, or along a side; more is no face's box


@dataclass(slots=True)
class LabelsFile:
    """A labels file made earlier."""

    path: str
    labels: tuple[str, ...]
    frame: pd.DataFrame
    own: Truth | None = None  # what its own column `truth` says

    @classmethod
    def read(cls, path: str) -> LabelsFile:
        """UsageError where it is missing or no labels file."""
        if not (is_url(path) or is_remote(os.fsencode(path)) or os.path.exists(path)):
            raise UsageError(f"no such file: {shown(path)}")
        frame = tables.read_labels(path)
        path = name_of(path) if is_url(path) else path  # from here on it is only spoken of
        names = [str(name) for name in frame.columns]
        try:
            labels = tuple(names[names.index("confidence") + 1 : names.index("status")])
        except ValueError as error:
            raise UsageError(f"{shown(path)} is no labels file: {error}") from error
        if not labels:
            raise UsageError(f"{shown(path)} is no labels file: no columns of probabilities")
        if why := unfit(labels):
            raise UsageError(f"{shown(path)} is no labels file: {why}")
        if "face" in names:  # where an image has several faces, the largest stands for it
            frame = frame[~(frame["face"] > 0)].reset_index(drop=True)
        frame["path"] = [encode_path(_path_in(path, value)) for value in frame["path"]]  # safe to print
        _check(path, frame, labels)
        return cls(path, labels, _once(path, frame, labels))

    def outcomes(self, truth: Truth, strip_prefix: str | None) -> tuple[Outcomes, Matched, NDArray[np.bool_]]:
        """The outcomes of the images of `truth` that have a row, how they were matched, and the mask of those images.

        UsageError where fewer than half of the images with a label have one.
        """
        found = self._itself() if truth is self.own else self._match(truth, strip_prefix)
        has_row = found.rows != UNMATCHED
        wanted = truth.has_label
        if 2 * (has_row & wanted).sum() < wanted.sum():
            raise UsageError(self._too_few(truth, found))
        outcomes = self._outcomes(found.rows[has_row], truth.codes[has_row])
        return outcomes, matched(self.path, found, truth, self.frame["path"]), has_row

    def truth(self, classes: Mapping[str, str]) -> Truth:
        """The file's own column `truth`, whose names are read as those of folders; UsageError where it is empty."""
        number = {name: index for index, name in enumerate(self.labels)}
        named = [label_of(value, self.labels, classes) or value.strip() for value in self.frame["truth"]]
        codes = np.array([number.setdefault(name, len(number)) if name else NONE for name in named], np.int32)
        if not ((codes != NONE) & (codes < len(self.labels))).any():
            raise UsageError(f"{shown(self.path)} names no truth: say --truth")
        files = [decode_path(path) for path in self.frame["path"]]
        images = Listing()
        for file, name in zip(files, named, strict=True):
            images.add(b"", file, name if name in self.labels else None)
        self.own = Truth(images, files, codes, tuple(map(escape, number)), self.labels)
        return self.own

    def _itself(self) -> Match:
        n = len(self.frame)
        return Match(np.arange(n), np.zeros(0, np.int64), n, 0, 0, 0)

    def _outcomes(self, rows: NDArray[np.int64], truth: NDArray[np.int32]) -> Outcomes:
        chosen = self.frame.iloc[rows]
        number = {label: index for index, label in enumerate(self.labels)}
        predicted = np.array([number.get(value, NONE) for value in chosen["label"]], np.int16)
        predicted[(chosen["status"] == "no_face").to_numpy()] = NO_FACE
        written = chosen[list(self.labels)].to_numpy(np.float64)
        probabilities = np.nan_to_num(np.round(written * UNIT)).clip(0, UNIT).astype(np.uint16)
        return Outcomes(self.labels, of_labels(truth, self.labels), predicted, probabilities, _boxes(chosen))

    def _match(self, truth: Truth, strip_prefix: str | None) -> Match:
        """The row of each image; UsageError where no path begins with `strip_prefix`."""
        rows: list[bytes | None] = [decode_path(path) for path in self.frame["path"]]
        if strip_prefix is not None:
            rows = [stripped(row, os.fsencode(strip_prefix)) for row in rows if row is not None]
            if not any(rows):
                raise UsageError(
                    f"--strip-prefix: no path in {shown(self.path)} begins with"
                    f" {shown(strip_prefix)}; the first is {brief_path(self.frame['path'].iloc[0])}"
                )
        return match([ref.file for ref in truth.images], list(truth.below), rows)

    def _too_few(self, truth: Truth, found: Match) -> str:
        """Why the file cannot be of these images, with an example of each that is left over."""
        wanted = np.flatnonzero(truth.has_label)
        lonely = next(int(index) for index in wanted if found.rows[index] == UNMATCHED)
        other = self.frame["path"].iloc[int(found.surplus[0])] if len(found.surplus) else "none left over"
        n = int((found.rows[wanted] != UNMATCHED).sum())
        ambiguous = f"; {found.ambiguous:,} could be more than one" if found.ambiguous else ""
        help_ = "; what stands below the truth folder must be the same (--strip-prefix)" if len(found.surplus) else ""
        return (
            f"{shown(self.path)} has a row for only {n:,} of {count(len(wanted), 'image')} of the truth;"
            f" at least half are needed{ambiguous}; an image without: {brief_path(truth.images[lonely].path)};"
            f" a row without: {brief_path(other)}{help_}"
        )


def _path_in(table: str, value: str) -> bytes:
    if b"\0" in (path := decode_path(value)):
        raise UsageError(f"{shown(table)}: {brief(value)} holds a NUL, which no name of a file can")
    return path


def _boxes(frame: pd.DataFrame) -> NDArray[np.int32] | None:
    """(N, 4) x, y, width and height of the faces; None in a file without them."""
    names = ["x", "y", "width", "height"]
    if not set(names) <= set(frame.columns):
        return None
    numbers = frame[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    return np.asarray(np.nan_to_num(numbers).clip(0, MOST_BOX_PIXELS), np.int32)


def _check(path: str, frame: pd.DataFrame, labels: Sequence[str]) -> None:
    """UsageError for a row that cannot be what a model said."""
    if not len(frame):
        raise UsageError(f"{shown(path)} has no rows: a labels file has one for each image")
    given = frame["label"] != ""
    numbers = frame[list(labels)].apply(pd.to_numeric, errors="coerce")
    for wrong, what in (
        (given & ~frame["label"].isin(labels), "its label is none of the columns"),
        (given & ~((numbers >= 0) & (numbers <= 1)).all(axis=1), "its probabilities are not between 0 and 1"),
    ):
        if wrong.any():
            raise UsageError(f"{shown(path)}, row of {_first(frame, wrong)}: {what}")


def _once(path: str, frame: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The rows, each image's once; UsageError where two rows say different things of one image."""
    image = pd.Series([os.path.abspath(decode_path(value)) for value in frame["path"]], dtype=object)
    again = image.duplicated()
    if again.any():
        said = frame[["label", *labels]].assign(image=image)
        differing = again & ~said.duplicated()
        if differing.any():
            raise UsageError(f"{shown(path)} has different rows for {_first(frame, differing)}")
    return frame[~again].reset_index(drop=True)


def _first(frame: pd.DataFrame, which: pd.Series[bool]) -> str:
    """The path of the first row that a mask chooses."""
    return brief_path(str(frame["path"].iloc[int(which.to_numpy().argmax())]))
