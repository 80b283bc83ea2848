"""Where a run's rows go, batch after batch: to the labels, the journal, the counts and the outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import Batch
from ferbatch.core.records import TURNED, UNLISTABLE
from ferbatch.core.writers import Writer
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.stream.journal import Journal


@dataclass
class Tally:
    """Counts of a run, kept while it streams: of images but where they are of faces."""

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)  # given to faces and to images that were taken whole
    searched: int = 0  # images that faces were looked for in
    faces: int = 0  # found in the images that were searched
    no_face: int = 0  # images that were searched without finding a face
    missed: int = 0  # images that were taken whole though no face was found in them
    turned: int = 0  # faces that are turned by more than TURNED degrees
    allowed_kinds: Collection[str] = ()  # of errors that do not count as failures
    errors: Counter[str] = field(default_factory=Counter)  # by error_kind
    allowed: Counter[str] = field(default_factory=Counter)  # the same, of allowed_kinds
    failed_example: str = ""  # the path of the first image that failed
    unlistable: int = 0  # folders that could not be looked into
    uncertain: int = 0
    whole_pictures: int = 0
    without_truth: int = 0

    def add(self, batch: Batch, labels: Sequence[str]) -> None:
        """Images that a model with these labels was asked about."""
        given = np.bincount(batch.best, minlength=len(labels)).tolist()
        self.images += len(batch)
        self.labels.update({label: n for label, n in zip(labels, given, strict=True) if n})
        self.searched += int(batch.searched.sum())
        self.faces += int(batch.searched[batch.image].sum())
        self.no_face += int(batch.faceless.sum())
        self.missed += int(batch.missed.sum())
        self.turned += int((np.abs(batch.turns) > TURNED).sum())
        self.uncertain += int(batch.uncertain.sum())
        self.whole_pictures += int(batch.large.sum())
        self.without_truth += batch.references.truths.count(None)
        for place, failure in sorted(batch.failures.items()):
            if failure.kind in self.allowed_kinds:
                self.allowed[failure.kind] += 1
                continue
            self.errors[failure.kind] += 1
            self.failed_example = self.failed_example or batch.references.paths[place]
            self.unlistable += failure.message == UNLISTABLE

    @property
    def whole(self) -> int:
        """Images that were taken whole."""
        return self.images - self.failed - self.allowed.total() - self.searched

    @property
    def failed(self) -> int:
        return self.errors.total()


class Recorder:
    """Takes every batch of a listing, in order."""

    def __init__(
        self,
        writer: Writer,
        journal: Journal | None,
        outcomes: Outcomes | None,
        *,
        brings_up_to_date: bool = False,
        allowed: Collection[str] = (),
        rows_stay: bool = False,
    ) -> None:
        """Begin with nothing.

        writer: of the labels.
        journal: of the run; None where the labels go to stdout, which shall see them at once.
        outcomes: what the report is made from, for as many images as the listing has; None where there is no report.
        brings_up_to_date: whether rows of an earlier run are among the labels.
        allowed: kinds of errors that are no failures of the run.
        rows_stay: whether rows that were written before are where the writer writes to, and need not be written again.
        """
        self.writer, self.journal, self.outcomes = writer, journal, outcomes
        self.rows_stay = rows_stay
        self.tally = Tally(allowed_kinds=allowed)  # of all rows
        # Without those of an earlier run:
        self.this_run = Tally(allowed_kinds=allowed) if brings_up_to_date else self.tally

    def add(self, batch: Batch, known: NDArray[np.bool_], old: NDArray[np.bool_]) -> None:
        """The next images.

        known: (N,) which of them the journal has lines about already.
        old: (N,) which of them have the rows of an earlier run, which count for the output alone.
        """
        if not len(batch):
            return
        if self.journal:
            self.journal.add(batch.where(~known))
        labels = self.writer.labels
        self.writer.write(batch.where(~(known | old)) if self.rows_stay else batch)
        if not self.journal:
            self.writer.flush()
        if self.outcomes:
            self.outcomes.put(self.tally.images, batch, labels)
        self.tally.add(batch, labels)
        if self.this_run is not self.tally:
            self.this_run.add(batch.where(~old), labels)
