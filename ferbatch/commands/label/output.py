"""Where an output goes and what may already be there: checked before any work, held by a lock while it runs."""

from __future__ import annotations

import codecs
import io
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import (
    EXISTS,
    OutputStream,
    check_has_folder,
    check_room,
    remove,
    replace_file,
    sha256_of,
    writing,
)
from ferbatch.core.locks import Holder, check_free, locked
from ferbatch.core.names import shown
from ferbatch.core.options import Existing
from ferbatch.core.records import REPORT_SUFFIXES
from ferbatch.core.writers import WRITERS, Writer
from ferbatch.stream.journal import Done, Journal, head_of

STDOUT = "-"
MOST_SIDECAR = 2**24  # characters of a sidecar, to read
BEGUN = "is left of an unfinished run; --resume goes on with it, --overwrite begins again"
THERE = "exists; --overwrite replaces it, --incremental adds what is new, --resume ends an unfinished run"


class Output:
    """One labels file, or stdout, and the files beside it."""

    bom = False  # whether the labels begin with a byte order mark
    in_parts = False  # whether it is a folder of several files

    def __init__(self, path: str, format_: str) -> None:
        """`path`: of the labels; STDOUT where they go there. `format_`: a key of WRITERS."""
        self.path, self.format = path, format_
        self.is_file = path != STDOUT
        self.lasts = self.is_file  # whether it is there after the run, to go on with
        self.shown = shown(path) if self.is_file else "stdout"  # safe to print
        self.part = f"{path}.part"  # the labels while they are written
        self.journal = f"{path}.journal"  # of a run that is not finished
        self.state = f"{path}.run.jsonl"  # the journal of the run that made the output: an incremental one goes by it
        self.sidecar = f"{path}.run.json"
        self.report = f"{path}.report"  # what the names of the report's files begin with
        self.report_files = [f"{self.report}.{suffix}" for suffix in REPORT_SUFFIXES]
        self.of_journal, self.of_state = f"{self.shown}.journal", f"{self.shown}.run.jsonl"  # safe to print
        self.of_report = f"{self.shown}.report"
        self.notes: list[str] = []  # what a user should hear of it, once it is held
        self.owner = os.path.abspath(path) if self.is_file else path  # of folders of faces
        self.files = (self.journal, self.part, self.path, self.state, self.sidecar, *self.report_files)

    def check(self, existing: Existing, *, held: bool = False) -> None:
        """UsageError or OutputError if this output must not or cannot be written, LockedError while another run does.

        `held` says that the lock is ours.
        """
        if not self.is_file:
            return
        said = {self.journal: BEGUN, self.part: BEGUN, self.path: THERE}
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
    def held(self, existing: Existing, labels: Sequence[str]) -> Iterator[Holder | None]:
        """Keep other runs off this output; LockedError if one has it, and what `check` raises if one just had.

        UsageError as well where what is there has no place for the rows of a model with these labels.
        Yields who held it and died, if so.
        """
        if not self.is_file:
            yield None
            return
        with locked(self.path) as dead:
            self.check(existing, held=True)
            self.clear()
            yield dead

    def clear(self) -> None:
        """Take away what a run that died had written of the labels."""
        remove(self.part)

    def check_room(self, needed: int) -> None:
        """OutputError if fewer bytes than these are free where the output goes."""
        if self.is_file:
            check_room(self.path, needed)

    @property
    def exists(self) -> bool:
        """Whether there are labels."""
        return os.path.exists(self.path)

    @property
    def unfinished(self) -> bool:
        """Whether there is a run to go on with."""
        return self.is_file and os.path.exists(self.journal)

    def is_changed(self, begun_on: str | None) -> bool:
        """Whether the labels are not those of their sidecar, nor those that a run was begun on (a sha256)."""
        return self.sha256_of(self.path) not in (None, begun_on, self.read_sidecar().get("sha256"))

    def sha256_of(self, path: str) -> str | None:
        """The hash of the labels, or of their part while they are written; None where there are none."""
        return sha256_of(path)

    def head_of(self, path: str) -> Mapping[str, Any]:
        """What a journal says of its run; nothing where there is none."""
        return head_of(path)

    def done(self, path: str) -> Done | None:
        """What a journal holds, of an unfinished run or a finished one; None where there is none."""
        return Done(path) if os.path.exists(path) else None

    @contextmanager
    def recording(
        self, labels: Sequence[str], head: Mapping[str, Any], before: Done | None = None, base: Done | None = None
    ) -> Iterator[tuple[Writer, Journal | None]]:
        """What takes the rows of a run, and its journal; all is in place when the block ends well.

        labels: of the model.
        head: what the journal says of the run.
        before: the journal to go on with; None: a new one begins.
        base: of the finished run that is brought up to date.
        """
        with ExitStack() as stack:
            stream = stack.enter_context(self.stream())
            journal = stack.enter_context(self._journal(head, before)) if self.is_file else None
            yield WRITERS[self.format](stream, labels), journal
        if journal:
            journal.finish(self.state)

    def _journal(self, head: Mapping[str, Any], before: Done | None) -> Journal:
        """The journal, to go on with or a new one; it is as private as the labels that are there."""
        journal = Journal(self.journal, before.end if before else None, head)
        with writing(journal.shown):
            if os.path.exists(self.path):
                os.chmod(self.journal, stat.S_IMODE(os.stat(self.path).st_mode) & 0o666)  # of a folder, too
        return journal

    def put(self) -> None:
        """Have what was recorded where it belongs, if that is elsewhere than it was written."""

    def drop(self) -> None:
        """Let go of an unfinished run, with which nobody can go on."""
        if self.is_file:
            remove(self.journal)

    def forget(self, path: str) -> None:
        """The rows of an image that is gone go, where they do not by themselves."""

    def keep(self, report: Mapping[str, Any] | None, sidecar: Mapping[str, Any]) -> None:
        """Write the report, or none in place of that of labels which were replaced, and the sidecar."""
        if report is None:
            for path in self.report_files:
                remove(path)
        else:
            from ferbatch.report import pages  # draws with matplotlib

            pages.write(report, self.report)
        with replace_file(self.sidecar) as stream:
            stream.write((json.dumps(sidecar, indent=2) + "\n").encode())

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
