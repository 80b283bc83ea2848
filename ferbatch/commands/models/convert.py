"""Use case: a Keras model -> a weights file and its card.

A Keras file holds neither the labels nor, mostly, how the pixels were scaled, so both must be said: generators of Keras
sort folders by name, and a guessed order would swap labels silently.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ferbatch.commands.models import keras_file, keras_network
from ferbatch.commands.models.keras_network import Built, Rescaling
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape, listed, shown
from ferbatch.images.inputs import PREPROCESSING
from ferbatch.model import registry, weights
from ferbatch.model.networks import Network
from ferbatch.model.weights import UNKNOWN_ACCURACY, Card
from ferbatch.sources.labels import split_labels

# Scales that are not the same for each channel: what pixels of 0..1 are multiplied by, and what is added.
COLOURS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "imagenet": ((1 / 0.229, 1 / 0.224, 1 / 0.225), (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)),
    "caffe": ((255.0, 255.0, 255.0), (-103.939, -116.779, -123.68)),  # blue first
}
UNKNOWN_DATA = {"unknown": "converted from a Keras file, which does not say what it was trained on"}
LEAST_SPAN, MOST_SPAN = 0.02, 255.0  # from black to white, of a model's pixels once its own Rescaling is done
SCALE_WANTED = "what black and white were to the model: 0,1 or 0,255 or -1,1, or one of " + ", ".join(COLOURS)


def run(
    source: Path, output: Path, *, labels: str, scale: str | None, overwrite: bool, architecture: Path | None = None
) -> Card:
    """Write weights and card from a Keras file; returns the card.

    Raises UsageError for what cannot be carried over, OutputError where nothing can be written; nothing is
    half-written.

    source: HDF5 or a zip file, whatever it is called.
    output: the weights file; .safetensors is added where it is missing.
    labels: the model's outputs in their order, separated by commas.
    scale: LOW,HIGH: what black and white pixels were to the model, or a name of COLOURS; None: as its Rescaling tells.
    overwrite: replace weights that are there.
    architecture: JSON of model.to_json(), where the source holds weights alone.
    """
    if output.suffix != ".safetensors":
        output = output.with_name(output.name + ".safetensors")
    names = _labels(labels)
    _check_scale(scale)
    weights.check_output(output, overwrite)
    with keras_file.opened(source, architecture) as file:
        found = keras_network.built(file)
    scale, mean, std = _scaled(source, scale, found)
    described = _described(found)
    network = _network(source, found, described)
    outputs = found.shapes[-1][0]
    if outputs != len(names):
        raise UsageError(f"{shown(source)} has {outputs} outputs, and --labels names {len(names)}: {listed(names)}")
    beside = {} if architecture is None else {"architecture": architecture.name}
    recipe = {"converted_from": source.name, "scale": scale, **beside}
    known = {"name": output.stem, "labels": names, "mean": mean, "std": std, "recipe": recipe, "data": UNKNOWN_DATA}
    card = registry.new_card(network, found.size, preprocessing=PREPROCESSING, **known, **described)
    card = dataclasses.replace(card, limits=f"{card.limits} {UNKNOWN_ACCURACY}")
    return weights.save(output, card, network.state_dict())


def _described(found: Built) -> dict[str, Any]:
    """What registry.build makes the network of."""
    arguments = {"parts": found.parts, "head": found.head}
    return {"architecture": "sequential" if found.is_chain else "graph", "arguments": arguments}


def _network(source: Path, found: Built, described: Mapping[str, Any]) -> Network:
    """The network with its weights; UsageError where it could not be loaded again."""
    try:
        network = registry.build(**described)
        _fill(network, found.tensors)
        registry.outputs(network, found.size)
    except (ValueError, RuntimeError) as error:
        said = escape(str(error).partition("\n")[0][:150])
        raise UsageError(f"{shown(source)} cannot be carried over: {said}") from error
    return network


def _fill(network: Network, tensors: Sequence[Mapping[str, Tensor]]) -> None:
    """Put each part's tensors in their place."""
    modules = [*network.features.children(), *network.head.children()]
    for module, own in zip(modules, tensors, strict=True):
        missing, unknown = module.load_state_dict(dict(own), strict=False)
        if unknown or [name for name in missing if name != "num_batches_tracked"]:
            raise ValueError("some of its weights are missing")


