"""Teachers that are asked in each step, and the views of a photo that they and their pupils see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import Ferbatch, drawn

from ferbatch.commands.train.average import Average
from ferbatch.commands.train.pixels import framed
from ferbatch.commands.train.teachers import Teachers
from ferbatch.core.options import EXAMPLE
from ferbatch.model.engine import scale, standardise_
from ferbatch.model.weights import read_card
from ferbatch.sources.listing import list_images
from ferbatch.stream.classifier import Classifier

CPU = torch.device("cpu")


def test_teachers_say_of_the_pupils_images_what_they_say_of_them_by_themselves() -> None:
    engines = [Classifier.load(name, "cpu", precision="fp32") for name in ("cnn-lite-v1", "cnn-v3")]
    pixels = drawn(24)
    pupil = dataclasses.replace(read_card("cnn-v1"), mean=0.3, std=0.4)  # what the pupil's images were scaled by
    x = standardise_(scale(torch.from_numpy(pixels)), pupil)
    before = x.clone()
    said = Teachers(engines, pupil, CPU)(x).numpy()
    wanted = np.mean([engine.probabilities(pixels) for engine in engines], axis=0)
    assert said == pytest.approx(wanted, abs=1e-4)
    assert np.abs(engines[0].probabilities(pixels) - wanted).max() > 0.01  # the two do differ
    assert torch.equal(x, before)  # the pupil's images are left as they are


def test_the_running_average_is_pytorchs() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))

    def warmed(average: Any, current: Any, steps: Any) -> Any:
        return average + (current - average) * (1 - min(0.9, (1 + int(steps)) / (10 + int(steps))))

    theirs = torch.optim.swa_utils.AveragedModel(model, avg_fn=warmed, use_buffers=True)
    ours = Average(model, 0.9)
    for _ in range(100):
        model(torch.randn(8, 3))
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(torch.randn_like(weights))
        theirs.update_parameters(model)
        ours.update(model)
    for one, other in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    means = [dict(average.module.named_buffers())["1.running_mean"] for average in (ours, theirs)]
    assert torch.allclose(means[0], means[1], atol=1e-5)
    assert not torch.allclose(means[0], torch.zeros(4), atol=1e-2)


def test_a_photo_is_framed_whole_and_as_its_face_is_labelled(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8)).save(tmp_path / "noise.png")
    listing = list_images([EXAMPLE, tmp_path], ())
    whole, views, faceless = framed(listing, "both", lambda n: None)
    assert views.shape == (2, 2, 48, 48)
    assert faceless == 1
    assert np.array_equal(views[0], whole.pixels)
    assert np.array_equal(views[0, 1], views[1, 1])  # no face: the whole image stands for it
    model = Classifier.load("cnn-lite-v1", "cpu", precision="fp32")
    with Image.open(EXAMPLE) as photo:
        largest, *_ = model.faces(photo)
        crop = model(photo)
    by_view = model.probabilities(views[:, 0])
    assert by_view[1] == pytest.approx(list(largest.probabilities.values()), abs=1e-3)
    # A file may be reduced while it is decoded, an image that is open already may not.
    assert by_view[0] == pytest.approx(list(crop.probabilities.values()), abs=5e-3)
    _, levelled, _ = framed(listing, "levelled", lambda n: None)
    assert np.array_equal(levelled[0], views[1])


def test_a_network_learns_from_teachers_that_see_what_it_sees(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    for label in ("happy", "sad", "neutral", "surprise"):
        for part, seeds in (("train", range(8)), ("validation", range(8, 10))):
            folder = tmp_path / "data" / part / label
            folder.mkdir(parents=True)
            for seed in seeds:
                Image.fromarray(drawn(10)[seed]).save(folder / f"{label}{seed}.png")
    kept = {}
    for views in ("same", "fixed"):
        recipe = f'model = "cnn-lite"\nepochs = 1\nbatch_size = 16\ndistill = 1.0\ndistill_views = "{views}"\n'
        (tmp_path / "r.toml").write_text(recipe)
        command = ("train", "data", "--recipe", "r.toml", "--distill", "cnn-lite-v1", "--device", "cpu", "-q")
        done = ferbatch_here(*command, "-o", f"{views}.safetensors")
        assert done.returncode == 0, done.stderr
        card = read_card(str(tmp_path / f"{views}.safetensors"))
        assert card.recipe["taught_by"] == [{"name": "cnn-lite-v1", "sha256": read_card("cnn-lite-v1").sha256}]
        kept[views] = (tmp_path / f"{views}.safetensors").read_bytes()
    assert kept["same"] != kept["fixed"]
