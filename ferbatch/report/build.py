"""The report: everything that is said of how good labels are, as one plain structure that becomes JSON as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ferbatch.core.records import NONE, ImageRef
from ferbatch.core.version import __version__
from ferbatch.model.weights import Card
from ferbatch.report.words import words
from ferbatch.scoring.agreement import Votes, agreement
from ferbatch.scoring.calibration import ECE_BINS, mean_confidence, point
from ferbatch.scoring.comparison import compare
from ferbatch.scoring.measures import rate
from ferbatch.scoring.metrics import RESAMPLES, confusion_matrix, measures, table
from ferbatch.scoring.outcomes import UNIT, Outcomes
from ferbatch.sources.metadata import Matched, Slices

REPORT_SCHEMA = 1  # the version of report.json's form
SMALL_GROUP = 100  # images; in a smaller group a rate's interval is wider than 10 points to either side
MISTAKES = 24  # how many are shown, the most confident first

DEFINITIONS = {  # what stands in report.json, by its name there
    "interval_95": "95 % interval: where the figure would most likely lie over very many images like these. Wilson's"
    f" for rates (accuracy, precision, recall and other shares); for F1, averages and differences of models the middle"
    f" 95 % of {RESAMPLES:,} bootstrap resamples of the confusion counts; for means over images the normal"
    " approximation. Areas and ECE have none.",
    "n": "The images that a figure rests on.",
    "accuracy": "Share of the labelled images whose label is the truth.",
    "accuracy_with_failed": "The same, with images that have no label counted as wrong.",
    "failed": "Images with a truth that have no label. no_face: those of them in which no face was found. Where an"
    " image has several faces, the largest stands for it.",
    "balanced_accuracy": "Mean of the recalls of the labels that occur: every label counts the same.",
    "precision": "Of the images given a label, the share for which it is the truth.",
    "recall": "Of the images with a label as their truth, the share that was given it.",
    "f1": "Harmonic mean of precision and recall: high only where both are.",
    "support": "Images with a label as their truth. predicted: images given it.",
    "macro_avg": "Mean over the labels that occur as truth or were given; what is undefined counts as 0, as in"
    " scikit-learn's table.",
    "weighted_avg": "The same, weighted by the images of each label.",
    "roc_auc": "Area under the ROC curve of a label's probability, this label against the rest: how often an image of"
    " the label gets a higher probability for it than another image does (0.5 is guessing, 1 is perfect). Overall: the"
    " mean over the labels.",
    "average_precision": "Area under the precision-recall curve, as scikit-learn's average_precision_score"
    " (1 is perfect).",
    "nll": "Negative log-likelihood: mean of -ln(probability of the truth); probabilities under 0.00005 count as"
    " 0.00005 (0 is perfect; surely wrong labels cost most).",
    "brier": "Brier score: mean over images of the squared differences between probabilities and truth, summed over the"
    " labels (0 is perfect, 2 is worst).",
    "mean_confidence": "Mean probability of the labels that were given.",
    "ece": f"Expected calibration error: mean gap between confidence and accuracy over {ECE_BINS} bins of confidence of"
    " equal width, each open below and closed above, weighted by their images (0 is perfect).",
    "ece_by_chance": "The mean ECE of simulated labels that are right exactly as often as their confidence says, on as"
    " many images: an ECE no larger is no sign of bad calibration. Its interval holds 95 % of the simulations.",
    "coverage": "Share of the labelled images that is kept when labels less sure than min_confidence are set aside.",
    "majority": "Of people's votes, the answer with more than any other (the commonest, not always more than half);"
    " images where two answers tie are left out.",
    "majority_of_labels": "The same, with votes for anything but the labels set aside.",
    "model_share": "Mean share of an image's votes that went to the model's label: how often one person, taken at"
    " random, agrees with the model. truth_share: the same of the truth.",
    "overlap": "Mean over images of the sum over labels of the smaller of probability and share of the votes for"
    " labels (1: the probabilities spread as the votes do).",
    "cross_entropy": "Mean over images of -sum(share of the votes for labels * ln(probability)).",
    "blame": "Images by what model, truth and majority say. truth_alone: model and people agree, the error looks like"
    " the truth's; model_alone: truth and people agree, it looks like the model's; people_alone: model and truth agree;"
    " all_differ: three answers. people_see_no_label: of all these, those whose majority is no label.",
    "more_than_chance": "p_value, McNemar's exact two-sided test that two models are right equally often on the same"
    " images, is under 0.05. only_this_right and only_other_right are the images it rests on.",
    "mistakes": f"The {MISTAKES} most confident ones.",
    "probabilities": "All figures are computed from the probabilities as written, to four digits.",
}


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
        "definitions": DEFINITIONS,
    }


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


def _point(outcomes: Outcomes, min_confidence: float) -> Any:
    return point(outcomes.where(outcomes.labelled & (outcomes.truth != NONE)), min_confidence)


def _sliced(outcomes: Outcomes, slices: Slices, min_confidence: float) -> dict[str, Any]:
    """The measures per value of each column."""
    found: dict[str, Any] = {}
    for column, (values, codes) in slices.columns.items():
        found[column] = {}
        for code, value in enumerate(values):
            part = outcomes.where(codes == code)
            of_part = asdict(measures(part, curves=False))
            del of_part["coverage"]  # the curves are drawn for the whole only
            for of_label in of_part["labels"].values():
                del of_label["curve"]
            found[column][value] = {
                "small": of_part["images"] < SMALL_GROUP,
                **of_part,
                "min_confidence": asdict(_point(part, min_confidence)) if min_confidence else None,
            }
    return found


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
