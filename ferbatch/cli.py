"""The command line: options -> one use case -> exit code. Imports what is heavy only inside a command."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NoReturn, ParamSpec

import typer

import ferbatch
from ferbatch import log, process
from ferbatch.errors import FerbatchError, OutputError, UsageError, WorkerError
from ferbatch.paths import escape
from ferbatch.records import (
    BATCH_SIZE,
    DEFAULT_MODEL,
    EXAMPLE,
    ON_ERROR,
    BenchOptions,
    EvaluateOptions,
    Existing,
    Options,
)

if TYPE_CHECKING:
    from ferbatch.outputs import Output

app = typer.Typer(
    help="Label folders of face images with the expression they show: happy, sad, neutral or surprise.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help comes three times sooner
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DAY = 86_400  # seconds

Model = Annotated[str, typer.Option("--model", help="A shipped model's name, or the path of a .safetensors file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16, or auto: bf16 where the CPU or GPU computes in it.")
]
Tta = Annotated[
    bool, typer.Option("--tta", help="Label each image together with its mirror image: better, at twice the work.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing when all goes well.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: device, each image that failed.")]


P = ParamSpec("P")


def exits(command: Callable[P, None]) -> Callable[P, None]:
    """Run a command with its errors as one line on stderr and the exit codes users can rely on."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        warnings.filterwarnings("ignore", module="PIL")  # what it warns of becomes rows
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # --workers is the user's choice
        with process.native_code_hushed(), process.stopping_in_order(_farewell):
            try:
                command(*args, **kwargs)
            except FerbatchError as error:
                _fail(str(error), error.exit_code)
            except process.Stopped as stopped:
                _fail(_ended(stopped.number), 128 + stopped.number)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
                raise typer.Exit(141) from None
            finally:
                log.end()

    return wrapped


def _fail(message: str, exit_code: int) -> NoReturn:
    from ferbatch import console

    console.fail(message, exit_code)
    raise typer.Exit(exit_code) from None


