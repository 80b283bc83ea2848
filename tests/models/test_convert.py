"""`ferbatch convert`: a Keras model labels here as it does there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import Ferbatch, crossed, draw_face, rows_of

import ferbatch
from ferbatch.commands.models.convert import run
from ferbatch.core.errors import UsageError

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="keras is installed with ferbatch[test]")
layers = keras.layers


LABELS = "happy,neutral,sad,surprise"  # as generators of Keras sort them


def study(size: int, widths: tuple[int, ...] = (8, 6, 10), dense: int = 12) -> list[keras.Layer]:
    """The study's kind of network: even kernels, batch norms, LeakyReLU, pooling, dropout, dense layers."""
    found = [keras.Input((size, size, 1))]
    for width in widths:
        found += [
            layers.Conv2D(width, 2, padding="same"),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.1),
            layers.MaxPooling2D(2),
            layers.Dropout(0.2),
        ]
    found += [layers.Flatten(), layers.Dense(dense), layers.BatchNormalization(), layers.LeakyReLU(negative_slope=0.1)]
    return [*found, layers.Dropout(0.3), layers.Dense(4, activation="softmax")]


def other_kinds(size: int) -> list[keras.Layer]:
    """What else a Sequential for gray faces is made of."""
    return [
        keras.Input((size, size, 1)),
        layers.GaussianNoise(0.1),
        layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", use_bias=False),
        layers.SpatialDropout2D(0.1),
        layers.MaxPooling2D(3, strides=2, padding="same"),
        layers.Conv2D(7, (3, 5), padding="valid"),
        layers.BatchNormalization(scale=False, epsilon=0.01),
        layers.ELU(),
        layers.AveragePooling2D(2),
        layers.Conv2D(6, 4, strides=(1, 2), padding="same", activation="leaky_relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(9, activation="tanh"),
        layers.BatchNormalization(center=False),
        layers.Activation("sigmoid"),
        layers.Dense(8, use_bias=False),
        layers.ReLU(),
        layers.Dense(4),
        layers.Softmax(),
    ]


def lively(parts: list[keras.Layer], images: np.ndarray | None = None) -> keras.Model:
    """A model with random weights, and batch norms that know the images, so that it tells them apart."""
    model = keras.Sequential(parts)
    rng = np.random.default_rng(0)
    x = np.zeros((2, *model.input_shape[1:]), np.float32) if images is None else images
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            axes = tuple(range(x.ndim - 1))
            known = [np.asarray(x).mean(axes), np.asarray(x).var(axes) + 0.01]
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()[:-2]] + known)
        elif layer.get_weights():
            spread = [np.sqrt(np.prod(w.shape[:-1])) if w.ndim > 1 else 4 for w in layer.get_weights()]
            layer.set_weights([rng.normal(0, 2 / n, w.shape) for n, w in zip(spread, layer.get_weights(), strict=True)])
        x = keras.ops.convert_to_numpy(layer(x, training=False)) if layer is not model.layers[-1] else x
    return model


@pytest.mark.parametrize(
    ("kind", "scale", "suffix"),
    crossed(["study 48", "study 64", "flat 64", "others 48", "others 50"], ["0,1", "0,255", "-1,1"], [".keras", ".h5"]),
)
def test_probabilities_equal_keras(kind: str, scale: str, suffix: str, tmp_path: Path) -> None:
    size = int(kind[-2:])
    parts = {
        "study": lambda: study(size),
        "flat": lambda: study(size, widths=(6,)),  # 32 x 32 x 6 into Flatten: a wrong order shows
        "others": lambda: other_kinds(size),
    }[kind[:-3]]()
    faces = [draw_face(seed, size) for seed in range(12)]
    low, high = map(float, scale.split(","))
    pixels = (np.stack([np.asarray(face) for face in faces])[..., None] / 255 * (high - low) + low).astype(np.float32)
    model = lively(parts, pixels)
    source = tmp_path / f"model{suffix}"
    model.save(source)
    run(source, tmp_path / "mine", labels=LABELS, scale=scale, overwrite=False)
    theirs = keras.ops.convert_to_numpy(model(pixels, training=False))
    ours = ferbatch.load_model(str(tmp_path / "mine.safetensors"), device="cpu", precision="fp32")
    found = np.array([list(one.probabilities.values()) for one in ours(faces)])
    assert np.ptp(theirs, axis=0).max() > 0.01, "the inputs must tell apart"
    np.testing.assert_allclose(found, theirs, atol=6e-5, rtol=0)
    assert ours.card.labels == tuple(LABELS.split(","))
    assert ours.card.parameters == sum(int(np.prod(v.shape)) for v in model.trainable_variables) + _filled(model)


