"""What names of folders and answers mean: the labels, their spellings, other expressions."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

LABELS = ("happy", "sad", "neutral", "surprise")  # in the study's order

SPELLINGS = {  # what people call a folder -> the label, where a model has that and none called so
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
}

OTHER_EXPRESSIONS = frozenset(  # what people name folders by besides the labels
    ["anger", "angry", "contempt", "disgust", "disgusted", "fear", "fearful", "afraid", "calm", "confused", "bored"]
)


def folded(name: str) -> str:
    """What is the same of two names that differ in case, in spaces around them, or in how their accents are coded."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def label_of(folder: str, labels: Sequence[str], classes: Mapping[str, str] | None = None) -> str | None:
    """The label a folder of this name stands for, whatever its case or plural; None if it stands for none.

    A label that is called so comes before one that the name is a common spelling of. `classes` holds names, folded,
    that stand for a label besides those.
    """
    name, known = folded(folder), _by_name(tuple(labels))
    if classes and name in classes:
        return classes[name]
    for spelling in (name, name.removesuffix("s")):
        label = known.get(spelling) or known.get(SPELLINGS.get(spelling, ""))
        if label is not None:
            return label
    return None


@lru_cache(maxsize=16)
def _by_name(labels: tuple[str, ...]) -> Mapping[str, str]:
    return {folded(label): label for label in labels}


def split_labels(text: str) -> tuple[str, ...]:
    """The labels in `yes,no,"well, maybe"`: commas part them, quotes keep those that hold commas together."""
    return tuple(name.strip() for row in csv.reader([text], skipinitialspace=True) for name in row)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Labels as they come where nobody gives their order: the study's first, then alphabetically."""
    there = set(names)
    return (
        *(label for label in LABELS if label in there),
        *sorted(there - set(LABELS), key=lambda one: (folded(one), one)),
    )


def is_expression(folder: str) -> bool:
    """Whether a folder is named like an expression that is no label."""
    return folder.strip().casefold() in OTHER_EXPRESSIONS


def class_of(below: bytes) -> str:
    """The class that folders below the truth stand for: the nearest that is an expression's name, else the topmost."""
    parts = os.fsdecode(below.strip(b"/")).split("/")
    return next((part for part in reversed(parts) if is_expression(part)), parts[0])


OTHER_ANSWERS = frozenset(  # what people vote for that is no label
    ["anger", "angry", "disgust", "fear", "contempt", "unknown", "nf", "other"]
)
