"""timm's bodies: the study's sizes, ImageNet weights from a file, and nothing executed that comes in one."""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support import LABELS, Ferbatch

from ferbatch.core.errors import UsageError
from ferbatch.model import backbones, registry
from ferbatch.model.weights import read_card

# Parameters as the study gives them, which counts batch-norm statistics, as Keras does.
STUDY = {"vgg16": 14.7e6, "resnet101": 42.7e6, "efficientnetv2_b2": 8.8e6}


@pytest.fixture(scope="module")
def lite() -> backbones.Backbone:
    torch.manual_seed(0)
    return backbones.Backbone("efficientnet_lite0", side=32)


@pytest.mark.parametrize("name", STUDY)
def test_the_studys_networks_have_its_parameters(name: str) -> None:
    network = registry.build(name, {"labels": 4})
    statistics = sum(b.numel() for n, b in network.named_buffers() if "running" in n)
    assert registry.parameters(network) + statistics == pytest.approx(STUDY[name], rel=0.01)
    assert network.eval()(torch.rand(2, 1, 48, 48)).shape == (2, 4)


def test_a_gray_image_is_laid_on_three_channels_at_the_side_asked_for(lite: backbones.Backbone) -> None:
    image = torch.rand(1, 1, 48, 48)
    seen = lite.features[1](lite.features[0](image))  # type: ignore[index]
    assert seen.shape == (1, 3, 32, 32)
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert torch.equal(seen[:, 0], seen[:, 2])


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_local_weights_are_found_by_their_names(ending: str, lite: backbones.Backbone, tmp_path: Path) -> None:
    wanted = {name: torch.rand_like(t.float()) for name, t in lite.pretrainable.state_dict().items()}
    given = {**wanted, "classifier.weight": torch.zeros(1000, 1280)}
    path = tmp_path / f"weights.{ending}"
    save_file(given, path) if ending == "safetensors" else torch.save({"model": given, "epoch": 3}, path)
    backbones.load_pretrained(lite, path)
    stem = lite.pretrainable.state_dict()["conv_stem.weight"]
    assert torch.equal(stem, wanted["conv_stem.weight"])


def test_local_weights_of_other_names_are_taken_in_their_order(lite: backbones.Backbone, tmp_path: Path) -> None:
    tensors = [t for name, t in lite.pretrainable.state_dict().items() if not name.endswith("num_batches_tracked")]
    given = {f"layer{at}": torch.rand_like(t) for at, t in enumerate(tensors)} | {"fc": torch.zeros(1000, 1280)}
    torch.save(given, tmp_path / "other.pth")
    backbones.load_pretrained(lite, tmp_path / "other.pth")
    assert torch.equal(lite.pretrainable.state_dict()["conv_stem.weight"], given["layer0"])
    shuffled = dict(reversed(given.items()))
    torch.save(shuffled, tmp_path / "shuffled.pth")
    with pytest.raises(UsageError, match=r"shuffled\.pth does not fit this network: \d+ tensors differ"):
        backbones.load_pretrained(lite, tmp_path / "shuffled.pth")


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return builtins.open, ("exploded", "w")


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_file_of_weights_runs_no_code(
    write: Callable[..., None], lite: backbones.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write({"conv_stem.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(UsageError, match=r"bomb\.pth holds no tensors that can be read safely"):
        backbones.load_pretrained(lite, tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["gone.pth", "noise.pth", "noise.safetensors"])
def test_what_is_no_weights_file_is_one_sentence(name: str, lite: backbones.Backbone, tmp_path: Path) -> None:
    if "noise" in name:
        (tmp_path / name).write_bytes(b"noise" * 100)
    with pytest.raises(UsageError, match=name):
        backbones.load_pretrained(lite, tmp_path / name)


def test_without_a_download_it_says_that_it_trains_from_scratch_and_so_does_the_card(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path, fault: Callable[..., None]
) -> None:
    for at, label in enumerate(("happy", "sad", "neutral", "surprise")):
        faces(f"data/train/{label}", 3, first=100 * at)
        faces(f"data/validation/{label}", 1, first=100 * at + 50)
    fault("no_download")
    recipe = 'model = "efficientnet_lite0"\npretrained = true\nepochs = 1\nvotes = 0\narguments = {side = 32}\n'
    (tmp_path / "r.toml").write_text(recipe)
    done = ferbatch_here("train", "data", "--recipe", "r.toml", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert b"trained from scratch; --pretrained takes a local file" in done.stderr
    assert read_card(str(tmp_path / "model.safetensors")).recipe["start"] == "scratch"
    labelled = ferbatch_here("label", "data/validation", "--model", "model.safetensors", "-o", "out.csv", "-q")
    assert (labelled.returncode, (tmp_path / "out.csv").read_text().count("\n")) == (0, 5)

    (tmp_path / "r.toml").write_text(recipe + "frozen = true\n")
    frozen = ferbatch_here("train", "data", "--recipe", "r.toml", "--overwrite")
    assert frozen.returncode == 6  # a frozen body of random numbers would learn nothing
    assert b"could not be downloaded" in frozen.stderr

    torch.save(backbones.Backbone("efficientnet_lite0").pretrainable.state_dict(), tmp_path / "w.pth")
    local = ferbatch_here("train", "data", "--recipe", "r.toml", "--overwrite", "--pretrained", "w.pth")
    assert local.returncode == 0, local.stderr
    card = read_card(str(tmp_path / "model.safetensors"))
    assert card.recipe["start"].startswith("ImageNet weights of a local file, sha256 ")


def test_where_timm_is_missing_the_sentence_names_the_extra(
    ferbatch_here: Ferbatch, faces: Callable[..., Path], fault: Callable[..., None]
) -> None:
    for label in LABELS:
        faces(f"data/train/{label}", 2)
        faces(f"data/validation/{label}", 2)
    fault("no_timm")
    done = ferbatch_here("train", "data", "--model", "vgg16")
    assert done.returncode == 2
    assert b"this network needs timm: pip install 'ferbatch[zoo]'" in done.stderr
