"""A layer of Keras -> parts of model/parts.py and their tensors, by its configuration and its arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ferbatch.core.names import escape

Part = dict[str, Any]  # one of model.parts.PARTS, by its kind and arguments
Shape = tuple[int, ...]  # of one image's values: (C, H, W) or (C,)


class UnsupportedError(Exception):
    """Why one layer cannot be carried over."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer at work."""

    kind: str  # its class
    config: Mapping[str, Any]
    own: Mapping[str, Tensor] = field(default_factory=dict)  # its arrays by Keras's names
    shapes: Sequence[Shape] = ()  # of what it takes
    keras: int = 2  # the major version that its file is of
    channels_first: bool = False  # whether its model's images have their channels first

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    def pair(self, name: str, default: Any = 1) -> list[int]:
        """An argument that is said for height and width, or once for both."""
        value = self.config.get(name)
        return _pair(default if value is None else value)

    def number(self, name: str, default: float) -> float:
        """An argument that is a number, which Keras 2.1 may have written as an array."""
        value = self.config.get(name)
        value = value.get("value") if isinstance(value, Mapping) else value
        return default if value is None else float(value)

    def need(self, name: str, *allowed: Any) -> None:
        """UnsupportedError where an argument is said and is none of the allowed."""
        value = self.config.get(name)
        if value is not None and value not in allowed:
            known = " or ".join(str(one) for one in allowed)
            raise UnsupportedError(f"{name} is {escape(str(value)[:40])}, and {known} is what is known here")

    def need_image(self) -> None:
        """UnsupportedError where what it takes is no image."""
        if len(self.shape) != 3:
            raise UnsupportedError("it takes an image, and stands after the layer that flattens")


Found = tuple[Part, Mapping[str, Tensor]]
Parts = list[Found]


def _pair(value: Any) -> list[int]:
    value = value.get("items", []) if isinstance(value, Mapping) else value
    first, second = value if isinstance(value, list | tuple) else (value, value)
    return [int(first), int(second)]


def _same(layer: Layer, kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Padding (left, right, top, bottom); Keras puts the odd pixel at the right and the bottom."""
    layer.need("padding", "valid", "same")
    if layer.config.get("padding", "valid") == "valid":
        return [0, 0, 0, 0]
    pads = []
    for side in (1, 0):  # width, then height
        size = layer.shape[1 + side]
        total = max((math.ceil(size / stride[side]) - 1) * stride[side] + kernel[side] - size, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _convolved(layer: Layer, weight: Tensor, *, groups: int, bias: bool, spaced: bool = True) -> Found:
    """A convolution whose weight is (out, in / groups, h, w); `spaced`: with the layer's strides and dilation."""
    layer.need_image()
    one = [1, 1]
    stride, dilation = (layer.pair("strides"), layer.pair("dilation_rate")) if spaced else (one, one)
    kernel = list(weight.shape[2:])
    part = {
        "kind": "convolution",
        "inputs": weight.shape[1] * groups,
        "outputs": weight.shape[0],
        "kernel": kernel,
        "pad": _same(layer, [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)], stride),
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "bias": bias,
    }
    return part, {"weight": weight, **({"bias": layer.own["bias"]} if bias else {})}


def conv(layer: Layer) -> Parts:
    weight = layer.own["kernel"].permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
    return [_convolved(layer, weight, groups=int(layer.config.get("groups") or 1), bias="bias" in layer.own)]


def _depthwise(kernel: Tensor) -> Tensor:
    """(h, w, in, each) -> (in * each, 1, h, w)"""
    return kernel.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)


def depthwise_conv(layer: Layer) -> Parts:
    kernel = layer.own["kernel"]
    return [_convolved(layer, _depthwise(kernel), groups=kernel.shape[2], bias="bias" in layer.own)]


def separable_conv(layer: Layer) -> Parts:
    kernel, pointwise = layer.own["depthwise"], layer.own["pointwise"].permute(3, 2, 0, 1)
    return [
        _convolved(layer, _depthwise(kernel), groups=kernel.shape[2], bias=False),
        _convolved(layer, pointwise, groups=1, bias="bias" in layer.own, spaced=False),
    ]


def dense(layer: Layer) -> Parts:
    weight = layer.own["kernel"].T  # (in, out) -> (out, in)
    if len(layer.shape) == 3:  # of each pixel
        return [_convolved(layer, weight[:, :, None, None], groups=1, bias="bias" in layer.own, spaced=False)]
    bias = {"bias": layer.own["bias"]} if "bias" in layer.own else {}
    part = {"kind": "dense", "inputs": weight.shape[1], "outputs": weight.shape[0], "bias": bool(bias)}
    return [(part, {"weight": weight, **bias})]


def _axis(layer: Layer, value: Any) -> int:
    """An axis as Keras counts them, the images among them, as PyTorch has them."""
    value = value.get("items") if isinstance(value, Mapping) else value
    (at,) = value if isinstance(value, list | tuple) else (value,)
    at = int(at) % (len(layer.shape) + 1)
    return at if len(layer.shape) == 1 or layer.channels_first else {0: 0, 1: 2, 2: 3, 3: 1}[at]


def batch_norm(layer: Layer) -> Parts:
    if _axis(layer, layer.config.get("axis", -1)) != 1 or layer.config.get("mode", 0) == 1:
        raise UnsupportedError("it normalises along an axis that is not the channels'")
    features = layer.shape[0]
    ones = torch.ones(features)
    own = {
        "weight": layer.own.get("gamma", ones),
        "bias": layer.own.get("beta", 0 * ones),
        "running_mean": layer.own["mean"],
        "running_var": layer.own["variance"],
    }
    kind = "batch_norm_2d" if len(layer.shape) == 3 else "batch_norm_1d"
    return [({"kind": kind, "features": features, "eps": layer.number("epsilon", 1e-3)}, own)]


