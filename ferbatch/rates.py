"""Rates and means with their 95 % intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ferbatch.figures import Figure


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate, both ends in 0..1; n must be at least 1."""
    interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rate(count: int, n: int, reason: str) -> Figure:
    """count of n with its Wilson interval; undefined for `reason` where n is 0."""
    return Figure(count / n, n, wilson(count, n)) if n else Figure(None, 0, reason=reason)


def mean(values: NDArray[np.float64], reason: str) -> Figure:
    """The mean with the interval of the normal approximation; undefined for `reason` where there are none."""
    n = len(values)
    if not n:
        return Figure(None, 0, reason=reason)
    middle = float(values.mean())
    half = 1.96 * float(values.std(ddof=1)) / n**0.5 if n > 1 else None
    return Figure(middle, n, None if half is None else (middle - half, middle + half))
