"""What `ferbatch label` shows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ferbatch.core.names import count, escape, shown
from ferbatch.core.records import LARGE_SIDE
from ferbatch.shell import log
from ferbatch.shell.console import Progress, RunConsole, as_text, fail, is_terminal, report_text
from ferbatch.shell.log import say

if TYPE_CHECKING:
    from ferbatch.commands.label.output import Output
    from ferbatch.commands.label.result import Run
    from ferbatch.sources.listing import Listing
    from ferbatch.stream.classifier import Classifier


class LabelConsole(RunConsole):
    """What `ferbatch label` shows while it runs and when it is done."""

    def warned(self, sentence: str) -> None:
        """What a user should hear of even if all goes well, and with --quiet."""
        say(sentence, log.WARNING, event="note")

    def started(self, listing: Listing, classifier: Classifier, to_label: int) -> None:
        aside = f", {listing.aside}" if listing.aside else ""
        known = f", {to_label:,} to label, the others are done" if to_label < len(listing) else ""
        model = f"model {escape(classifier.card.name)} on {classifier.device}"
        say(
            f"{count(len(listing), 'image')}{known}{aside}; {model}",
            shown=self.verbose,
            event="started",
            images=len(listing),
            to_label=to_label,
        )
        self.progress = Progress(to_label, quiet=self.quiet)

    def finished(self, run: Run | None, output: Output) -> None:
        """The summary, the report, and what went wrong; with --quiet only the last."""
        if run is None:
            say(f"{output.shown} is finished: there is nothing to resume", shown=not self.quiet, event="finished")
            return
        tally = run.tally
        if not self.quiet:
            if run.report is not None:
                self._show(report_text(run.report, is_terminal(sys.stderr)) + "\n")
            self._show(as_text(_summary(run), is_terminal(sys.stderr)))
        self._said(run, output)
        if tally.searched:
            found = f"{count(tally.searched, 'image')} searched: {count(tally.faces, 'face')}"
            none = f", none in {tally.no_face:,} of them" if tally.no_face else ""
            whole = f"; {count(tally.whole, 'image')} taken whole" if tally.whole else ""
            say(f"{found}{none}{whole}", shown=not self.quiet)
        if run.whole_pictures:
            say(
                f"warning: {tally.whole_pictures:,} of {tally.images:,} images are over {LARGE_SIDE} px on a side or"
                " wider than 3:2; --faces whole takes each for one face (auto and detect look for faces)",
                log.WARNING,
                shown=not self.quiet,
            )
        self._failed(run)
        if run.too_many_errors:
            fail(f"--max-errors: {run.this_run.failed:,} images failed, over {run.max_errors}", run.exit_code)

    def _said(self, run: Run, output: Output) -> None:
        """How many images in which time, and what became of the others."""
        tally, aloud = run.tally, not self.quiet
        aside = f"; {run.listing.aside}" if run.listing.aside else ""
        where = f" -> {output.shown}" if output.is_file else ""
        part = f"{run.processed:,} of " if run.processed < tally.images else ""
        say(
            f"{part}{count(tally.images, 'image')} in {run.seconds:.1f} s ({run.images_per_second:,.0f} images/s)"
            f"{where}{aside}",
            shown=aloud,
            event="finished",
            images=tally.images,
            processed=run.processed,
            labels=dict(tally.labels),
            uncertain=tally.uncertain,
            searched=tally.searched,
            faces=tally.faces,
            no_face=tally.no_face,
            errors=dict(tally.errors),
            seconds=round(run.seconds, 3),
            exit_code=run.exit_code,
        )
        if run.gone:
            are = "is" if run.gone == 1 else "are"
            said = (
                f"{count(run.gone, 'image')} labelled before {are} gone, and their rows with them ({run.gone_example})"
            )
            say(said, log.WARNING, shown=aloud or run.many_gone, event="gone", images=run.gone)
        if run.report is not None and aloud:
            self._scored(run, output)

    @staticmethod
    def _show(table: str) -> None:
        """A table, where people read."""
        if not log.is_json():
            log.show(table)

    def _failed(self, run: Run) -> None:
        """The images of this run that failed, and how many did in the runs before it."""
        new, old = run.this_run, run.tally.failed - run.this_run.failed
        if new.failed:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in new.errors.most_common())
            said = f"{new.failed:,} of {count(new.images, 'image')} could not be labelled ({kinds})"
            say(
                f"{said}; each has its row, {new.failed_example} for one",
                log.WARNING,
                event="failed",
                images=new.failed,
            )
        if new.unlistable:
            say(f"{count(new.unlistable, 'folder')} could not be listed", log.WARNING, event="unlistable")
        if old:
            said = f"{count(old, 'image')} could not be labelled by earlier runs (--retry-failed tries again)"
            say(said, shown=not self.quiet, event="failed_before", images=old)

    def _scored(self, run: Run, output: Output) -> None:
        """What the report rests on, where that is not every image, and where it is."""
        if run.tally.uncertain:
            n = count(run.tally.uncertain, "image")
            say(f"{n} uncertain (under --min-confidence), in the table with the label they have")
        if run.tally.without_truth:
            others = run.report["subject"]["others"] if run.report else {}
            named = f" ({', '.join(f'{name} {n:,}' for name, n in others.items())})" if others else ""
            say(f"{count(run.tally.without_truth, 'image')} without truth, not scored{named}")
        if output.is_file:
            say(f"report: {shown(output.report)}.html, .md, .json")


def _summary(run: Run) -> Table:
    tally = run.tally
    table = Table("label", box=None, pad_edge=False)
    table.add_column("faces" if tally.searched else "images", justify="right")
    table.add_column("share", justify="right")
    rows = [(label, tally.labels[label]) for label in run.labels]
    rows += [("no face", tally.no_face)] if tally.no_face else []
    rows += [("error", tally.failed)] if tally.failed else []
    of = sum(n for _, n in rows)
    for name, n in rows:
        table.add_row(Text(name), f"{n:,}", f"{n / of:.1%}")
    if tally.uncertain:
        table.add_row(Text("of these uncertain"), f"{tally.uncertain:,}", f"{tally.uncertain / of:.1%}")
    return table
