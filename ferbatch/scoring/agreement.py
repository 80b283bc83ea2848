"""Agreement with people: what several human taggers said of the same images, beside the one label of the truth.

It tells the model's errors from the label's: where most people see what the model says, the label is the odd one out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.records import NONE, UNIT
from ferbatch.scoring.calibration import LEAST_WRITTEN
from ferbatch.scoring.measures import Confusion, Measure, mean, rate
from ferbatch.scoring.outcomes import Outcomes

MOST_JUDGED = 100  # confusions, the commonest first
NO_VOTES = "no labelled image with a truth has votes"


@dataclass(frozen=True, slots=True)
class Votes:
    """How many people gave each answer, for N images."""

    answers: tuple[str, ...]  # the K labels first, in their order; then what else could be answered
    counts: NDArray[np.float64]  # (N, answers) votes; a row of zeros where nobody voted

    def where(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Votes:
        """The images that a mask or a list of indices chooses."""
        return Votes(self.answers, self.counts[which])


@dataclass(frozen=True, slots=True)
class Majority:
    """Agreement with the answer that most people gave, where one answer has more votes than any other."""

    images: int  # that have a majority
    ties: int  # images without one, left out
    model: Measure  # the share of images where the model says what the majority says
    truth: Measure  # the share of images where the truth (the folder's label) is what the majority says


@dataclass(frozen=True, slots=True)
class Distribution:
    """Agreement with how the votes spread."""

    model_share: Measure  # mean share of the votes that the model's label got: how often a tagger at random agrees
    truth_share: Measure  # mean share of the votes that the truth got
    overlap: Measure  # mean of the sum over labels of min(probability, share of the votes for labels), 0..1
    cross_entropy: Measure  # mean of -sum(share of the votes for labels * ln(probability)), natural logarithm


@dataclass(frozen=True, slots=True)
class Blame:
    """Whose error it is: images by what model, truth and the majority of all answers say."""

    all_agree: int
    truth_alone: int  # model and majority agree: the label's error, if people are right
    model_alone: int  # truth and majority agree: the model's error
    people_alone: int  # model and truth agree, and people say something else
    all_differ: int  # model, truth and majority are three answers
    people_see_no_label: int  # of people_alone and all_differ: the majority is an answer that the model cannot give


@dataclass(frozen=True, slots=True)
class JudgedConfusion:
    """A confusion, and with whom the majority of people sides in it."""

    confusion: Confusion  # counted over the images with votes
    people_with_model: int
    people_with_truth: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Everything that votes say of a model's labels."""

    images: int  # labelled images with truth and votes
    without_votes: int  # labelled images with truth that nobody voted on
    majority: Majority  # over every answer people could give
    majority_of_labels: Majority  # over the answers that are labels of the model, other votes set aside
    distribution: Distribution
    blame: Blame
    confusions: Sequence[JudgedConfusion]


def agreement(outcomes: Outcomes, votes: Votes, confusions: Sequence[Confusion]) -> Agreement:
    """The agreement of the outcomes of N images with N rows of votes; `confusions` are to be judged by people."""
    known = (outcomes.truth >= 0) & outcomes.labelled
    voted = known & (votes.counts.sum(1) > 0)
    done, cast = outcomes.where(voted), votes.where(voted)
    top = majority(cast.counts)
    return Agreement(
        images=len(done),
        without_votes=int(known.sum()) - len(done),
        majority=_agreed(done, top),
        majority_of_labels=_agreed(done, majority(cast.counts[:, : len(outcomes.labels)])),
        distribution=_distribution(done, cast),
        blame=_blame(done, top),
        confusions=[_judged(done, top, one) for one in confusions[:MOST_JUDGED]],
    )


def majority(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) the index of the answer with more votes than any other, NONE where two or more share the first place."""
    most = counts.max(1, keepdims=True)
    return np.where((counts == most).sum(1) == 1, counts.argmax(1), NONE)


def _agreed(outcomes: Outcomes, top: NDArray[np.int64]) -> Majority:
    clear = top != NONE
    n = int(clear.sum())
    said = (outcomes.predicted, outcomes.truth)
    model, truth = (rate(int((each == top)[clear].sum()), n, "no answer has a majority") for each in said)
    return Majority(n, len(outcomes) - n, model, truth)


def _distribution(outcomes: Outcomes, votes: Votes) -> Distribution:
    """How labels, truths and probabilities agree with the votes of images that have some."""
    rows, k = np.arange(len(outcomes)), len(outcomes.labels)
    shares = votes.counts / votes.counts.sum(1, keepdims=True)
    of_labels = votes.counts[:, :k].sum(1)
    some = of_labels > 0
    wanted = votes.counts[some, :k] / of_labels[some, None]
    given = outcomes.probabilities[some] / UNIT
    nobody = "nobody voted for a label"
    return Distribution(
        model_share=mean(shares[rows, outcomes.predicted], NO_VOTES, most=1),
        truth_share=mean(shares[rows, outcomes.truth], NO_VOTES, most=1),
        overlap=mean(np.minimum(given, wanted).sum(1), nobody, most=1),
        cross_entropy=mean(-(wanted * np.log(np.maximum(given, LEAST_WRITTEN))).sum(1), nobody),
    )


def _blame(outcomes: Outcomes, top: NDArray[np.int64]) -> Blame:
    """Images with a majority, by who of model, truth and people agree."""
    clear = top != NONE
    truth, model, people = outcomes.truth[clear], outcomes.predicted[clear], top[clear]
    right, with_model, with_truth = model == truth, people == model, people == truth
    differ = ~right & ~with_model & ~with_truth
    foreign = people >= len(outcomes.labels)
    return Blame(
        all_agree=int((right & with_model).sum()),
        truth_alone=int((~right & with_model).sum()),
        model_alone=int((~right & with_truth).sum()),
        people_alone=int((right & ~with_model).sum()),
        all_differ=int(differ.sum()),
        people_see_no_label=int(foreign.sum()),
    )


def _judged(outcomes: Outcomes, top: NDArray[np.int64], confusion: Confusion) -> JudgedConfusion:
    truth, label = outcomes.labels.index(confusion.truth), outcomes.labels.index(confusion.label)
    theirs = outcomes.truth == truth
    which = theirs & (outcomes.predicted == label)
    voted = Confusion(confusion.truth, confusion.label, int(which.sum()), int(theirs.sum()))
    return JudgedConfusion(voted, int((top[which] == label).sum()), int((top[which] == truth).sum()))
