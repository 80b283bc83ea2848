"""What names of folders and answers mean: the labels, their spellings, other expressions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

LABELS = ("happy", "sad", "neutral", "surprise")  # in the study's order

SPELLINGS = {  # what people call a folder -> its label
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}

OTHER_EXPRESSIONS = frozenset(  # what people name folders by besides the labels
    ["anger", "angry", "contempt", "disgust", "disgusted", "fear", "fearful", "afraid", "calm", "confused", "bored"]
)


def label_of(folder: str, labels: Sequence[str], classes: Mapping[str, str] | None = None) -> str | None:
    """The label a folder of this name stands for, whatever its case or plural; None if it stands for none.

    `classes` holds names, in lower case, that stand for a label besides the common spellings.
    """
    name = folder.strip().casefold()
    if classes and name in classes:
        return classes[name]
    for spelling in (name, name.removesuffix("s")):
        label = SPELLINGS.get(spelling, spelling)
        if label in labels:
            return label
    return None


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
