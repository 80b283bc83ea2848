"""`ferbatch train`: class folders in, weights and an honest card out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ferbatch

from ferbatch.train import LABELS

Faces = Callable[..., Path]


@pytest.fixture
def data(faces: Faces, tmp_path: Path) -> Path:
    for at, label in enumerate(LABELS):
        faces(f"data/train/{label}", 20, first=100 * at)
        faces(f"data/validation/{label}", 3, first=100 * at + 50)
    return tmp_path / "data"


def test_training_writes_weights_that_label_and_a_card_that_is_true(
    data: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    (data / "train/happy/broken.jpg").write_bytes(b"no image")
    done = ferbatch_in("train", "data", "-o", "mine.safetensors", "--epochs", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert "left out: data/train/happy/broken.jpg: not an image of a known type" in said
    assert "80 images to train on, 12 to validate with" in said
    assert "epoch   2 of 2" in said
    card = json.loads((tmp_path / "mine.json").read_text())
    assert card["name"] == "mine"
    assert card["data"]["train"] == dict.fromkeys(sorted(LABELS), 20)
    assert card["data"]["unreadable"] == 1
    assert card["recipe"]["seed"] == 3
    assert card["recipe"]["epochs"] == 2
    assert card["sha256"] == hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    labelled = ferbatch_in("label", "data/validation", "--model", "mine.safetensors", "-o", "-")
    rows = [line.rsplit('",', 1)[1].split(",") for line in labelled.stdout.decode().splitlines()[1:]]
    score = card["scores"][0]
    assert (sum(row[0] == row[1] for row in rows), len(rows)) == (score["correct"], score["n"])


def test_a_seed_gives_the_same_weights_and_another_seed_others(
    data: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    hashes = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        command = (
            "train",
            "data",
            "-o",
            f"{name}.safetensors",
            "--epochs",
            "1",
            "--seed",
            seed,
            "--device",
            "cpu",
            "-q",
        )
        done = ferbatch_in(*command)
        assert (done.returncode, done.stderr) == (0, b"")
        hashes.append(json.loads((tmp_path / f"{name}.json").read_text())["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_bad_data_and_options_are_said_before_the_first_epoch(
    data: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    def fails(words: str, *arguments: str) -> None:
        done = ferbatch_in("train", *arguments)
        assert done.returncode == 2
        assert words in done.stderr.decode()
        assert b"epoch" not in done.stderr
        assert b"Traceback" not in done.stderr

    fails("no model called 'vgg'", "data", "--model", "vgg")
    fails("weights files end in .safetensors", "data", "-o", "mine.pt")
    fails("no folder nowhere", "data", "-o", "nowhere/mine.safetensors")
    fails("needs the folders train and validation", "data/train")
    (tmp_path / "model.safetensors").write_text("precious")
    fails("model.safetensors exists; --overwrite replaces it", "data")
    assert (tmp_path / "model.safetensors").read_text() == "precious"
    os.unlink(tmp_path / "model.safetensors")
    shutil.rmtree(data / "validation/sad")
    fails("no readable validation image of sad", "data")
    for file in (data / "train/neutral").iterdir():
        file.write_bytes(b"")
    fails("no readable train image of neutral", "data")
