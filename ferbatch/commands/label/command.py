"""`ferbatch label`: its options, and what they may not be together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ferbatch.core import process
from ferbatch.core.errors import OutputError, UsageError, WorkerError
from ferbatch.core.options import BATCH_SIZE, DEFAULT_MODEL, EXAMPLE, Existing, Options, TableOptions, shard_of
from ferbatch.core.records import MIN_FACE, MOST_TURN, Doubt, Search
from ferbatch.shell import log
from ferbatch.shell import options as shared
from ferbatch.shell.exits import end_with, ended, exits

if TYPE_CHECKING:
    from ferbatch.commands.label.output import Output


@exits
def label(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS", help="Folders, image files, tables that name images, or - for a list on stdin."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write, folder/ for parts, s3://bucket/labels.csv, a database's URL, or - for stdout."
            "  [default: labels.csv]",
        ),
    ] = None,
    format_: shared.Format = None,
    bom: Annotated[
        bool, typer.Option("--bom", help="Begin the CSV with a byte order mark: Excel then shows every name right.")
    ] = False,
    overwrite: shared.Overwrite = False,
    resume: shared.Resume = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Label only what is new or changed since the last run.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume or --incremental: label again what could not be."),
    ] = False,
    model: shared.Model = DEFAULT_MODEL,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Mark labels less sure than this as uncertain.")
    ] = 0.0,
    min_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Mark labels of faces that were found less surely than this as uncertain."),
    ] = 0.0,
    max_turn: Annotated[
        float, typer.Option(min=0, max=180, help="Mark labels of faces turned by more degrees than this as uncertain.")
    ] = MOST_TURN,
    no_recursive: Annotated[bool, typer.Option("--no-recursive", help="Leave folders below PATHS alone.")] = False,
    hidden: shared.Hidden = False,
    exclude: shared.Exclude = None,
    follow_links: shared.FollowLinks = False,
    path_column: shared.PathColumn = None,
    images: shared.Images = None,
    no_truth: Annotated[bool, typer.Option("--no-truth", help="Do not take folder names for the truth.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on stdin is separated by NUL, not newline.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option("--shard", help="I/N: label the I-th of N shares of the images; `merge` joins them.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Label nothing: say of each path whether it would be labelled, and why not.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Label a photo that comes with ferbatch.")] = False,
    faces: shared.Faces = "auto",
    largest_face: Annotated[
        bool, typer.Option("--largest-face", help="Label the largest face of each image alone.")
    ] = False,
    min_face: shared.MinFace = MIN_FACE,
    face_margin: shared.FaceMargin = 0.0,
    faces_on: shared.FacesOn = "cores",
    crops: Annotated[
        str | None, typer.Option("--crops", help="A folder to write the found faces to, in a bucket too.")
    ] = None,
    annotate: Annotated[
        str | None,
        typer.Option("--annotate", help="A folder to write copies with boxes and labels to, in a bucket too."),
    ] = None,
    tta: shared.Tta = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    batch_size: shared.BatchSize = BATCH_SIZE,
    workers: shared.Workers = None,
    isolate: Annotated[
        bool | None,
        typer.Option(
            "--isolate/--no-isolate",
            help="Decode in processes that may crash: it costs an image, not the run.  [default: where it is quicker]",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="local: this machine; ray: a Ray cluster, or one started here for the run.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", help="With --engine ray: HOST:PORT of a running cluster, or auto.  [default: $RAY_ADDRESS]"
        ),
    ] = None,
    ray_actors: Annotated[
        int | None,
        typer.Option(
            "--ray-actors", min=1, help="With --engine ray: actors with the model.  [default: one a GPU, else a CPU]"
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="With --isolate: seconds an image may take to decode.")
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option("--allow", help="Kinds of errors, with commas between, that are no failures: blank, say."),
    ] = None,
    max_errors: Annotated[
        str | None, typer.Option("--max-errors", help="N or P%: exit 5 where more images could not be labelled.")
    ] = None,
    on_error: Annotated[
        str, typer.Option("--on-error", help="record: a row, and on; stop: end at the first image that fails.")
    ] = "record",
    log_format: Annotated[
        str, typer.Option("--log-format", help="text, or json: an object a line, on stderr and in the log file.")
    ] = "text",
    log_file: Annotated[
        str | None, typer.Option("--log-file", help="Append what is said here as well, each failed image too.")
    ] = None,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Label every image under PATHS and write labels.csv; where folders are named like labels, a report beside it."""
    from ferbatch.commands.label.plan import plan
    from ferbatch.core.stores import objects

    log.speak(log_format)
    if shard is not None and output is None:
        output = "labels.{}-of-{}.{}".format(*shard_of(shard), format_ or "csv")
    target = plan(output, None if list_ else format_, bom=bom)
    if log_file is not None:
        if target.is_mine(log_file):
            raise UsageError("--log-file is the output or one of the files beside it")
        log.append_to(log_file)
    if bool(paths) == example:
        raise UsageError("say PATHS to label, or --example" if example is False else "--example takes no PATHS")
    chosen = [EXAMPLE] if example else paths or []
    if null and "-" not in chosen:
        raise UsageError("--null needs - among the PATHS")
    existing = Existing(overwrite, resume, incremental, retry_failed)
    shared.check_faces(faces, faces_on)
    if faces == "whole" and (largest_face or crops is not None):
        raise UsageError("--largest-face and --crops need faces to be looked for: not --faces whole")
    if faces == "whole" and (min_score > 0 or max_turn < MOST_TURN):
        raise UsageError("--min-score and --max-turn need faces to be looked for: not --faces whole")
    if (resume or incremental) and not target.lasts:
        raise UsageError("--resume and --incremental need an output that is a file or a database")
    options = Options(
        paths=tuple(chosen),
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        doubt=Doubt(min_confidence, min_score, max_turn),
        recursive=not no_recursive,
        rules=shared.rules(hidden, exclude, follow_links),
        table=TableOptions(path_column, images=images),
        truth=not no_truth,
        tta=tta,
        isolate=isolate,
        timeout=timeout,
        on_error=on_error,
        allow=tuple(dict.fromkeys(kind.strip() for kind in allow.split(","))) if allow is not None else (),
        max_errors=max_errors,
        search=Search(faces, min_face, face_margin, largest_face, crops=crops and objects.folder(crops)),
        faces_on=faces_on,
        annotate=annotate and objects.folder(annotate),
        shard=shard,
        engine=engine,
        ray_address=ray_address,
        ray_actors=ray_actors,
    )
    separator = b"\0" if null else b"\n"
    if list_:
        _list(options, target, existing, format_, separator=separator, quiet=quiet)
    target.check(existing)
    _run(options, target, existing, separator=separator, quiet=quiet, verbose=verbose)


