"""PARTS, the table of what a network that a card describes is made of: `ferbatch convert` writes it part by part.

Images lie as PyTorch has them, (B, C, H, W); padding is (left, right, top, bottom), for Keras pads unevenly. A part
takes what one part gives, or, where it merges, what several give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

KERAS_BATCH_NORM: dict[str, float] = {"eps": 1e-3, "momentum": 0.01}  # Keras counts momentum from the other end: 0.99


def build(part: Mapping[str, Any]) -> nn.Module:
    """The module of a part: its kind, where its inputs come from, and the arguments of the kind."""
    return PARTS[part["kind"]](**{name: value for name, value in part.items() if name not in ("kind", "from")})


class Convolution(nn.Conv2d):
    """A convolution that pads by itself, at no cost where both sides get the same."""

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], pad: Sequence[int], **how: Any) -> None:
        left, right, top, bottom = pad
        even = (left, top) == (right, bottom)
        super().__init__(inputs, outputs, tuple(kernel), padding=(top, left) if even else 0, **how)  # type: ignore[arg-type]
        self.before = nn.Identity() if even else nn.ConstantPad2d((left, right, top, bottom), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.before(x))


class AveragePool(nn.Module):
    """Means that do not count the padding."""

    def __init__(self, size: Sequence[int], stride: Sequence[int], pad: Sequence[int]) -> None:
        super().__init__()
        self.before = nn.ConstantPad2d(tuple(pad), 0.0)  # type: ignore[arg-type]
        self.pool = nn.AvgPool2d(tuple(size), tuple(stride))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones_like(x[:1, :1]) if len(x) else x[:, :1]
        return self.pool(self.before(x)) / self.pool(self.before(ones))  # type: ignore[no-any-return]


class GlobalPool(nn.Module):
    """One number a channel: (B, C, H, W) -> (B, C), or (B, C, 1, 1) with `keep`."""

    def __init__(self, function: Callable[..., Tensor], keep: bool = False) -> None:
        super().__init__()
        self.function, self.keep = function, keep

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, (2, 3), keepdim=self.keep)


class FlattenRows(nn.Module):
    """(B, C, H, W) -> (B, H * W * C): in the order of Keras, whose images have their channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Reshape(nn.Module):
    """(B, …) -> (B, C, H, W), the values in the order of Keras, whose images have their channels last."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = height, width, channels

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        return rows.reshape(len(x), *self.shape).permute(0, 3, 1, 2)


class Affine(nn.Module):
    """Each channel by its own gain and offset, which are no weights to be learned."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gain: Tensor
        self.offset: Tensor
        self.register_buffer("gain", torch.ones(features))
        self.register_buffer("offset", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.gain.view(shape) + self.offset.view(shape)


class ThreeChannels(nn.Module):
    """Gray (B, 1, H, W) laid on the channels of a colour network, (B, 3, H, W), each by its gain and offset."""

    def __init__(self, gain: Sequence[float] = (1, 1, 1), offset: Sequence[float] = (0, 0, 0)) -> None:
        super().__init__()
        self.scales = list(zip(gain, offset, strict=True))

    def forward(self, gray: Tensor) -> Tensor:
        channels = torch.cat([gray * gain + offset for gain, offset in self.scales], 1)
        return channels.contiguous(memory_format=torch.channels_last)


class PRelu(nn.Module):
    """Leaky ReLU whose slopes were learned: (C, H, W), with 1 where several share one."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) - self.slopes * torch.relu(-x)


class BoundedRelu(nn.Module):
    """Keras's ReLU: x from `threshold` on, `most` at the most; below, `slope` of what is missing to it."""

    def __init__(self, slope: float, threshold: float, most: float | None) -> None:
        super().__init__()
        self.slope, self.threshold, self.most = slope, threshold, most

    def forward(self, x: Tensor) -> Tensor:
        above = x if self.most is None else x.clamp(max=self.most)
        return torch.where(x >= self.threshold, above, self.slope * (x - self.threshold))


class Function(nn.Module):
    """A function of one tensor that has nothing to be set."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Merge(nn.Module):
    """What several parts give, made one; a vector (B, C) counts for every pixel of an image."""

    def __init__(self, function: Callable[[list[Tensor]], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        rank = max(x.ndim for x in given)
        return self.function([x if x.ndim == rank else x[:, :, None, None] for x in given])


def _padded(pad: Sequence[int], value: float, module: nn.Module) -> nn.Module:
    """`module` after padding (left, right, top, bottom) with `value`, if there is any."""
    return nn.Sequential(nn.ConstantPad2d(tuple(pad), value), module) if any(pad) else module  # type: ignore[arg-type]


def _batch_norm(of: type[nn.Module]) -> Callable[..., nn.Module]:
    return lambda features, eps: of(features, eps=eps, momentum=KERAS_BATCH_NORM["momentum"])


def _merge(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Merge(lambda given: reduce(function, given))


PARTS: dict[str, Callable[..., nn.Module]] = {
    "three_channels": ThreeChannels,
    "affine": Affine,
    "convolution": Convolution,
    "conv": lambda inputs, outputs, kernel, stride, pad, bias: _padded(  # of models that 0.1.0 converted
        pad, 0.0, nn.Conv2d(inputs, outputs, kernel, stride, bias=bias)
    ),
    "max_pool": lambda size, stride, pad: _padded(pad, float("-inf"), nn.MaxPool2d(size, stride)),
    "average_pool": lambda size, stride, pad=(): (
        AveragePool(size, stride, pad) if any(pad) else nn.AvgPool2d(size, stride)
    ),
    "pad": lambda pad: nn.ConstantPad2d(pad, 0.0),  # negative numbers crop
    "resize": lambda height, width, mode: nn.Upsample((height, width), mode=mode),
    "batch_norm_2d": _batch_norm(nn.BatchNorm2d),
    "batch_norm_1d": _batch_norm(nn.BatchNorm1d),
    "flatten": FlattenRows,
    "flatten_channels": nn.Flatten,
    "reshape": Reshape,
    "global_average_pool": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "global_means": lambda: GlobalPool(torch.mean, keep=True),
    "global_max_pool": lambda keep: GlobalPool(torch.amax, keep),
    "dense": lambda inputs, outputs, bias: nn.Linear(inputs, outputs, bias=bias),
    "leaky_relu": lambda slope: nn.LeakyReLU(slope),
    "bounded_relu": BoundedRelu,
    "prelu": PRelu,
    "elu": lambda alpha: nn.ELU(alpha),
    "softmax": lambda: nn.Softmax(1),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_sigmoid_2": lambda: Function(lambda x: (0.2 * x + 0.5).clamp(0, 1)),  # as Keras had it before version 3
    "swish": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "exponential": lambda: Function(torch.exp),
    "dropout": lambda p: nn.Dropout(p),  # of models that 0.1.0 converted
    "add": _merge(torch.add),
    "subtract": _merge(torch.sub),
    "multiply": _merge(torch.mul),
    "maximum": _merge(torch.maximum),
    "minimum": _merge(torch.minimum),
    "average": lambda: Merge(lambda given: reduce(torch.add, given) / len(given)),
    "concatenate": lambda axis: Merge(lambda given: torch.cat(given, axis)),
}
TO_VECTOR = ("flatten", "global_average_pool")  # the part that ends the body of models that 0.1.0 converted


def shape_of(part: Mapping[str, Any], *shapes: Sequence[int]) -> tuple[int, ...]:
    """What a part makes of one image's tensors of these shapes; whatever PyTorch raises where it cannot."""
    with torch.device("meta"), torch.inference_mode():
        return tuple(build(part).eval()(*[torch.empty(1, *shape) for shape in shapes]).shape[1:])
