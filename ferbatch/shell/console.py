"""What all commands say alike: progress, answers and the one-line error, all on stderr but for the answers.

Only this module and the commands' console modules talk, each by way of `log`.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from ferbatch.core.errors import OutputError
from ferbatch.core.files import writing
from ferbatch.core.names import count
from ferbatch.report import terminal as report_terminal
from ferbatch.shell import log
from ferbatch.shell.log import say

if TYPE_CHECKING:
    from ferbatch.core.batch import Batch

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
            said = f"{what}{self.done:,} of {count(self.total, 'image')}, {rate:,.0f} images/s, {left} left"
            say(said, event="progress", done=self.done, of=self.total, images_per_second=round(rate, 1))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


class RunConsole:
    """What every command that labels images shows while it runs."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.progress = Progress(0, quiet=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.bar.close()

    def progressed(self, batch: Batch) -> None:
        for place, failure in sorted(batch.failures.items()):
            path = batch.references.paths[place]
            with self.progress.bar.external_write_mode(file=sys.stderr) if self.verbose else nullcontext():
                say(
                    f"{path}: {failure.kind}: {failure.message}",
                    log.WARNING,
                    shown=self.verbose,
                    event="image_failed",
                    path=path,
                    error_kind=failure.kind,
                    error=failure.message,
                )
        self.progress.tick(len(batch))


def report_text(report: Mapping[str, Any], terminal: bool) -> str:
    """A report as text; NO_COLOR and TERM=dumb are honoured."""
    coloured = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return "\n".join(  # no line is broken in a file
        part.plain if isinstance(part, Text) and not terminal else as_text(part, terminal)
        for part in report_terminal.render(report, coloured=coloured)
    )


def as_text(what: RenderableType, terminal: bool) -> str:
    """What rich draws, as text, drawn apart from the stream it goes to: rich has its own ways with one that fails.

    A table is as wide as it needs to be, even where the terminal is not: no number is ever cut.
    """
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, highlight=False, width=None if terminal else 120)
    if isinstance(what, Table):
        console.width = max(console.width, console.measure(what, options=console.options.update(width=1000)).maximum)
    console.print(what)
    return text.getvalue().rstrip("\n")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether people read it there."""
    return stream is not None and stream.isatty()


def answer(text: str) -> None:
    """A command's answer to stdout; OutputError if it cannot be written."""
    stdout = answering()
    with writing("stdout"):
        print(text, file=stdout)
        stdout.flush()


def answering() -> TextIO:
    """stdout, which takes every character from now on; OutputError if it is closed."""
    if sys.stdout is None:
        raise OutputError("stdout is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="replace")
    return sys.stdout
