"""Two models on the same images: how they differ, and whether by more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ferbatch.scoring.measures import Measure
from ferbatch.scoring.metrics import Counts, balanced, per_label, percentiles, resampled
from ferbatch.scoring.outcomes import Outcomes

SIGNIFICANCE = 0.05  # the largest p value that counts as more than chance


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second model against the first, on the images with a truth that both labelled."""

    model: str
    against: str
    images: int
    both_right: int
    only_this_right: int
    only_other_right: int
    both_wrong: int
    p_value: float  # McNemar's test, exact and two-sided, of equal accuracy
    more_than_chance: bool  # p_value < 0.05
    # Differences, this model minus the other; their intervals are of a paired bootstrap.
    accuracy: Measure
    balanced_accuracy: Measure
    macro_f1: Measure


def compare(name: str, outcomes: Outcomes, other_name: str, other: Outcomes) -> Comparison:
    """`outcomes` against `other`, which must hold the same images and labels in the same order."""
    both = (outcomes.truth >= 0) & outcomes.labelled & other.labelled
    cells = _cells(outcomes.where(both), other.where(both))
    truth, this, that = np.indices(cells.shape)
    quadrants = {
        (right, also): int(cells[((this == truth) == right) & ((that == truth) == also)].sum())
        for right in (True, False)
        for also in (True, False)
    }
    only_this, only_other = quadrants[True, False], quadrants[False, True]
    p_value = float(binomtest(only_this, only_this + only_other).pvalue) if only_this + only_other else 1.0
    return Comparison(
        model=name,
        against=other_name,
        images=int(both.sum()),
        both_right=quadrants[True, True],
        only_this_right=only_this,
        only_other_right=only_other,
        both_wrong=quadrants[False, False],
        p_value=p_value,
        more_than_chance=p_value < SIGNIFICANCE,
        **_differences(cells),
    )


def _cells(outcomes: Outcomes, other: Outcomes) -> Counts:
    """(K, K, K) counts: truth, label by the one, label by the other."""
    k = len(outcomes.labels)
    cell = (outcomes.truth.astype(np.int64) * k + outcomes.predicted) * k + other.predicted
    return np.bincount(cell, minlength=k**3).reshape(k, k, k)


def _differences(cells: Counts) -> dict[str, Measure]:
    n = int(cells.sum())
    if not n:
        undefined = Measure(None, 0, reason="no image with a truth was labelled by both")
        return dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), undefined)
    values, spread = _difference(cells), _difference(resampled(cells))
    return {name: Measure(float(values[name]), n, percentiles(spread[name])) for name in values}


def _difference(cells: Counts) -> dict[str, NDArray[np.float64]]:
    """This minus the other, per measure, of (..., K, K, K) cells."""
    measured = [_measured(cells.sum(-1)), _measured(cells.sum(-2))]
    return {name: measured[0][name] - measured[1][name] for name in measured[0]}


def _measured(matrices: Counts) -> dict[str, NDArray[np.float64]]:
    occurs = (matrices.sum(-1) + matrices.sum(-2)) > 0
    n = matrices.sum((-1, -2))
    return {
        "accuracy": np.diagonal(matrices, axis1=-2, axis2=-1).sum(-1) / np.maximum(n, 1),
        "balanced_accuracy": balanced(matrices),
        "macro_f1": per_label(matrices)["f1"].sum(-1) / np.maximum(occurs.sum(-1), 1),
    }
