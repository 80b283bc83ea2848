"""The only module that talks: progress, tables and the one-line error, all on stderr but for the answers."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from ferbatch.paths import count, escape, writing
from ferbatch.records import LARGE_SIDE, Card, Prediction

if TYPE_CHECKING:  # the error line must not cost an import of torch
    from ferbatch.datasets import Splits
    from ferbatch.labelling import Run
    from ferbatch.outputs import Output
    from ferbatch.predict import Classifier
    from ferbatch.sources import Listing
    from ferbatch.train import Epoch

PLAIN_LINE_EVERY = 30.0  # seconds, where progress cannot be drawn


class Progress:
    """Images done, images/s and time left: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, total: int, *, quiet: bool, what: str = "") -> None:
        drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.bar = tqdm(total=total, unit=" images", desc=what or None, disable=quiet or not drawn, dynamic_ncols=True)
        self.plain = not quiet and not drawn
        self.total, self.done, self.what = total, 0, what
        self.start = self.said = time.monotonic()

    def tick(self, n: int = 1) -> None:
        self.done += n
        self.bar.update(n)
        now = time.monotonic()
        if self.plain and now - self.said >= PLAIN_LINE_EVERY:
            self.said = now
            rate = self.done / (now - self.start)
            left = tqdm.format_interval((self.total - self.done) / rate)
            what = f"{self.what}: " if self.what else ""
            say(f"{what}{self.done:,} of {self.total:,} images, {rate:,.0f} images/s, {left} left")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


class LabelConsole:
    """What `ferbatch label` shows while it runs and when it is done."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.progress = Progress(0, quiet=True)

    def __enter__(self) -> LabelConsole:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.bar.close()

    def started(self, listing: Listing, classifier: Classifier) -> None:
        if self.verbose:
            aside = f", {listing.aside}" if listing.aside else ""
            say(f"{count(len(listing), 'image')}{aside}; model {escape(classifier.card.name)} on {classifier.device}")
        self.progress = Progress(len(listing), quiet=self.quiet)

    def progressed(self, prediction: Prediction) -> None:
        if self.verbose and prediction.error:
            with self.progress.bar.external_write_mode(file=sys.stderr):
                say(f"{prediction.path}: {prediction.error_kind}: {prediction.error}")
        self.progress.tick()

    def finished(self, run: Run, output: Output) -> None:
        """The summary, the report, and what went wrong; with --quiet only the last."""
        tally = run.tally
        if not self.quiet:
            if run.report is not None:
                say(run.report)
            say(_drawn(_summary(run), sys.stderr.isatty()))
            aside = f"; {run.listing.aside}" if run.listing.aside else ""
            where = f" -> {output.shown}" if output.is_file else ""
            speed = f"{run.seconds:.1f} s ({run.images_per_second:,.0f} images/s)"
            say(f"{count(tally.images, 'image')} in {speed}{where}{aside}")
        if run.whole_pictures and not self.quiet:
            say(
                f"warning: {tally.whole_pictures:,} of {tally.images:,} images are over {LARGE_SIDE} px on a side or"
                " wider than 3:2; whole pictures were labelled, and cropped faces are expected"
            )
        if tally.failed:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in tally.errors.most_common())
            say(f"{tally.failed:,} of {count(tally.images, 'image')} could not be labelled ({kinds}); each has its row")


def _summary(run: Run) -> Table:
    tally = run.tally
    table = Table("label", box=None, pad_edge=False)
    table.add_column("images", justify="right")
    table.add_column("share", justify="right")
    rows = [(label, tally.labels[label]) for label in run.labels]
    rows += [("error", tally.failed)] if tally.failed else []
    for name, n in rows:
        table.add_row(Text(name), f"{n:,}", f"{n / tally.images:.1%}")
    if tally.uncertain:
        table.add_row(Text("of these uncertain"), f"{tally.uncertain:,}", f"{tally.uncertain / tally.images:.1%}")
    return table


class TrainConsole:
    """What `ferbatch train` shows."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def progress(self, total: int, what: str) -> Progress:
        return Progress(total, quiet=self.quiet, what=what)

    def splits(self, splits: Splits) -> None:
        """What will be trained on, and each image that will not."""
        for path, reason in splits.skipped:
            say(f"left out: {path}: {reason}")
        if not self.quiet:
            say(f"{len(splits.train):,} images to train on, {len(splits.validation):,} to validate with")

    def epoch(self, epoch: Epoch, of: int) -> None:
        if not self.quiet:
            say(
                f"epoch {epoch.number:>3} of {of}: loss {epoch.loss:.3f}, train {epoch.train_accuracy:.3f},"
                f" validation {epoch.correct / epoch.n:.4f}{' *' if epoch.best else ''}"
            )

    def finished(self, card: Card, path: str) -> None:
        if not self.quiet:
            score = card.scores[0]
            say(f"{path}: epoch {card.recipe['best_epoch']}, validation {score['value']:.4f} (n = {score['n']:,})")


def show_models(cards: Sequence[Card]) -> None:
    """The models table, to stdout."""
    table = Table("model", "architecture", box=None, pad_edge=False)
    for name in ("parameters", "multiply-adds", "validation accuracy"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("sha256")
    for card in cards:
        score = card.scores[0] if card.scores else None
        accuracy = "not measured"
        if score:
            low, high = score["interval_95"]
            accuracy = f"{score['value']:.3f} ({low:.3f} to {high:.3f}, n = {score['n']:,})"
        names = (escape(card.name), escape(card.architecture))
        figures = (f"{card.parameters:,}", f"{card.multiply_adds:,}", accuracy, card.sha256[:12])
        table.add_row(*map(Text, names + figures))
    answer(_drawn(table, sys.stdout.isatty()))


def _drawn(table: Table, terminal: bool) -> str:
    """A table as text, drawn apart from the stream it goes to: rich has its own ways with one that fails."""
    text = io.StringIO()
    Console(file=text, force_terminal=terminal, highlight=False, width=None if terminal else 120).print(table)
    return text.getvalue().rstrip("\n")


def say(message: str) -> None:
    """One message to stderr, lost if nobody can read it. Names in it were escaped by whoever made it."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:  # what stays in the buffer would fail again at exit, and make the exit code 120
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def answer(text: str) -> None:
    """A command's answer to stdout; OutputError if it cannot be written."""
    with writing("stdout"):
        print(text)
        sys.stdout.flush()


def fail(message: str) -> None:
    """The one line that says why a run ended."""
    say(f"ferbatch: {message}")
