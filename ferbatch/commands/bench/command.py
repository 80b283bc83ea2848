"""`ferbatch bench`: its options."""

from __future__ import annotations

import functools
import json
from typing import Annotated

import typer

from ferbatch.core import process
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.options import DEFAULT_MODEL, BenchOptions
from ferbatch.shell import options as shared
from ferbatch.shell.exits import exits


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
        str,
        typer.Option(
            "--generate",
            help="What to draw: faces (48x48), portraits (350x350), frames (720x576), photos (12 megapixels) or mixed.",
        ),
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
    faces: shared.Faces = "auto",
    faces_on: shared.FacesOn = "cores",
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    format_: Annotated[
        str | None, typer.Option("--format", help="json: every figure of every round.  [default: a table]")
    ] = None,
    quiet: shared.Quiet = False,
) -> None:
    """Measure speed on this machine: reading, decoding, the network, all of it, and how near that is to the limit."""
    if format_ not in (None, "json"):
        raise UsageError(f"the figures come as a table or as json, not as '{escape(format_)}'")
    shared.check_faces(faces, faces_on)
    process.be_quick()

    with process.importing():
        from ferbatch.commands.bench import console, run
        from ferbatch.shell.console import answer

    options = BenchOptions(
        paths=tuple(paths or ()),
        models=tuple(dict.fromkeys(models_ or (DEFAULT_MODEL,))),
        images=images,
        generate=generate,
        faces=faces,
        faces_on=faces_on,
        repeat=repeat,
        compare=tuple(dict.fromkeys(compare or ())),
        peer_python=peer_python,
        recommend=not no_recommend,
        device=device,
        precision=precision,
    )
    found = run.run(options, functools.partial(console.note, quiet=quiet))
    if format_ == "json":
        answer(json.dumps(found, indent=2))
    else:
        console.show_bench(found)
