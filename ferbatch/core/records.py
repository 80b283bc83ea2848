"""The records that travel: an image's reference, how it is decoded, what the model said of it.

Standard library only, so that importing ferbatch stays cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SCHEMA = 2  # of the output columns

ERROR_KINDS = (
    *("unreadable", "truncated", "blank", "too_large", "not_found", "permission"),
    *("timeout", "crashed", "unsupported", "unreachable"),
)
PRECISIONS = ("auto", "fp32", "bf16")  # of the network's body
UNLISTABLE = "a folder that cannot be listed"  # the error of a folder's row
STATUSES = ("ok", "uncertain", "no_face", "error")

SINCE_2 = ("face_turn", "face_blur", "face_cut")  # columns that SCHEMA 1 did not have
# Of a face that was found: its number, where it is in the image, and what can be said of it without a model.
FACE_COLUMNS = ("face", "x", "y", "width", "height", "face_score", *SINCE_2)

NONE = -1  # in place of a label's index, where there is none
NO_FACE = -2  # in place of a label's index, where no face was found

MOST_VALUES = 50  # of a column of metadata; one with more divides nothing

REPORT_CHARTS = ("confusion-matrix", "reliability", "precision-recall", "coverage")
REPORT_SUFFIXES = ("json", "md", "html", *(f"{chart}.svg" for chart in REPORT_CHARTS))  # of one model's report

DIGITS = 4  # after the point of a probability, wherever it is written
UNIT = 10**DIGITS  # a probability of 1 in the whole numbers that batches and outcomes hold

MAX_BYTES = 256 * 2**20  # of one image file
CONNECTIONS = 64  # to stores and web servers, of all processes together, at the most

MARKER = ".ferbatch"  # in folders that ferbatch writes; they are never read as sources

FACES_MODES = ("auto", "whole", "detect")
FOUND_ON = ("cores", "device")  # what looks for faces: the cores, or the device that labels
MIN_FACE = 20  # pixels of the photo; a smaller face tells little
MARGINS = (-0.25, 1.0)  # the least and the most that may be added to the training faces' frame, as shares of it

LARGE_SIDE = 512  # pixels; an image with a longer side is hardly a cropped face
WIDE_RATIO = 1.5  # of width to height; an image that is wider is hardly a cropped face


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image to read: what to call it, where it lies, what its folder says it shows."""

    path: str  # as printed; `names.decode_path` gives the bytes back
    file: bytes  # as opened
    truth: str | None = None  # a label, where a folder at or below PATH is named like one


@dataclass(frozen=True, slots=True)
class Search:
    """Whether and how faces are looked for in an image. Travels to the processes that decode."""

    mode: str = "whole"  # one of FACES_MODES
    min_face: int = MIN_FACE  # pixels of the upright image that a face is wide and high, at the least
    margin: float = 0.0  # added on each side of the training faces' frame, as a share of it; in MARGINS
    largest: bool = False  # keep the largest face alone
    detector: str = "yunet"  # a key of faces.DETECTORS
    device: str | None = (
        None  # cpu, cuda or cuda:N, where PyTorch runs the detector; None: on the cores, by what is best
    )
    crops: str | None = None  # the folder to write crops to
    reframe: bool = False  # level and frame faces that fill their image as others: a view for training

    def __post_init__(self) -> None:
        if self.mode not in FACES_MODES:
            raise ValueError(f"faces is {' or '.join(FACES_MODES)}, not '{self.mode}'")
        if self.min_face < 1:
            raise ValueError(f"min_face is {self.min_face}, not 1 or more")
        if not MARGINS[0] <= self.margin <= MARGINS[1]:
            raise ValueError(f"face_margin is {self.margin}, not {MARGINS[0]} to {MARGINS[1]}")


MOST_TURN = 180.0  # degrees; no face is turned by more
TURNED = 45.0  # degrees; a face that is turned by more lies or hangs


@dataclass(frozen=True, slots=True)
class Doubt:
    """What makes a label `uncertain`; by default nothing does. ValueError for a number out of its range."""

    min_confidence: float = 0.0  # 0..1, of a label's probability
    min_score: float = 0.0  # 0..1, of the detector's score of a face that was found
    max_turn: float = MOST_TURN  # degrees, 0..180, by which a face that was found is turned, either way

    def __post_init__(self) -> None:
        for name, most in (("min_confidence", 1), ("min_score", 1), ("max_turn", 180)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}, not 0..{most}")


WHOLE = Search()  # every image is one cropped face


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts of the folders that are walked, besides that it is an image."""

    hidden: bool = False  # names that begin with a dot, what programs keep, files that are not finished
    exclude: tuple[str, ...] = ()  # gitignore's patterns of what does not, each from PATH on
    follow_links: bool = False  # folders below PATH that are links


USUAL = Rules()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a file becomes model inputs. Travels to the processes that decode."""

    size: int  # pixels on each side of a model input
    by_pillow: bool = False  # leave the quicker decoder of plain JPEGs alone
    search: Search = WHOLE
    connections: int = CONNECTIONS  # to stores, of the process that decodes
    anew: bool = False  # whether no earlier run can have left crops of these images


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that decode, and on CPUs may label as well."""

    number: int | None = None  # None: what suits the device; 0: this process decodes, unless it has to be isolated
    isolate: bool | None = False  # whether a process may die; None: where there are many images
    timeout: float | None = None  # seconds that an isolated process may take for one image


class Box(NamedTuple):
    """Where a face is, in pixels of the upright image, and what can be said of it without a model."""

    x: int  # of the left side
    y: int  # of the upper side
    width: int
    height: int
    score: float  # 0..1, how sure the detector is
    turn: int = 0  # degrees by which it is turned from upright, -179..180: clockwise is more than 0
    blur: float = 0.0  # 0..1, how blurred its crop is
    cut: float = 0.0  # 0..1, the share of its crop that lies outside the image


class Version(NamedTuple):
    """What tells a changed file from the one that was labelled."""

    size: int  # bytes
    mtime_ns: int


NO_VERSION = Version(-1, -1)  # of a file that is not there


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
    face: int | None = None  # 0 is the largest face of the image; None: the image was taken whole, or has no label
    # Where the face is, in pixels of the upright image:
    x: int | None = None  # of its left side
    y: int | None = None  # of its upper side
    width: int | None = None
    height: int | None = None
    face_score: float | None = None  # 0..1, how sure the detector is
    face_turn: int | None = None  # degrees by which it is turned from upright, -179..180: clockwise is more than 0
    face_blur: float | None = None  # 0..1, how blurred its crop is: 0 is sharp
    face_cut: float | None = None  # 0..1, the share of its crop that lies outside the image


def columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The output's columns in order, for a model with these labels."""
    return (
        *("path", "truth", "label", "confidence"),
        *labels,
        *("status", "error_kind", "error", *FACE_COLUMNS),
    )
