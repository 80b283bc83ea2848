"""The layers of a Keras model, nested ones too, in the order in which they are computed: whatever its Keras wrote.

Keras 1 called its arguments otherwise; before 2.2.3 a Sequential's configuration was a list; old ones have no
InputLayer, their first layer says the shape; since 3 a layer's inputs stand among its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from ferbatch.commands.models.keras_file import Config, NotThereError
from ferbatch.core.names import escape

IMAGE = -1  # the place of what the model is given
MOST_DEPTH = 16  # models in one another
MODELS = ("Sequential", "Functional", "Model")
OWN = ("keras", "tensorflow", "tf_keras", "builtins")  # the packages whose layers are Keras's
OF_KERAS_1: Mapping[str, str] = {  # what layers were called
    "Convolution2D": "Conv2D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
NAMES_OF_KERAS_1: Mapping[str, str] = {  # what their arguments were called
    "nb_filter": "filters",
    "border_mode": "padding",
    "subsample": "strides",
    "atrous_rate": "dilation_rate",
    "dim_ordering": "data_format",
    "bias": "use_bias",
    "output_dim": "units",
}
ORDERS_OF_KERAS_1 = {"tf": "channels_last", "th": "channels_first", "default": "channels_last"}
MERGES_OF_KERAS_1 = {"sum": "Add", "mul": "Multiply", "concat": "Concatenate", "ave": "Average", "max": "Maximum"}
Key = tuple[str, int]  # a layer's name, and which of its calls


@dataclass(frozen=True, slots=True)
class Call:
    """A layer at work: what it is, and the places of the calls, or IMAGE, whose values it takes."""

    kind: str
    config: Config
    path: tuple[str, ...]  # the names of the models around it and its own
    sources: Sequence[int]


def calls_of(model: Config) -> tuple[list[Call], Sequence[int | None]]:
    """Every layer at work, and the shape that the model is given; NotThereError where that cannot be told.

    The last call gives the model's answer.
    """
    if model["class_name"] not in MODELS:
        name = escape(str(model["class_name"])[:60])
        raise NotThereError(f"it is a Keras {name}; only a Sequential or a Functional says what its layers are")
    found: list[Call] = []
    last = _expand(model, [IMAGE], (), found)
    if last != len(found) - 1:
        raise NotThereError("its answer is not what its last layer gives")
    return found, input_shape(model)


def layers_in(model: Config) -> list[Config]:
    """The layers of a model, as they are configured, its inputs left out."""
    layers = model["config"] if isinstance(model["config"], list) else model["config"]["layers"]
    return [one for one in layers if one["class_name"] != "InputLayer"]


def name_of(layer: Config) -> str:
    """What a layer is called; the models of Keras 1 and 2.0 stand in no other's list without a name."""
    config = layer["config"]
    return str(layer.get("name") or (config.get("name") if isinstance(config, Mapping) else None) or "")


def input_shape(model: Config) -> Sequence[int | None]:
    """The shape of what a model is given, without the number of images; NotThereError where it is not said."""
    config, first = model["config"], model
    for _ in range(MOST_DEPTH):
        layers = config if isinstance(config, list) else config.get("layers") or []
        inputs = [one for one in layers if one["class_name"] == "InputLayer"]
        build = first.get("build_config") or {}
        said = [one["config"] for one in inputs[:1]] or ([layers[0]["config"]] if layers else [])
        places = [one for one in said if isinstance(one, Mapping)]
        given = [one.get(key) for one in places for key in ("batch_shape", "batch_input_shape")]
        given += [config.get("build_input_shape") if isinstance(config, Mapping) else None, build.get("input_shape")]
        shape = next((one for one in given if one), None)
        if shape is not None:
            return [None if one is None else int(one) for one in _items(shape)[1:]]
        if not layers or layers[0]["class_name"] not in MODELS:
            break
        first, config = layers[0], layers[0]["config"]
    raise NotThereError("it does not say of which shape its images are: build the model before it is saved")


def _items(value: Any) -> Sequence[Any]:
    """A list, or a tuple as Keras 3 may write it."""
    found: Sequence[Any] = value["items"] if isinstance(value, Mapping) else value
    return found


def _expand(model: Config, inputs: Sequence[int], path: tuple[str, ...], found: list[Call]) -> int:
    """Append the calls of a model that takes these; the place of its answer."""
    if len(path) > MOST_DEPTH:
        raise NotThereError("its models are nested too deeply")
    if model["class_name"] == "Sequential":
        at = inputs[0]
        for layer in layers_in(model):
            at = _call(layer, [at], path, found)
        return at
    config = model["config"]
    layers = {name_of(one): one for one in config["layers"]}
    (answer,) = _single(config["output_layers"], "output")
    given = _refs(config["input_layers"])
    if len(given) != len(inputs):
        raise NotThereError(f"it takes {len(given)} inputs, and one image is all that there is")
    there: dict[Key, int] = dict(zip(given, inputs, strict=True))
    for key in _in_order(layers, answer, there):
        sources = [there[source] for source in _sources(layers[key[0]], key[1])]
        there[key] = _call(layers[key[0]], sources, path, found)
    return there[answer]