def _labels(text: str) -> tuple[str, ...]:
    names = split_labels(text)
    if why := weights.unfit(names):
        raise UsageError(f"--labels: {why}; say the outputs in order: happy,sad,…")
    return names


def _check_scale(text: str | None) -> None:
    """UsageError for what is no scale."""
    if text is not None and text not in COLOURS and not weights.can_scale(*_mean_std(*_span(text))):
        raise UsageError(f"--scale {escape(text[:40])}: say LOW,HIGH, {SCALE_WANTED}")


def _span(text: str) -> tuple[float, float]:
    """LOW and HIGH; no numbers where the text holds none."""
    low, _, high = text.partition(",")
    try:
        return float(low), float(high)
    except ValueError:
        return math.nan, math.nan


def _mean_std(low: float, high: float) -> tuple[float, float]:
    """Mean and std by which (pixel / 255 - mean) / std runs from LOW to HIGH; no numbers where nothing does."""
    return (-low / (high - low), 1 / (high - low)) if high > low else (math.nan, math.nan)


def _scaled(source: Path, text: str | None, found: Built) -> tuple[str, float, float]:
    """The scale in words, and the card's mean and std; a network in colour begins with three channels after this.

    UsageError where the scale is not said, or what the file itself says of it contradicts it.
    """
    if text is None:
        text = _told(source, found.rescalings)
    if text in COLOURS:
        if found.channels != 3 or found.rescalings:
            why = "scales the pixels itself" if found.rescalings else "takes gray images"
            raise UsageError(
                f"--scale {text} is for networks in colour, and {shown(source)} {why}: say LOW,HIGH: 0,255"
            )
        gain, offset = COLOURS[text]
        found.lead({"kind": "three_channels", "gain": list(gain), "offset": list(offset)})
        return text, 0.0, 1.0
    low, high = _span(text)
    after = _rescaled((low, high), found.rescalings)
    if found.rescalings and not LEAST_SPAN <= after[1] - after[0] <= MOST_SPAN:
        first = found.rescalings[0]
        raise UsageError(
            f"{shown(source)} holds Rescaling (times {first.gain:.6g}, plus {first.offset:.6g}), which makes pixels of"
            f" {after[0]:.4g} to {after[1]:.4g} of --scale {escape(text[:40])}: say what the file takes, "
            + ("0,255, or leave --scale out" if _tells(found.rescalings) else "0,1 for one")
        )
    if found.channels == 3:
        found.lead({"kind": "three_channels"})
    return text, *_mean_std(*after)


def _told(source: Path, rescalings: Sequence[Rescaling]) -> str:
    """The scale that a file's own Rescaling tells; UsageError where it tells none."""
    if not _tells(rescalings):
        there = "it holds no Rescaling by 1/255 or 1/127.5 that would tell"
        raise UsageError(
            f"{shown(source)} does not say how its pixels were scaled: say --scale LOW,HIGH ({there}), {SCALE_WANTED}"
        )
    return "0,255"


def _tells(rescalings: Sequence[Rescaling]) -> bool:
    """Whether these can only be of pixels of 0 to 255: of 0 to 1 nothing would be left."""
    spans = [math.prod(one.gain for one in rescalings) * high for high in (1, 255)]
    return bool(rescalings) and spans[0] < LEAST_SPAN <= spans[1] <= MOST_SPAN


def _rescaled(span: tuple[float, float], rescalings: Sequence[Rescaling]) -> tuple[float, float]:
    low, high = span
    for one in rescalings:
        low, high = low * one.gain + one.offset, high * one.gain + one.offset
    return low, high
