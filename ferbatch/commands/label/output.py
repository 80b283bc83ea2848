"""Where an output goes and what may already be there: checked before any work, held by a lock while it runs."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import EXISTS, OutputStream, check_has_folder, remove, replace_file, unwritten, writing
from ferbatch.core.locks import Holder, check_free, locked
from ferbatch.core.names import shown
from ferbatch.core.options import Existing
from ferbatch.core.records import REPORT_SUFFIXES
from ferbatch.core.writers import WRITERS, check_format

STDOUT = "-"
MOST_SIDECAR = 2**24  # characters of a sidecar, to read


class Output:
    """One labels file, or stdout, and the files beside it."""

    bom = False  # whether the labels begin with a byte order mark

    def __init__(self, path: str, format_: str) -> None:
        """`path`: of the labels; STDOUT where they go there. `format_`: a key of WRITERS."""
        self.path, self.format = path, format_
        self.is_file = path != STDOUT
        self.shown = shown(path) if self.is_file else "stdout"  # safe to print
        self.part = f"{path}.part"  # the labels while they are written
        self.journal = f"{path}.journal"  # of a run that is not finished
        self.state = f"{path}.run.jsonl"  # the journal of the run that made the output: an incremental one goes by it
        self.sidecar = f"{path}.run.json"
        self.report = f"{path}.report"  # what the names of the report's files begin with
        self.report_files = [f"{self.report}.{suffix}" for suffix in REPORT_SUFFIXES]
        self.files = (self.journal, self.part, self.path, self.state, self.sidecar, *self.report_files)

    def check(self, existing: Existing, *, held: bool = False) -> None:
        """UsageError or OutputError if this output must not or cannot be written, LockedError while another run does.

        `held` says that the lock is ours.
        """
        if not self.is_file:
            return
        begun = "is left of an unfinished run; --resume goes on with it, --overwrite begins again"
        there = "exists; --overwrite replaces it, --incremental adds what is new, --resume ends an unfinished run"
        said = {self.journal: begun, self.part: begun, self.path: there}
        for path in self.files:
            if self._there(path) and not self._may_go(existing):
                if path in (self.journal, self.part) and not held:
                    check_free(self.path)  # or the run is not unfinished, but going on
                raise UsageError(f"{shown(path)} {said.get(path, EXISTS)}")
        check_has_folder(self.path)

    def _there(self, path: str) -> bool:
        """Whether something is there; UsageError if it could not be a file of ours."""
        with writing(shown(path)), suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # what the system has against the name itself
        if os.path.lexists(path) and not os.path.isfile(path):
            raise UsageError(f"{shown(path)} is not a regular file (rows go to stdout with -o -)")
        return os.path.exists(path)

    def _may_go(self, existing: Existing) -> bool:
        """Whether what is there may be replaced or gone on with.

        A run that goes on knows its own by labels, their part and journal; where there are none, by the sidecar.
        """
        going_on = existing.resume or existing.incremental
        begun = any(map(os.path.exists, (self.path, self.part, self.journal)))
        return existing.overwrite or (going_on and (begun or "ferbatch" in self.read_sidecar()))

    def read_sidecar(self) -> dict[str, Any]:
        """What the sidecar says; nothing where there is none, or none of ours."""
        with suppress(OSError, ValueError, RecursionError), open(self.sidecar, encoding="utf-8") as stream:
            values = json.loads(stream.read(MOST_SIDECAR))
            return values if isinstance(values, dict) else {}
        return {}

    def is_mine(self, path: str) -> bool:
        """Whether a path is that of the labels or of a file beside them."""
        return self.is_file and os.path.realpath(path) in map(os.path.realpath, (f"{self.path}.lock", *self.files))

    @contextmanager
    def held(self, existing: Existing) -> Iterator[Holder | None]:
        """Keep other runs off this output; LockedError if one has it, and what `check` raises if one just had.

        Yields who held it and died, if so.
        """
        if not self.is_file:
            yield None
            return
        with locked(self.path) as dead:
            self.check(existing, held=True)
            remove(self.part)
            yield dead

    def check_room(self, needed: int) -> None:
        """OutputError if fewer bytes than these are free where the output goes."""
        if not self.is_file:
            return
        with writing(self.shown):
            free = shutil.disk_usage(os.path.dirname(self.path) or ".").free
        if free < needed:
            room = f"at least {needed / 1e6:,.1f} MB are needed in its folder, {free / 1e6:,.1f} MB are free"
            raise unwritten(self.shown, room)

    @contextmanager
    def stream(self) -> Iterator[OutputStream]:
        """The binary stream the rows go to; a file appears under its name only when all are written."""
        if self.is_file:
            with replace_file(self.path) as stream:
                self._mark(stream)
                yield stream
            return
        if sys.stdout is None:
            raise OutputError("stdout is closed")
        stream = OutputStream(io.FileIO(sys.stdout.fileno(), "wb", closefd=False), self.shown)
        self._mark(stream)
        yield stream
        stream.flush()

    def _mark(self, stream: OutputStream) -> None:
        if self.bom:
            stream.write(codecs.BOM_UTF8)

    def is_marked_otherwise(self) -> bool:
        """Whether the labels that are there have a byte order mark where this run writes none, or have none."""
        if self.format != "csv":
            return False
        with writing(self.shown), open(self.path, "rb") as stream:
            return (stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8) != self.bom


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
    if path == STDOUT:
        return Output(STDOUT, check_format(format_name or "csv"))
    if os.path.islink(path):  # write where the link points, not over the link
        path = os.path.realpath(path)
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    if suffix in WRITERS and format_name not in (None, suffix):
        raise UsageError(f"--output {shown(path)} and --format {format_name} disagree")
    if suffix not in WRITERS and format_name is None:
        known = ", ".join(f".{name}" for name in WRITERS)
        raise UsageError(f"{shown(path)} has no known suffix ({known}); or say --format")
    return Output(path, check_format(format_name or suffix))
