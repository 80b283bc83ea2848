"""The layers of a Keras file -> the parts of a network, which of them are its head, and their tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ferbatch.commands.models import keras_graph, keras_weights
from ferbatch.commands.models.keras_file import KerasFile, NotThereError
from ferbatch.commands.models.keras_graph import IMAGE, Call
from ferbatch.commands.models.keras_layers import ACTIVATIONS, TRAINING_ONLY, parts_of, why_unknown
from ferbatch.commands.models.keras_parts import Layer, Part, Shape, UnsupportedError
from ferbatch.core.names import escape
from ferbatch.model import parts
from ferbatch.model.networks import MOST_LAYERS
from ferbatch.model.weights import MOST_SIZE

ENDS = {one["kind"] for found in ACTIVATIONS.values() for one in found} - {"softmax"}  # no probabilities, no logits


@dataclass(frozen=True, slots=True)
class Rescaling:
    """What a file does to every pixel before anything else."""

    gain: float
    offset: float


@dataclass(slots=True)
class Built:
    """A network, part by part."""

    size: int  # pixels, both sides of the image
    channels: int  # that the first layer takes: 1 or 3
    rescalings: Sequence[Rescaling]  # that stand before the first part
    parts: list[Part] = field(default_factory=list)
    tensors: list[Mapping[str, Tensor]] = field(default_factory=list)  # of each part
    shapes: list[Shape] = field(default_factory=list)  # of what each part gives

    def shape(self, at: int) -> Shape:
        return (self.channels, self.size, self.size) if at == IMAGE else self.shapes[at]

    def add(self, part: Part, tensors: Mapping[str, Tensor], sources: Sequence[int]) -> int:
        """Append a part; its place. UnsupportedError where it does not fit what it takes."""
        try:
            shape = parts.shape_of(part, *[self.shape(at) for at in sources])
        except Exception as error:  # whatever hostile arguments make of PyTorch
            taken = " and ".join("x".join(map(str, self.shape(at))) for at in sources)
            raise UnsupportedError(f"its numbers do not fit the {taken} values that it takes") from error
        chained = list(sources) == [len(self.parts) - 1]
        self.parts.append(part if chained else {**part, "from": list(sources)})
        self.tensors.append(tensors)
        self.shapes.append(shape)
        return len(self.parts) - 1

    @property
    def is_chain(self) -> bool:
        return not any("from" in part for part in self.parts)

    def lead(self, part: Part) -> None:
        """Put a part, which makes of gray what the first one takes, before all others."""
        for one in self.parts:
            if "from" in one:
                one["from"] = [at + 1 for at in one["from"]]
        self.parts.insert(0, part)
        self.tensors.insert(0, {})
        self.shapes.insert(0, self.shape(IMAGE))

    @property
    def head(self) -> int:
        """How many parts are the body: all before the dense layers; before the last convolution, where none are.

        The head takes nothing but what the body's last part gives, and its numbers are more exact.
        """
        sources = [one.get("from", [at - 1]) for at, one in enumerate(self.parts)]
        ends = [at for at in range(len(self.parts) + 1) if all(min(one) >= at - 1 for one in sources[at:])]
        vectors = [at for at in ends if at and all(len(shape) == 1 for shape in self.shapes[at - 1 :])]
        weighted = max((at for at, own in enumerate(self.tensors) if own), default=0)
        return min((at for at in vectors if at <= weighted), default=max(at for at in ends if at <= weighted))


def built(file: KerasFile) -> Built:
    """The network of an open file; NotThereError for what cannot be carried over, with the layer that it is about."""
    calls, shape = keras_graph.calls_of(file.model)
    if len(calls) > MOST_LAYERS:
        raise NotThereError(f"it has {len(calls):,} layers, and {MOST_LAYERS:,} are more than any such model needs")
    for at, call in enumerate(calls):
        if why := why_unknown(call.kind):
            raise NotThereError(f"{_where(calls, at)}: {why}")
    channels_first = _channels_first(calls)
    own = keras_weights.weights_of(file)
    found = _begun(calls, shape, channels_first)
    places = _leading(calls, found)
    for at, call in enumerate(calls):
        if at in places:
            continue
        sources = [places[one] for one in call.sources]
        layer = Layer(
            call.kind,
            call.config,
            _tensors(call, own.get(call.path, {}), file.backend),
            [found.shape(one) for one in sources],
            file.version[0] if file.version else 1,
            channels_first,
        )
        places[at] = sources[0]
        try:
            for part, tensors in parts_of(layer):
                places[at] = found.add(part, tensors, sources)
                sources = [places[at]]
            _check_end(found, is_last=at == len(calls) - 1)
        except UnsupportedError as error:
            raise NotThereError(f"{_where(calls, at)}: {error}") from error
    _cut_end(found)
    return found


def _where(calls: Sequence[Call], at: int) -> str:
    call = calls[at]
    return f"layer {at + 1} of {len(calls)}, {escape(call.kind[:60])} '{escape('/'.join(call.path)[-60:])}'"


def _channels_first(calls: Sequence[Call]) -> bool:
    """Whether images have their channels first; NotThereError where layers differ on it."""
    leaves = [one for one in calls if one.kind not in (*TRAINING_ONLY, "Flatten")]
    orders = {str(one.config["data_format"]) for one in leaves if one.config.get("data_format")}
    if len(orders) > 1:
        raise NotThereError("some of its layers have the channels first and some last, which is not known here")
    return orders == {"channels_first"}


def _begun(calls: Sequence[Call], shape: Sequence[int | None], channels_first: bool) -> Built:
    """A network of no parts that takes images of this shape; NotThereError where they are not square, or not images."""
    side = math.isqrt(shape[0] or 0) if len(shape) == 1 else 0
    if side and side * side == shape[0]:  # pixels in a row
        found = Built(side, 1, [])
        found.add({"kind": "flatten"}, {}, [IMAGE])
        return found
    rows = [*shape, 1] if len(shape) == 2 else [*shape[1:], shape[0]] if channels_first else list(shape)
    height, width, channels = rows if len(rows) == 3 else (None, None, None)
    if height is None or height != width or channels not in (1, 3) or not 0 < height <= MOST_SIZE:
        shown = " x ".join("any" if one is None else str(one) for one in shape)
        raise NotThereError(
            f"it takes images of {shown}, where square ones are needed, gray or in colour, of one size up to"
            f" {MOST_SIZE:,}: 48 x 48 x 1 or 224 x 224 x 3"
        )
    return Built(int(height), int(channels), [])


def _leading(calls: Sequence[Call], found: Built) -> dict[int, int]:
    """Where the values of calls are, of the image's own: it, and what layers for training or a Rescaling make of it."""
    at, places = IMAGE, {IMAGE: len(found.parts) - 1}
    rescalings: list[Rescaling] = []
    while True:
        users = [place for place, one in enumerate(calls) if at in one.sources]
        if len(users) != 1:
            break
        call = calls[users[0]]
        one = _rescaling(call)
        if one is not None:
            rescalings.append(one)
        elif call.kind not in TRAINING_ONLY:
            break
        at = users[0]
        places[at] = places[IMAGE]
    found.rescalings = rescalings
    return places


