"""`ferbatch evaluate`: its options, and what they may not be together."""

from __future__ import annotations

from typing import Annotated

import typer

from ferbatch.core import process
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.options import BATCH_SIZE, DEFAULT_MODEL, EvaluateOptions, Existing, TableOptions
from ferbatch.core.records import MIN_FACE, Search
from ferbatch.core.stores.urls import without_secret
from ferbatch.shell import options as shared
from ferbatch.shell.exits import exits


@exits
def evaluate(
    truth: Annotated[
        str | None, typer.Option("--truth", help="Class folders, or a table with the columns path and label.")
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(
            "--predictions", help="A labels file, in a bucket too, or a database's URL, in place of running a model."
        ),
    ] = None,
    models_: Annotated[
        list[str] | None,
        typer.Option("--model", help=f"A model; give it more than once to compare.  [default: {DEFAULT_MODEL}]"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="What other class names mean: 0=happy,1=sad,2=neutral,3=surprise")
    ] = None,
    path_column: shared.PathColumn = None,
    label_column: shared.LabelColumn = None,
    images: shared.Images = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Only the rows whose column split (or usage) says so.  [default: all; of fer2013.csv PrivateTest]",
        ),
    ] = None,
    others: Annotated[
        bool, typer.Option("--others", help='Show what the model says of other classes: "none of these".')
    ] = False,
    votes: Annotated[
        str | None, typer.Option("--votes", help="A table of people's votes: a column votes_ANSWER per answer.")
    ] = None,
    slices: Annotated[
        str | None, typer.Option("--slices", help="A table of metadata: the figures per value of its columns.")
    ] = None,
    strip_prefix: Annotated[
        str | None,
        typer.Option("--strip-prefix", help="Take this off the predictions' paths to find the images."),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Show what is left, and how right it is, from this confidence on.")
    ] = 0.0,
    report: Annotated[
        str | None,
        typer.Option(
            "--report", help="A folder, in a bucket too, to write the report to: HTML, Markdown, JSON, figures."
        ),
    ] = None,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Show faces in the report.")] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", help="FIGURE=NUMBER, accuracy=0.75 for one: exit 5 where it falls short."),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="json: the whole report, for machines.  [default: tables]")
    ] = None,
    hidden: shared.Hidden = False,
    exclude: shared.Exclude = None,
    follow_links: shared.FollowLinks = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists.")] = False,
    faces: shared.Faces = "auto",
    min_face: shared.MinFace = MIN_FACE,
    face_margin: shared.FaceMargin = 0.0,
    tta: shared.Tta = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    batch_size: shared.BatchSize = BATCH_SIZE,
    workers: shared.Workers = None,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Hold labels against the truth: how good they are, how sure that is, and what they confuse."""
    if format_ not in (None, "json"):
        raise UsageError(
            f"the report comes as tables or as json, not as '{escape(format_)}' (a folder of files: --report DIR)"
        )
    if predictions is not None and models_:
        raise UsageError("say --model or --predictions: labels made earlier need no model")
    shared.check_faces(faces)
    options = EvaluateOptions(
        truth=None if truth is None else without_secret(truth),
        predictions=predictions,
        models=tuple(models_ or (DEFAULT_MODEL,)),
        classes=classes,
        others=others,
        votes=votes,
        slices=slices,
        table=TableOptions(path_column, label_column, images, split, other_tables=bool(votes or slices)),
        strip_prefix=strip_prefix,
        rules=shared.rules(hidden, exclude, follow_links),
        min_confidence=min_confidence,
        report=report,
        thumbnails=thumbnails,
        fail_under=tuple(fail_under or ()),
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        tta=tta,
        search=Search(faces, min_face, face_margin, largest=True),
    )
    process.be_quick()

    with process.importing():
        from ferbatch.commands.evaluate import console, run
        from ferbatch.report import pages

    with console.EvaluateConsole(quiet=quiet, verbose=verbose) as watcher:
        evaluation = run.run(options, existing=Existing(overwrite=overwrite), watcher=watcher)
    watcher.finished(evaluation, json=pages.as_json(evaluation.report) if format_ == "json" else None)
    raise typer.Exit(evaluation.exit_code)
