"""The records that figures come in: each number with the images it rests on and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, the images it rests on, and how far chance alone may have moved it."""

    value: float | None  # None where it is undefined
    n: int  # images
    interval_95: tuple[float, float] | None = None
    reason: str | None = None  # why it is undefined


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label against the rest."""

    precision: Figure  # of the images given this label, the share that has it
    recall: Figure  # of the images that have this label, the share that was given it
    f1: Figure
    support: int  # images that have it
    predicted: int  # images given it
    roc_auc: Figure  # one against the rest
    average_precision: Figure
    curve: Sequence[tuple[float, float, float]]  # (threshold, precision, recall), thinned for drawing


@dataclass(frozen=True, slots=True)
class Averages:
    """Precision, recall and F1 averaged over the labels, as scikit-learn does: what is undefined counts as 0."""

    precision: Figure
    recall: Figure
    f1: Figure


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose confidence lies in (above, up_to]."""

    above: float
    up_to: float
    n: int
    confidence: float | None  # their mean
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class Point:
    """What is left, and how right it is, when labels less sure than `min_confidence` are set aside."""

    min_confidence: float
    coverage: Figure  # share of the labelled images that is kept
    accuracy: Figure  # of those kept


@dataclass(frozen=True, slots=True)
class Confusion:
    """A way to be wrong."""

    truth: str
    label: str
    count: int
    of: int  # images with this truth


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that is said of one group of images."""

    images: int  # labelled, with a truth
    failed: int  # with a truth, but not labelled
    no_face: int  # of these, in which no face was found
    accuracy: Figure
    accuracy_with_failed: Figure  # those that failed counted as wrong
    balanced_accuracy: Figure  # mean of the recalls of the labels that occur
    macro_avg: Averages
    weighted_avg: Averages
    roc_auc: Figure  # mean over the labels, one against the rest
    nll: Figure  # mean of -ln(probability of the truth), natural logarithm
    brier: Figure  # mean of the squared distance to the truth over all labels, 0..2
    ece: Figure  # expected calibration error
    ece_by_chance: Figure  # what it would be if confidence were exactly right
    mean_confidence: Figure
    labels: Mapping[str, LabelFigures]
    confusion_matrix: Sequence[Sequence[int]]
    confusions: Sequence[Confusion]  # the commonest first
    calibration: Sequence[Bin]
    coverage: Sequence[Point]
