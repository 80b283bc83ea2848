"""Measures from truths and predictions: plain functions around scikit-learn and SciPy.

Everything is computed from probabilities in whole units of 1/10,000, as every output writes them. Confusion matrices
have a row per truth and a column per label given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from ferbatch.core.records import UNIT
from ferbatch.scoring import calibration
from ferbatch.scoring.bootstrap import Counts, Margins, margins, percentiles, resampled
from ferbatch.scoring.measures import Averages, Confusion, LabelMeasures, Measure, Measures, rate
from ferbatch.scoring.outcomes import Outcomes

CURVE_POINTS = 100  # that a precision-recall curve has at most


def measures(outcomes: Outcomes, *, curves: bool = True) -> Measures:
    """Every measure of the images that have a truth; what cannot be said of them is None, with the reason.

    Without `curves`, those are left empty.
    """
    with_truth = outcomes.where(outcomes.truth >= 0)
    done = with_truth.where(with_truth.labelled)
    n, failed = len(done), len(with_truth) - len(done)
    matrix = confusion_matrix(done)
    correct = int(matrix.trace())
    nothing = "no image with a truth was labelled" if failed else "no image has a truth"
    (samples,) = resampled(matrix.ravel(), *np.indices(matrix.shape).reshape(2, -1)) if n else (None,)
    labels = _label_measures(done, matrix, samples, curves)
    areas = [measure.roc_auc for measure in labels.values()]
    averages = {name: _averaged(matrix, samples, name, nothing) for name in ("macro", "weighted", "truth")}
    return Measures(
        images=n,
        failed=failed,
        no_face=int(with_truth.faceless.sum()),
        accuracy=rate(correct, n, nothing),
        accuracy_with_failed=rate(correct, n + failed, nothing),
        balanced_accuracy=_balanced(matrix, samples, nothing),
        macro_avg=averages["macro"],
        weighted_avg=averages["weighted"],
        truth_avg=averages["truth"],
        beyond_truth=len(_present(matrix)) - len(_true(matrix)),
        roc_auc=_mean_area(areas, n),
        nll=calibration.nll(done, nothing),
        brier=calibration.brier(done, nothing),
        ece=calibration.ece(done, nothing),
        ece_by_chance=calibration.ece_by_chance(done, nothing),
        mean_confidence=calibration.mean_confidence(done, nothing),
        labels=labels,
        confusion_matrix=matrix.tolist(),
        confusions=_confusions(done.labels, matrix),
        calibration=calibration.bins(done),
        coverage=calibration.coverage(done) if curves else [],
    )


def confusion_matrix(outcomes: Outcomes) -> Counts:
    """(K, K) counts of the images that have a truth and were labelled."""
    k = len(outcomes.labels)
    known = outcomes.labelled & (outcomes.truth >= 0)
    cells = outcomes.truth[known].astype(np.int64) * k + outcomes.predicted[known]
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def table(matrix: Counts, labels: Sequence[str]) -> str:
    """The study's table, word for word as scikit-learn prints it: two digits, the labels that occur."""
    present = _present(matrix)
    cells = np.indices(matrix.shape).reshape(2, -1)
    truth, predicted = (np.repeat(side, matrix.ravel()) for side in cells)
    names = [labels[index] for index in present]
    text = sk.classification_report(truth, predicted, labels=present, target_names=names, digits=2, zero_division=0)
    return str(text).strip("\n")


def per_label(found: Margins) -> dict[str, NDArray[np.float64]]:
    """precision, recall and f1 per label, (..., K), of confusion matrices; 0 where undefined."""
    hits, truth, predicted = found
    shares = {"precision": (hits, predicted), "recall": (hits, truth), "f1": (2 * hits, truth + predicted)}
    return {name: part / np.maximum(whole, 1) for name, (part, whole) in shares.items()}


def balanced(found: Margins) -> NDArray[np.float64]:
    """Balanced accuracy, (...), of confusion matrices."""
    recall, occurs = per_label(found)["recall"], found.truth > 0
    return np.asarray((recall * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1))


def _present(matrix: Counts) -> list[int]:
    """The labels that occur as truth or were given: those that scientists' tables have rows for."""
    return [int(index) for index in np.flatnonzero(matrix.sum(0) + matrix.sum(1))]


def _true(matrix: Counts) -> list[int]:
    """The labels that occur as truth."""
    return [int(index) for index in np.flatnonzero(matrix.sum(1))]


def _by_scikit_learn(matrix: Counts, labels: Sequence[int], **options: Any) -> tuple[Any, Any, Any]:
    """precision, recall, f1 from the cells of the matrix, weighted by their counts."""
    truth, predicted = np.indices(matrix.shape).reshape(2, -1)
    return tuple(
        sk.precision_recall_fscore_support(
            truth, predicted, sample_weight=matrix.ravel(), labels=labels, zero_division=0, **options
        )[:3]
    )


