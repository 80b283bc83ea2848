"""Which output --output and --format mean together."""

from __future__ import annotations

import os

from ferbatch.commands.label import parts
from ferbatch.commands.label.output import STDOUT, Output
from ferbatch.core.database import database_at, is_url
from ferbatch.core.errors import UsageError
from ferbatch.core.names import shown
from ferbatch.core.stores import objects
from ferbatch.core.stores.urls import is_remote
from ferbatch.core.writers import WRITERS, check_format


def plan(path: str | None, format_name: str | None, *, bom: bool = False) -> Output:
    """The Output that --output, --format and --bom mean together; UsageError where they disagree."""
    output = _plan(path, format_name)
    if bom and output.format != "csv":
        raise UsageError(f"--bom is for csv, which spreadsheets read, and not for {output.format}")
    output.bom = bom
    return output


def _plan(path: str | None, format_name: str | None) -> Output:
    if format_name is not None:
        check_format(format_name)
    if path is None:
        path = f"labels.{format_name or 'csv'}"
    if not path:
        raise UsageError("--output is empty")
    if is_remote(os.fsencode(path)):
        from ferbatch.commands.label.store_output import StoreOutput

        if path.endswith("/"):
            from ferbatch.commands.label.store_parts import StorePartsOutput, format_at

            url = objects.folder(path)
            return StorePartsOutput(url, check_format(format_name or format_at(url)))
        url = objects.check(path)
        return StoreOutput(url, _format_of(url, format_name))
    if is_url(path):
        database = database_at(path)  # says what is not installed
        from ferbatch.commands.label.database import DatabaseOutput  # imports SQLAlchemy, which is an extra

        if format_name is not None:
            raise UsageError(f"--format is of a file, and --output a database ({database.shown}): leave it out")
        return DatabaseOutput(database)
    if path == STDOUT:
        return Output(STDOUT, check_format(format_name or "csv"))
    in_parts, path = path.endswith("/") or parts.holds_parts(path), path.rstrip("/") or "/"
    if os.path.islink(path):  # write where the link points, not over the link
        path = os.path.realpath(path)
    if in_parts:
        return parts.PartsOutput(path, check_format(format_name or parts.format_of(path)))
    return Output(path, _format_of(path, format_name))


def _format_of(path: str, format_name: str | None) -> str:
    """What --format says, else the suffix of --output; UsageError where they disagree or say nothing."""
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    if suffix in WRITERS and format_name not in (None, suffix):
        raise UsageError(f"--output {shown(path)} and --format {format_name} disagree")
    if suffix not in WRITERS and format_name is None:
        known = ", ".join(f".{name}" for name in WRITERS)
        raise UsageError(f"{shown(path)} has no known suffix ({known}); or say --format")
    return check_format(format_name or suffix)