def _call(layer: Config, sources: Sequence[int], path: tuple[str, ...], found: list[Call]) -> int:
    """Append what one layer does, or the layers in it; the place of what it gives."""
    path = (*path, name_of(layer))
    if layer["class_name"] in MODELS and not _is_custom(layer):
        return _expand(layer, sources, path, found)
    kind, config = modern(layer)
    found.append(Call(kind, config, path, sources))
    return len(found) - 1


def modern(layer: Config) -> tuple[str, Config]:
    """A layer's kind and configuration in the words of Keras 2."""
    kind, config = str(layer["class_name"]), layer["config"]
    if _is_custom(layer):
        return f"custom {kind.rpartition('>')[2]}", config
    if "nb_row" in config:
        config = {**config, "kernel_size": [config["nb_row"], config["nb_col"]]}
    config = {NAMES_OF_KERAS_1.get(name, name): value for name, value in config.items()}
    if config.get("data_format") in ORDERS_OF_KERAS_1:
        config["data_format"] = ORDERS_OF_KERAS_1[config["data_format"]]
    if kind == "Merge":
        kind, config["axis"] = MERGES_OF_KERAS_1.get(str(config.get("mode")), kind), config.get("concat_axis", -1)
    return OF_KERAS_1.get(kind, kind), config


def _is_custom(layer: Config) -> bool:
    """Whether a layer is its author's own, though it may be called as one of Keras's."""
    kind, known, module = str(layer["class_name"]), layer.get("registered_name"), layer.get("module")
    registered = ">" in kind or (isinstance(known, str) and ">" in known and "preprocessing>" not in known)
    return registered or (isinstance(module, str) and module.split(".")[0] not in OWN)


def _in_order(layers: Mapping[str, Config], answer: Key, there: Mapping[Key, int]) -> list[Key]:
    """The calls that the answer needs, each after those whose values it takes."""
    needs: dict[Key, list[Key]] = {}
    open_ = [answer]
    while open_:
        key = open_.pop()
        if key not in needs and key not in there:
            needs[key] = _sources(layers[key[0]], key[1])
            open_ += needs[key]
    return [key for key in TopologicalSorter(needs).static_order() if key not in there]


def _sources(layer: Config, call: int) -> list[Key]:
    """What one call of a layer takes; NotThereError where that is more than what other layers give."""
    nodes = layer["inbound_nodes"]
    node = nodes[call if call < len(nodes) else 0]
    if not isinstance(node, Mapping):
        return _refs(node)
    found = list(_histories(node["args"]))
    if _has_tensor(list(node.get("kwargs", {}).values())) or not found:
        raise NotThereError(f"layer '{escape(name_of(layer)[:60])}' takes more than what other layers give")
    return found


def _histories(value: Any) -> Iterator[Key]:
    """The calls that a node of Keras 3 names among its arguments."""
    if isinstance(value, list):
        for one in value:
            yield from _histories(one)
    elif isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        name, call, tensor = value["config"]["keras_history"]
        yield _key([name, call, tensor])
    elif value is not None:
        raise NotThereError(f"it computes with {escape(str(value)[:40])} outside any layer: Rescaling does it in one")


def _has_tensor(value: Any) -> bool:
    """Whether other layers' values are among keywords, as `training` is not."""
    if isinstance(value, Mapping):
        return value.get("class_name") == "__keras_tensor__" or _has_tensor(list(value.values()))
    return isinstance(value, list) and any(_has_tensor(one) for one in value)


def _refs(value: Any) -> list[Key]:
    """What Keras 1 and 2 name: [name, call, tensor, …], or a list of such."""
    if isinstance(value, Mapping):  # several, by their names
        value = list(value.values())
    return [_key(value)] if value and isinstance(value[0], str) else [_key(one) for one in value]


def _key(ref: Sequence[Any]) -> Key:
    name, call, tensor = ref[:3]
    if tensor != 0:
        raise NotThereError(f"layer '{escape(str(name)[:60])}' gives more than one value")
    return str(name), int(call)


def _single(refs: Any, what: str) -> list[Key]:
    found = _refs(refs)
    if len(found) != 1:
        raise NotThereError(f"it has {len(found)} {what}s, where a model that labels has one")
    return found
