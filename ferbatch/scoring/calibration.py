"""How far the probabilities can be trusted: proper scores, calibration, accuracy against coverage.

Everything is whole-number arithmetic on units of 1/10,000, but for the logarithms. Where there are no images, a measure
is undefined for the reason `nothing`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.records import UNIT
from ferbatch.scoring.measures import Bin, Measure, Point, mean, rate
from ferbatch.scoring.outcomes import Outcomes

Counts = NDArray[np.int64]

ECE_BINS = 15  # bins of equal width, by Guo et al., https://arxiv.org/abs/1706.04599
LEAST_WRITTEN = 5e-5  # NLL takes no probability for less: whatever is written 0.0000 lies below
SIMULATIONS = 1_000  # sets of labels that are right as often as they claim to be
SIMULATION_SEED = 0  # fixed, so that the same images give the same measure
COVERAGE_STEPS = 100  # steps between the thresholds 0 and 1


def point(outcomes: Outcomes, min_confidence: float) -> Point:
    """Coverage and accuracy of labelled images when those under `min_confidence` (0..1) are set aside."""
    kept = outcomes.confidence / UNIT >= min_confidence
    n = int(kept.sum())
    return Point(
        min_confidence,
        rate(n, len(outcomes), "no image was labelled"),
        rate(int(outcomes.correct[kept].sum()), n, f"no label is as sure as {min_confidence:g}"),
    )


def coverage(outcomes: Outcomes) -> list[Point]:
    """The points of labelled images at thresholds of confidence from 0 to 1, evenly spaced."""
    return [point(outcomes, step / COVERAGE_STEPS) for step in range(COVERAGE_STEPS + 1)]


def mean_confidence(outcomes: Outcomes, nothing: str) -> Measure:
    """Mean confidence of labelled images."""
    return mean(outcomes.confidence / UNIT, nothing, most=1)


def _of_truth(outcomes: Outcomes) -> NDArray[np.int64]:
    """(N,) the probability of what is true, in 0..UNIT."""
    return outcomes.probabilities[np.arange(len(outcomes)), outcomes.truth].astype(np.int64)


def nll(outcomes: Outcomes, nothing: str) -> Measure:
    """Mean of -ln(probability of the truth)."""
    return mean(-np.log(np.maximum(_of_truth(outcomes) / UNIT, LEAST_WRITTEN)), nothing)


def brier(outcomes: Outcomes, nothing: str) -> Measure:
    """Brier's score in its first form, summed over the labels: 0 is best, 2 is worst."""
    squares = (outcomes.probabilities.astype(np.int64) ** 2).sum(1) + UNIT**2 - 2 * UNIT * _of_truth(outcomes)
    return mean(squares / UNIT**2, nothing, most=2)


def _bin_of(confidence: Counts) -> Counts:
    """The bin of each confidence, in 0..UNIT: bins are open below and closed above."""
    return np.asarray(np.maximum(-(-confidence * ECE_BINS // UNIT) - 1, 0))


def _bin_sums(outcomes: Outcomes) -> tuple[Counts, Counts, Counts]:
    """Images, correct images and summed confidence per bin; whole numbers, so that no edge is a matter of rounding."""
    confidence = outcomes.confidence.astype(np.int64)
    number = _bin_of(confidence)
    sums = (np.ones(len(outcomes), np.int64), outcomes.correct.astype(np.int64), confidence)
    n, correct, total = (np.bincount(number, weights=each, minlength=ECE_BINS).astype(np.int64) for each in sums)
    return n, correct, total


def ece(outcomes: Outcomes, nothing: str) -> Measure:
    """Expected calibration error: the gaps between confidence and accuracy per bin, weighted by their images."""
    _, correct, confidence = _bin_sums(outcomes)
    return _over_images(int(np.abs(correct * UNIT - confidence).sum()) / UNIT, len(outcomes), nothing)


def ece_by_chance(outcomes: Outcomes, nothing: str) -> Measure:
    """The ECE, by simulation, of as many labels that are right exactly as often as their confidence says.

    ECE is never below 0, so chance alone lifts it, the more the fewer the images. The interval holds 95 % of
    SIMULATIONS simulated sets.
    """
    n = len(outcomes)
    if not n:
        return Measure(None, 0, reason=nothing)
    sure, images = np.unique(outcomes.confidence.astype(np.int64), return_counts=True)
    right = np.random.default_rng(SIMULATION_SEED).binomial(images, sure / UNIT, (SIMULATIONS, len(sure)))
    gaps = right * UNIT - images * sure
    of_bins = np.add.reduceat(gaps, np.unique(_bin_of(sure), return_index=True)[1], axis=1)
    simulated = np.abs(of_bins).sum(1) / UNIT / n
    low, high = np.percentile(simulated, (2.5, 97.5))
    return Measure(float(simulated.mean()), n, (float(low), float(high)))


def bins(outcomes: Outcomes) -> list[Bin]:
    """The bins that `ece` weighs."""
    sums = zip(*(each.tolist() for each in _bin_sums(outcomes)), strict=True)
    return [
        Bin(
            index / ECE_BINS,
            (index + 1) / ECE_BINS,
            n,
            confidence / UNIT / n if n else None,
            rate(correct, n, "no label is as sure as this bin says"),
        )
        for index, (n, correct, confidence) in enumerate(sums)
    ]


def _over_images(total: float, n: int, reason: str) -> Measure:
    return Measure(total / n, n) if n else Measure(None, 0, reason=reason)
