"""The arrays of each layer of a Keras file, by the names of the layers, however its Keras laid them down."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.models.keras_file import V3_CONTAINERS, Arrays, Config, KerasFile, NotThereError, names_in
from ferbatch.commands.models.keras_graph import MODELS, layers_in, modern, name_of
from ferbatch.core.names import count, escape

Path = tuple[str, ...]  # the names of the models around a layer and its own
Own = dict[str, NDArray[np.float32]]  # a layer's arrays, by Keras's names for them
Names = tuple[list[str], list[str]]  # of arrays that are trained, and of others


def _kernel(config: Config) -> Names:
    return ["kernel", *_if(config, "use_bias", "bias")], []


def _if(config: Config, switch: str, name: str) -> list[str]:
    return [name] if config.get(switch, True) else []


VARIABLES: Mapping[str, Callable[[Config], Names]] = {  # layers that have arrays, and which, in Keras's order
    "Conv2D": _kernel,
    "DepthwiseConv2D": _kernel,
    "SeparableConv2D": lambda config: (["depthwise", "pointwise", *_if(config, "use_bias", "bias")], []),
    "Dense": _kernel,
    "BatchNormalization": lambda config: (
        _if(config, "scale", "gamma") + _if(config, "center", "beta"),
        ["mean", "variance"],
    ),
    "PReLU": lambda config: (["alpha"], []),
    "Normalization": lambda config: ([], [] if config.get("mean") is not None else ["mean", "variance", "count"]),
}


def weights_of(file: KerasFile) -> dict[Path, Own]:
    """Every layer's arrays; NotThereError where they are not those that its layers have."""
    group = file.arrays.group
    if any(name in group for name in V3_CONTAINERS) and "layer_names" not in group.attrs:
        return _by_class(file.arrays, group, file.model, ())
    return _by_name(file.arrays, file.model)


def _variables(layer: Config) -> Names:
    kind, config = modern(layer)
    return VARIABLES[kind](config) if kind in VARIABLES else ([], [])


def _leaves(layer: Config, path: Path) -> list[tuple[Path, Config]]:
    """The layers in a layer that have arrays, with their paths."""
    path = (*path, name_of(layer))
    if layer["class_name"] in MODELS:
        return [leaf for one in layers_in(layer) for leaf in _leaves(one, path)]
    return [(path, layer)] if any(_variables(layer)) else []


def _own(path: Path, layer: Config, arrays: Sequence[NDArray[np.float32]]) -> Own:
    trained, others = _variables(layer)
    names = [*trained, *others]
    if len(arrays) != len(names):
        there = count(len(arrays), "array")
        raise NotThereError(
            f"its weights are not those of its layers: there are {there} of '{escape(path[-1][:60])}', which has"
            f" {len(names)} ({', '.join(names)}); take both from one model"
        )
    return dict(zip(names, arrays, strict=True))


def _by_name(arrays: Arrays, model: Config) -> dict[Path, Own]:
    """From groups called as the layers; where the names are another session's, from those in the layers' order."""
    stored = {name: names_in(arrays.member(arrays.group, name), "weight_names") for name in arrays.layer_names}
    layers = {name_of(one): one for one in layers_in(model) if _leaves(one, ())}
    groups = list(layers)
    if not layers.keys() <= stored.keys():
        groups = [name for name, weights in stored.items() if weights]
        if len(groups) != len(layers):
            n = f"{count(len(groups), 'layer')} with weights, where the model has {len(layers)}"
            raise NotThereError(f"its weights are not those of its layers: it holds {n}; take both from one model")
    found: dict[Path, Own] = {}
    for layer, name in zip(layers.values(), groups, strict=True):
        group = arrays.member(arrays.group, name)
        values = [arrays.read(arrays.member(group, one)) for one in stored[name]]
        found |= _shared_out(_leaves(layer, ()), stored[name], values)
    return found


def _shared_out(
    leaves: Sequence[tuple[Path, Config]], names: Sequence[str], values: Sequence[NDArray[np.float32]]
) -> dict[Path, Own]:
    """Which layer has which of a group's arrays: a nested model has one group, those that are trained come first."""
    if len(leaves) == 1:
        return {path: _own(path, layer, values) for path, layer in leaves}
    parts = [name.split("/") for name in names]
    mine = {path: [at for at, one in enumerate(parts) if path[-1] in one[:-1]] for path, _ in leaves}
    if sorted(at for own in mine.values() for at in own) != list(range(len(values))):  # they do not say whose they are
        left, mine = iter(range(len(values))), {path: [] for path, _ in leaves}
        frozen = {path for path, layer in leaves if layer["config"].get("trainable") is False}
        for first in (True, False):
            for path, layer in leaves:
                trained, others = _variables(layer)
                n = len(trained) * (first != (path in frozen)) + len(others) * (not first)
                mine[path] += [at for _, at in zip(range(n), left, strict=False)]
    return {path: _own(path, layer, [values[at] for at in mine[path]]) for path, layer in leaves}


def _by_class(arrays: Arrays, group: Any, model: Config, path: Path) -> dict[Path, Own]:
    """From groups called by the layers' classes, and counted; gaps in the count are layers that had a group before."""
    container = arrays.member(group, next((name for name in V3_CONTAINERS if name in group), "layers"))
    found: dict[Path, Own] = {}
    kinds: dict[str, list[Config]] = {}
    for layer in layers_in(model):
        kinds.setdefault(_snake(layer["class_name"]), []).append(layer)
    for kind, layers in kinds.items():
        needed = [one for one in layers if _leaves(one, ())]
        if not needed:
            continue
        names = [name for name in container if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", name)]
        names.sort(key=lambda name: int(name[len(kind) + 1 :] or 0))
        if len(names) != len(layers):
            names, layers = [name for name in names if _holds(arrays.member(container, name))], needed
        if len(names) != len(layers):
            raise NotThereError(f"its weights are not those of its layers: {len(names)} of {len(layers)} '{kind}'")
        for name, layer in zip(names, layers, strict=True):
            own, where = arrays.member(container, name), (*path, name_of(layer))
            if layer["class_name"] in MODELS and layer in needed:
                found |= _by_class(arrays, own, layer, where)
            elif layer in needed:
                stored = arrays.member(own, "vars")
                values = [arrays.read(arrays.member(stored, key)) for key in sorted(stored, key=int)]
                found[where] = _own(where, layer, values)
    return found


def _holds(group: Any) -> bool:
    """Whether there is an array anywhere in a group."""
    found: list[str] = []
    group.visititems(lambda name, one: found.append(name) if hasattr(one, "shape") else None)
    return bool(found)


def _snake(name: str) -> str:
    """Keras's own name of a class in its files: PReLU -> p_re_lu."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
