"""The only module that talks: progress, tables and the one-line error, all on stderr but for the answers."""

from __future__ import annotations

import io
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from ferbatch import log, screen
from ferbatch.errors import OutputError
from ferbatch.log import say
from ferbatch.paths import count, encode_path, escape, writing
from ferbatch.records import LARGE_SIDE, MOST_VALUES, NONE, Card, Prediction

if TYPE_CHECKING:  # the error line must not cost an import of torch
    from ferbatch.annotations import Joined
    from ferbatch.datasets import Data
    from ferbatch.evaluate import Evaluation
    from ferbatch.outputs import Output
    from ferbatch.predict import Classifier
    from ferbatch.runs import Run
    from ferbatch.sources import Listing
    from ferbatch.trainer import Epoch
    from ferbatch.truth import Truth

MOST_NAMES = 12  # of classes, on one line
PLAIN_LINE_EVERY = 30.0  # seconds, where progress cannot be drawn


class Progress:
    """Images done, images/s and time left: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, total: int, *, quiet: bool, what: str = "") -> None:
        drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not log.is_json()
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
            said = f"{what}{self.done:,} of {self.total:,} images, {rate:,.0f} images/s, {left} left"
            say(said, event="progress", done=self.done, of=self.total, images_per_second=round(rate, 1))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


class _RunConsole:
    """What every command that labels images shows while it runs."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.progress = Progress(0, quiet=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.bar.close()

    def progressed(self, prediction: Prediction) -> None:
        if prediction.error:
            with self.progress.bar.external_write_mode(file=sys.stderr) if self.verbose else nullcontext():
                say(
                    f"{prediction.path}: {prediction.error_kind}: {prediction.error}",
                    log.WARNING,
                    shown=self.verbose,
                    event="image_failed",
                    path=prediction.path,
                    error_kind=prediction.error_kind,
                    error=prediction.error,
                )
        self.progress.tick()


class LabelConsole(_RunConsole):
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
                self._show(_report_text(run.report, _is_terminal(sys.stderr)) + "\n")
            self._show(_drawn(_summary(run), _is_terminal(sys.stderr)))
        self._said(run, output)
        if run.whole_pictures:
            say(
                f"warning: {tally.whole_pictures:,} of {tally.images:,} images are over {LARGE_SIDE} px on a side or"
                " wider than 3:2; whole pictures were labelled, and cropped faces are expected",
                log.WARNING,
                shown=not self.quiet,
            )
        self._failed(run)
        if run.too_many_errors:
            fail(f"--max-errors: {run.this_run.failed:,} images failed, over {run.max_errors}", run.exit_code)

    def _said(self, run: Run, output: Output) -> None:
        """How many images in which time, and what became of the others."""
        tally, shown = run.tally, not self.quiet
        aside = f"; {run.listing.aside}" if run.listing.aside else ""
        where = f" -> {output.shown}" if output.is_file else ""
        part = f"{run.processed:,} of " if run.processed < tally.images else ""
        say(
            f"{part}{count(tally.images, 'image')} in {run.seconds:.1f} s ({run.images_per_second:,.0f} images/s)"
            f"{where}{aside}",
            shown=shown,
            event="finished",
            images=tally.images,
            processed=run.processed,
            labels=dict(tally.labels),
            uncertain=tally.uncertain,
            errors=dict(tally.errors),
            seconds=round(run.seconds, 3),
            exit_code=run.exit_code,
        )
        if run.gone:
            are = "is" if run.gone == 1 else "are"
            said = (
                f"{count(run.gone, 'image')} labelled before {are} gone, and their rows with them ({run.gone_example})"
            )
            say(said, log.WARNING, shown=shown or run.many_gone, event="gone", images=run.gone)
        if run.report is not None and shown:
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
            say(f"report: {encode_path(os.fsencode(output.report))}.html, .md, .json")


