"""A number with its n and its 95 % interval; rates and means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri


@dataclass(frozen=True, slots=True)
class Measure:
    """A number, the images it rests on, and how far chance alone may have moved it."""

    value: float | None  # None where it is undefined
    n: int  # images
    interval_95: tuple[float, float] | None = None
    reason: str | None = None  # why it is undefined


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """One label against the rest."""

    precision: Measure  # the share of the images given this label that has it
    recall: Measure  # the share of the images with this label that was given it
    f1: Measure  # the harmonic mean of precision and recall
    support: int  # images that have the label
    predicted: int  # images that were given the label
    roc_auc: Measure  # this label against the rest
    average_precision: Measure
    curve: Sequence[tuple[float, float, float]]  # (threshold, precision, recall), thinned for drawing


@dataclass(frozen=True, slots=True)
class Averages:
    """Precision, recall and F1 averaged over the labels, as scikit-learn does: what is undefined counts as 0."""

    precision: Measure
    recall: Measure
    f1: Measure


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose confidence lies in (above, up_to]."""

    above: float  # 0..1
    up_to: float  # 0..1
    n: int  # images
    confidence: float | None  # the images' mean; None where there are none
    accuracy: Measure


@dataclass(frozen=True, slots=True)
class Point:
    """What is left, and how right it is, when labels less sure than `min_confidence` are set aside."""

    min_confidence: float
    coverage: Measure  # share of the labelled images that is kept
    accuracy: Measure  # of the labels kept


@dataclass(frozen=True, slots=True)
class Confusion:
    """A way to be wrong."""

    truth: str
    label: str
    count: int
    of: int  # images with this truth


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything that is said of one group of images."""

    images: int  # labelled, with a truth
    failed: int  # with a truth, but not labelled
    no_face: int  # images with a truth in which no face was found; they count as failed
    accuracy: Measure
    accuracy_with_failed: Measure  # images that failed counted as wrong
    balanced_accuracy: Measure  # mean of the recalls of the labels that occur
    macro_avg: Averages
    weighted_avg: Averages
    truth_avg: Averages  # macro, over the labels that occur as truth alone
    beyond_truth: int  # labels that macro_avg is over, and no image has
    roc_auc: Measure  # mean over the labels, one against the rest
    nll: Measure  # mean of -ln(probability of the truth), natural logarithm
    brier: Measure  # mean of the squared distance to the truth over all labels, 0..2
    ece: Measure  # expected calibration error
    ece_by_chance: Measure  # what it would be if confidence were exactly right
    mean_confidence: Measure
    labels: Mapping[str, LabelMeasures]
    confusion_matrix: Sequence[Sequence[int]]
    confusions: Sequence[Confusion]  # the commonest first
    calibration: Sequence[Bin]
    coverage: Sequence[Point]


NORMAL = float(ndtri(0.975))  # standard deviations to either side that hold 95 %


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate, both ends in 0..1; n must be at least 1. Wilson 1927, without correction.

    SciPy's `binomtest(correct, n).proportion_ci(method="wilson")` is the same but for the last bit. It finds a p value
    first, which takes a thousand times as long, and a report has hundreds of rates.
    """
    share, z2 = correct / n, NORMAL**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def rate(count: int, n: int, reason: str) -> Measure:
    """count of n with its Wilson interval; undefined for `reason` where n is 0."""
    return Measure(count / n, n, wilson(count, n)) if n else Measure(None, 0, reason=reason)


def mean(values: NDArray[np.float64], reason: str, most: float = math.inf) -> Measure:
    """The mean of values in 0..most with the interval of the normal approximation; undefined where there are none.

    The values are sorted before they are added up, so that their order changes no bit.
    """
    n, values = len(values), np.sort(values)
    if not n:
        return Measure(None, 0, reason=reason)
    middle = float(values.mean())
    if n == 1:
        return Measure(middle, n)
    half = NORMAL * float(values.std(ddof=1)) / n**0.5
    return Measure(middle, n, (max(0.0, middle - half), min(most, middle + half)))
