"""Where the rows of a run go, image after image."""

from __future__ import annotations

from collections.abc import Sequence

from ferbatch.commands.label.journal import Journal
from ferbatch.commands.label.result import Tally
from ferbatch.core.records import Prediction
from ferbatch.core.writers import Writer
from ferbatch.scoring.outcomes import Outcomes


class Recorder:
    """Takes the rows of every image of a listing, in order: to the labels, the journal, the counts, the outcomes."""

    def __init__(
        self, writer: Writer, journal: Journal | None, outcomes: Outcomes | None, brings_up_to_date: bool
    ) -> None:
        """Begin with nothing.

        writer: of the labels.
        journal: of the run; None where the labels go to stdout.
        outcomes: what the report is made from, for as many images as the listing has; None where there is no report.
        brings_up_to_date: whether rows of an earlier run are among the labels, which count for the output alone.
        """
        self.writer, self.journal, self.outcomes = writer, journal, outcomes
        self.tally = Tally()  # of all rows
        self.this_run = Tally() if brings_up_to_date else self.tally  # without those of an earlier run

    def add(self, rows: Sequence[Prediction], whole_picture: bool, line: bytes | None, *, old: bool = False) -> None:
        """The rows of the next image.

        rows: the image's, one or more.
        whole_picture: whether it is too large or too wide for a cropped face, and was taken for one.
        line: what the journal is to say of it; None where it says so already, or there is none.
        old: whether the rows are those of an earlier run.
        """
        if self.journal and line is not None:
            self.journal.add(line)
        for row in rows:
            self.writer.write(row)
        if self.outcomes:
            self.outcomes.put(self.tally.images, rows[0])
        self.tally.add(rows, whole_picture)
        if not old and self.this_run is not self.tally:
            self.this_run.add(rows, whole_picture)
