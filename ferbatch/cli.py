"""The command line: the app that collects the commands. What is heavy is imported only inside a command."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from ferbatch.commands.bench.command import bench
from ferbatch.commands.evaluate.command import evaluate
from ferbatch.commands.label.command import label
from ferbatch.commands.label.merge_command import merge
from ferbatch.commands.models.command import convert, models
from ferbatch.commands.train.command import train
from ferbatch.core.version import __version__

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
        typer.echo(f"ferbatch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command(no_args_is_help=True)(label)
app.command(no_args_is_help=True)(evaluate)
app.command()(train)
app.command()(convert)
app.command(no_args_is_help=True)(merge)
app.command()(bench)
app.command()(models)


def main() -> None:
    """The entry point of `ferbatch` and `python -m ferbatch`."""
    try:
        app(prog_name="ferbatch")
    finally:
        gc.freeze()  # a last search for cycles in all that the process holds would take a second
