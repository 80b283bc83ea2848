"""What each command was asked to do. Standard library only, so that the command line stays light."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import ERROR_KINDS, USUAL, Doubt, Rules, Search
from ferbatch.core.stores.urls import is_remote

if TYPE_CHECKING:
    from fractions import Fraction

ON_ERROR = ("record", "stop")
ENGINES = ("local", "ray")
RAY_DEVICES = ("auto", "cpu", "cuda")  # Ray says which of the GPUs
PACKAGE = Path(__file__).resolve().parent.parent
EXAMPLE = os.path.join(PACKAGE, "example", "astronaut.jpg")  # a photo that comes with the package
DEFAULT_MODEL = "cnn-lite-v2"
BATCH_SIZE = 256  # images of a batch, at the most
MOST_SHARDS = 10_000
MOST_SHOWN = 50  # characters of what is not known
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.001, 86_400  # seconds for an image


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What a table of images does not say of itself."""

    path_column: str | None = None
    label_column: str | None = None
    images: str | None = None  # the folder that its images are in, be it in a store
    split: str | None = None  # the rows to take, by what their column split (or usage, subset, set) says
    of_pixels: str | None = None  # those to take of a table of pixels that has such, where `split` does not say which
    source_column: str = "source"  # that says what collection an image is of
    classes: str | None = None  # what its labels mean: NAME=LABEL,...
    other_tables: bool = False  # whether there are votes or slices, which `path_column` may be of

    @property
    def of_truth(self) -> tuple[str, ...]:
        """The options in use that speak of the table that holds the truth, and of no other."""
        asked = {"--label-column": self.label_column, "--images": self.images, "--split": self.split}
        if not self.other_tables:
            asked["--path-column"] = self.path_column
        return tuple(name for name, value in asked.items() if value is not None)


SAYS_ALL = TableOptions()  # of a table with the usual columns, beside its images


@dataclass(frozen=True, slots=True)
class Options:
    """What `ferbatch label` or `ferbatch.label` was asked to do; goes into the sidecar.

    ValueError for a number out of its range, UsageError for what only the command line can say.
    """

    paths: tuple[str | os.PathLike[str], ...]
    model: str = DEFAULT_MODEL
    device: str = "auto"
    precision: str = "auto"  # one of PRECISIONS
    batch_size: int = BATCH_SIZE
    workers: int | None = None  # decode processes; None: what suits the device
    doubt: Doubt = field(default_factory=Doubt)
    recursive: bool = True
    rules: Rules = USUAL
    table: TableOptions = SAYS_ALL  # where PATHS are lists
    truth: bool = True
    tta: bool = False  # test-time augmentation: the mean of the image and its mirror image
    isolate: bool | None = False  # decode in processes that may die; None: where there are many images
    timeout: float | None = None  # seconds for one image, with isolate
    on_error: str = "record"  # one of ON_ERROR
    allow: tuple[str, ...] = ()  # of ERROR_KINDS: rows with an error that is no failure
    max_errors: str | None = None  # how many images may fail: N or P%
    search: Search = field(default_factory=lambda: Search("auto"))
    faces_on: str = "cores"  # one of FOUND_ON
    annotate: str | None = None  # the folder to write copies with boxes and labels to
    shard: str | None = None  # I/N: label the I-th of N shares of the images, by their paths
    engine: str = "local"  # one of ENGINES: what labels
    ray_address: str | None = None  # of a running Ray cluster; None: as RAY_ADDRESS says, or one that is started here
    ray_actors: int | None = None  # that hold the model; None: one for each GPU, or each CPU where there are none

    def __post_init__(self) -> None:
        if self.shard is not None:
            shard_of(self.shard)  # raises where it is none
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, not 1 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}, not 0 or more")
        can_time = self.isolate and hasattr(signal, "setitimer")
        if self.timeout is not None and not (can_time and SHORTEST_TIMEOUT <= self.timeout <= LONGEST_TIMEOUT):
            seconds = f"{SHORTEST_TIMEOUT} to {LONGEST_TIMEOUT:,} seconds"
            raise UsageError(f"--timeout needs --isolate, {seconds}, and a system with interval timers")
        if self.on_error not in ON_ERROR:
            raise UsageError(f"--on-error is {' or '.join(ON_ERROR)}, not '{escape(self.on_error)}'")
        if unknown := [kind for kind in self.allow if kind not in ERROR_KINDS]:
            kinds = ", ".join(ERROR_KINDS)
            raise UsageError(f"--allow takes kinds of errors ({kinds}), not '{escape(unknown[0])[:MOST_SHOWN]}'")
        if self.max_errors is not None:
            failures_allowed(self.max_errors, 0)  # raises where it is neither
        self._check_engine()

    def search_on(self, device: str) -> Search:
        """How faces are looked for by a run that labels on this device."""
        return searched_on(self.search, self.faces_on, device)

    def _check_engine(self) -> None:
        """UsageError where the engine is none, or cannot do what is asked for."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine is {' or '.join(ENGINES)}, not '{escape(self.engine)[:MOST_SHOWN]}'")
        if self.engine != "ray" and (self.ray_address is not None or self.ray_actors is not None):
            raise UsageError("--ray-address and --ray-actors need --engine ray")
        if self.engine == "ray" and self.search.crops is not None and not is_remote(os.fsencode(self.search.crops)):
            raise UsageError(
                "--crops is a folder in a bucket with --engine ray, whose nodes would write to disks of their own"
            )
        if self.engine == "ray" and self.faces_on == "device":
            raise UsageError("--faces-on device is not for --engine ray, whose tasks that read images have no GPU")
        if self.engine == "ray" and self.device not in RAY_DEVICES:
            raise UsageError(
                f"--device is {', '.join(RAY_DEVICES)} with --engine ray, not '{escape(self.device)[:40]}'"
            )
        if self.engine == "ray" and self.workers == 0:
            raise UsageError("--workers is 1 or more with --engine ray: tasks that read images at a time")


def searched_on(search: Search, faces_on: str, device: str) -> Search:
    """A search where `faces_on`, one of FOUND_ON, says, of a run that labels on a device; UsageError for another's."""
    if faces_on != "device" or search.mode == "whole":
        return search
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--faces-on device is for --device cpu and cuda, not {device}")
    return replace(search, device=device)