def _averaged(matrix: Counts, samples: Margins | None, average: str, nothing: str) -> Averages:
    """Precision, recall and F1 averaged over the labels, with the intervals of resampled matrices.

    `average` is `macro`, `weighted`, or `truth`: macro, over the labels that occur as truth.
    """
    if samples is None:
        return Averages(*[Measure(None, 0, reason=nothing)] * 3)
    present = _true(matrix) if average == "truth" else _present(matrix)
    values = _by_scikit_learn(matrix, present, average="weighted" if average == "weighted" else "macro")
    samples = samples.of(present)
    weights = samples.truth
    if (
        average != "weighted"
    ):  # over the labels that occur in the resample, just as the measure is over those that occur
        weights = (samples.truth + (samples.predicted if average == "macro" else 0) > 0).astype(np.int64)
    spread = per_label(samples)
    averaged = [
        Measure(float(value), int(matrix.sum()), percentiles((spread[name] * weights).sum(-1) / weights.sum(-1)))
        for name, value in zip(("precision", "recall", "f1"), values, strict=True)
    ]
    return Averages(*averaged)


def _balanced(matrix: Counts, samples: Margins | None, nothing: str) -> Measure:
    if samples is None:
        return Measure(None, 0, reason=nothing)
    truth, predicted = np.indices(matrix.shape).reshape(2, -1)
    value = sk.recall_score(truth, predicted, labels=_true(matrix), average="macro", sample_weight=matrix.ravel())
    return Measure(float(value), int(matrix.sum()), percentiles(balanced(samples)))


def _label_measures(
    outcomes: Outcomes, matrix: Counts, samples: Margins | None, curves: bool
) -> dict[str, LabelMeasures]:
    """The measures of each label; those of its ranking need the probabilities."""
    hits, support, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    f1 = per_label(margins(matrix))["f1"]
    spread = per_label(samples)["f1"] if samples is not None else None
    found = {}
    for index, label in enumerate(outcomes.labels):
        tops = int(hits[index])
        absent, never = f"no image is {label}", f"no image was labelled {label}"
        f1_measure = Measure(None, 0, reason=f"{absent}, and {never}")
        if spread is not None and support[index] + predicted[index]:
            f1_measure = Measure(float(f1[index]), int(support[index]), percentiles(spread[:, index]))
        found[label] = LabelMeasures(
            precision=rate(tops, int(predicted[index]), never),
            recall=rate(tops, int(support[index]), absent),
            f1=f1_measure,
            support=int(support[index]),
            predicted=int(predicted[index]),
            **_ranking(outcomes, index, curves),
        )
    return found


def _ranking(outcomes: Outcomes, index: int, curves: bool) -> dict[str, Any]:
    """roc_auc, average_precision and curve of one label's probability, from the histogram of its values."""
    n, label = len(outcomes), outcomes.labels[index]
    positive = outcomes.truth == index
    histogram = [
        np.bincount(outcomes.probabilities[which, index], minlength=UNIT + 1) for which in (positive, ~positive)
    ]
    if not positive.any() or positive.all():
        reason = f"no image is {label}" if not positive.any() else f"every image is {label}"
        undefined = Measure(None, n, reason=reason)
        return {"roc_auc": undefined, "average_precision": undefined, "curve": []}
    truth = np.repeat([1, 0], UNIT + 1)
    values, weights = np.tile(np.arange(UNIT + 1), 2), np.concatenate(histogram)
    counted = weights > 0
    truth, values, weights = truth[counted], values[counted], weights[counted]
    precision, recall, thresholds = sk.precision_recall_curve(truth, values, sample_weight=weights)
    chosen = np.unique(np.linspace(0, len(thresholds) - 1, CURVE_POINTS).round().astype(int))
    return {
        "roc_auc": Measure(float(sk.roc_auc_score(truth, values, sample_weight=weights)), n),
        "average_precision": Measure(float(sk.average_precision_score(truth, values, sample_weight=weights)), n),
        "curve": [(float(thresholds[i] / UNIT), float(precision[i]), float(recall[i])) for i in chosen if curves],
    }


def _mean_area(areas: Sequence[Measure], n: int) -> Measure:
    undefined = next((area.reason for area in areas if area.value is None), None)
    if undefined:
        return Measure(None, n, reason=undefined)
    return Measure(float(np.mean([area.value for area in areas])), n)


def _confusions(labels: Sequence[str], matrix: Counts) -> list[Confusion]:
    support = matrix.sum(1).tolist()
    found = [
        Confusion(labels[index], labels[other], int(matrix[index, other]), support[index])
        for index, other in np.argwhere(matrix).tolist()
        if index != other
    ]
    return sorted(found, key=lambda one: -one.count)
