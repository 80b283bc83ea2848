"""Use case: a Keras model of the study's kind -> a weights file and its card.

A Keras file holds neither the labels nor how the pixels were scaled, so both must be said: generators of Keras sort
folders by name, and a guessed order would swap labels silently.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape, listed, shown
from ferbatch.images.inputs import PREPROCESSING
from ferbatch.model import networks, registry, weights
from ferbatch.model.weights import Card
from ferbatch.sources.labels import split_labels

SUFFIXES = (".keras", ".h5", ".hdf5")
KERAS = (3, 12)  # the oldest version that will do: before 3.11.3, .h5 files could run Python code (CVE-2025-9905)
Layer = Any  # Keras has no types to speak of
Part = dict[str, Any]  # one of networks.PARTS, by its kind and arguments
Tensors = dict[str, Tensor]
Found = tuple[list[Part], list[Tensors]]


class _Unsupported(Exception):
    """Why one layer cannot be carried over."""


def run(source: Path, output: Path, *, labels: str, scale: str, overwrite: bool) -> Card:
    """Write weights and card from a Keras file; returns the card.

    Raises UsageError for what cannot be carried over, OutputError where nothing can be written; nothing is
    half-written.

    source: a .keras or .h5 file.
    output: the weights file; .safetensors is added where it is missing.
    labels: the model's outputs in their order, separated by commas.
    scale: LOW,HIGH: what black and white pixels were to the model.
    overwrite: replace weights that are there.
    """
    if output.suffix != ".safetensors":
        output = output.with_name(output.name + ".safetensors")
    names = _labels(labels)
    mean, std = _scale(scale)
    weights.check_output(output, overwrite)
    model = _load(source)
    size = _size(source, model)
    parts, tensors = _parts(source, model)
    network, outputs = _network(source, parts, tensors, size)
    if outputs != len(names):
        raise UsageError(f"{shown(source)} has {outputs} outputs, and --labels names {len(names)}: {listed(names)}")
    card = registry.new_card(
        network,
        size,
        name=output.stem,
        architecture="sequential",
        arguments={"parts": parts},
        labels=names,
        mean=mean,
        std=std,
        preprocessing=PREPROCESSING,
        data={"unknown": "converted from a Keras file, which does not say what it was trained on"},
        recipe={"converted_from": source.name, "scale": scale},
    )
    return weights.save(output, card, network.state_dict())


def _network(source: Path, parts: list[Part], tensors: list[Tensors], size: int) -> tuple[networks.Network, int]:
    """The network, and how many outputs it has; UsageError where it could not be loaded again."""
    try:
        network = registry.build("sequential", {"parts": parts})
        _fill(network, tensors)
        return network, registry.outputs(network, size)
    except ValueError as error:
        raise UsageError(f"{shown(source)} cannot be carried over: {escape(str(error))}") from error


def _labels(text: str) -> tuple[str, ...]:
    names = split_labels(text)
    if why := weights.unfit(names):
        raise UsageError(f"--labels: {why}; say the outputs in order: happy,sad,…")
    return names


def _scale(text: str) -> tuple[float, float]:
    """Mean and std by which (pixel / 255 - mean) / std runs from LOW to HIGH."""
    low, _, high = text.partition(",")
    try:
        span = float(high) - float(low)
        mean, std = -float(low) / span, 1 / span
    except (ValueError, ZeroDivisionError):
        mean = std = math.nan
    if not weights.can_scale(mean, std):
        raise UsageError(
            f"--scale {escape(text)}: say LOW,HIGH, what black and white were to the model: 0,1 or 0,255 or -1,1"
        )
    return mean, std


def _load(source: Path) -> Any:
    """The Keras model; UsageError for what is no Sequential, or cannot be read safely here."""
    if source.suffix not in SUFFIXES:
        raise UsageError(f"{shown(source)}: Keras models end in {', '.join(SUFFIXES)}")
    if not source.is_file():
        raise UsageError(f"no such file: {shown(source)}")
    if not importlib.util.find_spec("keras"):
        raise UsageError("convert needs keras: pip install keras")
    there = importlib.metadata.version("keras")
    if tuple(int(part) for part in there.split(".")[:2]) < KERAS:
        raise UsageError(f"keras {there} may run code that a file holds: pip install 'keras>={KERAS[0]}.{KERAS[1]}'")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    try:
        model = keras.saving.load_model(source, compile=False, safe_mode=True)
    except Exception as error:  # Keras throws anything at all at a file it does not like
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"{shown(source)} cannot be read by Keras: {escape(said)[:300]}") from error
    if not isinstance(model, keras.Sequential):
        raise UsageError(f"{shown(source)} is a Keras {type(model).__name__}; only a Sequential can be converted")
    return model


def _size(source: Path, model: Any) -> int:
    most = weights.MOST_SIZE
    shape, needed = tuple(model.input_shape), f"a square gray image is needed, (N, N, 1), N up to {most:,}"
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 1 or not shape[1] or shape[1] > most:
        raise UsageError(f"{shown(source)} takes inputs of shape {shape[1:]}; {needed}")
    return int(shape[1])


def _parts(source: Path, model: Any) -> tuple[list[Part], list[Tensors]]:
    """What networks.Sequential is made of, and the tensors of those parts that have some, in their order."""
    parts: list[Part] = []
    tensors: list[Tensors] = []
    layers = list(model.layers)
    for index, layer in enumerate(layers):
        name = type(layer).__name__
        where = f"{shown(source)}, layer {index + 1} of {len(layers)}, {escape(name)} '{escape(layer.name)}'"
        if name == "Softmax" and index == len(layers) - 1:
            continue
        if name not in LAYERS:
            raise UsageError(f"{where}: no such layer is known (known: {', '.join(LAYERS)})")
        try:
            found, own = LAYERS[name](layer)
            parts += found
            tensors += own
            parts += _activation(layer, last=index == len(layers) - 1)
        except _Unsupported as error:
            raise UsageError(f"{where}: {error}") from None
    if not any(part["kind"] in networks.TO_VECTOR for part in parts):
        raise UsageError(f"{shown(source)} has no Flatten and no GlobalAveragePooling2D layer")
    return parts, tensors


def _activation(layer: Layer, last: bool) -> list[Part]:
    """The function that a layer ends with; the last softmax is the classifier's own."""
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if name == "linear" or (name == "softmax" and last):
        return []
    if name not in ACTIVATIONS or last:
        known = "softmax or linear, for the last layer" if last else ", ".join(ACTIVATIONS)
        raise _Unsupported(f"the activation {escape(name)} is not known here (known: {known})")
    return [ACTIVATIONS[name]]