def shard_of(shard: str) -> tuple[int, int]:
    """I and N of `I/N`, the I-th of N shares of the images, counted from 1; UsageError for anything else."""
    number, slash, of = shard.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= MOST_SHARDS):
        known = f"I/N with I from 1 to N, and N up to {MOST_SHARDS:,}: 1/4 to 4/4 are the shares of four runs"
        raise UsageError(f"--shard is {known}, not '{escape(shard)[:40]}'")
    return int(number), int(of)


def failures_allowed(max_errors: str, images: int) -> Fraction:
    """How many of so many images may fail by --max-errors: N, or P% of them. UsageError for anything else."""
    from fractions import Fraction  # decimal numbers with it, which no other command needs

    try:
        value = Fraction(max_errors.removesuffix("%"))
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    percent = max_errors.endswith("%")
    if not 0 <= value <= (100 if percent else math.inf) or (not percent and value.denominator != 1):
        raise UsageError(f"--max-errors is a number of images or a percentage (10 or 0.5%), not '{escape(max_errors)}'")
    return images * value / 100 if percent else value


@dataclass(frozen=True, slots=True)
class Existing:
    """What may be done about an output that is there already; UsageError for what contradicts itself."""

    overwrite: bool = False  # begin again
    resume: bool = False  # go on with an unfinished run
    incremental: bool = False  # bring a finished one up to date
    retry_failed: bool = False  # do what failed again, though its file is as it was

    def __post_init__(self) -> None:
        if self.incremental and self.overwrite:
            raise UsageError("--incremental keeps what --overwrite replaces: say one of them")
        if self.retry_failed and not (self.resume or self.incremental):
            raise UsageError("--retry-failed needs --resume or --incremental")

    @property
    def any(self) -> bool:
        return self.overwrite or self.resume or self.incremental


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What `ferbatch evaluate` was asked to do."""

    truth: str | None = None  # class folders, or a table with path and label; None: the predictions' own column
    predictions: str | None = None  # a labels file made earlier, in place of models
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    classes: str | None = None  # NAME=LABEL,...
    others: bool = False
    votes: str | None = None  # a table of what people said of the images
    slices: str | None = None  # a table of what else is known of them
    table: TableOptions = SAYS_ALL
    strip_prefix: str | None = None  # of the paths in `predictions`
    rules: Rules = USUAL  # where the truth is class folders
    min_confidence: float = 0.0  # 0..1
    report: str | None = None  # the folder to write
    thumbnails: bool = False
    fail_under: tuple[str, ...] = ()  # FIGURE=NUMBER
    device: str = "auto"
    precision: str = "auto"  # one of PRECISIONS
    batch_size: int = BATCH_SIZE
    workers: int | None = None  # decode processes; None: what suits the device
    tta: bool = False  # test-time augmentation: the mean of the image and its mirror image
    search: Search = field(default_factory=lambda: Search("auto", largest=True))

    def __post_init__(self) -> None:
        from_file = self.predictions is not None
        for name, asked in (("--tta", self.tta), ("--faces", self.search.mode != "auto")):
            if from_file and asked:
                raise UsageError(f"{name} needs a model: labels made earlier are as they are")
        if self.strip_prefix is not None and (not from_file or self.truth is None):
            raise UsageError("--strip-prefix needs --truth and --predictions")
        if self.truth is None and self.rules != USUAL:
            raise UsageError("--hidden, --exclude and --follow-links need --truth: class folders")
        if self.truth is None and self.table.of_truth:
            raise UsageError(f"{self.table.of_truth[0]} needs --truth, and that a table")
        if self.thumbnails and self.report is None:
            raise UsageError("--thumbnails needs --report")
        if self.truth is None and not from_file:
            raise UsageError("say --truth: class folders, or a table with the columns path and label")

    @property
    def source(self) -> str:
        """Where the truth comes from: `truth`, else the labels file with its own column of that name."""
        return str(self.predictions) if self.truth is None else self.truth


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `ferbatch bench` was asked to do."""

    paths: tuple[str, ...] = ()  # none: images are drawn
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    images: int | None = None  # how many to draw, or to take of PATHS
    generate: str = "faces"  # a key of samples.KINDS
    repeat: int = 5  # rounds, each of every measurement
    compare: tuple[str, ...] = ()  # keys of peers.PEERS
    faces: str = "auto"  # one of FACES_MODES
    peer_python: str | None = None  # the interpreter that has the programs to compare with
    recommend: bool = True  # try other choices of --workers and --batch-size
    faces_on: str = "cores"  # one of FOUND_ON
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `ferbatch train` was asked to do, but for the recipe."""

    data: Path | str  # a str where it is in a store
    output: Path  # .safetensors
    votes: Path | None = None  # a table
    pretrained: Path | None = None  # a file of ImageNet weights
    distill: tuple[str, ...] = ()  # names of models to learn from
    labels: tuple[str, ...] | None = None  # in the order of the outputs; None: all classes of the data
    rules: Rules = USUAL  # where the data is class folders
    table: TableOptions = SAYS_ALL
    device: str = "auto"
