"""The images with a known truth that are held against what was said of them, and what tables say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.database import name_of
from ferbatch.core.options import EvaluateOptions
from ferbatch.core.records import NONE
from ferbatch.report.build import Subject, System
from ferbatch.scoring.agreement import Votes
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.metadata import Slices, read_slices, read_votes
from ferbatch.sources.truth import Truth, parse_classes


@dataclass(frozen=True, slots=True)
class Judged:
    """The images that a model is asked about, or that have a row in the labels file, and what is known of them."""

    seen: Truth  # every image, also of other classes or of no class
    subject: Subject
    votes: Votes | None  # for the images whose truth is a label
    slices: Slices | None  # how metadata divides the images whose truth is a label
    others: bool  # whether images of other classes are reported

    def system(self, name: str, outcomes: Outcomes) -> System:
        """The outcomes of the images seen: those with a label as they are judged, the others by their class."""
        judged = self.seen.has_label
        return System(
            name,
            self.seen.where(judged).images,
            outcomes.where(judged),
            votes=self.votes,
            slices=self.slices,
            others=_by_class(self.seen, outcomes) if self.others else {},
        )


def judge(options: EvaluateOptions, truth: Truth, which: NDArray[np.bool_]) -> Judged:
    """The images that a mask chooses, with their votes and slices; UsageError where a table does not speak of them."""
    seen = truth.where(which)
    chosen = seen.where(seen.has_label)
    votes, votes_matched = (
        read_votes(options.votes, chosen, options.table) if options.votes is not None else (None, None)
    )
    slices, slices_matched = (
        read_slices(options.slices, chosen, options.table) if options.slices is not None else (None, None)
    )
    counts = np.bincount(chosen.codes, minlength=len(truth.labels)).tolist()
    subject = Subject(
        truth=name_of(options.source),
        labels=truth.labels,
        images=len(chosen.images),
        per_label=dict(zip(truth.labels, counts, strict=True)),
        others=dict(truth.others().most_common()),
        others_kept=options.others,
        without_truth=int((truth.codes == NONE).sum()),
        conflicts=truth.conflicts,
        votes=votes_matched,
        slices=slices_matched,
        slices_left_out=slices.left_out if slices else (),
        classes=parse_classes(options.classes, truth.labels),
    )
    return Judged(seen, subject, votes, slices, options.others)


def _by_class(seen: Truth, outcomes: Outcomes) -> dict[str, Outcomes]:
    """The outcomes of images of classes that are no label, by class."""
    return {
        name: outcomes.where(seen.codes == code)
        for code, name in enumerate(seen.names)
        if code >= len(seen.labels) and (seen.codes == code).any()
    }
