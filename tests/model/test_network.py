"""The port computes what Keras computes."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from support import draw_face

from ferbatch.model.networks import Cnn
from ferbatch.model.registry import MODELS, build, multiply_adds, parameters
from ferbatch.model.weights import read_card, shipped
from ferbatch.stream.classifier import Classifier

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="keras is installed with ferbatch[test]")


def keras_cnn() -> keras.Model:
    """The study's network in Keras, with Keras's own defaults."""
    layers = [keras.Input((48, 48, 1))]
    for channels in (64, 128, 512, 512, 128):
        layers += [
            keras.layers.Conv2D(channels, 2, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.LeakyReLU(negative_slope=0.1),
            keras.layers.MaxPooling2D(2),
            keras.layers.Dropout(0.2),
        ]
    layers += [keras.layers.Flatten()]
    for width in (256, 128):
        layers += [
            keras.layers.Dense(width),
            keras.layers.BatchNormalization(),
            keras.layers.LeakyReLU(negative_slope=0.1),
            keras.layers.Dropout(0.3),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(4, activation="softmax")])


def carry(network: Cnn, model: keras.Model) -> None:
    """Copy every tensor of our network into the Keras model, layer by layer."""
    ours = [m for m in network.modules() if hasattr(m, "weight")]
    theirs = [layer for layer in model.layers if layer.get_weights()]
    for source, target in zip(ours, theirs, strict=True):
        weight, bias = source.weight.detach().numpy(), source.bias.detach().numpy()
        if isinstance(source, torch.nn.Conv2d):
            target.set_weights([weight.transpose(2, 3, 1, 0), bias])  # (out, in, h, w) -> (h, w, in, out)
        elif isinstance(source, torch.nn.Linear):
            target.set_weights([weight.T, bias])
        else:
            target.set_weights([weight, bias, source.running_mean.numpy(), source.running_var.numpy()])


def lively_network(seed: int) -> Cnn:
    """Random weights, with batch-norm statistics and gains far from their start, so that a wrong epsilon shows."""
    torch.manual_seed(seed)
    network = Cnn().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.001, 0.5)
            torch.nn.init.uniform_(module.weight, -1.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = np.stack([np.asarray(draw_face(seed)) for seed in range(32)]) / 255
    return {"random": rng.normal(0, 1, (32, 48, 48)), "drawn": (drawn - 0.5) / 0.25}


@pytest.mark.parametrize("kind", ["random", "drawn"])
@pytest.mark.parametrize("weights", ["lively", "cnn-v1"])
def test_probabilities_equal_keras(kind: str, weights: str, inputs: dict[str, np.ndarray]) -> None:
    if weights == "lively":
        network = lively_network(1)
    else:
        from ferbatch.model.weights import load

        network = Cnn().eval()
        network.load_state_dict(load(weights)[1])
    model = keras_cnn()
    carry(network, model)
    x = inputs[kind].astype(np.float32)
    with torch.no_grad():
        ours = torch.softmax(network(torch.from_numpy(x[:, None])), 1).numpy()
    theirs = keras.ops.convert_to_numpy(model(x[..., None], training=False))
    assert np.ptp(theirs, axis=0).max() > 0.01, "the inputs must tell apart"
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_batch_norm_learns_its_statistics_at_the_pace_of_keras() -> None:
    network, model = lively_network(2), keras_cnn()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    carry(network, model)
    x = np.random.default_rng(0).normal(0, 1, (64, 48, 48)).astype(np.float32)
    with torch.no_grad():
        network.train()(torch.from_numpy(x[:, None]))
    model(x[..., None], training=True)
    ours = network.features[0][2].running_mean.numpy()  # the first block's batch norm
    theirs = next(v for v in model.layers[1].variables if "moving_mean" in v.path)
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), atol=1e-6)


def test_the_cnn_has_the_parameters_the_study_says() -> None:
    ours = Cnn()
    trainable = sum(int(np.prod(v.shape)) for v in keras_cnn().trainable_variables)
    assert parameters(ours) == trainable == 1_677_124
    assert multiply_adds(ours, 48) == pytest.approx(97.4e6, rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_gives_a_logit_per_label(name: str) -> None:
    network = build(name, {"labels": 7}).eval()
    assert network(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_model_matches_its_card(name: str) -> None:
    card = read_card(name)
    classifier = Classifier.load(name, "cpu")
    network = build(card.architecture, card.arguments)
    assert card.name == name
    assert parameters(network) == card.parameters
    assert multiply_adds(network, card.size) == card.multiply_adds
    assert card.labels == ("happy", "sad", "neutral", "surprise")
    assert classifier(draw_face(0)).label in card.labels
    for score in card.scores:
        assert score["n"]
        assert len(score["by_chance_95" if score["metric"] == "ece" else "interval_95"]) == 2
