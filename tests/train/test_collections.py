"""Training on several collections: how often each is shown, what each has of its own, what is said of each."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import Ferbatch, drawn, rows_of

from ferbatch.commands.train import validation
from ferbatch.commands.train.data import Data, Split
from ferbatch.commands.train.outputs import PerSource, index_of
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.showings import Order, Showings, order_of
from ferbatch.commands.train.targets import smoothing_of_all, targets
from ferbatch.commands.train.temperature import alike, fitted_temperature, tempered
from ferbatch.commands.train.trainer import Trainer
from ferbatch.commands.train.validation import ENOUGH, Epoch, parts_of
from ferbatch.core.errors import UsageError
from ferbatch.core.records import NONE
from ferbatch.model import registry
from ferbatch.model.weights import read_card
from ferbatch.sources.labels import LABELS

SOURCES = ("film", "web")
CPU = torch.device("cpu")


def split(films: int, webs: int, views: int = 1) -> Split:
    """Images of two sources in turn of labels; people were asked of the web's alone, and always said the label."""
    n = films + webs
    labels, sources = np.arange(n) % 4, np.repeat([0, 1], [films, webs])
    votes = np.where(sources[:, None] == 1, 10 * np.eye(4)[labels], 0).astype(np.float32)
    pixels = np.stack([np.roll(drawn(n), view, axis=2) for view in range(views)])
    return Split(pixels, labels, votes, np.where(sources == 1, labels, NONE), sources)


def of_two(views: int = 1) -> Data:
    framings = ("whole", "levelled")[:views]
    return Data(split(8, 40, views), split(4, 16, views), 0.5, 0.25, (), (), SOURCES, framings)


def shown(data: Data, **settings: Any) -> np.ndarray:
    """How often each training image is shown in ten epochs."""
    orders = [order_of(data, Recipe(**settings), epoch).images for epoch in range(10)]
    return np.bincount(np.concatenate(orders), minlength=len(data.train))


def test_an_epoch_shows_each_source_as_often_as_its_weight_says() -> None:
    data = of_two()
    assert shown(data).tolist() == [10] * 48
    often = shown(data, sources={"film": {"weight": 2.5}, "web": {"weight": 0.5}})
    assert often[:8].sum() == 10 * 20
    assert often[8:].sum() == 10 * 20
    assert set(often[:8]) <= set(range(20, 31))  # each twice an epoch, half of them once more
    assert shown(data, sources={"film": {"weight": 0}})[:8].sum() == 0
    balanced = shown(data, sampler="balanced", sources={"film": {"weight": 5}})
    assert balanced.sum() == 10 * 80
    assert balanced[:8].sum() == pytest.approx(400, rel=0.15)
    with pytest.raises(UsageError, match="gives no source a weight"):
        shown(data, sources={name: {"weight": 0} for name in SOURCES})


def test_the_views_of_a_face_are_shown_by_turns() -> None:
    data = of_two(views=2)
    order = order_of(data, Recipe(framing="both"), 0)
    assert sorted(order.images.tolist()) == list(range(48))
    assert 12 < order.views.sum() < 36
    showings = Showings(data, targets(data, Recipe()), CPU, fill=False)
    showings.begin(Order(np.array([3, 3, 40]), np.array([0, 1, 1])))
    batch = showings.batch(1, 3)
    assert np.array_equal(batch.pixels.numpy(), data.train.views[1][[3, 40]])
    assert batch.sources.tolist() == [0, 1]
    assert batch.outside is None


def test_targets_are_each_sources_own() -> None:
    data = of_two()
    data.train.votes[8:] = [1, 0, 0, 0]
    recipe = Recipe(votes=0.0, label_smoothing=0.4, sources={"web": {"votes": 0.5, "label_smoothing": 0.0}})
    learned = targets(data, recipe)
    assert learned[1].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])
    assert learned[9].tolist() == [0.5, 0.5, 0, 0]
    assert smoothing_of_all(data, recipe) == 0
    assert learned.dtype == np.float32


