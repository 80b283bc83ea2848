"""Figures in plain words, for people who know nothing of metrics."""

from __future__ import annotations

from ferbatch.agreement import Agreement
from ferbatch.figures import Figure, Figures
from ferbatch.paths import count

NOTABLE_GAP = 0.02  # between mean confidence and accuracy
UNEVEN = 0.05  # of ECE, where there is no such gap


def words(found: Figures, agreed: Agreement | None) -> list[str]:
    """The figures in five plain sentences; fewer where there is little to say."""
    if not found.images:
        return [f"Nothing can be said: {found.accuracy.reason}."]
    return [
        _how_often(found),
        _against_guessing(found),
        _best_and_worst(found),
        _commonest(found, agreed),
        _how_sure(found),
    ]


def percent(value: float | None) -> str:
    """A share in words: `74.8 %`."""
    return "undefined" if value is None else f"{100 * value:.1f} %"


def between(figure: Figure) -> str:
    """An interval in words: `73.1 to 76.5 %`."""
    low, high = figure.interval_95 or (float("nan"),) * 2
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _how_often(found: Figures) -> str:
    accuracy = found.accuracy
    text = (
        f"{percent(accuracy.value)} of {count(found.images, 'image')} are labelled right; with as many others like"
        f" them, anything from {between(accuracy)} would be no surprise (95 % interval)."
    )
    if found.failed:
        counted = percent(found.accuracy_with_failed.value)
        text += f" {found.failed:,} more could not be labelled; counting them as wrong, it is {counted}."
    return text


def _against_guessing(found: Figures) -> str:
    label, support = max(((name, one.support) for name, one in found.labels.items()), key=lambda one: one[1])
    return (
        f"Saying '{label}' every time would be right for {percent(support / found.images)}; with every label counting"
        f" the same (balanced accuracy), it is {percent(found.balanced_accuracy.value)}."
    )


def _best_and_worst(found: Figures) -> str:
    recalls = [(one.recall.value, name) for name, one in found.labels.items() if one.recall.value is not None]
    best, worst = max(recalls), min(recalls)
    if len(recalls) == 1:
        return f"Only {best[1]} occurs in the truth: it is found in {percent(best[0])} of its images."
    return f"It finds {best[1]} best ({percent(best[0])} of its images) and {worst[1]} worst ({percent(worst[0])})."


def _commonest(found: Figures, agreed: Agreement | None) -> str:
    if not found.confusions:
        return "It makes no mistake here."
    one = found.confusions[0]
    text = f"Its commonest error is {one.truth} taken for {one.label}: {one.count:,} of {one.of:,}."
    if agreed and agreed.confusions and agreed.confusions[0].confusion.count:
        judged = agreed.confusions[0]
        text += f" In {judged.people_with_model:,} of these most people, too, say {one.label}."
    return text


def _how_sure(found: Figures) -> str:
    mean, accuracy, ece = found.mean_confidence.value, found.accuracy.value, found.ece.value
    if mean is None or accuracy is None or ece is None:
        return ""
    gap = mean - accuracy
    verdict = (
        "too sure of itself"
        if gap > 0.02
        else "less sure than it could be"
        if gap < -0.02
        else "about as sure as it should be"
    )
    return (
        f"It is {verdict}: it claims {percent(mean)} on average and is right for {percent(accuracy)}; confidence and"
        f" accuracy lie {100 * ece:.1f} points apart on average (ECE)."
    )
