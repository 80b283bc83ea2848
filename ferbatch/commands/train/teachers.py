"""Networks that a network learns from: what they say of the training images."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ferbatch.model.engine import Engine, standardise_
from ferbatch.model.weights import Card


class Teachers:
    """Networks that are asked in each step, of the very images that the learning one sees.

    Consistent teaching: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
    https://arxiv.org/abs/2106.05237.
    """

    def __init__(self, engines: Sequence[Engine], card: Card, device: torch.device) -> None:
        """engines: the networks, on the device.
        card: of the learning network: its mean and std were applied to the images.
        """
        self.card = card
        self.asked = [(one, copy.deepcopy(one.head).to(device, torch.float32)) for one in engines]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """(B, labels) the mean of their probabilities of images (B, 1, size, size) as the learning network has them."""
        raw = x.float() * self.card.std + self.card.mean
        said = []
        for engine, head in self.asked:
            seen = standardise_(raw.clone(), engine.card)
            seen = seen.to(engine.dtype, memory_format=torch.channels_last)
            said.append(torch.softmax(head(engine.features(seen).float()) / engine.card.temperature, dim=1))
        return torch.stack(said).mean(0)
