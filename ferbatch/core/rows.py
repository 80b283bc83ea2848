"""The rows of a batch, column by column, each value spelled as an output spells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import Batch
from ferbatch.core.records import DIGITS, STATUSES, UNIT, columns

NOWHERE = -1  # in place of a crop's index, in a row without one


@dataclass(frozen=True, slots=True)
class Spelling:
    """How an output spells values."""

    nothing: Any  # where a column does not apply
    text: Callable[[str], Any]  # paths and errors
    word: Callable[[str], Any]  # labels, statuses, kinds
    units: Sequence[Any]  # every probability in units of 1/UNIT; then what stands where there is none
    whole: Callable[[int], Any]  # pixels and numbers of faces


def _units(spelled: Callable[[float], Any], nothing: Any) -> list[Any]:
    return [*(spelled(unit / UNIT) for unit in range(UNIT + 1)), nothing]


def quoted(text: str) -> str:
    """A text as CSV quotes it (RFC 4180)."""
    return '"' + text.replace('"', '""') + '"'


AS_CSV = Spelling("", quoted, str, _units(f"{{:.{DIGITS}f}}".format, ""), str)
AS_JSON = Spelling("null", encode_basestring, encode_basestring, _units(repr, "null"), str)
AS_VALUES = Spelling(None, str, str, _units(float, None), int)


def columns_of(batch: Batch, labels: Sequence[str], spelling: Spelling) -> Mapping[str, Sequence[Any]]:
    """Column -> its value in each row, for a batch that a model with these labels was asked about."""
    image, crop = _places(batch)
    rows, nothing, references = len(image), spelling.nothing, batch.references
    where = image.tolist() if rows > len(batch) else None
    said = {*labels, *STATUSES, *references.truths}
    words = {word: nothing if word is None else spelling.word(word) for word in said}
    paths, truths = map(spelling.text, references.paths), map(words.__getitem__, references.truths)
    named = [*map(words.__getitem__, labels), nothing]
    status = np.append(batch.uncertain.astype(np.int64), NOWHERE)[crop]
    status[crop == NOWHERE] = STATUSES.index("no_face")
    confidence = batch.units[np.arange(len(batch.best)), batch.best]
    found = {
        "path": _in_rows(paths, where),
        "truth": _in_rows(truths, where),
        "label": _of_crops(named, batch.best, crop),
        "confidence": _of_crops(spelling.units, confidence, crop),
    }
    for index, label in enumerate(labels):
        found[label] = _of_crops(spelling.units, batch.units[:, index], crop)
    found["status"] = [words[STATUSES[code]] for code in status.tolist()]
    for name in columns(())[columns(()).index("status") + 1 :]:
        found[name] = [nothing] * rows
    if batch.failures:
        _fail(found, batch, image, spelling)
    if len(faces := np.flatnonzero(batch.searched[image] & (crop != NOWHERE))):
        _place_faces(found, batch, faces, crop[faces], spelling)
    return {name: found[name] for name in columns(labels)}


def _places(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row the place of its image, and the index of its crop or NOWHERE."""
    crops = batch.crops_of
    image = np.repeat(np.arange(len(batch)), np.maximum(crops, 1))
    crop = np.full(len(image), NOWHERE)
    crop[crops[image] > 0] = np.arange(len(batch.image))
    return image, crop


def _in_rows(values: Any, where: Sequence[int] | None) -> list[Any]:
    """Values of images in the rows; `where` says of which image each is, None: there is a row for each."""
    spelled = list(values)
    return spelled if where is None else [spelled[place] for place in where]


def _of_crops(spelled: Sequence[Any], codes: NDArray[np.int64], crop: NDArray[np.int64]) -> list[Any]:
    """Values of crops in the rows, spelled; the last one where there is no crop."""
    return list(map(spelled.__getitem__, np.append(codes, -1)[crop].tolist()))


def _fail(found: dict[str, list[Any]], batch: Batch, image: NDArray[np.int64], spelling: Spelling) -> None:
    """Write what could not be read into the columns; an error is one line that can be printed, whatever it said."""
    rows = np.searchsorted(image, list(batch.failures)).tolist()
    for row, failure in zip(rows, batch.failures.values(), strict=True):
        said = "".join(char if char.isprintable() else "?" for char in " ".join(failure.message.split()))
        found["status"][row], found["error_kind"][row] = spelling.word("error"), spelling.word(failure.kind)
        found["error"][row] = spelling.text(said)


def _place_faces(
    found: dict[str, list[Any]], batch: Batch, rows: NDArray[np.int64], crops: NDArray[np.int64], spelling: Spelling
) -> None:
    """Write the numbers and boxes of faces into the columns.

    found: the columns.
    batch: whose faces they are.
    rows: of the faces.
    crops: of these rows.
    spelling: of the output.
    """
    whole = zip(("face", "x", "y", "width", "height"), (batch.numbers, *batch.boxes.T), strict=True)
    spelled = [(name, map(spelling.whole, values[crops].tolist())) for name, values in whole]
    scores = np.rint(batch.scores[crops] * UNIT).astype(np.int64)
    for name, values in (*spelled, ("face_score", map(spelling.units.__getitem__, scores.tolist()))):
        for row, value in zip(rows.tolist(), values, strict=True):
            found[name][row] = value