def _list(
    options: Options, target: Output, existing: Existing, format_: str | None, *, separator: bytes, quiet: bool
) -> NoReturn:
    """Say of each path whether it would be labelled, and end; what belongs to labelling alone is let be."""
    from ferbatch.commands.label.list_console import ListConsole
    from ferbatch.sources.listing import look_through
    from ferbatch.sources.lists import lists_in
    from ferbatch.sources.shards import telling

    console = ListConsole(format_, quiet=quiet)
    listed, _ = lists_in(options.paths, options.table, _read_list(options, separator), is_own=target.is_mine)
    tell = telling(console.told, *shard_of(options.shard)) if options.shard else console.told
    look_through(options.paths, tell, listed=listed, recursive=options.recursive, rules=options.rules)
    raise typer.Exit(console.finished(existing))


def _read_list(options: Options, separator: bytes) -> Iterator[bytes] | None:
    """The paths of the list on stdin, where `-` is among PATHS; `separator` is what ends a path in it."""
    from ferbatch.sources import listing

    if "-" in options.paths and sys.stdin is None:
        raise UsageError("stdin is closed: there is no list to read")
    return listing.read_list(sys.stdin.buffer, separator) if "-" in options.paths else None


def _run(
    options: Options, target: Output, existing: Existing, *, separator: bytes, quiet: bool, verbose: bool
) -> NoReturn:
    """Label, and end with the run's exit code; `separator` is what ends a path in the list on stdin."""
    process.be_quick()
    with process.importing():
        from ferbatch.commands.label import console, run

    listed = _read_list(options, separator)
    with console.LabelConsole(quiet=quiet, verbose=verbose) as watcher:
        try:
            result = run.run(options, target, existing=existing, listed=listed, watcher=watcher)
        except (OutputError, WorkerError) as error:
            raise type(error)(f"{error}{_kept(target)}") from error
        except process.Stopped as stopped:
            end_with(f"{ended(stopped.number)}{_kept(target)}", 128 + stopped.number)
    watcher.finished(result, target)
    raise typer.Exit(result.exit_code if result else 0)


def _kept(target: Output) -> str:
    """What a run that was cut short leaves, for the end of its last line."""
    return "; --resume goes on with what is done" if target.unfinished else ""
