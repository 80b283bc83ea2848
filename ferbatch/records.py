"""The records that travel: an image's reference, what the model said of it, a model's card.

Standard library only, so that importing ferbatch stays cheap.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1  # of the output columns

ERROR_KINDS = (
    "unreadable",
    "truncated",
    "blank",
    "too_large",
    "not_found",
    "permission",
    "timeout",
    "crashed",
    "unsupported",
)
ON_ERROR = ("record", "stop")
PRECISIONS = ("auto", "fp32", "bf16")  # of the network's body
UNLISTABLE = "a folder that cannot be listed"  # the error of a folder's row
STATUSES = ("ok", "uncertain", "no_face", "error")
EXAMPLE = os.path.join(os.path.dirname(__file__), "example", "astronaut.jpg")  # a photo that comes with the package
DEFAULT_MODEL = "cnn-lite-v1"
BATCH_SIZE = 256  # images a decode step hands on at once

NONE = -1  # in place of a label's index
NO_FACE = -2  # as well, where no face was found

MOST_VALUES = 50  # of a column of metadata; one with more divides nothing

REPORT_CHARTS = ("confusion-matrix", "reliability", "precision-recall", "coverage")
REPORT_ENDINGS = ("json", "md", "html", *(f"{chart}.svg" for chart in REPORT_CHARTS))  # of one model's report's files

DIGITS = 4  # of a probability, wherever it is written

MARKER = ".ferbatch"  # in folders that ferbatch writes; they are never read as sources

FACES_MODES = ("auto", "whole", "detect")
MIN_FACE = 20  # pixels of the photo; a smaller face tells little
MARGINS = (-0.25, 1.0)  # that may be added to the training faces' frame, as shares of it

LARGE_SIDE = 512  # pixels; over this on a side, or wider than 3:2, an image is hardly a cropped face
WIDE_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image to read: what to call it, where it lies, what its folder says it shows."""

    path: str  # as printed; `paths.decode_path` gives the bytes back
    file: bytes  # as opened
    truth: str | None = None  # a label, where a folder at or below PATH is named like one


@dataclass(frozen=True, slots=True)
class Search:
    """Whether and how faces are looked for in an image. Travels to the processes that decode."""

    mode: str = "whole"  # one of FACES_MODES
    min_face: int = MIN_FACE  # pixels of the upright image that a face is wide and high, at the least
    margin: float = 0.0  # added on each side of the training faces' frame, as a share of it; in MARGINS
    largest: bool = False  # keep the largest face alone
    detector: str = "yunet"  # a key of faces.FACES
    crops: str | None = None  # the folder to write crops to

    def __post_init__(self) -> None:
        if self.mode not in FACES_MODES:
            raise ValueError(f"faces is {' or '.join(FACES_MODES)}, not '{self.mode}'")
        if self.min_face < 1:
            raise ValueError(f"min_face is {self.min_face}, not 1 or more")
        if not MARGINS[0] <= self.margin <= MARGINS[1]:
            raise ValueError(f"face_margin is {self.margin}, not {MARGINS[0]} to {MARGINS[1]}")


@dataclass(frozen=True, slots=True)
class Box:
    """Where a face is."""

    x: int  # pixels of the upright image, as are the next three
    y: int
    width: int
    height: int
    score: float  # 0..1, how sure the detector is


@dataclass(frozen=True, slots=True)
class Options:
    """What `ferbatch label` or `ferbatch.label` was asked to do; goes into the sidecar."""

    paths: tuple[str | os.PathLike[str], ...]
    model: str = DEFAULT_MODEL
    device: str = "auto"
    precision: str = "auto"  # one of PRECISIONS
    batch_size: int = BATCH_SIZE
    workers: int | None = None  # decode processes; None: what suits the device
    min_confidence: float = 0.0  # 0..1
    recursive: bool = True
    truth: bool = True
    tta: bool = False  # test-time augmentation: the mean of the image and its mirror image
    isolate: bool | None = False  # decode in processes that may die; None: where there are many images
    timeout: float | None = None  # seconds for one image, with isolate
    on_error: str = "record"  # one of ON_ERROR
    max_errors: str | None = None  # N or P%
    search: Search = Search("auto")
    annotate: str | None = None  # the folder to write copies with boxes and labels to

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence is {self.min_confidence}, not 0..1")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, not 1 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}, not 0 or more")


