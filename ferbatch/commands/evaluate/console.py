"""What `ferbatch evaluate` shows."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from ferbatch.core.names import brief, count, shown
from ferbatch.core.records import MOST_VALUES, NONE
from ferbatch.shell.console import Progress, RunConsole, answer, is_terminal, report_text
from ferbatch.shell.log import fail, say

if TYPE_CHECKING:
    from ferbatch.commands.evaluate.run import Evaluation
    from ferbatch.core.batch import Batch
    from ferbatch.sources.metadata import Matched
    from ferbatch.sources.truth import Truth

MOST_NAMES = 12  # how many classes are named on one line


class EvaluateConsole(RunConsole):
    """What `ferbatch evaluate` shows while it runs and when it is done."""

    def known(self, truth: Truth, others: bool) -> None:
        """What the truth holds besides the labels."""
        if self.quiet:
            return
        for note in truth.notes:
            say(note)
        others_there = truth.others()
        named = brief(", ".join(f"{brief(name, 24)} ({n:,})" for name, n in others_there.most_common(MOST_NAMES)), 200)
        if len(others_there) > MOST_NAMES:
            more = len(others_there) - MOST_NAMES
            named += f" and {more:,} {'class' if more == 1 else 'classes'} more"
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

    def matched(self, what: str, matched: Matched) -> None:
        """Which images a table says nothing of, and which of its rows speak of no image."""
        if self.quiet:
            return
        for note in matched.notes:
            say(note)
        parts = []
        if matched.missing:
            parts.append(f"no row for {count(matched.missing, 'image')}, {matched.missing_example} for one")
        if matched.surplus and (what == "labels" or self.verbose):
            parts.append(f"no image for {count(matched.surplus, 'row')}, {matched.surplus_example} for one")
        if matched.ambiguous:
            parts.append(f"{matched.ambiguous:,} not joined, for they could be more than one")
        if matched.by_tail and (what == "labels" or self.verbose):
            parts.append(f"{count(matched.by_tail, 'image')} joined by the end of the path")
        if matched.by_spelling:
            parts.append(f"{count(matched.by_spelling, 'image')} joined by a name that is spelled otherwise")
        if parts:
            say(f"{what}, {matched.file}: {'; '.join(parts)}")

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

    def progressed(self, batch: Batch) -> None:
        super().progressed(batch)
        for place, failure in sorted(batch.failures.items()):
            self.example = self.example or batch.references.paths[place]
            self.failures[failure.kind] += 1

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
            answer(report_text(evaluation.report, is_terminal(sys.stdout)))
        if evaluation.folder and not self.quiet:
            say(f"report: {shown(evaluation.folder.place('report.html'))}")
        if evaluation.failed:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in self.failures.most_common())
            say(f"{count(self.failures.total(), 'image')} could not be labelled ({kinds}), {self.example} for one")
        if evaluation.missed:
            fail("--fail-under: " + "; ".join(evaluation.missed), evaluation.exit_code)
