"""Our own networks: the study's, the light one, and any chain of layers.

Every network has two parts: `features`, the convolutional body, which runs in the device's precision, and `head`,
the dense layers, which inference runs in float64 (see model.engine).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

KERAS_BATCH_NORM: dict[str, float] = {"eps": 1e-3, "momentum": 0.01}  # Keras counts momentum from the other end: 0.99
MOST_LAYERS = 1000  # more than any network needs; a card may ask for so many that building them never ends


class Network(nn.Module):
    """A body that gives one vector per image, and a head that gives one logit per label."""

    features: nn.Module
    head: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, labels) of normalised gray images (B, 1, size, size)."""
        return cast(Tensor, self.head(self.features(images)))


def _check_depth(layers: int) -> None:
    """ValueError for more than MOST_LAYERS."""
    if layers > MOST_LAYERS:
        raise ValueError(f"{layers:,} layers are more than {MOST_LAYERS:,}")


class Cnn(Network):
    """The study's "complex" CNN, layer for layer as Keras computes it: 1.68 M parameters with 4 labels.

    Input (B, 1, 48, 48). Five halvings leave one pixel, so 32..63 pixels a side would fit as well.
    `dropout` is that of the convolutional blocks and of the dense layers; the study's by default.
    """

    def __init__(
        self, labels: int = 4, channels: Sequence[int] = (64, 128, 512, 512, 128), dropout: Sequence[float] = (0.2, 0.3)
    ) -> None:
        super().__init__()
        _check_depth(len(channels))
        blocks = [self._block(i, o, dropout[0]) for i, o in zip((1, *channels[:-1]), channels, strict=True)]
        # (B, 1, 48, 48) -> 64 x 24 x 24 -> 128 x 12 x 12 -> 512 x 6 x 6 -> 512 x 3 x 3 -> (B, 128, 1, 1)
        self.features = nn.Sequential(*blocks, nn.Flatten())  # (B, 128)
        self.head = nn.Sequential(
            *self._dense(channels[-1], 256, dropout[1]),  # (B, 256)
            *self._dense(256, 128, dropout[1]),  # (B, 128)
            nn.Linear(128, labels),  # (B, labels)
        )

    @staticmethod
    def _block(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),  # Keras pads an even kernel at the right and the bottom
            nn.Conv2d(inputs, outputs, kernel_size=2),
            nn.BatchNorm2d(outputs, **KERAS_BATCH_NORM),  # type: ignore[arg-type]
            nn.MaxPool2d(
                2
            ),  # the activation is monotonic: after the pooling it gives the same for a quarter of the work
            nn.LeakyReLU(0.1),
            nn.Dropout(dropout),
        )

    @staticmethod
    def _dense(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
        return (
            nn.Linear(inputs, outputs),
            nn.BatchNorm1d(outputs, **KERAS_BATCH_NORM),  # type: ignore[arg-type]
            nn.LeakyReLU(0.1),
            nn.Dropout(dropout),
        )


class CnnLite(Network):
    """A small residual network for 48x48 faces: better than Cnn at an eighth of its multiply-adds.

    Plain 3x3 convolutions, which CPUs run closest to their limit, on maps that shrink at once: (B, 1, 48, 48) -> 24
    and, at every stage whose stride is 2, half of it. Residual blocks as in He et al.,
    https://arxiv.org/abs/1512.03385.

    labels: how many there are.
    stem: channels of the first convolution.
    channels: of each stage.
    blocks: residual blocks of each stage.
    strides: of each stage's first block.
    dropout: before the dense layer.
    """

    squeeze = False  # whether each block weighs its channels by their means

    def __init__(
        self,
        labels: int = 4,
        stem: int = 16,
        channels: Sequence[int] = (16, 28, 56, 112),
        blocks: Sequence[int] = (1, 2, 2, 1),
        strides: Sequence[int] = (1, 2, 2, 2),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        _check_depth(len(blocks) * max(blocks))
        layers = [*_conv_norm(1, stem, stride=2), nn.ReLU(inplace=True)]  # (B, stem, 24, 24)
        inputs = stem
        for outputs, n, stride in zip(channels, blocks, strides, strict=True):
            for index in range(n):
                layers.append(Residual(inputs, outputs, stride if index == 0 else 1, squeeze=self.squeeze))
                inputs = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, channels[-1])
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, labels))  # (B, labels)


class CnnLarge(CnnLite):
    """CnnLite wider and deeper, with Squeeze in its blocks, at less than Cnn's multiply-adds."""

    squeeze = True

    def __init__(
        self,
        labels: int = 4,
        stem: int = 32,
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2, 2),
        strides: Sequence[int] = (1, 2, 2, 2),
        dropout: float = 0.3,
    ) -> None:
        super().__init__(labels, stem, channels, blocks, strides, dropout)


def _conv_norm(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """Two 3x3 convolutions of x added to x, then ReLU. Begun as the identity: https://arxiv.org/abs/1706.02677.

    Where the shape changes, x is averaged over 2x2 pixels and goes through a 1x1 convolution, as in
    https://arxiv.org/abs/1812.01187. With `squeeze`, the channels of what is added are weighed by Squeeze.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, squeeze: bool = False) -> None:
        super().__init__()
        self.change = nn.Sequential(
            *_conv_norm(inputs, outputs, stride=stride), nn.ReLU(inplace=True), *_conv_norm(outputs, outputs)
        )
        nn.init.zeros_(self.change[-1].weight)  # type: ignore[arg-type]
        self.weigh = Squeeze(outputs) if squeeze else nn.Identity()
        shrink = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        same = stride == 1 and inputs == outputs
        self.keep = nn.Identity() if same else nn.Sequential(*shrink, *_conv_norm(inputs, outputs, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.weigh(self.change(x)) + self.keep(x))


class Squeeze(nn.Module):
    """Each channel times a weight in 0..1 that all channels' means give: Hu et al., https://arxiv.org/abs/1709.01507."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = max(8, channels // 8)
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, few, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(few, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * cast(Tensor, self.weights(x))


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
        _check_depth(len(parts))
        kinds = [part["kind"] for part in parts]
        end = next(index for index, kind in enumerate(kinds) if kind in TO_VECTOR) + 1
        modules = [PARTS[part["kind"]](**{k: v for k, v in part.items() if k != "kind"}) for part in parts]
        self.features = nn.Sequential(*modules[:end])  # (B, 1, size, size) -> (B, N)
        self.head = nn.Sequential(*modules[end:])  # (B, N) -> (B, labels)
