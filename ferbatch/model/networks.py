"""Our own networks: the study's, the light one, and any that a card describes part by part.

Every network has two parts: `features`, the convolutional body, which runs in the device's precision, and `head`,
the dense layers, which inference runs in float64 (see model.engine).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ferbatch.model.parts import KERAS_BATCH_NORM, TO_VECTOR, build

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


class Sequential(Network):
    """Any chain of parts, as `ferbatch convert` finds it in a Keras model; the card holds the chain.

    parts: of parts.PARTS, by their kinds and arguments.
    head: how many of them are the body; models that 0.1.0 converted do not say, their body ends where a vector begins.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]], head: int | None = None) -> None:
        super().__init__()
        _check_depth(len(parts))
        modules = [build(part) for part in parts]
        if head is None:
            head = next(index for index, part in enumerate(parts) if part["kind"] in TO_VECTOR) + 1
        self.features = nn.Sequential(*modules[:head])  # (B, 1, size, size) -> (B, …)
        self.head = nn.Sequential(*modules[head:])  # (B, …) -> (B, labels)


class Graph(Network):
    """Parts that branch and merge. A part names in `from` those that it takes, by their places; else the one before it.

    parts: of parts.PARTS; -1 is the image. Those of the head take no part of the body but its last.
    head: how many of them are the body.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]], head: int) -> None:
        super().__init__()
        _check_depth(len(parts))
        modules = [build(part) for part in parts]
        sources = [part.get("from", [index - 1]) for index, part in enumerate(parts)]
        self.features = Wired(modules[:head], sources[:head])  # (B, 1, size, size) -> (B, …)
        self.head = Wired(modules[head:], [[at - head for at in one] for one in sources[head:]])  # -> (B, labels)


class Wired(nn.Sequential):
    """Modules of which each takes what its sources give: places among them, or -1 for what all of it is given."""

    def __init__(self, modules: Sequence[nn.Module], sources: Sequence[Sequence[int]]) -> None:
        super().__init__(*modules)
        if not all(-1 <= at < index for index, one in enumerate(sources) for at in one):
            raise ValueError("a part takes what comes after it")
        self.sources = sources
        last = {at: index for index, one in enumerate(sources) for at in one}  # that takes it
        self.done = [[at for at in {*one} if last[at] == index] for index, one in enumerate(sources)]

    def forward(self, x: Tensor) -> Tensor:
        there = {-1: x}
        for index, module in enumerate(self):
            x = there[index] = module(*[there[at] for at in self.sources[index]])
            for at in self.done[index]:
                del there[at]  # its memory is needed
        return x

    def followed(self) -> Iterator[tuple[tuple[str, nn.Module], tuple[str, nn.Module]]]:
        """Each module, with its name, whose value one other alone takes, and that one."""
        named = list(self.named_children())
        taken = [at for one in self.sources for at in one]
        for index, one in enumerate(self.sources):
            if len(one) == 1 and one[0] >= 0 and taken.count(one[0]) == 1:
                yield named[one[0]], named[index]
