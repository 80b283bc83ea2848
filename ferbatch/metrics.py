"""Figures from truths and predictions; plain functions around scikit-learn and SciPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import classification_report

Confusion = Mapping[tuple[str, str], int]  # (truth, label) -> images


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate, both ends in 0..1; n must be at least 1."""
    interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def table(confusion: Confusion, labels: Sequence[str]) -> str:
    """The study's table: precision, recall, F1 and support per label and averaged, to two digits."""
    classes = range(len(labels))
    pairs = [(labels.index(truth), labels.index(label), n) for (truth, label), n in sorted(confusion.items())]
    truths, predicted = (np.repeat([p[side] for p in pairs], [p[2] for p in pairs]) for side in (0, 1))
    text = classification_report(truths, predicted, labels=classes, target_names=labels, digits=2, zero_division=0)
    return str(text).strip("\n")


def accuracy_line(confusion: Confusion) -> str:
    """Accuracy with its n and 95 % interval, in one line."""
    correct = sum(n for (truth, label), n in confusion.items() if truth == label)
    n = sum(confusion.values())
    low, high = wilson(correct, n)
    return f"accuracy {correct / n:.3f} (95 % interval {low:.3f} to {high:.3f}; {correct:,} of {n:,} images)"
