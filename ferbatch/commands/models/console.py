"""What `ferbatch models` and `ferbatch convert` show: models, by their cards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ferbatch.core.names import escape, listed, shown
from ferbatch.model.weights import UNKNOWN_ACCURACY, Card
from ferbatch.shell.console import answer, as_text, is_terminal
from ferbatch.shell.log import say

COLLECTIONS = ("FER2013 PublicTest", "RAF-DB", "AffectNet")  # whose validation images cards have figures of


def converted(card: Card, output: Path, *, quiet: bool) -> None:
    """What `ferbatch convert` wrote."""
    if not quiet:
        said = f"{card.parameters:,} parameters, {card.size}x{card.size} pixels, labels {listed(card.labels)}"
        say(f"{shown(output)}: {said}; ferbatch label IMAGES --model {shown(output)}")
        say(UNKNOWN_ACCURACY)


def show_models(cards: Sequence[Card]) -> None:
    """The models table, to stdout."""
    table = Table("model", "architecture", box=None, pad_edge=False)
    for name in ("parameters", "multiply-adds", "accuracy on FER2013", *(f"on {name}" for name in COLLECTIONS[1:])):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("sha256")
    for card in cards:
        names = (escape(card.name), escape(card.architecture))
        accuracies = (_accuracy(card, name, briefly=name != COLLECTIONS[0]) for name in COLLECTIONS)
        figures = (f"{card.parameters:,}", f"{card.multiply_adds:,}", *accuracies, card.sha256[:12])
        table.add_row(*map(Text, names + figures))
    answer(as_text(table, is_terminal(sys.stdout)))
    answer(
        "All of them learned from research data (FER2013, RAF-DB, AffectNet, SFEW): the weights are for research use."
    )


def _accuracy(card: Card, collection: str, *, briefly: bool) -> str:
    """The first accuracy in a card on a collection's validation images; with its interval and n unless `briefly`."""
    of_it = (one for one in card.scores if one["metric"] == "accuracy" and one["data"].startswith(collection))
    if not (score := next(of_it, None)):
        return "not measured"
    low, high = score["interval_95"]
    return f"{score['value']:.3f}" + ("" if briefly else f" ({low:.3f} to {high:.3f}, n = {score['n']:,})")