@pytest.mark.parametrize("layers", [False, True])
def test_what_is_kept_is_a_plain_network_that_says_what_the_source_said(layers: bool) -> None:
    torch.manual_seed(0)
    network = registry.build("cnn-lite", {"labels": 4})
    model = PerSource(network, 2, layers=layers).eval()
    x, sources = torch.randn(6, 1, 48, 48), torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.inference_mode():
        assert torch.equal(model(x, sources), network(x))  # nobody has anything of its own yet
    for change in model.changes:
        torch.nn.init.normal_(change)
    assert len(model.changes) == 1 + layers
    with torch.inference_mode():
        for source in (0, 1):
            kept = model.kept(source)
            assert kept.state_dict().keys() == network.state_dict().keys()
            assert torch.allclose(kept(x), model(x, torch.full((6,), source)), atol=1e-5)
        middle = (model(x, torch.zeros(6, dtype=torch.int64)) + model(x, torch.ones(6, dtype=torch.int64))) / 2
        assert torch.allclose(model.kept(None)(x), middle, atol=1e-5)


def test_the_output_that_is_kept_is_of_a_source_that_there_is() -> None:
    assert index_of("web", SOURCES) == 1
    assert index_of("mean", SOURCES) is None
    assert index_of("web", ()) is None
    with pytest.raises(UsageError, match=r"keep is 'wed', and the data has no such source \(film, web\)"):
        index_of("wed", SOURCES)


@pytest.mark.parametrize(("enough", "score"), [(4, 0.75), (16, 0.9), (500, 0.9)])
def test_sources_weigh_alike_in_what_is_best_if_they_have_images_enough(
    enough: int, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "ENOUGH", enough)
    data = of_two(views=2)
    labels = data.validation.labels
    found = np.stack([np.eye(4)[labels] * 0.9 + 0.025] * 2)
    found[1, :4] = 0.25 + 0.01 * np.eye(4)[(labels[:4] + 1) % 4]  # every film is wrong where it is levelled
    parts = parts_of(data, found)
    assert [one.name for one in parts] == ["film whole", "film levelled", "web whole", "web levelled"]
    assert [one.accuracy.value for one in parts] == [1, 0, 1, 1]
    assert [one.accuracy.n for one in parts] == [4, 4, 16, 16]
    assert [one.agreement.n for one in parts] == [0, 0, 16, 16]
    assert parts[2].ece.value == pytest.approx(1 - 0.925)
    assert parts[1].recalls["sad"].value == 0
    epoch = Epoch(1, 0.1, 1, 0.5, 1, 36 / 40, 1, False, parts)
    assert epoch.score("sources") == pytest.approx(score)
    assert epoch.score("agreement") == pytest.approx(0.95)
    assert Epoch(1, 0.1, 1, 0.5, 1, 0.9, 1, False).score("sources") == pytest.approx(0.95)


def test_the_temperature_lets_sources_count_alike() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (22_000, 4))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in honest])
    sources = np.repeat([0, 1], [20_000, 2_000])
    said = np.where(sources[:, None] == 0, honest, tempered(honest, 0.5))  # the few are far too sure
    apart = [fitted_temperature(said[sources == one], labels[sources == one]) for one in (0, 1)]
    assert apart == pytest.approx([1, 2], abs=0.1)
    pooled, balanced = fitted_temperature(said, labels), fitted_temperature(said, labels, alike(sources))
    assert pooled < 1.15 < 1.25 < balanced < 1.75
    assert alike(sources[-2_100:]).tolist() == [1 / ENOUGH] * 100 + [1 / 2_000] * 2_000  # few count for less


