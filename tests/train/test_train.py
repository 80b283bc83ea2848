"""`ferbatch train`: class folders or a table in, weights and an honest card out, the same after a kill."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import Forks
from PIL import Image, ImageDraw
from support import Ferbatch, depth, rows_of

from ferbatch.commands.train import data as train_data
from ferbatch.commands.train.data import Split, list_splits
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.showings import order_of
from ferbatch.commands.train.targets import with_votes
from ferbatch.commands.train.temperature import fitted_temperature, tempered
from ferbatch.core.errors import UsageError
from ferbatch.core.options import TrainOptions
from ferbatch.model import registry
from ferbatch.model.weights import read_card
from ferbatch.sources.labels import LABELS

QUICK = ("--model", "cnn-lite", "--device", "cpu")


def draw_expression(label: str, seed: int) -> Image.Image:
    """A face that even a small network can learn to read in seconds: the mouth is the label's."""
    rng = np.random.default_rng([LABELS.index(label), seed])
    picture = Image.new("L", (48, 48), int(rng.integers(20, 90)))
    pen = ImageDraw.Draw(picture)
    x, y = (int(v) for v in rng.integers(-3, 4, 2))
    pen.ellipse((6 + x, 2 + y, 42 + x, 46 + y), fill=int(rng.integers(140, 220)))
    for eye in (17, 31):
        pen.ellipse((eye - 3 + x, 16 + y, eye + 3 + x, 20 + y), fill=30)
    mouth = (14 + x, 26 + y, 34 + x, 40 + y)
    if label == "happy":
        pen.arc(mouth, 20, 160, fill=30, width=3)
    elif label == "sad":
        pen.arc((mouth[0], mouth[1] + 8, mouth[2], mouth[3] + 8), 200, 340, fill=30, width=3)
    elif label == "neutral":
        pen.line((16 + x, 36 + y, 32 + x, 36 + y), fill=30, width=3)
    else:
        pen.ellipse((18 + x, 28 + y, 30 + x, 42 + y), fill=30)
    noise = rng.normal(0, 8, (48, 48))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def draw(folder: Path, label: str, n: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + n):
        draw_expression(label, seed).save(folder / f"{label}-{seed}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for label in LABELS:
        draw(tmp_path / f"data/train/{label}", label, 20)
        draw(tmp_path / f"data/validation/{label}", label, 3, first=100)
    return tmp_path / "data"


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_training_writes_weights_that_label_and_a_card_that_is_true(
    data: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    (data / "train/happy/broken.jpg").write_bytes(b"no image")
    done = ferbatch_in("train", "data", "-o", "mine.safetensors", "--epochs", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert "left out: data/train/happy/broken.jpg: not an image of a known type" in said
    assert "80 images to train on, 12 to validate with" in said
    assert "2 steps in all are few to learn from" in said
    assert "epoch   2 of 2" in said
    card = json.loads((tmp_path / "mine.json").read_text())
    assert card["name"] == "mine"
    assert card["data"]["train"] == dict.fromkeys(sorted(LABELS), 20)
    assert card["data"]["unreadable"] == 1
    assert card["recipe"]["seed"] == 3
    assert card["recipe"]["epochs"] == 2
    assert card["recipe"]["start"] == "scratch"
    assert card["sha256"] == sha256(tmp_path / "mine.safetensors")
    labelled = ferbatch_in("label", "data/validation", "--model", "mine.safetensors", "--precision", "fp32", "-o", "-")
    rows = [line.rsplit('",', 1)[1].split(",") for line in labelled.stdout.decode().splitlines()[1:]]
    score = card["scores"][0]
    assert (sum(row[0] == row[1] for row in rows), len(rows)) == (score["correct"], score["n"])
    history = rows_of(tmp_path / "mine.history.csv")
    assert [row["epoch"] for row in history] == ["1", "2"]
    best = history[card["recipe"]["best_epoch"] - 1]
    assert best["best"] == "True"
    assert float(best["validation_accuracy"]) == score["correct"] / score["n"]
    for curve in ("loss", "accuracy"):
        with Image.open(tmp_path / f"mine.{curve}.png") as image:
            assert image.format == "PNG"
    assert not (tmp_path / "mine.checkpoint").exists()
    assert not (tmp_path / "mine.safetensors.lock").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for label in LABELS:
        draw(folder / f"train/{label}", label, 120)
        draw(folder / f"validation/{label}", label, 25, first=1000)
    return folder


def accuracy_after_training(
    data: Path, ferbatch_here: Ferbatch, output: Path, device: str = "cpu", epochs: int = 8
) -> float:
    settings = f'model = "cnn-lite"\nepochs = {epochs}\nbatch_size = 16\nvotes = 0\nema = 0.9\n'
    (output.parent / "quick.toml").write_text(settings)
    done = ferbatch_here("train", data, "-o", output, "--recipe", "quick.toml", "--device", device, "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    return float(read_card(str(output)).scores[0]["value"])


def test_it_learns_what_there_is_to_learn(many: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    assert accuracy_after_training(many, ferbatch_here, tmp_path / "m.safetensors") > 0.9


def test_shuffled_labels_train_to_chance(many: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        files = sorted((many / split).rglob("*.png"))
        for at, old in zip(rng.permutation(len(files)), files, strict=True):
            new = tmp_path / "shuffled" / split / LABELS[at % len(LABELS)] / old.name
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(old, new)
    output, epochs = tmp_path / "m.safetensors", depth(5, 8)  # of which 5 are enough to learn what can be learned
    assert accuracy_after_training(tmp_path / "shuffled", ferbatch_here, output, epochs=epochs) < 0.45


def test_a_seed_gives_the_same_weights_and_another_seed_others(
    data: Path, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    hashes = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        command = ("train", "data", "-o", f"{name}.safetensors", *QUICK, "--epochs", "1", "--seed", seed, "-q")
        done = ferbatch_in(*command)
        assert (done.returncode, done.stderr) == (0, b"")
        hashes.append(sha256(tmp_path / f"{name}.safetensors"))
    assert hashes[0] == hashes[1] != hashes[2]


EVERYTHING = """
model = "cnn-lite"
epochs = 5
batch_size = 16
label_smoothing = 0.1
balance = 0.5
sampler = "balanced"
mixup = 0.3
erase = 0.5
ema = 0.9
"""


def test_a_run_that_is_killed_and_resumed_ends_as_if_it_had_not_been(data: Path, forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_text(EVERYTHING)
    common = ("train", "data", "--recipe", "all.toml", "--device", "cpu", "-q")
    assert forks(tmp_path, *common, "-o", "whole.safetensors").code == 0
    kills = 0
    for _ in range(20):
        before = stamp(tmp_path / "cut.checkpoint")
        running = forks.start(tmp_path, *common, "-o", "cut.safetensors", "--resume")
        while running.poll() is None and stamp(tmp_path / "cut.checkpoint") in (before, 0):
            time.sleep(0.002)
        if running.poll() is not None:
            break
        running.kill()
        running.wait()
        kills += 1
        assert not (tmp_path / "cut.safetensors").exists()
    assert kills >= 3
    assert running.returncode == 0
    for ending in ("safetensors", "history.csv", "loss.png", "accuracy.png"):
        assert sha256(tmp_path / f"cut.{ending}") == sha256(tmp_path / f"whole.{ending}"), ending
    whole, cut = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "cut"))
    assert {**cut, "name": "whole"} == whole


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.fixture
def unfinished(data: Path, forks: Forks, ferbatch_here: Ferbatch, tmp_path: Path) -> Path:
    """The checkpoint of a run that was interrupted after its first epoch."""
    running = forks.start(tmp_path, "train", "data", *QUICK, "--epochs", "200", "-o", "m.safetensors")
    while not (tmp_path / "m.checkpoint").exists():
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    second = ferbatch_here("train", "data", *QUICK, "-o", "m.safetensors", "--resume")
    said = f"ferbatch: another run is writing m.safetensors: process {running.pid} on ".encode()
    assert (second.returncode, second.stderr[: len(said)]) == (75, said)
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    return tmp_path / "m.checkpoint"


def test_an_unfinished_run_is_gone_on_with_only_when_asked_and_only_the_same(
    unfinished: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    same = ("train", "data", *QUICK, "--epochs", "200", "-o", "m.safetensors")

    def fails(code: int, words: str, *arguments: str) -> None:
        done = ferbatch_here(*arguments)
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False)
        assert words in done.stderr.decode()

    fails(2, "m.checkpoint is of an unfinished run: --resume goes on with it, --overwrite begins anew", *same)
    fails(2, "say one of them", *same, "--resume", "--overwrite")
    fails(2, "of a run with other data or another recipe", *same, "--resume", "--seed", "5")
    (tmp_path / "data/train/sad/sad-3.png").unlink()
    fails(2, "of a run with other data or another recipe", *same, "--resume")
    unfinished.write_bytes(unfinished.read_bytes()[:5000])
    fails(6, "m.checkpoint is damaged; --overwrite begins anew", *same, "--resume")
    done = ferbatch_here("train", "data", *QUICK, "--epochs", "1", "-o", "m.safetensors", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert not unfinished.exists()


def test_resuming_what_is_finished_changes_nothing(data: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    command = ("train", "data", *QUICK, "--epochs", "1", "-o", "m.safetensors", "--resume")
    assert ferbatch_here(*command).returncode == 0  # nothing to resume: it starts
    before = stamp(tmp_path / "m.safetensors")
    done = ferbatch_here(*command)
    assert (done.returncode, stamp(tmp_path / "m.safetensors")) == (0, before)
    assert b"m.safetensors is finished: there is nothing to resume" in done.stderr
    other = ferbatch_here(*command, "--seed", "9")
    assert other.returncode == 2
    assert b"--overwrite replaces it" in other.stderr


def test_bad_data_and_options_are_said_before_the_first_epoch(
    data: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    def fails(words: str, *arguments: str) -> None:
        done = ferbatch_here("train", *arguments)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr.decode()
        assert b"epoch" not in done.stderr
        assert b"Traceback" not in done.stderr

    def recipe(line: str) -> str:
        (tmp_path / "r.toml").write_text(f'model = "cnn"\n{line}\n')
        return "r.toml"

    fails("no model called 'vgg'", "data", "--model", "vgg")
    fails("no recipe called 'best' (known: cnn-large-v1, cnn-lite-v1, cnn-lite-v2, cnn-v1", "data", "--recipe", "best")
    fails("weights files end in .safetensors", "data", "-o", "mine.pt")
    fails("no folder nowhere", "data", "-o", "nowhere/mine.safetensors")
    fails("s3:// takes labels, reports and pictures, and not this", "data", "-o", "s3://bucket/mine.safetensors")
    fails("no such file or folder: nothing", "nothing")
    fails("there are no ImageNet weights for cnn", "data", "--pretrained", "x.pth")
    for name in ("model.safetensors", "model.history.csv"):
        (tmp_path / name).write_text("precious")
        fails(f"{name} exists; --overwrite replaces it", "data")
        assert (tmp_path / name).read_text() == "precious"
        os.unlink(tmp_path / name)
    fails("cannot be built with these arguments", "data", "--recipe", recipe("arguments = {channels = [64, 128]}"))
    fails("cannot be built with these arguments", "data", "--recipe", recipe("arguments = {dropout = [0.1]}"))
    fails("would stay as random as it begins", "data", "--recipe", recipe("frozen = true"))
    shutil.rmtree(data / "validation/sad")
    fails("data: no validation image of sad", "data")
    for file in (data / "train/neutral").iterdir():
        file.write_bytes(b"")
    fails("no readable train image of neutral; no readable validation image of sad", "data")
    shutil.rmtree(data / "train")
    fails("data has a folder validation but no folder train", "data")
    fails("seed is 5000000000, not 0 to", "data", "--seed", "5000000000")
    (tmp_path / "empty").mkdir()
    done = ferbatch_here("train", "empty")
    assert (done.returncode, done.stderr) == (4, b"ferbatch: no images found under empty\n")


def test_a_table_with_votes_and_a_split_says_what_folders_cannot(
    data: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    rows = []
    for file in sorted(data.rglob("*.png")):
        split, label, name = file.relative_to(data).parts
        votes = {f"votes_{answer}": 10 * (answer == label) for answer in (*LABELS, "anger")}
        rows.append({"path": f"data/{split}/{label}/{name}", "label": label, "usage": split.capitalize(), **votes})
    rows[0] |= {"votes_happy": 0, "votes_anger": 10}
    rows[1]["label"] = "angry"
    four = ("--labels", ",".join(LABELS))
    done = ferbatch_here("train", table(tmp_path / "faces.csv", rows), *QUICK, "--epochs", "1", *four)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "79 images to train on, 12 to validate with, with people's votes" in said
    assert "left out, for they are no labels: angry (1)" in said
    assert ", people 0." in said
    card = read_card(str(tmp_path / "model.safetensors"))
    assert card.data["votes"] == "for 78 of the training images"
    assert [score["metric"] for score in card.scores] == [
        "accuracy",
        "agreement with people's commonest answer",
        "ece",
    ]
    for row in rows:
        row["usage"] = "test"
    nothing = ferbatch_here("train", table(tmp_path / "faces.csv", rows), *QUICK, "--overwrite")
    assert nothing.returncode == 2
    assert b"the column usage of" in nothing.stderr
    assert b"names no training and validation images" in nothing.stderr


def test_data_without_a_validation_split_gives_some_of_its_own(
    data: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    done = ferbatch_here("train", "data/train", *QUICK, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "72 images to train on, 8 to validate with" in done.stderr.decode()
    assert "data/train has no validation split: 8 of 80 images, taken at random, are held out" in done.stderr.decode()
    assert read_card(str(tmp_path / "model.safetensors")).data["validation"] == dict.fromkeys(sorted(LABELS), 2)
    for file in sorted((data / "train/sad").iterdir())[1:]:
        file.unlink()
    few = ferbatch_here("train", "data/train", *QUICK, "--overwrite")
    assert few.returncode == 2
    assert "fewer than 2 images of sad; none can be held out" in few.stderr.decode()


def test_votes_come_from_a_table_beside_the_folders_and_are_missed_aloud(
    data: Path, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    rows = [{"file": file.name, **{f"votes_{label}": 5 for label in LABELS}} for file in sorted(data.rglob("*.png"))]
    without = ferbatch_here("train", "data", *QUICK, "--epochs", "1")
    assert b"1 step in all is few to learn from" in without.stderr
    assert b"no votes were given" in without.stderr
    table(tmp_path / "votes.csv", rows)
    done = ferbatch_here("train", "data", *QUICK, "--epochs", "1", "--overwrite", "--votes", "votes.csv")
    assert b"with people's votes" in done.stderr
    assert b"no votes were given" not in done.stderr


def test_votes_are_joined_once_for_both_splits_and_never_to_two_images(
    data: Path, ferbatch_here: Ferbatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "validation"):  # the same names in both
        for label in LABELS:
            for at, file in enumerate(sorted((data / split / label).iterdir())):
                file.rename(file.with_name(f"{label}{at}.png"))
    monkeypatch.chdir(tmp_path)
    files = [file.relative_to(data) for file in sorted(data.rglob("*.png"))]

    def votes_of(rows: list[str]) -> tuple[list[int], list[str]]:
        content = [{"file": row, **dict.fromkeys((f"votes_{label}" for label in LABELS), 3)} for row in rows]
        listing = list_splits(TrainOptions(Path("data"), Path(), table(tmp_path / "votes.csv", content)), 0.1, 0)
        return [int((votes.counts.sum(1) > 0).sum()) for _, votes in listing.parts if votes], list(listing.notes)

    assert votes_of([str(file) for file in files]) == ([80, 12], [])
    of_validation, notes = votes_of([str(file) for file in files if file.parts[0] == "validation"])
    assert of_validation == [0, 12]
    assert notes == ["no votes for 80 images, data/train/happy/happy0.png for one"]
    with pytest.raises(UsageError, match="could be more than one"):
        votes_of(["happy/happy0.png", "sad/sad1.png"])  # of either split


def test_folders_of_other_splits_are_left_alone_whatever_their_case(data: Path) -> None:
    (data / "train").rename(data / "Training")
    (data / "validation").rename(data / "PublicTest")
    shutil.copytree(data / "PublicTest", data / "PrivateTest")
    draw(data / "Training/angry", "sad", 2)
    listing = list_splits(TrainOptions(data, Path(), labels=LABELS), 0.1, 0)
    assert [len(images.codes) for images, _ in listing.parts] == [80, 12]
    assert len(listing.notes) == 2
    assert "angry (2)" in listing.notes[0]
    assert listing.notes[1] == "12 images in neither split left out"


def test_a_path_with_two_labels_in_a_table_is_left_out_aloud(data: Path, tmp_path: Path) -> None:
    rows = [
        {"path": str(file), "label": file.parent.name, "split": file.parts[-3]} for file in sorted(data.rglob("*.png"))
    ]
    rows.append({**rows[0], "label": "surprise"})
    listing = list_splits(TrainOptions(table(tmp_path / "faces.csv", rows), Path()), 0.1, 0)
    assert sum(len(images.codes) for images, _ in listing.parts) == 91
    assert listing.notes == ["1 path with two different labels left out"]


def test_a_run_whose_loss_is_no_number_ends_in_a_sentence(data: Path) -> None:
    run = trainer(Recipe(model="cnn-lite", learning_rate=1e30, warmup=0.0, ema=0.0, batch_size=8, epochs=5), data)
    with pytest.raises(UsageError, match=r"the loss of epoch \d is no number"):
        [run.epoch() for _ in range(5)]


def part(labels: list[int], votes: list[list[float]]) -> Split:
    n = len(labels)
    commonest = np.full(n, -1)
    pixels = np.zeros((n, 48, 48), np.uint8)
    return Split(pixels[np.newaxis], np.array(labels), np.array(votes, np.float32), commonest, np.zeros(n, np.int64))


def test_targets_mix_label_and_votes_and_keep_the_label_where_nobody_voted() -> None:
    mixed = with_votes(part([0, 1], [[1, 3, 0, 0], [0, 0, 0, 0]]), 0.5)
    assert mixed.tolist() == [[0.625, 0.375, 0, 0], [0, 1, 0, 0]]
    assert with_votes(part([2], [[4, 0, 0, 0]]), 0.0).tolist() == [[0, 0, 1, 0]]
    assert with_votes(part([2], [[0.1, 0.1, 0, 0]]), 1.0)[0].tolist() == [0.5, 0.5, 0, 0]


def test_the_temperature_undoes_what_is_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 4))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in honest])
    too_sure = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    temperature = fitted_temperature(too_sure, labels)
    assert temperature == pytest.approx(2, abs=0.1)
    assert np.allclose(tempered(too_sure, 2), honest)


def test_a_teacher_is_learned_from(data: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    done = ferbatch_here("train", "data", *QUICK, "--epochs", "1", "--distill", "cnn-v1", "-o", "pupil.safetensors")
    assert done.returncode == 0, done.stderr
    card = read_card(str(tmp_path / "pupil.safetensors"))
    assert card.recipe["taught_by"] == [{"name": "cnn-v1", "sha256": read_card("cnn-v1").sha256}]
    alone = ferbatch_here("train", "data", *QUICK, "--epochs", "1", "-o", "alone.safetensors")
    assert alone.returncode == 0
    assert sha256(tmp_path / "pupil.safetensors") != sha256(tmp_path / "alone.safetensors")
    none = ferbatch_here("train", "data", *QUICK, "--distill", "nobody", "-o", "x.safetensors")
    assert none.returncode == 6
    assert b"no model called 'nobody'" in none.stderr


def trainer(recipe: Recipe, data: Path, teacher: Any = None) -> Any:
    from dataclasses import replace

    from ferbatch.commands.train.trainer import Trainer

    read = train_data.read(data, list_splits(TrainOptions(data, Path()), recipe.holdout, recipe.seed))
    card = replace(read_card("cnn-v1"), architecture=recipe.model, mean=read.mean, std=read.std, temperature=1.0)
    torch.manual_seed(recipe.seed)
    network = registry.build(recipe.model, {"labels": 4, **recipe.arguments})
    return Trainer(read, recipe, network, card, torch.device("cpu"), teacher)


def test_the_teachers_share_of_the_target_is_the_recipes(data: Path) -> None:
    teacher = np.full((80, 4), 0.25, np.float32)
    taught = trainer(Recipe(model="cnn-lite", distill=0.4), data, teacher).showings.targets
    assert torch.allclose(taught.max(1).values, torch.tensor(0.7))
    assert torch.allclose(taught.sum(1), torch.tensor(1.0))


def test_training_stops_early_where_nothing_gets_better(data: Path) -> None:
    run = trainer(Recipe(model="cnn-lite", epochs=50, patience=2, learning_rate=1e-9, ema=0.0), data)
    while not run.finished:
        run.epoch()
    assert run.done == run.best_epoch + 2 < 50


def test_a_frozen_body_stays_as_it_is(data: Path) -> None:
    run = trainer(Recipe(model="cnn-lite", epochs=2, frozen=True, ema=0.0), data)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    run.epoch()
    changed = {name for name, tensor in run.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_the_learning_rate_rises_and_then_falls_to_nothing(data: Path) -> None:
    run = trainer(Recipe(model="cnn-lite", epochs=10, batch_size=8, warmup=0.2, learning_rate=0.01), data)
    rates = []
    for _ in range(100):
        rates += [group["lr"] for group in run.optimizer.param_groups[-1:]]
        run.optimizer.step()
        run.schedule.step()
    assert np.argmax(rates) == 20
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] < 0.001
    assert rates[-1] < 1e-4
    assert sorted(rates[:20]) == rates[:20]


def test_balanced_sampling_shows_small_classes_as_often(data: Path) -> None:
    for file in sorted((data / "train/surprise").iterdir())[4:]:
        file.unlink()
    run = trainer(Recipe(model="cnn-lite", sampler="balanced"), data)
    shown = []
    for run.done in range(40):
        shown += run.data.train.labels[order_of(run.data, run.recipe, run.done).images].tolist()
    assert np.bincount(shown) / len(shown) == pytest.approx(0.25, abs=0.04)


def test_class_weights_make_rare_classes_count_and_the_mean_image_one(data: Path) -> None:
    for file in sorted((data / "train/surprise").iterdir())[5:]:
        file.unlink()
    weights = trainer(Recipe(model="cnn-lite", balance=1.0), data).class_weights
    assert weights[3] / weights[0] == pytest.approx(4)
    assert (weights * torch.tensor([20.0, 20, 20, 5])).sum() / 65 == pytest.approx(1)
    assert trainer(Recipe(model="cnn-lite"), data).class_weights.tolist() == pytest.approx([1, 1, 1, 1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_it_trains_on_a_gpu_in_mixed_precision(many: Path, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    assert accuracy_after_training(many, ferbatch_here, tmp_path / "m.safetensors", "cuda") > 0.9
    assert read_card(str(tmp_path / "m.safetensors")).recipe["precision"] in ("bfloat16", "float16")
