"""The options that several commands have: spelled, explained and checked alike in each."""

from __future__ import annotations

from typing import Annotated

import typer

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import FACES_MODES, FOUND_ON, MARGINS, Rules

Model = Annotated[str, typer.Option("--model", help="A shipped model's name, or the path of a .safetensors file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", help="fp32, bf16, or auto: bf16 where the CPU or GPU computes in it (converted models: fp32)."
    ),
]
Tta = Annotated[
    bool, typer.Option("--tta", help="Label each image together with its mirror image: better, at twice the work.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images that travel together, at the most.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes.  [default: one a core, for few images none]")
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="The file to write, s3://bucket/labels.csv, a database's URL, or - for stdout.  [default: labels.csv]",
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", help="csv, json, jsonl or parquet; else the output's suffix tells.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut short.")]
Faces = Annotated[
    str,
    typer.Option(
        "--faces",
        help="whole: each image is one cropped face; detect: find the faces and label each; auto: as suits each image.",
    ),
]
FacesOn = Annotated[
    str,
    typer.Option(
        "--faces-on",
        help="cores: the cores look for faces; device: PyTorch does, on --device, in batches"
        " (not measured on a GPU yet).",
    ),
]
MinFace = Annotated[
    int, typer.Option("--min-face", min=1, help="Leave out faces that are fewer pixels than this wide or high.")
]
FaceMargin = Annotated[
    float,
    typer.Option(
        "--face-margin",
        min=MARGINS[0],
        max=MARGINS[1],
        help="Widen the crop of a found face on each side by this share of it.",
    ),
]
Hidden = Annotated[
    bool, typer.Option("--hidden", help="In folders, take hidden files as well, and what other programs keep there.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", help="In folders, leave out what this pattern matches, as in .gitignore: thumbs/ or *.gif"
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow links to folders below the one that is given.")
]
PathColumn = Annotated[
    str | None,
    typer.Option("--path-column", help="The table's column that names the images.  [default: path, file, image, …]"),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="The table's column that holds the label.  [default: label, class, …]"),
]
Images = Annotated[
    str | None,
    typer.Option("--images", help="The folder that holds the table's images, or its URL.  [default: the table's own]"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing when all goes well.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: device, each image that failed.")]


def rules(hidden: bool, exclude: list[str] | None, follow_links: bool) -> Rules:
    """What counts in folders, as the three options say it."""
    return Rules(hidden, tuple(exclude or ()), follow_links)


def check_faces(mode: str, faces_on: str = "cores") -> None:
    """UsageError where --faces is none of its modes, or --faces-on none of its places."""
    if faces_on not in FOUND_ON:
        raise UsageError(f"--faces-on is {' or '.join(FOUND_ON)}, not '{escape(faces_on)}'")
    if mode == "whole" and faces_on != "cores":
        raise UsageError("--faces-on device needs faces to be looked for: not --faces whole")
    if mode not in FACES_MODES:
        raise UsageError(f"--faces is {', '.join(FACES_MODES[:-1])} or {FACES_MODES[-1]}, not '{escape(mode)}'")
