"""`ferbatch train`: its options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ferbatch.core import process
from ferbatch.shell import options as shared
from ferbatch.shell.exits import exits


@exits
def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder with train/LABEL/ and validation/LABEL/, be it in a store, or a table: path, label.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write.")] = Path(
        "model.safetensors"
    ),
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", help="Which classes to tell apart, in this order: yes,no.  [default: all of the data]"
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A recipe that comes with ferbatch, or a .toml file.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The network to train.  [default: the recipe's]")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times through the data.  [default: the recipe's]")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same weights on one machine's CPU.")
    ] = None,
    votes: Annotated[
        Path | None, typer.Option("--votes", help="A table of what several people saw: image, votes_ANSWER.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="What the data's class names mean: 1=surprise,4=happy,5=sad")
    ] = None,
    path_column: shared.PathColumn = None,
    label_column: shared.LabelColumn = None,
    images: shared.Images = None,
    distill: Annotated[
        list[str] | None, typer.Option("--distill", help="A model to learn from as well; can be given several times.")
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option("--pretrained", help="A file of ImageNet weights for the network's body.")
    ] = None,
    hidden: shared.Hidden = False,
    exclude: shared.Exclude = None,
    follow_links: shared.FollowLinks = False,
    resume: shared.Resume = False,
    overwrite: shared.Overwrite = False,
    device: shared.Device = "auto",
    quiet: shared.Quiet = False,
) -> None:
    """Train a model on class folders or a table; the best epoch on the validation images is kept."""
    with process.importing():
        from ferbatch.commands.train import console, run
        from ferbatch.commands.train.recipe import choose
        from ferbatch.core.options import Existing, TableOptions, TrainOptions
        from ferbatch.core.stores.urls import is_remote, without_secret
        from ferbatch.sources.labels import split_labels

    chosen = choose(recipe, model, epochs=epochs, seed=seed)
    own = None if labels is None else split_labels(labels)
    rules = shared.rules(hidden, exclude, follow_links)
    table = TableOptions(path_column, label_column, images, classes=classes, other_tables=votes is not None)
    source = without_secret(data) if is_remote(os.fsencode(data)) else Path(data)
    options = TrainOptions(source, output, votes, pretrained, tuple(distill or ()), own, rules, table, device)
    existing = Existing(overwrite=overwrite, resume=resume)
    process.keep_memory()
    run.run(options, chosen, existing, console.TrainConsole(quiet=quiet))
