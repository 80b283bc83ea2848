"""Which classes of the data are labels: those that `--labels` names, else all that are found."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import UsageError
from ferbatch.core.names import brief, count, listed, shown
from ferbatch.core.records import NONE
from ferbatch.model import weights
from ferbatch.sources.labels import LABELS, folded, in_order
from ferbatch.sources.listing import found_aside
from ferbatch.sources.truth import Truth


def check_labels(asked: Sequence[str] | None) -> None:
    """UsageError where --labels names what no model can have for its labels."""
    if asked is not None and (why := weights.unfit(asked)):
        raise UsageError(f"--labels: {why}")


def with_every_class(data: Path | str, images: Truth, chosen: NDArray[np.bool_]) -> Truth:
    """The images with every class of the chosen ones for a label, the study's first, then alphabetically.

    Names that differ in case alone are one class; what is called like a hidden file is none. UsageError where that
    makes too few labels or too many, or one that cannot be a label.
    """
    there = {images.names[code] for code in np.unique(images.codes[chosen]).tolist() if code != NONE}
    spelled: dict[str, str] = {}
    for name in sorted(name for name in there - set(LABELS) if not name.startswith(".")):
        spelled.setdefault(folded(name), unicodedata.normalize("NFC", name))
    labels = in_order([*(there & set(LABELS)), *spelled.values()])
    if not labels:
        raise UsageError(
            f"{shown(data)}: no image has a label: it takes a folder for each label, or a table: path, label"
            f"{found_aside(images.images)}"
        )
    if why := weights.unfit(labels):
        raise UsageError(f"{shown(data)}: {why} (--labels says which classes to train on){found_aside(images.images)}")
    own = {name: name for name in LABELS if name in labels}
    return images.labelled_as(labels, own | {name: spelled[folded(name)] for name in there if folded(name) in spelled})


def left_out(images: Truth, asked: Sequence[str] | None) -> list[str]:
    """What is said of the classes: those that were left out, and those beside the study's that were not."""
    notes = [*images.notes, *filter(None, (images.absent, images.aside))]
    if others := images.others():
        notes.append(
            f"left out, for they are no labels: {listed([f'{name} ({n:,})' for name, n in others.most_common()])}"
        )
    if nowhere := int((images.codes == NONE).sum()):
        notes.append(f"{count(nowhere, 'image')} without a label left out")
    if images.conflicts:
        notes.append(f"{count(images.conflicts, 'path')} with two different labels left out")
    if all(map(str.isdigit, images.labels)):
        pairs = ",".join(f"{label}=NAME" for label in images.labels[:3])
        notes.append(f"the labels are numbers: --classes {pairs},… gives them names")
    if images.unused:
        notes.append(f"--classes: nothing is called {brief(', '.join(images.unused), 120)}")
    if asked is None and set(images.labels) > set(LABELS):
        more = listed([label for label in images.labels if label not in LABELS])
        notes.append(f"labels as well, being classes of the data: {more} (--labels {','.join(LABELS)} leaves them out)")
    return notes
