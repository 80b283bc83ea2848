"""Measures in plain words, for people who know nothing of metrics."""

from __future__ import annotations

from ferbatch.core.names import count
from ferbatch.scoring.agreement import Agreement
from ferbatch.scoring.measures import Measure, Measures

PARTED = 0.05  # mean confidence and accuracy this far apart are warned of


def words(found: Measures, agreed: Agreement | None) -> list[str]:
    """The measures in five plain sentences, or six; one where there is nothing to say."""
    if not found.images:
        return [f"Nothing can be said: {found.accuracy.reason}."]
    occurring = [name for name, one in found.labels.items() if one.support]
    return [
        _how_often(found),
        _against_guessing(found) if len(occurring) > 1 else _of_one_label(occurring[0]),
        _best_and_worst(found),
        _commonest(found, agreed),
        _how_sure(found),
        *([_beyond_truth(found)] if found.beyond_truth else []),
    ]


def percent(value: float | None) -> str:
    """A share in words: `74.8 %`."""
    return "undefined" if value is None else f"{100 * value:.1f} %"


def between(measure: Measure) -> str:
    """An interval in words: `73.1 and 76.5 %`."""
    low, high = measure.interval_95 or (float("nan"),) * 2
    return f"{100 * low:.1f} and {100 * high:.1f} %"


def _how_often(found: Measures) -> str:
    text = (
        f"{percent(found.accuracy.value)} of {count(found.images, 'image')} are labelled right; over very many images"
        f" like these it would most likely be between {between(found.accuracy)} (95 % interval)."
    )
    if found.failed:
        counted, unread = percent(found.accuracy_with_failed.value), found.failed - found.no_face
        parts = [f"{unread:,} more could not be labelled"] if unread or not found.no_face else []
        if found.no_face:
            parts.append(f"in {found.no_face:,} more no face was found")
        said = " and ".join(parts)
        text += f" {said[0].upper()}{said[1:]}; counting them as wrong, it is {counted}."
    return text


def _against_guessing(found: Measures) -> str:
    label, support = max(((name, one.support) for name, one in found.labels.items()), key=lambda one: one[1])
    return (
        f"Always answering '{label}' would be right for {percent(support / found.images)}; if every label counted the"
        f" same, the model would be right for {percent(found.balanced_accuracy.value)} (balanced accuracy)."
    )


def _of_one_label(label: str) -> str:
    return (
        f"Every image here is {label}: what is mistaken for {label}, and averages over the labels, cannot be judged"
        " (the folder above may hold the other labels)."
    )


def _best_and_worst(found: Measures) -> str:
    found_in = [(one.recall.value, name) for name, one in found.labels.items() if one.recall.value is not None]
    right_for = [(one.precision.value, name) for name, one in found.labels.items() if one.precision.value is not None]
    (most, best), (least, worst) = max(found_in), min(found_in)
    if most == least:
        return f"It finds {percent(most)} of the images of {'each label' if len(found_in) > 1 else best}."
    text = f"It finds {best} best ({percent(most)} of those images) and {worst} worst ({percent(least)})"
    (most, best), (least, worst) = max(right_for), min(right_for)
    text += f"; its label {best} is right in {percent(most)} of the cases"
    return (
        f"{text}, its label {worst} in {percent(least)}." if len(right_for) > 1 else f"{text}, and it gives no other."
    )


def _commonest(found: Measures, agreed: Agreement | None) -> str:
    if not found.confusions:
        return "It makes no mistake here."
    one = found.confusions[0]
    text = f"Its commonest error is {one.truth} taken for {one.label}: {one.count:,} of {one.of:,}."
    if agreed and agreed.confusions and agreed.confusions[0].confusion.count:
        judged = agreed.confusions[0]
        text += f" In {judged.people_with_model:,} of these, people's commonest answer is {one.label} as well."
    return text


def _how_sure(found: Measures) -> str:
    """Whether its confidence fits: only a gap that chance does not explain is called one."""
    mean, accuracy, interval = found.mean_confidence.value, found.accuracy.value, found.accuracy.interval_95
    ece, by_chance = found.ece.value, found.ece_by_chance.value
    if mean is None or accuracy is None or interval is None or ece is None or by_chance is None:
        return ""
    verdict = "It shows no sign of being too sure or not sure enough"
    if not interval[0] <= mean <= interval[1]:
        verdict = f"It is {'too sure of itself' if mean > accuracy else 'less sure than it could be'}"
    return (
        f"{verdict}: it claims {percent(mean)} on average and is right for {percent(accuracy)}. Bin by bin the two"
        f" lie {100 * ece:.1f} points apart (ECE), where chance alone would make it {100 * by_chance:.1f}."
        f"{_parted(mean, accuracy, interval)}"
    )


def _parted(mean: float, accuracy: float, interval: tuple[float, float]) -> str:
    """A warning where the mean confidence is far from the accuracy, whose interval is given; nothing where it is not.

    All three are 0..1.
    """
    if abs(mean - accuracy) <= PARTED:
        return ""
    points = f"{100 * abs(mean - accuracy):.1f} points"
    if interval[0] <= mean <= interval[1]:
        return f" Warning: {points} lie between these two averages; with so few images that may be chance."
    return (
        f" Warning: {points} lie between these two averages: on images like these a confidence does not mean what it"
        f" says, and --min-confidence lets through {'more' if mean > accuracy else 'fewer'} errors than it promises."
    )


def _beyond_truth(found: Measures) -> str:
    """What averages over the labels hide where some were given that no image has."""
    beyond = found.beyond_truth
    of = beyond + sum(1 for one in found.labels.values() if one.support)
    theirs = "is the truth of no image and counts" if beyond == 1 else "are the truth of no image and count"
    return (
        f"Macro averages are over {of:,} labels, {beyond:,} of which {theirs} as 0: macro F1 is"
        f" {found.macro_avg.f1.value:.2f}, and over the truth's labels alone {found.truth_avg.f1.value:.2f}"
        " (truth_avg.f1)."
    )
