"""`ferbatch convert`: the files that lie in public repositories give Keras's own probabilities, or a sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from keras_models import OLD, SEVEN, faces_of, keras, layers, lively, mini_xception, nested, plain, predicted, save_old
from support import Ferbatch, crossed, depth, rows_of

import ferbatch
from ferbatch.commands.models import keras_file
from ferbatch.commands.models.convert import run
from ferbatch.commands.models.keras_file import names_in
from ferbatch.commands.models.keras_layers import ACTIVATIONS, LAYERS, TRAINING_ONLY
from ferbatch.core.errors import UsageError
from ferbatch.model import parts
from ferbatch.model.weights import UNKNOWN_ACCURACY, Card


def convert(source: Path, scale: str | None = "0,1", labels: str = SEVEN, **more: Any) -> Card:
    return run(source, source.parent / "mine", labels=labels, scale=scale, overwrite=True, **more)


def found(folder: Path, images: np.ndarray, precision: str = "fp32") -> np.ndarray:
    """What the converted model says of gray images, (N, size, size, 1) uint8."""
    model = ferbatch.load_model(str(folder / "mine.safetensors"), device="cpu", precision=precision)
    return model.probabilities(images[..., 0])


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.ptp(theirs, axis=0).max() > 0.3, "the inputs must tell apart"
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    assert (ours.argmax(1) == theirs.argmax(1)).all()


MODELS: dict[str, Callable[[], Any]] = {
    "plain": plain,
    "nested": nested,
    "mini_XCEPTION 64": mini_xception,
    "mini_XCEPTION 48": lambda: mini_xception(48),
}
FORMS = (*OLD[1:], ".h5", ".keras", ".hdf5", "weights", "old weights")


@pytest.mark.parametrize(
    ("kind", "form"), [*crossed([*MODELS], [*FORMS]), ("mini_XCEPTION 64", "2.0.6"), ("plain", "1.2.2")]
)
def test_a_public_model_gives_keras_own_probabilities(kind: str, form: str, tmp_path: Path) -> None:
    model = MODELS[kind]()
    images = faces_of(model.input_shape[1])
    lively(model, images / 255)
    more = {}
    if form in OLD:
        source = tmp_path / "theirs.h5"
        save_old(model, source, form)
    elif form.endswith("weights"):
        source = tmp_path / ("theirs.weights.h5" if form == "weights" else "theirs.h5")
        more = {"architecture": tmp_path / "theirs.json"}
        more["architecture"].write_text(model.to_json())
        model.save_weights(source) if form == "weights" else _save_old_weights(model, source)
    else:
        source = tmp_path / f"theirs{form}"
        model.save(source)
    card = convert(source, **more)
    assert card.size == model.input_shape[1]
    assert card.architecture == ("graph" if kind.startswith("mini") else "sequential")
    assert_same(found(tmp_path, images), predicted(model, images / 255))


def _save_old_weights(model: Any, path: Path) -> None:
    """What save_weights wrote before Keras 3: the group of a whole file, alone; called as another session called it."""
    with h5py.File(path, "w") as file:
        save_old(model, path.with_suffix(".whole"), "2.2.4")
        with h5py.File(path.with_suffix(".whole")) as whole:
            names = names_in(whole["model_weights"], "layer_names")
            for at, name in enumerate(names):
                whole.copy(f"model_weights/{name}", file, f"layer_{at}")
            file.attrs["layer_names"] = [f"layer_{at}".encode() for at in range(len(names))]


def everything(size: int = 48) -> Any:
    """A network in which every layer of the table has its part, and no two of them do the same."""
    x = inputs = keras.Input((size, size, 1))
    x = layers.Normalization(mean=0.4, variance=0.2)(x)
    x = layers.Conv2D(8, 3, padding="same", groups=1, dilation_rate=2, activation="swish")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.SeparableConv2D(12, 3, padding="same", depth_multiplier=2, activation="elu")(x)
    x = layers.Conv2D(12, 3, groups=3, padding="same")(layers.ZeroPadding2D(((1, 0), (0, 2)))(x))
    x = layers.Cropping2D(((0, 1), (2, 0)))(layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.3)(x))
    weigh = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    weigh = layers.Dense(12, activation="sigmoid")(layers.Dense(4, activation="relu")(weigh))
    x = layers.Multiply()([x, weigh])
    most = layers.GlobalMaxPooling2D(keepdims=True)(x)
    x = layers.Subtract()([x, layers.Rescaling([0.5] * 12, offset=0.1)(most)])
    small = layers.AveragePooling2D(3, strides=3, padding="same")(x)
    large = layers.UpSampling2D(2)(layers.LeakyReLU(negative_slope=0.2)(layers.MaxPooling2D(2)(x)))
    other = layers.Resizing(24, 24)(small)
    x = layers.Average()([x, large, other])
    x = layers.Concatenate()([layers.Maximum()([x, large]), layers.Minimum()([x, other]), layers.Softmax()(x)])
    x = layers.PReLU()(layers.Conv2D(6, 3, strides=2)(x))
    x = layers.Add()([x, layers.ELU(alpha=0.7)(x)])
    mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Concatenate()([layers.Flatten()(layers.MaxPooling2D(3)(x)), layers.Flatten()(mean)])
    x = layers.Activation("relu")(layers.BatchNormalization(center=False)(layers.Dense(20)(x)))
    return keras.Model(inputs, layers.Dense(7, activation="softmax")(layers.Dropout(0.5)(x)))


def test_every_layer_of_the_table_computes_as_in_keras(tmp_path: Path) -> None:
    model, images = everything(), faces_of(48)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert {*LAYERS} - {*TRAINING_ONLY} - {"ThresholdedReLU"} <= kinds, "the model must have them all"
    lively(model, images / 255)
    model.save(tmp_path / "theirs.keras")
    convert(tmp_path / "theirs.keras")
    assert_same(found(tmp_path, images), predicted(model, images / 255))


def test_means_do_not_count_the_padding_where_it_is_uneven_either() -> None:
    """As TensorFlow has it; Keras on PyTorch repeats the border's pixels there."""
    pool = parts.build({"kind": "average_pool", "size": [3, 3], "stride": [2, 2], "pad": [0, 1, 0, 1]})
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pool(x).flatten().tolist() == pytest.approx([5.0, 6.5, 11.0, 12.5])


