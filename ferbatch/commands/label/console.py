"""What `ferbatch label` shows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ferbatch.core.names import count, escape
from ferbatch.core.records import LARGE_SIDE
from ferbatch.model.weights import UNKNOWN_ACCURACY
from ferbatch.shell import log
from ferbatch.shell.console import Progress, RunConsole, as_text, is_terminal, report_text
from ferbatch.shell.log import fail, say
from ferbatch.sources.aside import by_kind

NO_FACE_SHARE = 0.1  # of the images; where more show no face, the user is told of --faces whole
WHOLE_PICTURE_SHARE = 0.1  # of the images; where more are too large or wide for cropped faces, the user is warned
MOST_ROWS = 30  # labels of the summary; more are added up

if TYPE_CHECKING:
    from ferbatch.commands.label.merge import Merged
    from ferbatch.commands.label.output import Output
    from ferbatch.commands.label.result import Result
    from ferbatch.sources.listing import Listing
    from ferbatch.stream.classifier import Classifier
    from ferbatch.stream.ray_engine import RayEngine
    from ferbatch.stream.recorder import Tally


class LabelConsole(RunConsole):
    """What `ferbatch label` shows while it runs and when it is done."""

    def warned(self, sentence: str) -> None:
        """What a user should hear of even if all goes well, and with --quiet."""
        say(sentence, log.WARNING, event="note")

    def noted(self, sentence: str) -> None:
        """What a user should hear of, but not with --quiet."""
        say(sentence, shown=not self.quiet, event="note")

    def started(self, listing: Listing, classifier: Classifier | RayEngine, to_label: int) -> None:
        aside = f", {listing.aside}" if listing.aside else ""
        known = f", {to_label:,} to label, the others are done" if to_label < len(listing) else ""
        model = f"model {escape(classifier.card.name)} on {classifier.device}"
        said = f"{count(len(listing), 'image')}{known}{aside}; {model}"
        say(said, shown=self.verbose, event="started", images=len(listing), to_label=to_label)
        if not classifier.card.scores:
            said = f"{escape(classifier.card.name)}: {UNKNOWN_ACCURACY[0].lower()}{UNKNOWN_ACCURACY[1:-1]}"
            say(said, log.WARNING, shown=not self.quiet, event="unknown_accuracy")
        self.progress = Progress(to_label, quiet=self.quiet)

    def finished(self, result: Result | None, output: Output) -> None:
        """The summary, the report, and what went wrong; with --quiet only the last."""
        if result is None:
            say(f"{output.shown} is finished: there is nothing to resume", shown=not self.quiet, event="finished")
            return
        tally = result.tally
        if not self.quiet and not log.is_json():  # people read it
            if result.report is not None:
                log.show(report_text(result.report, is_terminal(sys.stderr)) + "\n")
            log.show(as_text(_summary(tally, result.labels), is_terminal(sys.stderr)))
        self._said(result, output)
        if tally.searched:
            found = f"{count(tally.searched, 'image')} searched: {count(tally.faces, 'face')}"
            none = f", none in {tally.no_face:,} of them" if tally.no_face else ""
            turned = f" ({tally.turned:,} lying or hanging)" if tally.turned else ""
            whole = f"; {count(tally.whole, 'image')} taken whole" if tally.whole else ""
            missed = f", {tally.missed:,} of them small without a face" if tally.missed else ""
            say(f"{found}{turned}{none}{whole}{missed}", shown=not self.quiet)
        if tally.no_face > NO_FACE_SHARE * tally.images:
            say(
                f"{tally.no_face:,} of {count(tally.images, 'image')} without a face: if they are cropped faces,"
                " --faces whole takes each as it is",
                shown=not self.quiet,
            )
        if tally.whole_pictures > WHOLE_PICTURE_SHARE * tally.images:
            are = "is" if tally.whole_pictures == 1 else "are"
            say(
                f"warning: {tally.whole_pictures:,} of {count(tally.images, 'image')} {are} over {LARGE_SIDE} px on a"
                " side or wider than 3:2; --faces whole takes each for one face (auto and detect look for faces)",
                log.WARNING,
                shown=not self.quiet,
            )
        self._failed(result)
        if result.too_many_errors:
            fail(
                f"--max-errors: {count(result.this_run.failed, 'image')} failed, over {result.job.options.max_errors}",
                result.exit_code,
            )

    def _said(self, result: Result, output: Output) -> None:
        """How many images in which time, and what became of the others."""
        tally, aloud = result.tally, not self.quiet
        aside = f"; {result.job.work.listing.aside}" if result.job.work.listing.aside else ""
        where = f" -> {output.shown}" if output.lasts else ""
        part = f"{result.processed:,} of " if result.processed < tally.images else ""
        say(
            f"{part}{count(tally.images, 'image')} in {result.seconds:.1f} s ({result.images_per_second:,.0f} images/s)"
            f"{where}{aside}",
            shown=aloud,
            event="finished",
            images=tally.images,
            processed=result.processed,
            labels=dict(tally.labels),
            uncertain=tally.uncertain,
            searched=tally.searched,
            faces=tally.faces,
            no_face=tally.no_face,
            errors=dict(tally.errors),
            aside=by_kind(result.job.work.listing.left),
            allowed=dict(tally.allowed),
            seconds=round(result.seconds, 3),
            exit_code=result.exit_code,
        )
        if result.gone:
            gone = "gone, or left aside now" if result.job.new_rules else "gone"
            theirs = f"is {gone}, and its row with it" if result.gone == 1 else f"are {gone}, and their rows with them"
            said = f"{count(result.gone, 'image')} labelled before {theirs} ({result.gone_example})"
            say(said, log.WARNING, shown=aloud or result.many_gone, event="gone", images=result.gone)
        if result.report is not None and aloud:
            self._scored(result, output)

    def _failed(self, result: Result) -> None:
        """The images of this run that failed, and how many did in the runs before it."""
        new, old = result.this_run, result.tally.failed - result.this_run.failed
        if new.failed:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in new.errors.most_common())
            said = f"{new.failed:,} of {count(new.images, 'image')} could not be labelled ({kinds})"
            said += f"; each has its row, {new.failed_example} for one"
            say(said, log.WARNING, event="failed", images=new.failed)
        if new.unlistable:
            say(f"{count(new.unlistable, 'folder')} could not be listed", log.WARNING, event="unlistable")
        if old:
            said = f"{count(old, 'image')} could not be labelled by earlier runs (--retry-failed tries again)"
            say(said, shown=not self.quiet, event="failed_before", images=old)

    def _scored(self, result: Result, output: Output) -> None:
        """What the report rests on, where that is not every image, and where it is."""
        if result.tally.uncertain:
            n = count(result.tally.uncertain, "image")
            say(f"{n} uncertain, in the table with the label they have")
        if result.tally.without_truth:
            others = result.report["subject"]["others"] if result.report else {}
            named = f" ({', '.join(f'{name} {n:,}' for name, n in others.items())})" if others else ""
            say(f"{count(result.tally.without_truth, 'image')} without truth, not scored{named}")
        if output.is_file:
            say(f"report: {output.of_report}.html, .md, .json")


def merged(whole: Merged, *, quiet: bool) -> None:
    """What `ferbatch merge` says when it is done."""
    tally, output = whole.tally, whole.output
    if not quiet and not log.is_json():
        if whole.report is not None:
            log.show(report_text(whole.report, is_terminal(sys.stderr)) + "\n")
        log.show(as_text(_summary(tally, whole.labels), is_terminal(sys.stderr)))
    where = f" -> {output.shown}" if output.lasts else ""
    said = f"{count(whole.parts, 'part')}, {count(tally.images, 'image')}{where}"
    say(said, shown=not quiet, event="merged", images=tally.images, parts=whole.parts)
    if whole.report is not None and output.is_file:
        say(f"report: {output.of_report}.html, .md, .json", shown=not quiet)
    if tally.failed:
        said = f"{tally.failed:,} of {count(tally.images, 'image')} could not be labelled; each has its row"
        say(f"{said}, {tally.failed_example} for one", log.WARNING, event="failed", images=tally.failed)


def _summary(tally: Tally, labels: Sequence[str]) -> Table:
    table = Table("label", box=None, pad_edge=False)
    table.add_column("faces" if tally.searched else "images", justify="right")
    table.add_column("share", justify="right")
    counted = sorted(labels, key=lambda label: -tally.labels[label])
    named = [label for label in labels if label in {*counted[:MOST_ROWS]}]
    rows = [(label, tally.labels[label]) for label in named]
    if others := counted[MOST_ROWS:]:
        rows.append((f"{count(len(others), 'label')} more", sum(tally.labels[label] for label in others)))
    rows += [("no face", tally.no_face)] if tally.no_face else []
    rows += [("error", tally.failed)] if tally.failed else []
    rows += [(f"{kind} (allowed)", n) for kind, n in tally.allowed.most_common()]
    of = sum(n for _, n in rows)
    for name, n in rows:
        table.add_row(Text(name), f"{n:,}", f"{n / of:.1%}")
    if tally.uncertain:
        table.add_row(Text("of these uncertain"), f"{tally.uncertain:,}", f"{tally.uncertain / of:.1%}")
    return table