class EvaluateConsole(_RunConsole):
    """What `ferbatch evaluate` shows while it runs and when it is done."""

    def known(self, truth: Truth, others: bool) -> None:
        """What the truth holds besides the labels."""
        if self.quiet:
            return
        others_there = truth.others()
        named = ", ".join(f"{name} ({n:,})" for name, n in others_there.most_common(MOST_NAMES))
        if len(others_there) > MOST_NAMES:
            named += f" and {len(others_there) - MOST_NAMES:,} classes more"
        if named and others:
            say(f"kept as none of these: {named}")
        elif named:
            say(f"left out, for they are no labels: {named} (--classes says what they mean, --others keeps them)")
        if n := int((truth.codes == NONE).sum()):
            say(f"{count(n, 'image')} without a class left out")
        if truth.conflicts:
            say(f"{count(truth.conflicts, 'path')} with two different labels left out")
        if truth.unused:
            say(f"--classes: nothing is called {', '.join(truth.unused)}")
        if truth.aside:
            say(truth.aside)

    def joined(self, what: str, joined: Joined) -> None:
        """Which images a table says nothing of, and which of its rows speak of no image."""
        if self.quiet:
            return
        parts = []
        if joined.missing:
            parts.append(f"no row for {count(joined.missing, 'image')}, {joined.missing_example} for one")
        if joined.surplus and (what == "labels" or self.verbose):
            parts.append(f"no image for {count(joined.surplus, 'row')}, {joined.surplus_example} for one")
        if joined.ambiguous:
            parts.append(f"{joined.ambiguous:,} not joined, for they could be more than one")
        if joined.by_tail and (what == "labels" or self.verbose):
            parts.append(f"{count(joined.by_tail, 'image')} joined by the end of the path")
        if parts:
            say(f"{what}, {joined.file}: {'; '.join(parts)}")

    def left_out(self, columns: tuple[str, ...]) -> None:
        """Columns of metadata that are no use as slices."""
        if columns and not self.quiet:
            say(f"metadata: no slices by {', '.join(columns)}: one value only, or more than {MOST_VALUES}")

    def started(self, images: int, name: str, device: str) -> None:
        if self.verbose:
            say(f"{name} on {device}: {count(images, 'image')}")
        self.progress = Progress(images, quiet=self.quiet, what=name)
        self.start = time.monotonic()
        self.failures: Counter[str] = Counter()
        self.example = ""

    def progressed(self, prediction: Prediction) -> None:
        super().progressed(prediction)
        if prediction.error_kind:
            self.example = self.example or prediction.path
            self.failures[prediction.error_kind] += 1

    def labelled(self, name: str) -> None:
        """How fast a model was."""
        self.progress.bar.close()
        seconds = time.monotonic() - self.start
        if not self.quiet:
            n = self.progress.done
            say(f"{name}: {count(n, 'image')} in {seconds:.1f} s ({n / max(seconds, 1e-9):,.0f} images/s)")

    def finished(self, evaluation: Evaluation, *, json: str | None) -> None:
        """The answer on stdout, then what fell short; with --quiet only the JSON that was asked for, and the latter."""
        if json is not None:
            answer(json.rstrip("\n"))
        elif not self.quiet:
            answer(_report_text(evaluation.report, _is_terminal(sys.stdout)))
        if evaluation.folder and not self.quiet:
            say(f"report: {encode_path(os.fsencode(evaluation.folder.file('report.html')))}")
        if evaluation.failed:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in self.failures.most_common())
            say(f"{count(self.failures.total(), 'image')} could not be labelled ({kinds}), {self.example} for one")
        if evaluation.missed:
            fail("--fail-under: " + "; ".join(evaluation.missed), evaluation.exit_code)


def _report_text(report: Mapping[str, Any], terminal: bool) -> str:
    coloured = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return "\n".join(
        part.plain if isinstance(part, Text) and not terminal else _drawn(part, terminal)  # no line is broken in a file
        for part in screen.drawn(report, coloured=coloured)
    )


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

    def note(self, sentence: str) -> None:
        """What the user should know of the run, though it goes on."""
        if not self.quiet:
            say(sentence)

    def read(self, data: Data) -> None:
        """What will be trained on, and each image that will not."""
        for path, reason in data.skipped:
            say(f"left out: {path}: {reason}")
        if not self.quiet:
            votes = ", with people's votes" if data.has_votes else ""
            say(f"{len(data.train):,} images to train on, {len(data.validation):,} to validate with{votes}")

    def epoch(self, epoch: Epoch, of: int) -> None:
        if not self.quiet:
            agreement = epoch.validation_agreement
            people = "" if agreement is None else f", people {agreement:.4f}"
            say(
                f"epoch {epoch.epoch:>3} of {of}: loss {epoch.train_loss:.3f}, train {epoch.train_accuracy:.3f},"
                f" validation {epoch.validation_accuracy:.4f}{people}{' *' if epoch.best else ''}"
            )

    def finished(self, card: Card, path: str) -> None:
        if not self.quiet:
            score = card.scores[0]
            said = f"epoch {card.recipe['best_epoch']}, validation {score['value']:.4f} (n = {score['n']:,})"
            say(f"{path}: {said}, temperature {card.temperature:g}")


