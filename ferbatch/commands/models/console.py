"""What `ferbatch models` and `ferbatch convert` show: models, by their cards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ferbatch.core.names import escape, listed, shown
from ferbatch.model.weights import Card
from ferbatch.shell.console import answer, as_text, is_terminal
from ferbatch.shell.log import say


def converted(card: Card, output: Path, *, quiet: bool) -> None:
    """What `ferbatch convert` wrote."""
    if not quiet:
        said = f"{card.parameters:,} parameters, {card.size}x{card.size} pixels, labels {listed(card.labels)}"
        say(f"{shown(output)}: {said}; ferbatch label IMAGES --model {shown(output)}")


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
    answer(as_text(table, is_terminal(sys.stdout)))