def small(*first: Any, shape: tuple[int, ...] = (48, 48, 1)) -> Any:
    """A network of these layers and what it takes for seven labels."""
    tail = [layers.Conv2D(6, 3, strides=3, activation="relu"), layers.Flatten(), layers.Dense(7, activation="softmax")]
    return keras.Sequential([keras.Input(shape), *first, *tail])


FUNCTIONS = [name for name in ACTIVATIONS if name not in ("hard_sigmoid_2", "softmax", "linear")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_computes_as_in_keras(name: str, tmp_path: Path) -> None:
    model, images = small(layers.Conv2D(5, 5, strides=2, activation=name)), faces_of(48, 60)
    lively(model, images / 255)
    model.save(tmp_path / "theirs.h5")
    convert(tmp_path / "theirs.h5")
    assert_same(found(tmp_path, images), predicted(model, images / 255))


def test_hard_sigmoid_is_another_function_in_files_of_keras_2(tmp_path: Path) -> None:
    inputs, images = keras.Input((48, 48, 1)), faces_of(48)
    hidden = layers.Dense(9)(layers.Flatten()(layers.AveragePooling2D(4)(inputs)))
    model = keras.Model(inputs, layers.Dense(7, activation="softmax")(layers.Activation("hard_sigmoid")(hidden)))
    lively(model, images / 255)
    save_old(model, tmp_path / "theirs.h5", "2.2.4")
    convert(tmp_path / "theirs.h5")
    x = predicted(keras.Model(inputs, hidden), images / 255)
    weight, bias = model.layers[-1].get_weights()
    logits = np.clip(0.2 * x + 0.5, 0, 1) @ weight + bias
    theirs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found(tmp_path, images), theirs, atol=1e-4)
    assert np.abs(theirs - predicted(model, images / 255)).max() > 0.01


def test_layers_for_training_are_left_out_nested_ones_too(tmp_path: Path) -> None:
    augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    noise = [layers.AlphaDropout(0.1), layers.ActivityRegularization(0.01), layers.GaussianDropout(0.1)]
    model, images = small(augmentation, layers.RandomZoom(0.1), layers.Rescaling(1 / 255), *noise), faces_of(48)
    lively(model, images)
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"theirs{suffix}")
        card = convert(tmp_path / f"theirs{suffix}", scale=None)
        assert [part["kind"] for part in card.arguments["parts"]] == ["convolution", "leaky_relu", "flatten", "dense"]
        assert_same(found(tmp_path, images), predicted(model, images))