def _filled(model: keras.Model) -> int:
    """Gains and offsets that Keras leaves out and ours holds as ones and zeros."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    return sum((2 - layer.scale - layer.center) * layer.input.shape[-1] for layer in norms)


def test_the_command_writes_a_model_that_labels(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 5)
    lively(study(48)).save(tmp_path / "theirs.keras")
    (tmp_path / "weights").mkdir()
    command = ("convert", "theirs.keras", "-o", "weights/mine", "--labels", LABELS, "--scale", "0,1")
    done = ferbatch_here(*command)
    assert done.returncode == 0, done.stderr
    assert b"labels happy, neutral, sad, surprise" in done.stderr
    assert sorted(os.listdir(tmp_path / "weights")) == ["mine.json", "mine.safetensors"]
    card = json.loads((tmp_path / "weights/mine.json").read_text())
    assert card["recipe"] == {"converted_from": "theirs.keras", "scale": "0,1"}
    assert card["scores"] == []
    assert ferbatch_here("label", "images", "--model", "weights/mine.safetensors").returncode == 0
    rows = rows_of(tmp_path / "labels.csv")
    assert list(rows[0])[4:8] == LABELS.split(",")
    assert len(rows) == 5
    assert ferbatch_here(*command).returncode == 2
    assert ferbatch_here(*command, "-q", "--overwrite").stderr == b""


def test_labels_and_scale_must_be_said(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    lively(study(48)).save(tmp_path / "theirs.keras")
    for given, said in (
        (("--scale", "0,1"), b"Missing option"),
        (("--labels", LABELS), b"theirs.keras does not say how its pixels were scaled: say --scale LOW,HIGH"),
    ):
        done = ferbatch_here("convert", "theirs.keras", "-o", "mine", *given)
        assert done.returncode == 2
        assert said in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["theirs.keras"]


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (
            lambda p: [*p[:3], layers.Conv2DTranspose(4, 3), *p[3:]],
            {},
            r"layer 3 of \d+, Conv2DTranspose '.*no such",
        ),
        (lambda p: [*p[:-1], layers.Dense(4, activation="sigmoid")], {}, "activation sigmoid is not known here"),
        (lambda p: [p[0], layers.Conv2D(4, 3, activation="celu"), *p[1:]], {}, "activation celu is not known here"),
        (lambda p: [p[0], layers.Softmax(axis=1), *p[1:]], {}, "its axis is not the channels'"),
        (
            lambda p: [*p[:6], layers.UpSampling2D(interpolation="bicubic"), *p[6:]],
            {},
            "interpolation is bicubic, and ",
        ),
        (lambda p: [*p[:-1], layers.Dense(7, activation="softmax")], {}, "has 7 outputs, and --labels names 4"),
        (lambda p: [keras.Input((48, 48, 2)), *p[1:]], {}, "takes images of 48 x 48 x 2, where square ones are needed"),
        (lambda p: [keras.Input((48, 64, 1)), *p[1:]], {}, "takes images of 48 x 64 x 1, where square ones are needed"),
        (
            lambda p: p,
            {"labels": "happy"},
            r"1 label \(happy\), where a model has 2 to 1,000; say the outputs in order",
        ),
        (lambda p: p, {"labels": "happy,happy,sad,neutral"}, "two labels are called the same"),
        (lambda p: p, {"scale": "255"}, "say LOW,HIGH"),
        (lambda p: p, {"scale": "1,0"}, "say LOW,HIGH"),
    ],
)
def test_what_cannot_be_carried_over_is_one_sentence_and_writes_nothing(
    change: Callable[..., list[keras.Layer]], options: dict[str, str], said: str, tmp_path: Path
) -> None:
    lively(change(study(48))).save(tmp_path / "theirs.keras")
    with pytest.raises(UsageError, match=said) as raised:
        run(
            tmp_path / "theirs.keras",
            tmp_path / "mine",
            **{"labels": LABELS, "scale": "0,1", "overwrite": False, **options},  # type: ignore[arg-type]
        )
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == ["theirs.keras"]


def test_flatten_keeps_the_order_of_keras() -> None:
    from ferbatch.model.parts import FlattenRows

    x = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert torch.equal(FlattenRows()(x), x.permute(0, 2, 3, 1).reshape(2, -1))
