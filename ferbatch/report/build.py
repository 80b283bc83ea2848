"""The report: everything that is said of how good labels are, as one plain structure that becomes JSON as it is."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ferbatch.core.records import NONE, UNIT, ImageRef
from ferbatch.core.version import __version__
from ferbatch.model.weights import Card
from ferbatch.report.words import words
from ferbatch.scoring.agreement import Votes, agreement
from ferbatch.scoring.bootstrap import RESAMPLES
from ferbatch.scoring.calibration import ECE_BINS, mean_confidence, point
from ferbatch.scoring.comparison import compare
from ferbatch.scoring.measures import Point, rate
from ferbatch.scoring.metrics import confusion_matrix, measures, table
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.metadata import Matched, Slices

REPORT_SCHEMA = 1  # the version of report.json's form
SMALL_GROUP = 100  # images; in a smaller group a rate's interval is wider than 10 points to either side
MOST_LABELS_OF_GROUPS = 100  # with more, the groups' confusion matrices would take gigabytes, and are left out
MISTAKES = 24  # how many are shown, the most confident first

DEFINITIONS = Path(__file__).parent / "templates" / "definitions.toml"  # what stands in report.json, by its name there


@dataclass(frozen=True, slots=True)
class System:
    """One model's labels for N images, or those of a labels file."""

    name: str
    images: Sequence[ImageRef]  # (N)
    outcomes: Outcomes  # (N)
    card: Card | None = None  # None for a labels file
    tta: bool = False  # whether each image was labelled together with its mirror image
    matched: Matched | None = None  # where the labels come from a file
    votes: Votes | None = None  # (N)
    slices: Slices | None = None  # (N)
    others: Mapping[str, Outcomes] = field(default_factory=dict)  # by class that is no label

    def without_images(self) -> System:
        """The same model before any image."""
        nothing = np.zeros(0, np.int64)
        return replace(
            self,
            images=(),
            outcomes=self.outcomes.where(nothing),
            votes=self.votes.where(nothing) if self.votes else None,
            slices=self.slices.where(nothing) if self.slices else None,
            others={name: outcomes.where(nothing) for name, outcomes in self.others.items()},
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """What the labels were held against."""

    truth: str  # where the truth comes from, as printed
    labels: tuple[str, ...]
    images: int  # whose truth is a label
    per_label: Mapping[str, int]  # images
    others: Mapping[str, int] = field(default_factory=dict)  # images per class that is no label
    others_kept: bool = False  # whether the report speaks of images of other classes
    without_truth: int = 0  # images
    conflicts: int = 0  # paths that a table gives two classes
    votes: Matched | None = None  # how the table of votes met the images
    slices: Matched | None = None  # how the table of metadata met the images
    slices_left_out: tuple[str, ...] = ()  # columns with one value only, or too many
    classes: Mapping[str, str] = field(default_factory=dict)  # what names were said to mean


def build(subject: Subject, systems: Sequence[System], min_confidence: float = 0.0) -> dict[str, Any]:
    """The report of one or more systems on the same images, in plain dicts, lists, numbers and strings."""
    first = systems[0]
    return {
        "schema": REPORT_SCHEMA,
        "ferbatch": __version__,
        "subject": asdict(subject),
        "results": [result(system, min_confidence) for system in systems],
        "comparisons": [
            asdict(compare(other.name, other.outcomes, first.name, first.outcomes)) for other in systems[1:]
        ],
        "definitions": _definitions(),
    }


def _definitions() -> dict[str, str]:
    numbers = {"resamples": RESAMPLES, "ece_bins": ECE_BINS, "mistakes": MISTAKES}
    texts = tomllib.loads(DEFINITIONS.read_text(encoding="utf-8"))
    return {name: text.format(**numbers) for name, text in texts.items()}


def result(system: System, min_confidence: float = 0.0) -> dict[str, Any]:
    """Everything that is said of one system; its measures are found here by their names."""
    found = measures(system.outcomes)
    chosen = _point(system.outcomes, min_confidence) if min_confidence else None
    agreed = agreement(system.outcomes, system.votes, found.confusions) if system.votes else None
    return {
        "name": system.name,
        "model": _model(system.card, system.tta),
        "predictions": asdict(system.matched) if system.matched else None,
        "words": words(found, agreed),
        **asdict(found),
        "min_confidence": asdict(chosen) if chosen else None,
        "table": table(confusion_matrix(system.outcomes), system.outcomes.labels) if found.images else "",
        "votes": asdict(agreed) if agreed else None,
        "slices": _sliced(system.outcomes, system.slices, min_confidence) if system.slices else None,
        "others": _others(system) if system.others else None,
        "mistakes": _mistakes(system),
    }


def blank(system: System, min_confidence: float) -> dict[str, Any]:
    """A result with the name of every measure and no value, before any image was labelled."""
    return result(system.without_images(), min_confidence)


def _model(card: Card | None, tta: bool) -> dict[str, Any] | None:
    if card is None:
        return None
    names = ("name", "architecture", "sha256", "parameters", "multiply_adds", "temperature", "data")
    return {name: getattr(card, name) for name in names} | {"tta": tta}


def _point(outcomes: Outcomes, min_confidence: float) -> Point:
    return point(outcomes.where(outcomes.labelled & (outcomes.truth != NONE)), min_confidence)


def _sliced(outcomes: Outcomes, slices: Slices, min_confidence: float) -> dict[str, Any]:
    """The measures per value of each column."""
    return {
        column: {value: _slice(outcomes.where(codes == code), min_confidence) for code, value in enumerate(values)}
        for column, (values, codes) in slices.columns.items()
    }


def _slice(outcomes: Outcomes, min_confidence: float) -> dict[str, Any]:
    """The measures of one group of images, without the curves, which are drawn for the whole only."""
    found = asdict(measures(outcomes, curves=False))
    del found["coverage"]
    if len(outcomes.labels) > MOST_LABELS_OF_GROUPS:
        found["confusion_matrix"] = []
    for of_label in found["labels"].values():
        del of_label["curve"]
    chosen = asdict(_point(outcomes, min_confidence)) if min_confidence else None
    return {"small": found["images"] < SMALL_GROUP, **found, "min_confidence": chosen}


def _others(system: System) -> dict[str, Any]:
    """What the model says of images whose class it cannot name, per class."""
    found = {}
    for name, outcomes in system.others.items():
        done = outcomes.where(outcomes.labelled)
        n = len(done)
        found[name] = {
            "images": n,
            "failed": len(outcomes) - n,
            "labelled": {
                label: asdict(rate(int((done.predicted == index).sum()), n, "no image was labelled"))
                for index, label in enumerate(outcomes.labels)
            },
            "mean_confidence": asdict(mean_confidence(done, "no image was labelled")),
        }
    return found


def _mistakes(system: System) -> list[dict[str, Any]]:
    """The most confident mistakes; of equal ones the first."""
    outcomes = system.outcomes
    wrong = np.flatnonzero(outcomes.labelled & (outcomes.truth != NONE) & ~outcomes.correct)
    confidence = outcomes.confidence
    chosen = wrong[np.argsort(-confidence[wrong].astype(np.int64), kind="stable")][:MISTAKES]
    return [
        {
            "path": system.images[index].path,
            "truth": outcomes.labels[outcomes.truth[index]],
            "label": outcomes.labels[outcomes.predicted[index]],
            "confidence": int(confidence[index]) / UNIT,
            "probability_of_truth": int(outcomes.probabilities[index, outcomes.truth[index]]) / UNIT,
            "votes": _cast(system.votes, index),
            "box": _box(outcomes, index),
        }
        for index in chosen.tolist()
    ]


def _box(outcomes: Outcomes, index: int) -> list[int] | None:
    """x, y, width and height of the face that was labelled; None where the image was taken whole."""
    found = [] if outcomes.boxes is None else outcomes.boxes[index].tolist()
    return found if any(found) else None


def _cast(votes: Votes | None, index: int) -> dict[str, float] | None:
    if votes is None or not votes.counts[index].any():
        return None
    return {answer: float(n) for answer, n in zip(votes.answers, votes.counts[index], strict=True) if n}
