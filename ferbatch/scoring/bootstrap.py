"""Bootstrap resamples of images that were counted by truth and label, as sums over the labels.

A resample of K labels has K x K cells, of which N images fill no more than N: the others are never drawn, so that
hundreds of labels cost no more memory than four.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Counts = NDArray[np.int64]

RESAMPLES = 2_000  # that a bootstrap draws
BOOTSTRAP_SEED = 0  # fixed, so that the same counts give the same interval
AT_ONCE = 2**22  # numbers that are drawn before they are added up


class Margins(NamedTuple):
    """What precision, recall and F1 hang on: (..., K) images a label is right for, that have it, that are given it."""

    hits: Counts
    truth: Counts
    predicted: Counts

    def of(self, labels: Sequence[int]) -> Margins:
        """Those of some of the labels."""
        return Margins(*(each[..., labels] for each in self))


def margins(matrix: Counts) -> Margins:
    """Those of (..., K, K) confusion matrices."""
    return Margins(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1), matrix.sum(-2))


def counted(counts: Counts, truth: Counts, *predicted: Counts) -> list[Margins]:
    """The margins, (K,) each, of images that were counted into C cells, for each of `predicted`.

    counts: (C,) images in each cell.
    truth: (C,) the label that is true in each, in 0..K-1; the last cell has the largest.
    predicted: (C,) the label that a model gave there.
    """
    k = int(truth[-1]) + 1
    return _split(_sums([truth, *predicted], k) @ counts, k)


def resampled(counts: Counts, truth: Counts, *predicted: Counts) -> list[Margins]:
    """As `counted`, of RESAMPLES resamples of the images, (RESAMPLES, K) each; there must be some."""
    drawn_from = np.union1d(np.flatnonzero(counts), [len(counts) - 1])  # the last takes what the others leave
    shares, k = counts[drawn_from] / counts.sum(), int(truth[-1]) + 1
    sums, n = _sums([truth[drawn_from], *(each[drawn_from] for each in predicted)], k), int(counts.sum())
    rng, blocks = np.random.default_rng(BOOTSTRAP_SEED), []
    step = max(1, AT_ONCE // len(drawn_from))
    for start in range(0, RESAMPLES, step):
        drawn = rng.multinomial(n, shares, size=min(step, RESAMPLES - start))
        blocks.append((sums @ drawn.T).T)
    return _split(np.concatenate(blocks), k)


def _split(sums: Counts, k: int) -> list[Margins]:
    """Sums over the rows of `_sums`, (..., groups times K), as margins."""
    truth, *others = np.split(sums, sums.shape[-1] // k, axis=-1)
    return [Margins(hits, truth, said) for hits, said in zip(others[::2], others[1::2], strict=True)]


def _sums(labels: Sequence[Counts], k: int) -> csr_array:
    """(K times groups, C): what adds up cells by the truth, then for each model by its hits and by what it said."""
    truth, *predicted = labels
    groups = [truth, *(each for said in predicted for each in (np.where(said == truth, said, -1), said))]
    rows = np.concatenate([np.where(each >= 0, at * k + each, -1) for at, each in enumerate(groups)])
    columns = np.tile(np.arange(len(truth)), len(groups))
    known = rows >= 0
    ones = np.ones(int(known.sum()), np.int64)
    return csr_array((ones, (rows[known], columns[known])), shape=(len(groups) * k, len(truth)))


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of bootstrap values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