@dataclass(frozen=True, slots=True)
class Existing:
    """What may be done about an output that is there already."""

    overwrite: bool = False  # begin again
    resume: bool = False  # go on with an unfinished run
    incremental: bool = False  # bring a finished one up to date
    retry_failed: bool = False  # do what failed again, though its file is as it was

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
    votes: str | None = None  # a table, as the next
    slices: str | None = None
    strip_prefix: str | None = None  # of the paths in `predictions`
    min_confidence: float = 0.0  # 0..1
    report: str | None = None  # the folder to write
    thumbnails: bool = False
    fail_under: tuple[str, ...] = ()  # FIGURE=NUMBER
    device: str = "auto"
    precision: str = "auto"  # as in Options, as are the next three
    batch_size: int = BATCH_SIZE
    workers: int | None = None
    tta: bool = False  # test-time augmentation, as in Options
    search: Search = Search("auto", largest=True)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What `ferbatch bench` was asked to do."""

    paths: tuple[str, ...] = ()  # none: images are drawn
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    images: int | None = None  # how many to draw, or to take of PATHS
    generate: str = "faces"  # a key of samples.KINDS
    repeat: int = 5  # rounds
    compare: tuple[str, ...] = ()  # keys of peers.PEERS
    faces: str = "auto"  # one of FACES_MODES
    peer_python: str | None = None  # the interpreter that has them installed
    recommend: bool = True  # try other choices of --workers and --batch-size
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Version:
    """What tells a changed file from the one that was labelled."""

    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image could not be read."""

    kind: str  # one of ERROR_KINDS
    message: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image (or why it says nothing).

    Probabilities are rounded to four digits, as every output writes them. `label`, `confidence` and
    `probabilities` are empty where `status` is `error` or `no_face`.
    """

    path: str
    truth: str | None
    status: str  # one of STATUSES
    label: str | None = None
    confidence: float | None = None  # 0..1, the label's probability
    probabilities: Mapping[str, float] = field(default_factory=dict)  # label -> 0..1
    error_kind: str | None = None  # one of ERROR_KINDS
    error: str | None = None
    face: int | None = None  # 0 is the largest face of the image
    x: int | None = None  # pixels of the upright image, as are the next three
    y: int | None = None
    width: int | None = None
    height: int | None = None
    face_score: float | None = None  # 0..1


def columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The output's columns in order, for a model with these labels."""
    return (
        *("path", "truth", "label", "confidence"),
        *labels,
        *("status", "error_kind", "error", "face", "x", "y", "width", "height", "face_score"),
    )


def row(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """A prediction as column -> value, None where a column does not apply."""
    values = {name: getattr(prediction, name) for name in columns(())}
    values |= {label: prediction.probabilities.get(label) for label in labels}
    return {name: values[name] for name in columns(labels)}


# Of every model, whoever trained it.
INTENDED_USE = "Sorting and describing images of faces by the expression they show."
LIMITS = (
    "The labels are guesses at the expression a picture shows, not at what a person feels. Not for inferring emotions"
    " of people at work or in schools (prohibited in the EU by the AI Act, Article 5(1)(f)), nor for any decision"
    " about a person."
)


@dataclass(frozen=True, slots=True)
class Card:
    """What a weights file knows about itself; stands beside it as NAME.json."""

    name: str
    architecture: str  # a key of models.MODELS
    arguments: Mapping[str, Any]  # of the architecture
    labels: tuple[str, ...]  # in the order of the outputs
    size: int  # pixels, both sides of the input
    mean: float  # of pixels scaled to 0..1
    std: float
    preprocessing: Mapping[str, Any]  # how an image becomes size x size, in words and numbers
    temperature: float  # logits are divided by it
    sha256: str  # of the .safetensors file
    parameters: int
    multiply_adds: int  # per image
    data: Mapping[str, Any]  # what it was trained on, and what was left out
    recipe: Mapping[str, Any]  # every setting of the training, the seed among them
    scores: Sequence[Mapping[str, Any]]  # each with n and a 95 % interval
    licence: Mapping[str, str]  # of the weights, of the data
    intended_use: str
    limits: str