def _same(layer: Layer, kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Padding (left, right, top, bottom); Keras puts the odd pixel at the right and the bottom."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    if layer.padding != "same":
        raise _Unsupported(f"padding '{escape(str(layer.padding))}' is not known here")
    pads = []
    for side in (1, 0):  # width, then height
        size = layer.input.shape[1 + side]
        total = max((math.ceil(size / stride[side]) - 1) * stride[side] + kernel[side] - size, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _convolution(layer: Layer) -> Found:
    if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1) or layer.data_format != "channels_last":
        raise _Unsupported("groups, dilation and channels first are not known here")
    kernel, stride = list(layer.kernel_size), list(layer.strides)
    weight = _tensor(layer.kernel).permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
    part = {
        "kind": "conv",
        "inputs": weight.shape[1],
        "outputs": weight.shape[0],
        "kernel": kernel,
        "stride": stride,
        "pad": _same(layer, kernel, stride),
        "bias": bool(layer.use_bias),
    }
    return [part], [{"weight": weight} | ({"bias": _tensor(layer.bias)} if layer.use_bias else {})]


def _dense(layer: Layer) -> Found:
    weight = _tensor(layer.kernel).T  # (in, out) -> (out, in)
    if len(layer.input.shape) != 2:
        raise _Unsupported("it stands before the layer that flattens")
    part = {"kind": "dense", "inputs": weight.shape[1], "outputs": weight.shape[0], "bias": bool(layer.use_bias)}
    return [part], [{"weight": weight} | ({"bias": _tensor(layer.bias)} if layer.use_bias else {})]


def _batch_norm(layer: Layer) -> Found:
    rank = len(layer.input.shape)
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, rank - 1):
        raise _Unsupported(f"axis {axis} is not the channels' here")
    features = int(layer.input.shape[-1])
    ones = torch.ones(features)
    own = {
        "weight": _tensor(layer.gamma) if layer.scale else ones,
        "bias": _tensor(layer.beta) if layer.center else 0 * ones,
        "running_mean": _tensor(layer.moving_mean),
        "running_var": _tensor(layer.moving_variance),
    }
    kind = "batch_norm_2d" if rank == 4 else "batch_norm_1d"
    return [{"kind": kind, "features": features, "eps": float(layer.epsilon)}], [own]


