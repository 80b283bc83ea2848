"""The networks, and MODELS, the table of them.

Every network has two parts: `features`, the convolutional body, which runs in the device's precision, and `head`,
the dense layers, which inference runs in float64 (see predict.Classifier).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from ferbatch.errors import ModelError
from ferbatch.paths import escape

KERAS_BATCH_NORM: dict[str, float] = {"eps": 1e-3, "momentum": 0.01}  # Keras calls the latter 0.99


class Network(nn.Module):
    """A body that gives one vector per image, and a head that gives one logit per label."""

    features: nn.Module
    head: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, labels) of normalised gray images (B, 1, size, size)."""
        return cast(Tensor, self.head(self.features(images)))


class Cnn(Network):
    """The study's "complex" CNN, layer for layer as Keras computes it: 1.68 M parameters with 4 labels.

    Input (B, 1, 48, 48). Five halvings leave one pixel, so 32..63 pixels a side would fit as well.
    """

    def __init__(self, labels: int = 4, channels: Sequence[int] = (64, 128, 512, 512, 128)) -> None:
        super().__init__()
        blocks = [self._block(i, o) for i, o in zip((1, *channels[:-1]), channels, strict=True)]
        # (B, 1, 48, 48) -> 64 x 24 x 24 -> 128 x 12 x 12 -> 512 x 6 x 6 -> 512 x 3 x 3 -> (B, 128, 1, 1)
        self.features = nn.Sequential(*blocks, nn.Flatten())  # (B, 128)
        self.head = nn.Sequential(
            *self._dense(channels[-1], 256),  # (B, 256)
            *self._dense(256, 128),  # (B, 128)
            nn.Linear(128, labels),  # (B, labels)
        )

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),  # Keras pads an even kernel at the right and the bottom
            nn.Conv2d(inputs, outputs, kernel_size=2),
            nn.BatchNorm2d(outputs, **KERAS_BATCH_NORM),  # type: ignore[arg-type]
            nn.MaxPool2d(2),  # before the activation, which is monotonic: the same numbers for a quarter of its work
            nn.LeakyReLU(0.1),
            nn.Dropout(0.2),
        )

    @staticmethod
    def _dense(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
        return (
            nn.Linear(inputs, outputs),
            nn.BatchNorm1d(outputs, **KERAS_BATCH_NORM),  # type: ignore[arg-type]
            nn.LeakyReLU(0.1),
            nn.Dropout(0.3),
        )


class FlattenRows(nn.Module):
    """(B, C, H, W) -> (B, H * W * C): in the order of Keras, whose images have their channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _padded(pad: Sequence[int], value: float, module: nn.Module) -> nn.Module:
    """`module` after padding (left, right, top, bottom) with `value`, if there is any."""
    return nn.Sequential(nn.ConstantPad2d(tuple(pad), value), module) if any(pad) else module  # type: ignore[arg-type]


def _batch_norm(of: type[nn.Module]) -> Callable[..., nn.Module]:
    return lambda features, eps: of(features, eps=eps, momentum=KERAS_BATCH_NORM["momentum"])


PARTS: dict[str, Callable[..., nn.Module]] = {  # what a Sequential is made of
    "conv": lambda inputs, outputs, kernel, stride, pad, bias: _padded(
        pad, 0.0, nn.Conv2d(inputs, outputs, kernel, stride, bias=bias)
    ),
    "max_pool": lambda size, stride, pad: _padded(pad, float("-inf"), nn.MaxPool2d(size, stride)),
    "average_pool": lambda size, stride: nn.AvgPool2d(size, stride),
    "batch_norm_2d": _batch_norm(nn.BatchNorm2d),
    "batch_norm_1d": _batch_norm(nn.BatchNorm1d),
    "flatten": FlattenRows,
    "global_average_pool": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "dense": lambda inputs, outputs, bias: nn.Linear(inputs, outputs, bias=bias),
    "leaky_relu": lambda slope: nn.LeakyReLU(slope),
    "elu": lambda alpha: nn.ELU(alpha),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "dropout": lambda p: nn.Dropout(p),
}
TO_VECTOR = ("flatten", "global_average_pool")  # the part that ends the body


class Sequential(Network):
    """Any chain of PARTS, as `ferbatch convert` finds it in a Keras model; the card holds the chain."""

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        kinds = [part["kind"] for part in parts]
        end = next(at for at, kind in enumerate(kinds) if kind in TO_VECTOR) + 1
        modules = [PARTS[part["kind"]](**{k: v for k, v in part.items() if k != "kind"}) for part in parts]
        self.features = nn.Sequential(*modules[:end])  # (B, 1, size, size) -> (B, N)
        self.head = nn.Sequential(*modules[end:])  # (B, N) -> (B, labels)


MODELS: dict[str, Callable[..., Network]] = {"cnn": Cnn}  # those that can be trained
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
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
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
