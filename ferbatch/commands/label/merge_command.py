"""`ferbatch merge`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from ferbatch.core import process
from ferbatch.core.options import Existing
from ferbatch.shell import options as shared
from ferbatch.shell.exits import exits


@exits
def merge(
    parts: Annotated[
        list[str], typer.Argument(metavar="PARTS", help="The labels files of all shares, or a folder of parts.")
    ],
    output: shared.Output = None,
    format_: shared.Format = None,
    overwrite: shared.Overwrite = False,
    quiet: shared.Quiet = False,
) -> None:
    """Join what `ferbatch label` wrote with --shard, or in parts, to the file that one run writes, to the byte."""
    from ferbatch.commands.label.plan import plan

    target, existing = plan(output, format_), Existing(overwrite=overwrite)
    target.check(existing)
    process.be_quick()
    from ferbatch.commands.label import console
    from ferbatch.commands.label.merge import run

    whole = run(parts, target, existing)
    console.merged(whole, quiet=quiet)
    raise typer.Exit(whole.exit_code)
