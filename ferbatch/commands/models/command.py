"""Options of `ferbatch models` and `ferbatch convert`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.shell import options as shared
from ferbatch.shell.exits import exits


@exits
def convert(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A Keras model: a .keras or .h5 file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write, NAME.safetensors.")],
    labels: Annotated[str, typer.Option("--labels", help="The outputs in their order: happy,sad,neutral,surprise")],
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="What black and white pixels were to the model: 0,1 or 0,255 or -1,1; or imagenet, caffe."
            "  [default: as the model's own Rescaling says]",
        ),
    ] = None,
    architecture: Annotated[
        Path | None,
        typer.Option(
            "--architecture", metavar="FILE.json", help="What model.to_json() gave, for a file of weights alone."
        ),
    ] = None,
    overwrite: shared.Overwrite = False,
    quiet: shared.Quiet = False,
) -> None:
    """Carry a Keras model over: weights and card, to label with."""
    from ferbatch.commands.models import console
    from ferbatch.commands.models.convert import run

    card = run(source, output, labels=labels, scale=scale, overwrite=overwrite, architecture=architecture)
    console.converted(card, output.with_name(f"{card.name}.safetensors"), quiet=quiet)


@exits
def models(
    format_: Annotated[
        str | None, typer.Option("--format", help="json: the whole cards, for machines.  [default: a table]")
    ] = None,
) -> None:
    """List the models that come with ferbatch, with their scores, sizes and hashes."""
    from ferbatch.commands.models import console
    from ferbatch.model import weights
    from ferbatch.shell.console import answer

    cards = [weights.read_card(name) for name in weights.shipped()]
    if format_ == "json":
        answer(json.dumps([dataclasses.asdict(card) for card in cards], indent=2))
    elif format_ is None:
        console.show_models(cards)
    else:
        raise UsageError(f"models come as a table or as json, not as '{escape(format_)}'")
