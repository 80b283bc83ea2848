"""The rows of a batch, column by column, each value spelled as an output spells it; and as objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import Batch
from ferbatch.core.records import DIGITS, FACE_COLUMNS, STATUSES, UNIT, Prediction, columns

NOWHERE = -1  # in place of a crop's index, in a row without one


@dataclass(frozen=True, slots=True)
class Spelling:
    """How an output spells values."""

    nothing: Any  # where a column does not apply
    texts: Callable[[Sequence[str]], list[Any]]  # paths and errors, which hold no line ends
    word: Callable[[str], Any]  # labels, statuses, kinds
    units: Sequence[Any]  # every probability in units of 1/UNIT; then what stands where there is none
    whole: Callable[[int], Any]  # pixels, degrees and numbers of faces


def _units(spelled: Callable[[float], Any], nothing: Any) -> list[Any]:
    return [*(spelled(unit / UNIT) for unit in range(UNIT + 1)), nothing]


def quoted(texts: Sequence[str]) -> list[str]:
    """Texts without line ends as CSV quotes them (RFC 4180)."""
    return ('"' + "\n".join(texts).replace('"', '""').replace("\n", '"\n"') + '"').split("\n") if texts else []


def as_word(text: str) -> str:
    """A text as CSV spells it where it need not be quoted: quoted all the same where it holds a comma or a quote."""
    return quoted([text])[0] if "," in text or '"' in text else text


def as_json(texts: Sequence[str]) -> list[str]:
    """Texts as JSON quotes them, what is no ASCII as it is."""
    return list(map(encode_basestring, texts))


AS_CSV = Spelling("", quoted, as_word, _units(f"{{:.{DIGITS}f}}".format, ""), str)
AS_JSON = Spelling("null", as_json, encode_basestring, _units(repr, "null"), str)
AS_VALUES = Spelling(None, list, str, _units(float, None), int)


def columns_of(batch: Batch, labels: Sequence[str], spelling: Spelling) -> Mapping[str, Sequence[Any]]:
    """Column -> its value in each row, for a batch that a model with these labels was asked about."""
    image, crop = _places(batch)
    nothing, references = spelling.nothing, batch.references
    said = {*labels, *STATUSES, *references.truths}
    words = {word: nothing if word is None else spelling.word(word) for word in said}
    paths, truths = spelling.texts(references.paths), [words[truth] for truth in references.truths]
    if crop is not None:
        paths, truths = ([values[place] for place in image.tolist()] for values in (paths, truths))
    statuses = [*(words[status] for status in ("ok", "uncertain")), words["no_face"]]
    confidence = batch.units[np.arange(len(batch.best)), batch.best]
    found = {
        "path": paths,
        "truth": truths,
        "label": _of_crops([*map(words.__getitem__, labels), nothing], batch.best, crop),
        "confidence": _of_crops(spelling.units, confidence, crop),
        **{label: _of_crops(spelling.units, units, crop) for label, units in zip(labels, batch.units.T, strict=True)},
        "status": _of_crops(statuses, batch.uncertain.astype(np.int64), crop),
    }
    found |= {name: [nothing] * len(image) for name in columns(labels) if name not in found}
    if batch.failures:
        _fail(found, batch, image, spelling)
    if batch.searched.any():
        _place_faces(found, batch, crop, spelling)
    return {name: found[name] for name in columns(labels)}


def predictions(batch: Batch, labels: Sequence[str]) -> list[list[Prediction]]:
    """The rows of each image as objects, for a batch that a model with these labels was asked about."""
    found = columns_of(batch, labels, AS_VALUES)
    rows = []
    for values in zip(*found.values(), strict=True):
        row = dict(zip(found, values, strict=True))
        probabilities = {label: row.pop(label) for label in labels}
        rows.append(Prediction(**row, probabilities={} if row["label"] is None else probabilities))
    of_images = iter(rows)
    return [list(itertools.islice(of_images, n)) for n in np.maximum(batch.crops_of, 1).tolist()]


def _places(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Of each row the place of its image, and its crop's index or NOWHERE; None where each image has just one crop."""
    crops = batch.crops_of
    if np.all(crops == 1):
        return batch.image, None
    image = np.repeat(np.arange(len(batch)), np.maximum(crops, 1))
    crop = np.full(len(image), NOWHERE)
    crop[crops[image] > 0] = np.arange(len(batch.image))
    return image, crop


def _of_crops(spelled: Sequence[Any], codes: NDArray[np.int64], crop: NDArray[np.int64] | None) -> list[Any]:
    """Values of crops in the rows, spelled; the last one where there is no crop."""
    in_rows = codes if crop is None else np.append(codes, NOWHERE)[crop]
    return list(map(spelled.__getitem__, in_rows.tolist()))


def _fail(found: dict[str, list[Any]], batch: Batch, image: NDArray[np.int64], spelling: Spelling) -> None:
    """Write what could not be read into the columns; an error is one line that can be printed, whatever it said."""
    rows = np.searchsorted(image, list(batch.failures)).tolist()
    for row, failure in zip(rows, batch.failures.values(), strict=True):
        said = "".join(char if char.isprintable() else "?" for char in " ".join(failure.message.split()))
        found["status"][row], found["error_kind"][row] = spelling.word("error"), spelling.word(failure.kind)
        found["error"][row] = spelling.texts([said])[0]


def _place_faces(found: dict[str, list[Any]], batch: Batch, crop: NDArray[np.int64] | None, spelling: Spelling) -> None:
    """Write what is known of faces into their columns; `crop` is that of each row, as `_places` gives it."""
    crops = np.arange(len(batch.image)) if crop is None else crop
    rows = np.flatnonzero(np.append(batch.searched[batch.image], False)[crops])
    whole, units = spelling.whole, spelling.units.__getitem__
    shares = np.rint(np.stack([batch.scores, batch.blurs, batch.cuts]) * UNIT).astype(np.int64)
    values = [(batch.numbers, whole), *((pixels, whole) for pixels in batch.boxes.T)]
    values += [(shares[0], units), (batch.turns, whole), (shares[1], units), (shares[2], units)]
    for name, (column, spelled) in zip(FACE_COLUMNS, values, strict=True):
        into = found[name]
        for row, value in zip(rows.tolist(), column[crops[rows]].tolist(), strict=True):
            into[row] = spelled(value)
