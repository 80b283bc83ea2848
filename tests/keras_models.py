"""Keras models as they are published, and their files as earlier versions of Keras wrote them.

The forms are those of real files of Keras 1.2.2, 2.0.6, 2.1.6, 2.2.4 and 2.3.1 and of tf.keras 2.15.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import draw_face

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="keras is installed with ferbatch[test]")
layers = keras.layers
SEVEN = "angry,disgust,fear,happy,sad,surprise,neutral"  # as models of FER2013 mostly have them
OLD = ("1.2.2", "2.0.6", "2.1.6", "2.2.4", "2.15.0")
OF_KERAS_1 = {
    "filters": "nb_filter",
    "padding": "border_mode",
    "strides": "subsample",
    "use_bias": "bias",
    "units": "output_dim",
}


def faces_of(size: int, n: int = 200) -> np.ndarray:
    """(n, size, size, 1) uint8 drawn faces."""
    return np.stack([np.asarray(draw_face(seed, size)) for seed in range(n)])[..., None]


def predicted(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False)))


def lively(model: Any, pixels: np.ndarray) -> Any:
    """Random weights, the last ones such that the model is sure of some of these pixels and tells them apart."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            n = len(layer.get_weights()) - 2
            new = [rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()[:n]]
            layer.set_weights([*new, *(rng.uniform(0.3, 1.5, w.shape) for w in layer.get_weights()[n:])])
        elif isinstance(layer, keras.Model) or not layer.get_weights():
            continue
        else:
            spread = [2 / np.prod(w.shape[:-1]) ** 0.5 if w.ndim > 1 else 0.2 for w in layer.get_weights()]
            layer.set_weights([rng.normal(0, s, w.shape) for s, w in zip(spread, layer.get_weights(), strict=True)])
    last = [layer for layer in model.layers if layer.get_weights()][-1]
    weight, bias = last.get_weights()
    while True:  # until no probability is lost in rounding
        last.set_weights([weight, 0 * bias])
        said = np.log(np.maximum(predicted(model, pixels), 1e-30))
        if said.min() > np.log(1e-15):
            break
        weight = weight / 4
    gain = 1.5 / (said - said.mean(0)).std()
    last.set_weights([weight * gain, -(said - said.mean()).mean(0) * gain])
    return model


def mini_xception(size: int = 64, labels: int = 7) -> Any:
    """The commonest public network: Arriaga et al., https://arxiv.org/abs/1710.07557, layer for layer."""
    x = inputs = keras.Input((size, size, 1))
    for _ in range(2):
        x = layers.Conv2D(8, 3, use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for width in (16, 32, 64, 128):
        residual = layers.Conv2D(width, 1, strides=2, padding="same", use_bias=False)(x)
        residual = layers.BatchNormalization()(residual)
        x = layers.BatchNormalization()(layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x))
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(layers.Activation("relu")(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(layers.BatchNormalization()(x))
        x = layers.Add()([x, residual])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(labels, 3, padding="same")(x))
    return keras.Model(inputs, layers.Activation("softmax", name="predictions")(x))


def plain(size: int = 48) -> Any:
    """A chain of layers that Keras 1 had as well."""
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.ZeroPadding2D((1, 2)),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.1),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.Dropout(0.2),
            layers.GaussianNoise(0.1),
            layers.AveragePooling2D(3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(16, activation="tanh"),
            layers.PReLU(),
            layers.Dense(7),
            layers.Activation("softmax"),
        ]
    )