def _rescaling(call: Call) -> Rescaling | None:
    """What a call does to every pixel alike, if it is that, and black stays darker than white."""
    match call.kind, call.config.get("scale"), call.config.get("offset", 0.0):
        case "Rescaling", int() | float() as gain, int() | float() as offset if gain > 0:
            return Rescaling(float(gain), float(offset))
    return None


def _tensors(call: Call, own: Mapping[str, Any], backend: str) -> dict[str, Tensor]:
    """A layer's arrays; Theano turns the kernels of convolutions round, the others do not."""
    if backend == "theano" and call.kind == "Conv2D":
        own = {**own, "kernel": own["kernel"][::-1, ::-1]}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in own.items()}


def _check_end(found: Built, is_last: bool) -> None:
    """UnsupportedError where the last layer gives neither probabilities that sum to one nor logits."""
    if is_last and found.parts and found.parts[-1]["kind"] in ENDS:
        kind = found.parts[-1]["kind"]
        raise UnsupportedError(f"the activation {kind} is not known here for the last layer (known: softmax or linear)")


def _cut_end(found: Built) -> None:
    """Leave the last softmax out, which is the classifier's own; NotThereError where there are no logits then."""
    if found.parts and found.parts[-1]["kind"] == "softmax":
        for kept in (found.parts, found.tensors, found.shapes):
            kept.pop()
    if not found.parts or len(found.shapes[-1]) != 1:
        raise NotThereError("it gives no number for each label: a Flatten or a GlobalAveragePooling2D is missing")