@pytest.mark.parametrize(
    ("gain", "offset", "scale", "high"),
    [
        (1 / 255, 0.0, None, 255),
        (1 / 255, 0.0, "0,255", 255),
        (1 / 127.5, -1.0, None, 255),
        (2.0, -1.0, "0,1", 1),
        (1 / 255, 0.0, "0,1", None),
        (1 / 127.5, -1.0, "-1,1", None),
        (1 / 255, 0.0, "imagenet", None),
        (2.0, -1.0, "0,255", None),
        (2.0, -1.0, None, None),
    ],
)
def test_rescaling_is_folded_into_the_scale_or_contradicts_it(
    gain: float, offset: float, scale: str | None, high: float | None, tmp_path: Path
) -> None:
    model, images = small(layers.Rescaling(gain, offset=offset)), faces_of(48)
    pixels = images / 255 * (high or 255)
    lively(model, pixels)
    model.save(tmp_path / "theirs.keras")
    if high is None:
        with pytest.raises(UsageError, match=r"--scale") as raised:
            convert(tmp_path / "theirs.keras", scale=scale)
        assert "Rescaling" in str(raised.value) or scale == "imagenet"
        assert "\n" not in str(raised.value)
    else:
        card = convert(tmp_path / "theirs.keras", scale=scale)
        assert card.recipe["scale"] == (scale or "0,255")
        assert "affine" not in {part["kind"] for part in card.arguments["parts"]}
        assert_same(found(tmp_path, images), predicted(model, pixels))


@pytest.mark.parametrize("scale", ["0,255", "-1,1", "imagenet", "caffe"])
def test_a_network_in_colour_gets_gray_on_three_channels(scale: str, tmp_path: Path) -> None:
    images = faces_of(48)
    colours = np.repeat(images, 3, 3).astype(np.float64)
    pixels = {
        "0,255": colours,
        "-1,1": colours / 127.5 - 1,
        "imagenet": (colours / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": colours[..., ::-1] - [103.939, 116.779, 123.68],
    }[scale]
    model = lively(small(shape=(48, 48, 3)), pixels)
    model.save(tmp_path / "theirs.h5")
    card = convert(tmp_path / "theirs.h5", scale=scale)
    assert card.arguments["parts"][0]["kind"] == "three_channels"
    assert_same(found(tmp_path, images), predicted(model, pixels))


def test_channels_first_is_read_too(tmp_path: Path) -> None:
    images = faces_of(48)
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((1, 48, 48)),
            layers.Conv2D(6, 3, strides=2, padding="same", **first),
            layers.BatchNormalization(axis=1),
            layers.PReLU(),
            layers.MaxPooling2D(2, **first),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ]
    )
    pixels = images.transpose(0, 3, 1, 2) / 255
    lively(model, pixels)
    model.save(tmp_path / "theirs.h5")
    convert(tmp_path / "theirs.h5")
    assert_same(found(tmp_path, images), predicted(model, pixels))


def test_pixels_in_a_row_are_an_image(tmp_path: Path) -> None:
    images = faces_of(48)
    model = small(layers.Reshape((48, 48, 1)), shape=(2304,))
    lively(model, images.reshape(-1, 2304) / 255)
    model.save(tmp_path / "theirs.h5")
    assert convert(tmp_path / "theirs.h5").size == 48
    assert_same(found(tmp_path, images), predicted(model, images.reshape(-1, 2304) / 255))


def test_kernels_of_theano_are_turned_round(tmp_path: Path) -> None:
    model, images = lively(small(), faces_of(48) / 255), faces_of(48)
    save_old(model, tmp_path / "theirs.h5", "2.0.6")
    with h5py.File(tmp_path / "theirs.h5", "r+") as file:
        file.attrs["backend"] = b"theano"
        kernel = next(one for one in _datasets(file) if one.ndim == 4)
        kernel[...] = kernel[()][::-1, ::-1]
    convert(tmp_path / "theirs.h5")
    assert_same(found(tmp_path, images), predicted(model, images / 255))


def _datasets(file: Any) -> list[Any]:
    there: list[Any] = []
    file.visititems(lambda name, one: there.append(one) if hasattr(one, "ndim") else None)
    return there


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A small converted model's source."""
    lively(small(), faces_of(48, 20) / 255).save(tmp_path / "theirs.h5")
    return tmp_path / "theirs.h5"