def nested(size: int = 48) -> Any:
    """A model in a model, whose weights an .h5 file holds in one group: those that are trained come first."""
    inner = keras.Sequential(
        [
            keras.Input((size, size, 1)),
            layers.Conv2D(6, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(4),
            layers.Conv2D(6, 3, padding="same"),
            layers.BatchNormalization(),
        ],
        name="inner",
    )
    inputs = keras.Input((size, size, 1))
    return keras.Model(inputs, layers.Dense(7, activation="softmax")(layers.Flatten()(inner(inputs))))


def save_old(model: Any, path: Path, version: str) -> None:
    """An .h5 file as this version of Keras wrote it."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(old_model(json.loads(model.to_json()), version)).encode()
        file.attrs["training_config"] = json.dumps({"optimizer_config": {"class_name": "Adam"}, "loss": "mse"}).encode()
        file.attrs["keras_version"] = version.encode()
        group = file.create_group("model_weights")
        if version[0] != "1":
            file.attrs["backend"] = b"tensorflow"
        names = [layer.name for layer in model.layers]
        group.attrs["layer_names"] = [name.encode() for name in names]
        for layer in model.layers:
            _save_arrays(group.create_group(layer.name), layer)


def _save_arrays(group: Any, layer: Any) -> None:
    inner = layer.layers if isinstance(layer, keras.Model) else [layer]
    trained = [(one, v) for one in inner for v in one.trainable_weights]
    others = [(one, v) for one in inner for v in one.non_trainable_weights]
    names = [f"{one.name}/{v.name}:0" for one, v in [*trained, *others]]
    group.attrs["weight_names"] = [name.encode() for name in names]
    for name, (_, variable) in zip(names, [*trained, *others], strict=True):
        group[name] = keras.ops.convert_to_numpy(variable)


def old_model(model: dict[str, Any], version: str) -> dict[str, Any]:
    """What `to_json` of this version would have said of a model, from what it says now."""
    config = model["config"]
    if model["class_name"] == "Sequential":
        first, *rest = config["layers"]
        shape = first["config"]["batch_shape"]
        found = [old_layer(one, version) for one in rest]
        found[0]["config"]["batch_input_shape"] = shape
        if version == "2.15.0":
            found.insert(0, old_layer(first, version))
        as_list = version < "2.2.3" and version != "2.15.0"
        return {
            "class_name": "Sequential",
            "config": found if as_list else {"name": config["name"], "layers": found},
        }
    found = [old_layer(one, version) for one in config["layers"]]
    for one, now in zip(found, config["layers"], strict=True):
        node = now["inbound_nodes"][0]["args"] if now["inbound_nodes"] else []
        tensors = node[0] if node and isinstance(node[0], list) else node
        one["name"] = now["name"]
        one["inbound_nodes"] = [[[*t["config"]["keras_history"], {}] for t in tensors]] if tensors else []
    ends = {
        name: [config[name]] if isinstance(config[name][0], str) else config[name]
        for name in ("input_layers", "output_layers")
    }
    kind = "Functional" if version == "2.15.0" else "Model"
    return {"class_name": kind, "config": {"name": config["name"], "layers": found, **ends}}


def old_layer(layer: dict[str, Any], version: str) -> dict[str, Any]:
    if layer["class_name"] in ("Sequential", "Functional"):
        return old_model(layer, version)
    config = {name: value for name, value in layer["config"].items() if not isinstance(value, dict)}
    kind = layer["class_name"]
    config["dtype"] = "float32"
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    if kind == "LeakyReLU":
        slope = config.pop("negative_slope")
        config["alpha"] = {"type": "ndarray", "value": slope} if version == "2.1.6" else slope
    if kind == "BatchNormalization" and version == "2.15.0":
        config["axis"] = [3]
    if version[0] == "1":
        kind = {"Conv2D": "Convolution2D"}.get(kind, kind)
        if "kernel_size" in config:
            config["nb_row"], config["nb_col"] = config.pop("kernel_size")
        if "pool_size" in config:
            config["border_mode"] = config.pop("padding")
        elif kind == "ZeroPadding2D":
            config["padding"] = [side[0] for side in config["padding"]]
        else:
            config = {OF_KERAS_1.get(name, name): value for name, value in config.items()}
        if "data_format" in config:
            config["dim_ordering"] = {"channels_last": "tf", "channels_first": "th"}[config.pop("data_format")]
    return {"class_name": kind, "config": config}
