"""The card of a training: of the network it begins with, and of the weights it ends with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.train.data import SIZE, Data, Split
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.temperature import fitted_temperature, tempered
from ferbatch.commands.train.trainer import Trainer
from ferbatch.core.options import TrainOptions
from ferbatch.core.records import NONE, UNIT
from ferbatch.images.inputs import PREPROCESSING
from ferbatch.model import registry
from ferbatch.model.networks import Network
from ferbatch.model.weights import Card
from ferbatch.scoring import measures
from ferbatch.scoring.calibration import ece, ece_by_chance
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.labels import LABELS


def arguments_of(recipe: Recipe) -> dict[str, Any]:
    """What the network is built with."""
    return {**recipe.arguments, "labels": len(LABELS)}


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
        arguments=arguments_of(recipe),
        labels=LABELS,
        mean=data.mean,
        std=data.std,
        preprocessing=PREPROCESSING,
        data={
            "folder": options.data.name,
            "train": data.train.counts,
            "validation": data.validation.counts,
            "votes": f"for {int(data.train.votes.any(1).sum()):,} of the training images",
            "unreadable": len(data.skipped),
        },
        recipe={**dataclasses.asdict(recipe), "start": start},
    )


def finished_card(trainer: Trainer, teachers: Sequence[Card], fingerprint: str) -> Card:
    """The card of the best epoch's weights: their temperature, their scores, how they came about."""
    trainer.network.load_state_dict(trainer.best_tensors)
    part = trainer.data.validation
    found = trainer.asked(trainer.network)
    temperature = fitted_temperature(found, part.labels) if trainer.recipe.calibrate else 1.0
    recipe = {
        **trainer.card.recipe,
        "precision": str(trainer.dtype).removeprefix("torch."),
        "taught_by": [{"name": card.name, "sha256": card.sha256} for card in teachers],
        "epochs_done": trainer.done,
        "best_epoch": trainer.best_epoch,
        "fingerprint": fingerprint,
    }
    scores = _scores(tempered(found, temperature), part)
    return dataclasses.replace(trainer.card, temperature=temperature, recipe=recipe, scores=scores)


def _scores(probabilities: NDArray[np.float64], part: Split) -> list[dict[str, Any]]:
    """Accuracy, agreement with people and calibration on validation, for the card."""
    said = probabilities.argmax(1)
    scores = [_rate("accuracy", said == part.labels)]
    asked = part.commonest != NONE
    if asked.any():
        scores.append(_rate("agreement with people's commonest answer", (said == part.commonest)[asked]))
    in_units = np.asarray(np.round(probabilities * UNIT).astype(np.uint16))
    counted = Outcomes(LABELS, part.labels.astype(np.int16), said.astype(np.int16), in_units)
    return [*scores, _calibration(counted)]


def _calibration(outcomes: Outcomes) -> dict[str, Any]:
    """The ECE, and what it would be, with its 95 % interval, of probabilities that are exactly right."""
    error, chance = ece(outcomes, ""), ece_by_chance(outcomes, "")
    return {
        "data": "validation",
        "metric": "ece",
        "value": round(error.value or 0.0, 4),
        "by_chance": round(chance.value or 0.0, 4),
        "by_chance_95": [round(end, 4) for end in chance.interval_95 or ()],
        "n": error.n,
    }


def _rate(metric: str, right: NDArray[np.bool_]) -> dict[str, Any]:
    """A share of the validation images with its interval, for the card."""
    correct, n = int(right.sum()), len(right)
    low, high = measures.wilson(correct, n)
    return {
        "data": "validation",
        "metric": metric,
        "value": round(correct / n, 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "correct": correct,
        "n": n,
    }
