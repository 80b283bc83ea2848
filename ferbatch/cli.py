"""The command line: the app with its commands, the small ones here. Imports what is heavy only inside a command."""

from __future__ import annotations

import dataclasses
import gc
import json
from pathlib import Path
from typing import Annotated

import typer

import ferbatch
from ferbatch.bench_command import bench
from ferbatch.endings import exits
from ferbatch.errors import UsageError
from ferbatch.evaluate_command import evaluate
from ferbatch.label_command import label
from ferbatch.options import Overwrite, Quiet
from ferbatch.paths import escape
from ferbatch.train_command import train

app = typer.Typer(
    help="Label folders of face images with the expression they show: happy, sad, neutral or surprise.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help comes three times sooner
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ferbatch {ferbatch.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@exits
def convert(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A Keras Sequential: a .keras or .h5 file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write, NAME.safetensors.")],
    labels: Annotated[str, typer.Option("--labels", help="The outputs in their order: happy,sad,neutral,surprise")],
    scale: Annotated[
        str, typer.Option("--scale", help="What black and white pixels were to the model: 0,1 or 0,255 or -1,1")
    ],
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Carry a Keras model of the study's kind over: weights and card, to label with."""
    from ferbatch import convert as converting
    from ferbatch import models_console

    card = converting.run(source, output, labels=labels, scale=scale, overwrite=overwrite)
    models_console.converted(card, output.with_name(f"{card.name}.safetensors"), quiet=quiet)


@exits
def models(
    format_: Annotated[
        str | None, typer.Option("--format", help="json: the whole cards, for machines.  [default: a table]")
    ] = None,
) -> None:
    """List the models that come with ferbatch, with their scores, sizes and hashes."""
    from ferbatch import console, models_console, weights

    cards = [weights.read_card(name) for name in weights.shipped()]
    if format_ == "json":
        console.answer(json.dumps([dataclasses.asdict(card) for card in cards], indent=2))
    elif format_ is None:
        models_console.show_models(cards)
    else:
        raise UsageError(f"models come as a table or as json, not as '{escape(format_)}'")


app.command(no_args_is_help=True)(label)
app.command(no_args_is_help=True)(evaluate)
app.command()(train)
app.command()(convert)
app.command()(bench)
app.command()(models)


def main() -> None:
    """The entry point of `ferbatch` and `python -m ferbatch`."""
    try:
        app(prog_name="ferbatch")
    finally:
        gc.freeze()  # a last search for cycles in what the process holds, torch with it, would take it a second
