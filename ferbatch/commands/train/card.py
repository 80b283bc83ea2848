"""The card of a training: of the network it begins with, and of the weights it ends with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferbatch.commands.train.data import Data
from ferbatch.commands.train.pixels import SIZE
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.temperature import alike, fitted_temperature, tempered
from ferbatch.commands.train.trainer import Trainer
from ferbatch.commands.train.validation import Part, Probabilities, outcomes_of, part_of
from ferbatch.core.options import TrainOptions
from ferbatch.images.inputs import PREPROCESSING
from ferbatch.model import registry
from ferbatch.model.networks import Network
from ferbatch.model.weights import Card
from ferbatch.scoring.calibration import ece, ece_by_chance
from ferbatch.scoring.measures import Measure
from ferbatch.scoring.outcomes import Outcomes

MOST_RECALLS = 50  # of one source that a card lists; of more labels, the history has them


def arguments_of(recipe: Recipe, labels: int) -> dict[str, Any]:
    """What the network is built with, to tell so many labels apart."""
    return {**recipe.arguments, "labels": labels}


def first_card(options: TrainOptions, recipe: Recipe, data: Data, network: Network, start: str) -> Card:
    """The card of a network before its first epoch.

    options: name the weights and the data.
    recipe: goes into the card whole.
    data: counted, and the source of mean and std.
    network: counted.
    start: the weights it begins with, in words.
    """
    return registry.new_card(
        network,
        SIZE,
        name=options.output.stem,
        architecture=recipe.model,
        arguments=arguments_of(recipe, len(data.labels)),
        labels=data.labels,
        mean=data.mean,
        std=data.std,
        preprocessing=PREPROCESSING,
        data={
            "folder": Path(options.data).name,
            "train": data.train.counts,
            "validation": data.validation.counts,
            "votes": f"for {int(data.train.votes.any(1).sum()):,} of the training images",
            "unreadable": len(data.skipped),
            **_sources(data),
        },
        recipe={**dataclasses.asdict(recipe), "start": start},
    )


def _sources(data: Data) -> dict[str, Any]:
    """How many images each source gave, where a table tells them apart."""
    parts = {"train": data.train, "validation": data.validation}
    names = enumerate(data.sources)
    counts = {name: {key: int((part.sources == at).sum()) for key, part in parts.items()} for at, name in names}
    return {"sources": counts} if counts else {}


def finished_card(trainer: Trainer, teachers: Sequence[Card], fingerprint: str) -> Card:
    """The card of the best epoch's weights: their temperature, their scores, how they came about."""
    data = trainer.data
    trainer.network.load_state_dict(trainer.best_tensors)
    found, part, views = trainer.asked(trainer.network), data.validation, len(data.framings)
    weights = np.tile(alike(part.sources), views) if len(data.sources) > 1 else None
    labels = np.tile(part.labels, views)
    temperature = fitted_temperature(found, labels, weights) if trainer.recipe.calibrate else 1.0
    recipe = {
        **trainer.card.recipe,
        "precision": str(trainer.dtype).removeprefix("torch."),
        "taught_by": [{"name": card.name, "sha256": card.sha256} for card in teachers],
        "epochs_done": trainer.done,
        "best_epoch": trainer.best_epoch,
        "fingerprint": fingerprint,
    }
    by_view = (views, len(part), -1)
    if data.sources:
        recipe["temperature_of_source"] = _temperatures(found.reshape(by_view), data)
    scores = _scores(tempered(found, temperature).reshape(by_view), data)
    return dataclasses.replace(trainer.card, temperature=temperature, recipe=recipe, scores=scores)


def _scores(found: Probabilities, data: Data) -> list[dict[str, Any]]:
    """What the card says of validation: of all images in each framing, then of each source in each.

    `found` holds (V, N, labels) calibrated probabilities, for each view.
    """
    part, scores = data.validation, list[dict[str, Any]]()
    for view, framing in zip(found, data.framings, strict=True):
        of_all = part_of("", framing, part, view, np.ones(len(part), bool))
        where = "validation" if len(found) == 1 else f"validation, {framing}"
        scores += [*_rates(where, of_all), _calibration(where, outcomes_of(view, part.labels, part.names))]
    for index, source in enumerate(data.sources):
        own = part.sources == index
        for view, framing in zip(found, data.framings, strict=True):
            if own.any():
                scores += _of_source(f"validation, {source}, {framing}", part_of(source, framing, part, view, own))
                scores.append(_calibration(scores[-1]["data"], outcomes_of(view[own], part.labels[own], part.names)))
    return scores


def _of_source(where: str, one: Part) -> list[dict[str, Any]]:
    recalls = one.recalls.items() if len(one.recalls) <= MOST_RECALLS else ()
    return [*_rates(where, one), *(_rate(where, f"recall of {label}", each) for label, each in recalls)]


def _rates(where: str, one: Part) -> list[dict[str, Any]]:
    """Accuracy, and agreement with people if some were asked."""
    people = [_rate(where, "agreement with people's commonest answer", one.agreement)] if one.agreement.n else []
    return [_rate(where, "accuracy", one.accuracy), *people]


def _temperatures(found: Probabilities, data: Data) -> dict[str, float]:
    """The temperature that each source alone would want, by (V, N, labels) probabilities that have none."""
    part = data.validation
    return {
        source: fitted_temperature(np.concatenate(list(found[:, own])), np.tile(part.labels[own], len(found)))
        for index, source in enumerate(data.sources)
        if (own := part.sources == index).any()
    }


def _calibration(where: str, outcomes: Outcomes) -> dict[str, Any]:
    """The ECE, and what it would be, with its 95 % interval, of probabilities that are exactly right."""
    error, chance = ece(outcomes, ""), ece_by_chance(outcomes, "")
    return {
        "data": where,
        "metric": "ece",
        "value": round(error.value or 0.0, 4),
        "by_chance": round(chance.value or 0.0, 4),
        "by_chance_95": [round(end, 4) for end in chance.interval_95 or ()],
        "n": error.n,
    }


def _rate(where: str, metric: str, measure: Measure) -> dict[str, Any]:
    """A share of the validation images with its interval, for the card."""
    value = measure.value or 0.0
    return {
        "data": where,
        "metric": metric,
        "value": round(value, 4),
        "interval_95": [round(end, 4) for end in measure.interval_95 or ()],
        "correct": round(value * measure.n),
        "n": measure.n,
    }
