"""What each training image is said to show, and how much it counts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferbatch.commands.train.data import Data, Split
from ferbatch.commands.train.recipe import Recipe


def targets(data: Data, recipe: Recipe, taught: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """(N, labels) probabilities to learn of the training images: label and votes, for a share of it what teachers say.

    `taught` holds the teachers' probabilities, (N, labels), where they are asked but once; the recipe has the shares.
    """
    part = data.train
    if sources := [recipe.of_source(name) for name in data.sources]:
        votes, smoothing = (
            np.array([[getattr(one, key)] for one in sources], np.float32)[part.sources]
            for key in ("votes", "label_smoothing")
        )
        own = np.asarray((1 - smoothing) * with_votes(part, votes) + smoothing / len(data.labels), np.float32)
    else:
        own = with_votes(part, recipe.votes)
    return own if taught is None else (1 - recipe.distill) * own + recipe.distill * taught


def smoothing_of_all(data: Data, recipe: Recipe) -> float:
    """The share of "anything" in every target: none where `targets` has it, by sources."""
    return 0.0 if data.sources else recipe.label_smoothing


def with_votes(part: Split, share: float | NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, labels) the label of each image, and for `share` (0..1, or (N, 1)) of it people's votes, where there are."""
    given = np.eye(part.votes.shape[1], dtype=np.float32)[part.labels]
    cast = part.votes.sum(1, keepdims=True)
    voted = part.votes / np.where(cast > 0, cast, 1)
    return np.where(cast > 0, (1 - share) * given + share * voted, given)


def class_weights(part: Split, balance: float) -> Tensor:
    """(labels,) what an image of each label counts: (1 / its frequency) ** balance, 1 for the mean image."""
    frequencies = torch.tensor([part.counts[label] / len(part) for label in part.names])
    raised = frequencies**-balance
    return raised / (raised * frequencies).sum()