@pytest.mark.parametrize("outputs", ["bias", "layers"])
def test_a_run_with_outputs_of_its_own_goes_on_to_the_bit(outputs: str) -> None:
    data = of_two(views=2)
    recipe = Recipe(model="cnn-lite", epochs=3, batch_size=16, outputs=outputs, ema=0.9, framing="both")
    card = dataclasses.replace(read_card("cnn-v1"), architecture="cnn-lite", mean=data.mean, std=data.std)

    def begun() -> Trainer:
        torch.manual_seed(0)
        return Trainer(data, recipe, registry.build("cnn-lite", {"labels": 4}), card, CPU)

    straight, stopped, resumed = begun(), begun(), begun()
    for _ in range(3):
        straight.epoch()
    stopped.epoch()
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(2):
        resumed.epoch()
    assert resumed.finished
    assert resumed.history == straight.history
    for name, wanted in straight.best_tensors.items():
        assert torch.equal(resumed.best_tensors[name], wanted), name
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def write_table(folder: Path, columns: dict[str, str] | None = None) -> Path:
    """Drawn faces of two sources, by folders, with a table of them."""
    rows = []
    for at, pixels in enumerate(drawn(96)):
        label, source, part = LABELS[at % 4], SOURCES[at // 4 % 2], "validation" if at % 24 < 8 else "train"
        file = folder / f"{at}.png"
        _image(pixels).save(file)
        rows.append({"path": file.name, "label": label, "split": part, "source": source})
    for name in columns or {}:
        for row in rows:
            row[columns[name] if columns else name] = row.pop(name)
    with (folder / "faces.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "faces.csv"


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


RECIPE = """
model = "cnn-lite"
epochs = 2
batch_size = 16
outputs = "layers"
keep = "web"
choose = "sources"
framing = "both"
fill_noise = 0.5
fill_face = 0.5
ema = 0.9
[sources.film]
weight = 2
label_smoothing = 0.1
"""


def test_history_and_card_speak_of_each_source(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    write_table(tmp_path)
    (tmp_path / "r.toml").write_text(RECIPE)
    command = ("train", "faces.csv", "--recipe", "r.toml", "--device", "cpu", "-o", "m.safetensors")
    done = ferbatch_here(*command)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert "of 2 sources: film, web" in said
    assert "taken whole" in said  # drawn faces are found now and then
    history = rows_of(tmp_path / "m.history.csv")
    assert [row["web levelled n"] for row in history] == ["16", "16"]
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["data"]["sources"] == {name: {"train": 32, "validation": 16} for name in SOURCES}
    assert set(card["recipe"]["temperature_of_source"]) == set(SOURCES)
    best = history[card["recipe"]["best_epoch"] - 1]
    scores = {(score["data"], score["metric"]): score for score in card["scores"]}
    for source in SOURCES:
        for framing in ("whole", "levelled"):
            score = scores[f"validation, {source}, {framing}", "accuracy"]
            assert score["correct"] / score["n"] == float(best[f"{source} {framing} accuracy"])
            assert (f"validation, {source}, {framing}", "recall of surprise") in scores
            assert (f"validation, {source}, {framing}", "ece") in scores
    labelled = ferbatch_here("label", "0.png", "--model", "m.safetensors", "-o", "labels.csv")
    assert labelled.returncode == 0, labelled.stderr


def test_sources_that_are_not_there_are_said(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    write_table(tmp_path, {"source": "Collection"})
    text = 'model = "cnn-lite"\nepochs = 1\n[sources.films]\nweight = 2\n'

    def train(recipe: str) -> tuple[int, str]:
        (tmp_path / "r.toml").write_text(recipe)
        command = ("train", "faces.csv", "--recipe", "r.toml", "--device", "cpu", "--overwrite")
        done = ferbatch_here(*command)
        return done.returncode, done.stderr.decode()

    code, said = train(text)
    assert code == 0, said
    assert "the recipe's sources (films) are not told apart: no column source" in said
    code, said = train('source_column = "collection"\n' + text)
    assert code == 0, said
    assert "the recipe speaks of films, but the sources are film, web" in said
    code, said = train('source_column = "collection"\nkeep = "films"\noutputs = "bias"\n' + text.split("[")[0])
    assert code == 2
    assert "keep is 'films', and the data has no such source (film, web)" in said
