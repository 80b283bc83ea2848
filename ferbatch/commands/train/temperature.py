"""The temperature of a trained network, fitted on its validation images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from ferbatch.commands.train.validation import ENOUGH

TEMPERATURES = (0.2, 5.0)  # between which the best one is looked for


def tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities (N, labels) as they are when the logits are divided by a temperature."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def fitted_temperature(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> float:
    """The temperature at which the mean confidence is the accuracy: Clarte et al., https://arxiv.org/abs/2303.02644.

    With noisy labels it leaves a smaller calibration error than the temperature that makes the labels likeliest, which
    a few sure and wrong ones pull about.

    probabilities: (N, labels) at a temperature of 1.
    labels: (N,) what is true.
    weights: (N,) what each image counts; None: all the same.
    """
    right = probabilities.argmax(1) == labels
    accuracy = np.average(right, weights=weights)

    def gap(temperature: float) -> float:
        confidence = tempered(probabilities, temperature).max(1)
        return float((np.average(confidence, weights=weights) - accuracy) ** 2)

    return round(float(minimize_scalar(gap, bounds=TEMPERATURES, method="bounded").x), 4)


def alike(sources: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) what each image counts where sources are to count alike, but for those with fewer than ENOUGH images.

    `sources` names one for each image.
    """
    return np.asarray(1 / np.maximum(np.bincount(sources), ENOUGH)[sources])