def _max_pool(layer: Layer) -> Found:
    size, stride = list(layer.pool_size), list(layer.strides)
    return [{"kind": "max_pool", "size": size, "stride": stride, "pad": _same(layer, size, stride)}], []


def _average_pool(layer: Layer) -> Found:
    size, stride = list(layer.pool_size), list(layer.strides)
    if any(_same(layer, size, stride)):
        raise _Unsupported("averages over padding are not known here")
    return [{"kind": "average_pool", "size": size, "stride": stride}], []


def _relu(layer: Layer) -> Found:
    if layer.max_value is not None or layer.threshold:
        raise _Unsupported("max_value and threshold are not known here")
    return [{"kind": "leaky_relu", "slope": float(layer.negative_slope)}], []


def _tensor(variable: Any) -> Tensor:
    import keras

    return torch.from_numpy(keras.ops.convert_to_numpy(variable).copy()).float()


def _fill(network: networks.Network, tensors: list[Tensors]) -> None:
    """Put each part's tensors in their place; both lists are in the order of the layers."""
    places = [module for module in network.modules() if any(True for _ in module.parameters(recurse=False))]
    for module, own in zip(places, tensors, strict=True):
        module.load_state_dict(own, strict=False)


def _nothing(layer: Layer) -> Found:
    return [], []


LAYERS: dict[str, Callable[[Layer], Found]] = {
    "InputLayer": _nothing,
    "Conv2D": _convolution,
    "BatchNormalization": _batch_norm,
    "LeakyReLU": lambda layer: ([{"kind": "leaky_relu", "slope": float(layer.negative_slope)}], []),
    "ReLU": _relu,
    "ELU": lambda layer: ([{"kind": "elu", "alpha": float(layer.alpha)}], []),
    "Activation": _nothing,  # the function that every layer may end with is all of it
    "MaxPooling2D": _max_pool,
    "AveragePooling2D": _average_pool,
    "GlobalAveragePooling2D": lambda layer: ([{"kind": "global_average_pool"}], []),
    "Dropout": lambda layer: ([{"kind": "dropout", "p": float(layer.rate)}], []),
    "SpatialDropout2D": _nothing,  # does something in training only
    "GaussianNoise": _nothing,  # does something in training only
    "Flatten": lambda layer: ([{"kind": "flatten"}], []),
    "Dense": _dense,
}
ACTIVATIONS: dict[str, Part] = {
    "relu": {"kind": "leaky_relu", "slope": 0.0},
    "leaky_relu": {"kind": "leaky_relu", "slope": 0.2},  # the function's slope; a layer LeakyReLU says its own
    "elu": {"kind": "elu", "alpha": 1.0},
    "tanh": {"kind": "tanh"},
    "sigmoid": {"kind": "sigmoid"},
}