def _ended(number: int) -> str:
    return {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(signal.Signals(number), "hung up")


def _farewell(number: int) -> None:
    with contextlib.suppress(typer.Exit):
        _fail(_ended(number), 128 + number)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("stdin is closed: there is no list to read")
    return sys.stdin.buffer


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


@app.command(no_args_is_help=True)
@exits
def label(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATHS", help="Folders, image files, or - for a list of them on stdin."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The file to write, or - for stdout.  [default: labels.csv]")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="csv, json, jsonl or parquet; else the output's suffix tells.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut short.")] = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Label only what is new or changed since the last run.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With one of those two: try again what could not be labelled.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Mark labels less sure than this as uncertain.")
    ] = 0.0,
    no_recursive: Annotated[bool, typer.Option("--no-recursive", help="Leave folders below PATHS alone.")] = False,
    no_truth: Annotated[bool, typer.Option("--no-truth", help="Do not take folder names for the truth.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on stdin is separated by NUL, not newline.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Label a face that comes with ferbatch.")] = False,
    tta: Tta = False,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a decode step hands on at once.")] = BATCH_SIZE,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes.  [default: one a core, for few images none]")
    ] = None,
    isolate: Annotated[
        bool | None,
        typer.Option(
            "--isolate/--no-isolate",
            help="Decode in processes that may crash: it costs an image, not the run.  [default: from 1,000 images on]",
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="With --isolate: seconds an image may take to decode.")
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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Label every image under PATHS and write labels.csv; where folders are named like labels, a report beside it."""
    from ferbatch import gates, outputs

    log.speak(log_format)
    target = outputs.plan(output, format_)
    if log_file is not None:
        if target.is_mine(log_file):
            raise UsageError("--log-file is the output or one of the files beside it")
        log.append_to(log_file)
    if bool(paths) == example:
        raise UsageError("say PATHS to label, or --example" if example is False else "--example takes no PATHS")
    chosen = [EXAMPLE] if example else paths or []
    if null and "-" not in chosen:
        raise UsageError("--null needs - among the PATHS")
    if incremental and overwrite:
        raise UsageError("--incremental keeps what --overwrite replaces: say one of them")
    if retry_failed and not (resume or incremental):
        raise UsageError("--retry-failed needs --resume or --incremental")
    if timeout is not None and not (isolate and 0.001 <= timeout <= DAY and hasattr(signal, "setitimer")):
        raise UsageError(f"--timeout needs --isolate, 0.001 to {DAY:,} seconds, and a system with interval timers")
    if on_error not in ON_ERROR:
        raise UsageError(f"--on-error is {' or '.join(ON_ERROR)}, not '{escape(on_error)}'")
    if max_errors is not None:
        gates.failures_allowed(max_errors, 0)
    existing = Existing(overwrite, resume, incremental, retry_failed)
    if (resume or incremental) and not target.is_file:
        raise UsageError("--resume and --incremental need an output that is a file")
    options = Options(
        paths=tuple(chosen),
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        min_confidence=min_confidence,
        recursive=not no_recursive,
        truth=not no_truth,
        tta=tta,
        isolate=isolate,
        timeout=timeout,
        on_error=on_error,
        max_errors=max_errors,
    )
    target.check(existing)
    process.be_quick()

    with process.importing():
        from ferbatch import console, labelling, sources

    listed = sources.read_list(_stdin(), b"\0" if null else b"\n") if "-" in chosen else None
    with console.LabelConsole(quiet=quiet, verbose=verbose) as watcher:
        try:
            run = labelling.run(options, target, existing=existing, listed=listed, watcher=watcher)
        except (OutputError, WorkerError) as error:
            raise type(error)(f"{error}{_kept(target)}") from error
        except process.Stopped as stopped:
            _fail(f"{_ended(stopped.number)}{_kept(target)}", 128 + stopped.number)
    watcher.finished(run, target)
    raise typer.Exit(run.exit_code if run else 0)


def _kept(target: Output) -> str:
    """What a run that was cut short leaves, for the end of its last line."""
    return "; --resume goes on with what is done" if target.is_file and os.path.exists(target.journal) else ""


@app.command(no_args_is_help=True)
@exits
def evaluate(
    truth: Annotated[
        str | None, typer.Option("--truth", help="Class folders, or a table with the columns path and label.")
    ] = None,
    predictions: Annotated[
        str | None, typer.Option("--predictions", help="A labels file made earlier, in place of running a model.")
    ] = None,
    models_: Annotated[
        list[str] | None,
        typer.Option("--model", help=f"A model; give it more than once to compare.  [default: {DEFAULT_MODEL}]"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="What other class names mean: 0=happy,1=sad,2=neutral,3=surprise")
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
        str | None, typer.Option("--report", help="A folder to write the report to: HTML, Markdown, JSON, figures.")
    ] = None,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Show faces in the report.")] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", help="FIGURE=NUMBER, accuracy=0.75 for one: exit 5 where it falls short."),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="json: the whole report, for machines.  [default: tables]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists.")] = False,
    tta: Tta = False,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a decode step hands on at once.")] = BATCH_SIZE,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes.  [default: one a core, for few images none]")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Hold labels against the truth: how good they are, how sure that is, and what they confuse."""
    if format_ not in (None, "json"):
        raise UsageError(
            f"the report comes as tables or as json, not as '{escape(format_)}' (a folder of files: --report DIR)"
        )
    if predictions is not None and models_:
        raise UsageError("say --model or --predictions: labels made earlier need no model")
    if predictions is not None and tta:
        raise UsageError("--tta needs a model: labels made earlier are as they are")
    if strip_prefix is not None and (predictions is None or truth is None):
        raise UsageError("--strip-prefix needs --truth and --predictions")
    if thumbnails and report is None:
        raise UsageError("--thumbnails needs --report")
    options = EvaluateOptions(
        truth=truth,
        predictions=predictions,
        models=tuple(models_ or (DEFAULT_MODEL,)),
        classes=classes,
        others=others,
        votes=votes,
        slices=slices,
        strip_prefix=strip_prefix,
        min_confidence=min_confidence,
        report=report,
        thumbnails=thumbnails,
        fail_under=tuple(fail_under or ()),
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        tta=tta,
    )
    if truth is None and predictions is None:
        raise UsageError("say --truth: class folders, or a table with the columns path and label")

    process.be_quick()

    with process.importing():
        from ferbatch import console, pages
        from ferbatch import evaluate as evaluating

    with console.EvaluateConsole(quiet=quiet, verbose=verbose) as watcher:
        evaluation = evaluating.run(options, overwrite=overwrite, watcher=watcher)
    watcher.finished(evaluation, json=pages.as_json(evaluation.report) if format_ == "json" else None)
    raise typer.Exit(evaluation.exit_code)


@app.command()
@exits
def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A folder with train/LABEL/ and validation/LABEL/, or a table: path, label."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write.")] = Path(
        "model.safetensors"
    ),
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
    distill: Annotated[
        list[str] | None, typer.Option("--distill", help="A model to learn from as well; can be given several times.")
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option("--pretrained", help="A file of ImageNet weights for the network's body.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut short.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a model on class folders or a table; the best epoch on the validation images is kept."""
    with process.importing():
        from ferbatch import console
        from ferbatch import recipe as recipes
        from ferbatch import train as training

    chosen = recipes.choose(recipe, model, epochs=epochs, seed=seed)
    options = training.TrainOptions(
        data, output, votes, pretrained, tuple(distill or ()), device, resume=resume, overwrite=overwrite
    )
    process.keep_memory()
    training.run(options, chosen, console.TrainConsole(quiet=quiet))


@app.command()
@exits
def convert(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A Keras Sequential: a .keras or .h5 file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write, NAME.safetensors.")],
    labels: Annotated[str, typer.Option("--labels", help="The outputs in their order: happy,sad,neutral,surprise")],
    scale: Annotated[
        str, typer.Option("--scale", help="What black and white pixels were to the model: 0,1 or 0,255 or -1,1")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    quiet: Quiet = False,
) -> None:
    """Carry a Keras model of the study's kind over: weights and card, to label with."""
    from ferbatch import console
    from ferbatch import convert as converting

    card = converting.run(source, output, labels=labels, scale=scale, overwrite=overwrite)
    console.converted(card, output.with_name(f"{card.name}.safetensors"), quiet=quiet)


@app.command()
@exits
def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATHS", help="Folders or images; without any, some are drawn."),
    ] = None,
    models_: Annotated[
        list[str] | None,
        typer.Option("--model", help=f"A model; more than once for several.  [default: {DEFAULT_MODEL}]"),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, help="How many images to draw, or to take of those under PATHS.")
    ] = None,
    generate: Annotated[
        str, typer.Option("--generate", help="What to draw: faces (48x48), photos (12 megapixels), or mixed.")
    ] = "faces",
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Rounds, whose medians count.")] = 5,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", help="naive: plain PyTorch with Pillow; fer: the package of this name."),
    ] = None,
    peer_python: Annotated[
        str | None,
        typer.Option("--peer-python", help="The Python that has that package.  [default: this one]"),
    ] = None,
    no_recommend: Annotated[
        bool, typer.Option("--no-recommend", help="Do not try other numbers of --workers and --batch-size.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    format_: Annotated[
        str | None, typer.Option("--format", help="json: every figure of every round.  [default: a table]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure speed on this machine: reading, decoding, the network, all of it, and how near that is to the limit."""
    if format_ not in (None, "json"):
        raise UsageError(f"the figures come as a table or as json, not as '{escape(format_)}'")
    process.be_quick()

    with process.importing():
        from ferbatch import bench as benching
        from ferbatch import console

    options = BenchOptions(
        paths=tuple(paths or ()),
        models=tuple(dict.fromkeys(models_ or (DEFAULT_MODEL,))),
        images=images,
        generate=generate,
        repeat=repeat,
        compare=tuple(dict.fromkeys(compare or ())),
        peer_python=peer_python,
        recommend=not no_recommend,
        device=device,
        precision=precision,
    )
    found = benching.run(options, lambda sentence: log.say(sentence, shown=not quiet))
    if format_ == "json":
        console.answer(json.dumps(found, indent=2))
    else:
        console.show_bench(found)


@app.command()
@exits
def models(
    format_: Annotated[
        str | None, typer.Option("--format", help="json: the whole cards, for machines.  [default: a table]")
    ] = None,
) -> None:
    """List the models that come with ferbatch, with their scores, sizes and hashes."""
    from ferbatch import console, weights

    cards = [weights.read_card(name) for name in weights.shipped()]
    if format_ == "json":
        console.answer(json.dumps([dataclasses.asdict(card) for card in cards], indent=2))
    elif format_ is None:
        console.show_models(cards)
    else:
        raise UsageError(f"models come as a table or as json, not as '{escape(format_)}'")


def main() -> None:
    """The entry point of `ferbatch` and `python -m ferbatch`."""
    app(prog_name="ferbatch")
