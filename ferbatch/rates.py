"""Rates and means with their 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ferbatch.figures import Figure

NORMAL = float(ndtri(0.975))  # standard deviations to either side that hold 95 %


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate, both ends in 0..1; n must be at least 1. Wilson 1927, without correction."""
    share, z2 = correct / n, NORMAL**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def rate(count: int, n: int, reason: str) -> Figure:
    """count of n with its Wilson interval; undefined for `reason` where n is 0."""
    return Figure(count / n, n, wilson(count, n)) if n else Figure(None, 0, reason=reason)


def mean(values: NDArray[np.float64], reason: str, most: float = math.inf) -> Figure:
    """The mean of values in 0..most with the interval of the normal approximation; undefined where there are none.

    The values are sorted before they are added up, so that their order changes no bit.
    """
    n, values = len(values), np.sort(values)
    if not n:
        return Figure(None, 0, reason=reason)
    middle = float(values.mean())
    if n == 1:
        return Figure(middle, n)
    half = NORMAL * float(values.std(ddof=1)) / n**0.5
    return Figure(middle, n, (max(0.0, middle - half), min(most, middle + half)))
