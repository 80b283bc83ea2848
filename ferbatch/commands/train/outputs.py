"""What each source has of its own in the network's last layer while that learns, and what of it is kept.

Collections mean different things by a label. Where one layer has to answer for them all, it learns a compromise.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from ferbatch.commands.train.recipe import MEAN
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.model.networks import Network


class PerSource(nn.Module):
    """A network whose last layer is changed for each source: its bias alone, or its weights too.

    The changes begin as none, and weight decay draws them there.
    """

    def __init__(self, network: Network, sources: int, *, layers: bool) -> None:
        """network: shared by all; its head is a Sequential that ends in a dense layer.
        sources: how many there are.
        layers: whether the weights change as well as the bias.
        """
        super().__init__()
        self.network = network
        last = last_layer(network)
        self.bias = nn.Parameter(last.weight.new_zeros(sources, last.out_features))
        self.weight = nn.Parameter(last.weight.new_zeros(sources, *last.weight.shape)) if layers else None

    def forward(self, images: Tensor, sources: Tensor) -> Tensor:
        """Logits (B, labels) of normalised images (B, 1, size, size), each by its own source's layer."""
        head = cast(nn.Sequential, self.network.head)
        x = head[:-1](self.network.features(images))
        logits = head[-1](x) + self.bias[sources]
        if self.weight is not None:
            logits = logits + torch.bmm(self.weight[sources], x.unsqueeze(2).to(self.weight.dtype)).squeeze(2)
        return cast(Tensor, logits)

    @property
    def changes(self) -> list[nn.Parameter]:
        """What the sources have of their own."""
        return [self.bias, *([self.weight] if self.weight is not None else [])]

    @torch.no_grad()
    def kept(self, source: int | None) -> Network:
        """A copy of the network by itself, with one source's last layer, or with the mean of all."""
        network = copy.deepcopy(self.network)
        last = last_layer(network)
        last.bias.add_(self.bias.mean(0) if source is None else self.bias[source])
        if self.weight is not None:
            last.weight.add_(self.weight.mean(0) if source is None else self.weight[source])
        return network


def last_layer(network: Network) -> nn.Linear:
    """The dense layer that gives the logits."""
    return cast(nn.Linear, cast(nn.Sequential, network.head)[-1])


def index_of(keep: str, sources: tuple[str, ...]) -> int | None:
    """Which source's output a recipe keeps, None for the mean; UsageError where the data has no such source."""
    if keep == MEAN or not sources:
        return None
    if keep not in sources:
        raise UsageError(f"keep is '{escape(keep)}', and the data has no such source ({', '.join(sources)})")
    return sources.index(keep)
