"""Two models on the same images: how they differ, and whether by more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ferbatch.scoring.bootstrap import Counts, Margins, counted, percentiles, resampled
from ferbatch.scoring.measures import Measure
from ferbatch.scoring.metrics import balanced, per_label
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
    counts, cells = _cells(outcomes.where(both), other.where(both))
    truth, this, that = cells
    quadrants = {
        (right, also): int(counts[((this == truth) == right) & ((that == truth) == also)].sum())
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
        **_differences(counts, cells),
    )


def _cells(outcomes: Outcomes, other: Outcomes) -> tuple[Counts, Counts]:
    """(C,) images in those of the K x K x K cells that hold some, and in the last; and (3, C) what the cells are: the
    truth, the label by the one, the label by the other."""
    k = len(outcomes.labels)
    cell = (outcomes.truth.astype(np.int64) * k + outcomes.predicted) * k + other.predicted
    cells, counts = np.unique(np.append(cell, k**3 - 1), return_counts=True)
    counts[-1] -= 1  # the one that was appended
    return counts, np.stack(np.unravel_index(cells, (k, k, k)))


def _differences(counts: Counts, cells: Counts) -> dict[str, Measure]:
    n = int(counts.sum())
    if not n:
        undefined = Measure(None, 0, reason="no image with a truth was labelled by both")
        return dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), undefined)
    values, spread = (_difference(*found) for found in (counted(counts, *cells), resampled(counts, *cells)))
    return {name: Measure(float(values[name]), n, percentiles(spread[name])) for name in values}


def _difference(this: Margins, other: Margins) -> dict[str, NDArray[np.float64]]:
    """This minus the other, per measure."""
    measured = [_measured(this), _measured(other)]
    return {name: measured[0][name] - measured[1][name] for name in measured[0]}


def _measured(found: Margins) -> dict[str, NDArray[np.float64]]:
    occurs = (found.truth + found.predicted) > 0
    return {
        "accuracy": found.hits.sum(-1) / np.maximum(found.truth.sum(-1), 1),
        "balanced_accuracy": balanced(found),
        "macro_f1": per_label(found)["f1"].sum(-1) / np.maximum(occurs.sum(-1), 1),
    }