def pool(kind: str) -> Callable[[Layer], Parts]:
    def found(layer: Layer) -> Parts:
        layer.need_image()
        size = layer.pair("pool_size", 2)
        stride = layer.pair("strides", size)
        return [({"kind": kind, "size": size, "stride": stride, "pad": _same(layer, size, stride)}, {})]

    return found


def global_pool(gone: Part, kept: Part) -> Callable[[Layer], Parts]:
    def found(layer: Layer) -> Parts:
        layer.need_image()
        return [(kept if layer.config.get("keepdims") else gone, {})]

    return found


def pad(sign: int, name: str) -> Callable[[Layer], Parts]:
    """Zeros around an image, or, with -1, rows and columns taken away."""

    def found(layer: Layer) -> Parts:
        layer.need_image()
        value = layer.config.get(name, 1)
        value = value.get("items", []) if isinstance(value, Mapping) else value
        sides = value if isinstance(value, list) else [value, value]
        if len(sides) == 4:  # of Keras 1: top, bottom, left, right
            sides = [sides[:2], sides[2:]]
        (top, bottom), (left, right) = (_pair(side) for side in sides)
        return [({"kind": "pad", "pad": [sign * one for one in (left, right, top, bottom)]}, {})]

    return found


def relu(layer: Layer) -> Parts:
    slope, threshold = layer.number("negative_slope", 0.0), layer.number("threshold", 0.0)
    most = layer.number("max_value", math.inf)
    if most == math.inf and not threshold:
        return [({"kind": "leaky_relu", "slope": slope}, {})]
    bound = None if most == math.inf else most
    return [({"kind": "bounded_relu", "slope": slope, "threshold": threshold, "most": bound}, {})]


def leaky_relu(layer: Layer) -> Parts:
    return [({"kind": "leaky_relu", "slope": layer.number("negative_slope", layer.number("alpha", 0.3))}, {})]


def prelu(layer: Layer) -> Parts:
    slopes = layer.own["alpha"]
    if slopes.ndim == 3 and not layer.channels_first:
        slopes = slopes.permute(2, 0, 1)  # (H, W, C) -> (C, H, W)
    return [({"kind": "prelu", "shape": list(slopes.shape)}, {"slopes": slopes})]


def softmax(layer: Layer) -> Parts:
    if _axis(layer, layer.config.get("axis", -1)) != 1:
        raise UnsupportedError("its axis is not the channels'")
    return [({"kind": "softmax"}, {})]


def flatten(layer: Layer) -> Parts:
    if len(layer.shape) == 1:
        return []
    by_channels = layer.channels_first and layer.config.get("data_format") != "channels_first"
    return [({"kind": "flatten_channels" if by_channels else "flatten"}, {})]


def reshape(layer: Layer) -> Parts:
    target = layer.config["target_shape"]
    target = list(target["items"] if isinstance(target, Mapping) else target)
    values = math.prod(layer.shape)
    if -1 in target:
        target[target.index(-1)] = values // -math.prod(target)
    if layer.channels_first or len(target) not in (1, 3) or math.prod(target) != values:
        raise UnsupportedError(
            f"it makes {escape(str(target)[:40])} of {values:,} values, which is no image and no vector"
        )
    if len(target) == 1:
        return flatten(layer)
    height, width, channels = map(int, target)
    return [({"kind": "reshape", "channels": channels, "height": height, "width": width}, {})]


def _affine(gain: Any, offset: Any, features: int) -> Parts:
    own = {
        name: torch.as_tensor(np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (features,)).copy())
        for name, value in (("gain", gain), ("offset", offset))
    }
    return [({"kind": "affine", "features": features}, own)]


def rescaling(layer: Layer) -> Parts:
    return _affine(layer.config["scale"], layer.config.get("offset", 0.0), layer.shape[0])


def normalization(layer: Layer) -> Parts:
    if layer.config.get("invert") or layer.config.get("axis", -1) not in (-1, [-1], 3, [3], None, []):
        raise UnsupportedError("it normalises otherwise than by the means of channels")
    mean, variance = (np.asarray(layer.own.get(one, layer.config.get(one))) for one in ("mean", "variance"))
    deviation = np.maximum(np.sqrt(variance.astype(np.float64)), 1e-7)
    return _affine(1 / deviation, -mean / deviation, layer.shape[0])


def enlarge(layer: Layer) -> Parts:
    layer.need_image()
    layer.need("interpolation", "nearest", "bilinear")
    height, width = layer.pair("size", 2)
    return _resized(layer, layer.shape[1] * height, layer.shape[2] * width, "nearest")


def resizing(layer: Layer) -> Parts:
    layer.need_image()
    layer.need("interpolation", "nearest", "bilinear")
    for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        layer.need(name, False)
    return _resized(layer, int(layer.config["height"]), int(layer.config["width"]), "bilinear")


def _resized(layer: Layer, height: int, width: int, default: str) -> Parts:
    if (height, width) == layer.shape[1:]:
        return []
    mode = layer.config.get("interpolation") or default
    return [({"kind": "resize", "height": height, "width": width, "mode": mode}, {})]


def merge(kind: str) -> Callable[[Layer], Parts]:
    return lambda layer: [({"kind": kind}, {})]


def concatenate(layer: Layer) -> Parts:
    return [({"kind": "concatenate", "axis": _axis(layer, layer.config.get("axis", -1))}, {})]


def nothing(layer: Layer) -> Parts:
    return []
