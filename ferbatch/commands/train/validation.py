"""What a network reached on the validation images: of all of them, of each source, in each framing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.train.data import Data, Split
from ferbatch.core.records import NONE, UNIT
from ferbatch.scoring.calibration import ece
from ferbatch.scoring.measures import Measure, rate
from ferbatch.scoring.outcomes import Outcomes

LEAST_LIKELIHOOD = 1e-12  # the validation loss takes no probability for less
ENOUGH = 500  # validation images of a source; one with fewer counts for less, or chance would choose the epoch
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """What was reached on the validation images of one source in one framing."""

    source: str  # empty where the data tells none apart
    framing: str
    accuracy: Measure
    agreement: Measure  # with people's commonest answer, where there are votes
    ece: Measure
    recalls: Mapping[str, Measure]  # of each label

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Part:
        """The one that was taken apart by dataclasses.asdict."""
        measures = {name: Measure(**values[name]) for name in ("accuracy", "agreement", "ece")}
        recalls = {label: Measure(**measure) for label, measure in values["recalls"].items()}
        return cls(values["source"], values["framing"], recalls=recalls, **measures)

    @property
    def name(self) -> str:
        return f"{self.source} {self.framing}".strip()

    @property
    def score(self) -> float:
        """The mean of accuracy and agreement, where people were asked."""
        return sum(each.value or 0.0 for each in self._asked) / len(self._asked)

    @property
    def weight(self) -> float:
        """What it counts beside other sources: 0..1."""
        return min(1.0, self.accuracy.n / ENOUGH)

    @property
    def _asked(self) -> Sequence[Measure]:
        return [self.accuracy, self.agreement] if self.agreement.n else [self.accuracy]

    @property
    def columns(self) -> dict[str, float | int | None]:
        """Its figures in a row of history.csv."""
        low, high = self.accuracy.interval_95 or (None, None)
        return {
            "n": self.accuracy.n,
            "accuracy": self.accuracy.value,
            "accuracy_low": low,
            "accuracy_high": high,
            "agreement": self.agreement.value,
            "ece": self.ece.value,
            **{f"recall_{label}": measure.value for label, measure in self.recalls.items()},
        }


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch reached; a row of history.csv."""

    epoch: int  # from 1
    learning_rate: float  # at its last step
    train_loss: float  # against the targets, on the augmented images
    train_accuracy: float  # against each target's most probable label, on the augmented images
    validation_loss: float  # mean of -ln(probability of the label)
    validation_accuracy: float
    validation_agreement: float | None  # with people's commonest answer, where there are votes
    best: bool  # better than every epoch before
    parts: Sequence[Part] = field(default=())  # where there are several sources or framings

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Epoch:
        """The one that was taken apart by dataclasses.asdict."""
        return cls(**{**values, "parts": tuple(map(Part.restored, values["parts"]))})

    def score(self, choose: str) -> float:
        """How good the epoch is by a recipe's word for it, one of recipe.CHOICES; more is better."""
        agreement = self.validation_accuracy if self.validation_agreement is None else self.validation_agreement
        scores = {
            "accuracy": self.validation_accuracy,
            "agreement": (self.validation_accuracy + agreement) / 2,
            "loss": -self.validation_loss,
            "last": self.epoch,
        }
        return scores[choose] if choose in scores else self._by_sources(scores["agreement"])

    def _by_sources(self, otherwise: float) -> float:
        """The mean of the sources' scores, each weighing alike from ENOUGH images on."""
        if not self.parts:
            return otherwise
        return float(np.average([one.score for one in self.parts], weights=[one.weight for one in self.parts]))


def loss_of(found: Probabilities, labels: NDArray[np.int64]) -> float:
    """Mean of -ln(probability of the label) of (N, labels) probabilities."""
    truth = np.maximum(found[np.arange(len(labels)), labels], LEAST_LIKELIHOOD)
    return float(-np.log(truth).mean())


def parts_of(data: Data, found: Probabilities) -> tuple[Part, ...]:
    """The figures of each source in each framing, if there are several of either.

    `found` holds (V, N, labels) probabilities of the validation images, for each view.
    """
    if not data.sources and len(data.framings) < 2:
        return ()
    masks = [(name, data.validation.sources == index) for index, name in enumerate(data.sources)]
    masks = masks or [("", np.ones(len(data.validation), bool))]
    return tuple(
        part_of(source, framing, data.validation, found[view], mask)
        for source, mask in masks
        if mask.any()
        for view, framing in enumerate(data.framings)
    )


def part_of(source: str, framing: str, split: Split, found: Probabilities, mask: NDArray[np.bool_]) -> Part:
    """The figures of the images that a mask chooses.

    source, framing: what they are.
    split: of which they are.
    found: (N, labels) the probabilities of all of its images.
    mask: (N,) which of them.
    """
    labels, commonest, found = split.labels[mask], split.commonest[mask], found[mask]
    said = found.argmax(1)
    right, asked = said == labels, commonest != NONE
    none = "nobody was asked"
    return Part(
        source,
        framing,
        rate(int(right.sum()), len(right), "no image"),
        rate(int((said == commonest)[asked].sum()), int(asked.sum()), none),
        ece(outcomes_of(found, labels, split.names), ""),
        {
            label: rate(int(right[labels == index].sum()), int((labels == index).sum()), f"no image is {label}")
            for index, label in enumerate(split.names)
        },
    )


def outcomes_of(found: Probabilities, labels: NDArray[np.int64], names: tuple[str, ...]) -> Outcomes:
    """Probabilities (N, labels) and what is true, in the units that outputs write; `names` are the labels'."""
    in_units = np.asarray(np.round(found * UNIT).astype(np.uint16))
    return Outcomes(names, labels.astype(np.int16), found.argmax(1).astype(np.int16), in_units)
