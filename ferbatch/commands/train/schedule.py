"""How fast each parameter learns, step by step, and in what precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from ferbatch.commands.train.recipe import Recipe
from ferbatch.model.devices import computes_bf16
from ferbatch.model.networks import Network


def parameter_groups(network: Network, recipe: Recipe, own: Sequence[Parameter] = ()) -> list[dict[str, Any]]:
    """The parameters by how they learn: the body slower if the recipe says so, biases and norms without decay.

    The head's come last, with those that sources have of their `own`.
    """
    groups = []
    body, head = list(network.features.parameters()), [*network.head.parameters(), *own]
    for parameters, share in ((body, recipe.body_learning_rate), (head, 1.0)):
        peak = recipe.learning_rate * share
        learning = [p for p in parameters if p.requires_grad]
        weights, rest = ([p for p in learning if (p.ndim > 1) == wide] for wide in (True, False))
        groups += [{"params": weights, "lr": peak}, {"params": rest, "lr": peak, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def share_of_peak(steps: int, warmup: float) -> Callable[[int], float]:
    """The learning rate at each of `steps` as a share of its peak: linear up, then half a cosine to nothing.

    `warmup` is the share of the steps (0..1) that it rises.
    """
    rising = warmup * steps

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return share


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """What the network computes in while it trains."""
    if precision == "fp32" or device.type == "mps":
        return torch.float32
    native = computes_bf16(device)
    if device.type == "cuda":
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if native or precision == "bf16" else torch.float32
