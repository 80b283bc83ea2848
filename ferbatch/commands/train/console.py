"""What `ferbatch train` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferbatch.core.names import count, listed
from ferbatch.model.weights import Card
from ferbatch.shell.console import Progress
from ferbatch.shell.log import say

if TYPE_CHECKING:
    from ferbatch.commands.train.data import Data
    from ferbatch.commands.train.validation import Epoch


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
            if data.sources:
                say(f"of {count(len(data.sources), 'source')}: {', '.join(data.sources)}")
            say(f"{count(len(data.labels), 'label')}: {listed(data.labels)}")
            say(f"{count(len(data.train), 'image')} to train on, {len(data.validation):,} to validate with{votes}")

    def epoch(self, epoch: Epoch, of: int) -> None:
        if not self.quiet:
            agreement = epoch.validation_agreement
            people = "" if agreement is None else f", people {agreement:.4f}"
            say(
                f"epoch {epoch.epoch:>3} of {of}: loss {epoch.train_loss:.3f}, train {epoch.train_accuracy:.3f},"
                f" validation {epoch.validation_accuracy:.4f}{people}{' *' if epoch.best else ''}"
            )
            if epoch.parts:
                say("    " + ", ".join(f"{one.name} {one.accuracy.value:.4f}" for one in epoch.parts))

    def finished(self, card: Card, path: str) -> None:
        if not self.quiet:
            score = card.scores[0]
            said = f"epoch {card.recipe['best_epoch']}, validation {score['value']:.4f} (n = {score['n']:,})"
            say(f"{path}: {said}, temperature {card.temperature:g}")