def converted(card: Card, output: Path, *, quiet: bool) -> None:
    """What `ferbatch convert` wrote."""
    if not quiet:
        said = f"{card.parameters:,} parameters, {card.size}x{card.size} pixels, labels {', '.join(card.labels)}"
        say(f"{escape(str(output))}: {said}; ferbatch label IMAGES --model {escape(str(output))}")


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
    answer(_drawn(table, _is_terminal(sys.stdout)))


PEER_ROWS = {"naive": "plain PyTorch, Pillow", "fer": "fer (TFLite)"}
BENCH_ROWS = {  # figure -> what the table calls it
    "read": "reading the files",
    "decode": "reading and decoding",
    "forward": "the network alone",
    "limit": "the limit of both",
    "end_to_end": "ferbatch label",
}


def show_bench(found: Mapping[str, Any]) -> None:
    """The benchmark's tables, to stdout."""
    machine, drawn = found["machine"], found["images"]["drawn"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    what = f"{drawn}, drawn" if drawn else f"{found['images']['bytes'] / found['images']['n'] / 1000:,.1f} kB each"
    lines = [
        f"{machine['cores']} cores of {machine['cpu']}{gpu}; PyTorch {found['torch']}; {found['decoder']}",
        f"{count(found['images']['n'], 'image')} ({what}); medians of {count(found['rounds'], 'round')}",
    ]
    models = found["models"]
    peers = [name for name in models[0]["median"] if name in PEER_ROWS]
    table = Table("images/s", box=None, pad_edge=False)
    for one in models:
        table.add_column(f"{escape(one['model'])} ({one['precision']}, {one['device']})", justify="right")
    for name, called in (BENCH_ROWS | {name: PEER_ROWS[name] for name in peers}).items():
        table.add_row(called, *(f"{one['median'][name]:,.0f}" for one in models))
    for name in ("limit", "decode", *peers):
        called = (BENCH_ROWS | PEER_ROWS)[name]
        table.add_row(f"ferbatch label / {called}", *(f"{one['median'][f'end_to_end / {name}']:.2f}" for one in models))
    alone = found["memory_of_torch_alone"]
    for called, less in ("peak memory, MB", 0.0), ("more than PyTorch alone, MB", alone or 0.0):
        known = [one["peak_memory"] for one in models]
        table.add_row(called, *("unknown" if peak is None else f"{peak - less:,.0f}" for peak in known))
    seconds = found["seconds"]
    lines += ["", _drawn(table, _is_terminal(sys.stdout)), ""]
    lines.append(
        f"start-up: one image in {seconds['one_image']:.2f} s; ferbatch --help {seconds['help']:.2f} s,"
        f" {seconds['help / import_typer']:.1f} times what importing typer takes"
    )
    for one in models:
        if best := one["recommended"]:
            lines.append(
                f"{escape(one['model'])}: recommended are --workers {best['workers']} and --batch-size"
                f" {best['batch_size']} ({best['options'] or 'the defaults'})"
            )
    answer("\n".join(lines))


def _drawn(what: RenderableType, terminal: bool) -> str:
    """What rich draws as text, drawn apart from the stream it goes to: rich has its own ways with one that fails.

    A table is as wide as it needs to be, even where the terminal is not: no number is ever cut.
    """
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, highlight=False, width=None if terminal else 120)
    if isinstance(what, Table):
        console.width = max(console.width, console.measure(what, options=console.options.update(width=1000)).maximum)
    console.print(what)
    return text.getvalue().rstrip("\n")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def answer(text: str) -> None:
    """A command's answer to stdout; OutputError if it cannot be written."""
    if sys.stdout is None:
        raise OutputError("stdout is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="replace")
    with writing("stdout"):
        print(text)
        sys.stdout.flush()


def fail(message: str, exit_code: int) -> None:
    """The one line that says why a run ended."""
    say(f"ferbatch: {message}", log.ERROR, message=message, event="ended", exit_code=exit_code)
