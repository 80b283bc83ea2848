"""MODELS, the table of the networks, and what can be said of any of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from ferbatch.errors import ModelError
from ferbatch.networks import Cnn, CnnLite, Network, Sequential
from ferbatch.paths import escape
from ferbatch.zoo import BACKBONES, Backbone

MODELS: dict[str, Callable[..., Network]] = {  # those that can be trained
    "cnn": Cnn,
    "cnn-lite": CnnLite,
    **{name: partial(Backbone, name) for name in BACKBONES},
}
ARCHITECTURES: dict[str, Callable[..., Network]] = {**MODELS, "sequential": Sequential}  # those that weights may have


def build(architecture: str, arguments: Mapping[str, Any]) -> Network:
    """A network with random weights; ModelError where no such architecture is known."""
    if architecture not in ARCHITECTURES:
        raise ModelError(f"no architecture called '{escape(architecture)}' (known: {', '.join(ARCHITECTURES)})")
    return ARCHITECTURES[architecture](**arguments)


def folded(features: nn.Module) -> nn.Module:
    """A copy for inference with each batch norm folded into the convolution before it: a pass over memory less."""
    features = copy.deepcopy(features).eval()
    for parent in [module for module in features.modules() if isinstance(module, nn.Sequential)]:
        for (name, conv), (after, norm) in pairwise(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, after, nn.Identity())
    return features


def parameters(network: nn.Module) -> int:
    """Trainable parameters, the figure papers quote (batch-norm statistics are not counted)."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: Network, size: int) -> int:
    """Multiply-adds of one image's forward pass, counted by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 1, size, size))
    return int(counter.get_total_flops()) // 2