@pytest.mark.parametrize("name", ["theirs.keras", "theirs.weights", "theirs"])
def test_a_file_is_known_by_its_first_bytes(name: str, theirs: Path) -> None:
    (theirs.parent / "as").mkdir()
    shutil.copy(theirs, theirs.parent / "as" / name)
    convert(theirs.parent / "as" / name)
    keras.models.load_model(theirs).save(theirs.parent / "zip.keras")
    shutil.copy(theirs.parent / "zip.keras", theirs.parent / "as" / "zip.h5")
    convert(theirs.parent / "as" / "zip.h5")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:be75\n", "the pointer that Git LFS left"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x1c\0\0\0TFL3\0", "a TFLite model"),
        (b"\x80\x04\x95", "a Python pickle"),
        (b"\x08\x07\x12\x07pytorch", "an ONNX or TensorFlow graph"),
        (b"PK\x03\x04", "is a damaged zip file, or cut short"),
        (b"\x1f\x8b\x08", "packed by gzip"),
        (b'\x10\0\0\0\0\0\0\0{"a": 1}', "a safetensors file"),
        (b'{"class_name": "Sequential"}', "JSON, as model.to_json.. gives it: say the file of its weights"),
        (b"", "it is empty"),
        (b"\0" * 99, "no Keras model: it begins with"),
        (keras_file.HDF5 + b"\0" * 99, "a damaged HDF5 file, or cut short"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_keras_file_is_called_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.h5").write_bytes(content)
    sentence(tmp_path / "theirs.h5", said)


def sentence(source: Path, said: str, **more: Any) -> None:
    """Converting says it on one line, and writes nothing."""
    with pytest.raises(UsageError, match=said) as raised:
        convert(source, **more)
    assert "\n" not in str(raised.value)
    assert not (source.parent / "mine.safetensors").exists()


def test_folders_other_hdf5_and_zip_files_are_called_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08")
    np.savez(tmp_path / "arrays.keras", a=np.ones(3))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones(3)
    sentence(tmp_path / "saved", "a TensorFlow SavedModel: save it again where TensorFlow is")
    sentence(tmp_path / "arrays.keras.npz", "a zip file without a Keras model's config.json")
    sentence(tmp_path / "other.h5", "HDF5, but no Keras model")
    sentence(tmp_path / "nowhere.h5", "no such file")


def test_weights_alone_say_that_they_are_and_want_the_right_architecture(theirs: Path) -> None:
    model = keras.models.load_model(theirs)
    alone, described = theirs.with_name("a.weights.h5"), theirs.with_name("a.json")
    model.save_weights(alone)
    sentence(alone, "holds weights alone; say with --architecture FILE.json what model.to_json")
    described.write_text(small(layers.Conv2D(3, 3)).to_json())
    sentence(alone, "its weights are not those of its layers", architecture=described)
    described.write_text("[]")
    sentence(alone, "does not describe a Keras model", architecture=described)
    sentence(alone, "--architecture .*No such file", architecture=theirs.with_name("nowhere.json"))
    described.write_text(model.to_json())
    sentence(theirs, "leave --architecture out", architecture=described)
    described.write_text(json.dumps(model.to_json()))  # as json.dump writes it
    convert(alone, architecture=described)


def edit(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the layers that an .h5 file describes."""
    with h5py.File(path, "r+") as file:
        model = json.loads(file.attrs["model_config"])
        change(model["config"]["layers"])
        file.attrs["model_config"] = json.dumps(model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found: found[1].update(class_name="Custom>Mine"),
            "custom Mine '.*': it is a layer of its author's own",
        ),
        (lambda found: found[1].update(registered_name="Custom>Conv2D"), "custom Conv2D '.*': it is a layer of its"),
        (lambda found: found[1].update(module="mine.layers"), "custom Conv2D '.*': it is a layer of its author's own"),
        (lambda found: found[1].update(class_name="Lambda"), "Lambda '.*': it is Python code, which ferbatch does not"),
        (lambda found: found[1].update(class_name="TimeDistributed"), "it is for sequences of images"),
        (lambda found: found[1]["config"].update(activation="mine"), "the activation mine is not known here"),
        (lambda found: found[1]["config"].update(strides=[0, 0]), "its numbers do not fit the 1x48x48 values"),
        (lambda found: found[1]["config"].update(use_bias=False), "there are 2 arrays of '.*', which has 1"),
        (lambda found: found[0]["config"].update(batch_shape=[None, None, None, 1]), "of any x any x 1"),
        (lambda found: found[3]["config"].update(activation="sigmoid"), "layer 3 of 3, Dense.*activation sigmoid"),
        (lambda found: found[1].update(config="?"), "cannot be read as a Keras model"),
        (lambda found: found.clear(), "it gives no number for each label"),
    ],
)
def test_a_layer_that_cannot_be_carried_over_is_named(change: Callable[..., Any], said: str, theirs: Path) -> None:
    edit(theirs, change)
    sentence(theirs, said)


def test_weights_in_another_file_and_gigantic_ones_are_not_read(theirs: Path) -> None:
    shutil.copy(theirs, theirs.with_name("secret.h5"))
    for at, (put, said) in enumerate(
        [
            (
                lambda group, name: group.__setitem__(name, h5py.ExternalLink("secret.h5", f"/x/{name}")),
                "in another file",
            ),
            (
                lambda group, name: group.create_dataset(name, (9,), "f4", external=[("secret.h5", 0, 36)]),
                "in another file",
            ),
            (lambda group, name: group.create_dataset(name, (2**40,), "f4", chunks=(1024,)), "take more than"),
            (lambda group, name: group.create_dataset(name, (3,), "S3"), "no plain numbers"),
        ]
    ):
        source = shutil.copy(theirs, theirs.with_name(f"{at}.h5"))
        with h5py.File(source, "r+") as file:
            kernel = next(one for one in _datasets(file) if one.ndim == 4)
            name, group = kernel.name.rpartition("/")[2], kernel.parent
            del group[name]
            put(group, name)
        sentence(Path(source), said)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_damaged_file_is_a_sentence_or_converted(suffix: str, theirs: Path) -> None:
    keras.models.load_model(theirs).save(theirs.with_name("whole.keras"))
    whole = (theirs if suffix == ".h5" else theirs.with_name("whole.keras")).read_bytes()
    damaged = theirs.with_name(f"damaged{suffix}")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(depth(30, 300)):
        content = bytearray(whole[: rng.integers(len(whole)) if rng.random() < 0.3 else None])
        for at in rng.integers(len(content), size=200):
            content[at] = rng.integers(256)
        damaged.write_bytes(content)
        try:
            convert(damaged)
        except UsageError:
            refused += 1
    assert refused


def test_a_converted_model_says_that_its_accuracy_is_unknown(
    theirs: Path, faces: Callable[..., Path], ferbatch_here: Ferbatch
) -> None:
    for name in ("happy", "sad"):
        faces(f"test/{name}", 3)
    command = ("convert", "theirs.h5", "-o", "mine", "--labels", SEVEN, "--scale", "0,1")
    assert UNKNOWN_ACCURACY.encode() in ferbatch_here(*command).stderr
    assert ferbatch_here(*command, "--overwrite", "-q").stderr == b""
    card = json.loads((theirs.parent / "mine.json").read_text())
    assert UNKNOWN_ACCURACY in card["limits"]
    assert card["scores"] == []
    label = ("label", "test", "--no-truth", "--model", "mine.safetensors", "--overwrite")
    warning = b"mine: its accuracy is unknown until `ferbatch evaluate` has measured it\n"
    assert ferbatch_here(*label).stderr.count(warning) == 1
    assert ferbatch_here(*label, "-q").stderr == b""
    assert b"unknown" not in ferbatch_here("label", "test", "--no-truth", "-o", "ours.csv").stderr
    done = ferbatch_here("evaluate", "--truth", "test", "--model", "mine.safetensors")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(theirs.parent / "labels.csv")) == 6


def test_a_model_that_branches_labels_in_every_precision_and_auto_is_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = faces_of(48, 100)
    model = lively(mini_xception(48), images / 255)
    model.save(tmp_path / "theirs.keras")
    convert(tmp_path / "theirs.keras")
    monkeypatch.setattr("ferbatch.model.devices.computes_bf16", lambda device: True)
    theirs = predicted(model, images / 255)
    assert_same(found(tmp_path, images, "auto"), theirs)
    rough = found(tmp_path, images, "bf16")
    assert 1e-4 < np.abs(rough - theirs).max() < 0.1
    assert (rough.argmax(1) == theirs.argmax(1)).mean() > 0.9


def test_no_line_of_keras_is_needed(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keras", None)
    convert(theirs)


def test_h5py_is_asked_for_where_it_is_missing(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    sentence(theirs, re.escape("convert needs h5py: pip install 'ferbatch[keras]'"))
