"""`ferbatch models`: what is shipped, how right it is on which collection, and what it may be used for."""

from __future__ import annotations

import json

import pytest
from support import Ferbatch

from ferbatch.commands.models.console import COLLECTIONS
from ferbatch.core.options import DEFAULT_MODEL
from ferbatch.model.weights import Card, find, read_card, shipped


def test_the_table_has_every_models_accuracy_on_each_collection_and_a_word_on_its_use(ferbatch_here: Ferbatch) -> None:
    lines = ferbatch_here("models").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == shipped()
    assert "research use" in lines[-1]
    (row,) = (line for line in lines if line.startswith(f"{DEFAULT_MODEL} "))
    for collection in COLLECTIONS:
        assert f"{accuracy(read_card(DEFAULT_MODEL), collection)['value']:.3f}" in row


def accuracy(card: Card, collection: str) -> dict[str, float]:
    found = [one for one in card.scores if one["metric"] == "accuracy" and one["data"].startswith(collection)]
    return dict(found[0])


def test_json_is_the_cards(ferbatch_here: Ferbatch) -> None:
    cards = json.loads(ferbatch_here("models", "--format", "json").stdout)
    assert [card["name"] for card in cards] == shipped()
    assert all("research" in card["licence"]["weights"] for card in cards)


def test_a_name_without_a_version_is_the_newest() -> None:
    assert [find(name).stem for name in ("cnn", "cnn-lite")] == ["cnn-v3", "cnn-lite-v2"]
    assert find("cnn-lite").stem == DEFAULT_MODEL


@pytest.mark.parametrize("name", shipped())
def test_every_figure_of_a_card_has_its_n_and_its_interval_or_its_chance(name: str) -> None:
    card = read_card(name)
    for score in card.scores:
        low, high = score.get("interval_95") or score["by_chance_95"]
        assert score["n"] > 0
        if score["metric"] != "ece":
            assert low <= score["value"] <= high, score
        if "correct" in score:
            assert score["value"] == pytest.approx(score["correct"] / score["n"], abs=5.1e-5), score
    sources = card.data.get("sources", {})
    assert set(card.recipe.get("temperature_of_source", {})) == set(sources)
    for collection in COLLECTIONS[: None if sources else 1]:
        assert accuracy(card, collection)["n"] > 1000
