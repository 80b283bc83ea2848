"""Where an output goes and what may already be there: checked before any work, held by a lock while it runs."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ferbatch.errors import OutputError, UsageError
from ferbatch.locks import locked
from ferbatch.paths import OutputStream, encode_path, replace_file, writing
from ferbatch.records import REPORT_ENDINGS, Existing
from ferbatch.sources import MARKER
from ferbatch.writers import WRITERS, check_format

STDOUT = "-"
REPORT_FILE = re.compile(r"labels(-\d+)?\.csv|report\.(?!.*\.part$).+")
LEFTOVER = re.compile(r"\.ferbatch\.(lock|part)|(labels|report)[-.].*\.part")  # of a report that was cut short


@dataclass(frozen=True, slots=True)
class Output:
    """One labels file, or stdout, and the files beside it."""

    path: str  # STDOUT for none
    format: str  # a key of WRITERS

    @property
    def is_file(self) -> bool:
        return self.path != STDOUT

    @property
    def sidecar(self) -> str:
        return f"{self.path}.run.json"

    @property
    def journal(self) -> str:
        """Of a run that is not finished."""
        return f"{self.path}.journal"

    @property
    def state(self) -> str:
        """The journal of the run that made the output: what an incremental run goes by."""
        return f"{self.path}.run.jsonl"

    @property
    def report(self) -> str:
        """What the names of the report's files begin with."""
        return f"{self.path}.report"

    @property
    def report_files(self) -> list[str]:
        return [f"{self.report}.{ending}" for ending in REPORT_ENDINGS]

    @property
    def shown(self) -> str:
        """The path, safe to print."""
        return encode_path(os.fsencode(self.path)) if self.is_file else "stdout"

    def check(self, existing: Existing) -> None:
        """UsageError or OutputError if this output must not or cannot be written."""
        if not self.is_file:
            return
        left = "is left of an unfinished run; --resume goes on with it, --overwrite begins again"
        there = "exists; --overwrite replaces it, --incremental adds what is new, --resume ends an unfinished run"
        said = {self.journal: left, f"{self.path}.part": left, self.path: there}
        for path in (self.journal, f"{self.path}.part", self.path, self.state, self.sidecar, *self.report_files):
            self._refuse(path, None if existing.any else said.get(path, "exists; --overwrite replaces it"))
        folder = os.path.dirname(self.path) or "."
        if not os.path.isdir(folder):
            raise UsageError(f"no folder {encode_path(os.fsencode(folder))} to write {self.shown} in")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self.shown} could not be written: no permission to write in its folder")

    def _refuse(self, path: str, sentence: str | None) -> None:
        """UsageError with this sentence if the path is there, or if it could not be a file of ours."""
        shown = encode_path(os.fsencode(path))
        with writing(shown), suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # what the system has against the name itself
        if os.path.lexists(path) and not os.path.isfile(path):
            raise UsageError(f"{shown} is not a regular file (rows go to stdout with -o -)")
        if os.path.exists(path) and sentence:
            raise UsageError(f"{shown} {sentence}")

    @contextmanager
    def held(self, existing: Existing) -> Iterator[str | None]:
        """Keep other runs off this output; LockedError if one has it, and what `check` raises if one just had.

        Yields who held it and died, if so.
        """
        if not self.is_file:
            yield None
            return
        with locked(self.path) as dead:
            self.check(existing)
            yield dead

    def check_room(self, needed: int) -> None:
        """OutputError if fewer bytes than these are free where the output goes."""
        if not self.is_file:
            return
        with writing(self.shown):
            free = shutil.disk_usage(os.path.dirname(self.path) or ".").free
        if free < needed:
            raise OutputError(
                f"{self.shown} could not be written: about {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB free"
            )

    @contextmanager
    def stream(self) -> Iterator[OutputStream]:
        """The binary stream the rows go to; a file appears under its name only when all are written."""
        if self.is_file:
            with replace_file(self.path) as stream:
                yield stream
            return
        if sys.stdout is None:
            raise OutputError("stdout is closed")
        stream = OutputStream(io.FileIO(sys.stdout.fileno(), "wb", closefd=False), self.shown)
        yield stream
        stream.flush()

    def remove_old_report(self) -> None:
        """Take away the report of the labels that were replaced."""
        for path in self.report_files:
            remove(path)


@dataclass(frozen=True, slots=True)
class ReportFolder:
    """A folder for a report. It carries a marker that lists the files ferbatch wrote; nothing else in it is touched."""

    path: str

    @property
    def marker(self) -> str:
        return os.path.join(self.path, MARKER)

    @property
    def shown(self) -> str:
        """The path, safe to print."""
        return encode_path(os.fsencode(self.path))

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def check(self, overwrite: bool) -> None:
        """UsageError or OutputError if the report must not or cannot be written here."""
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise UsageError(f"{self.shown} is not a folder")
        there = os.path.abspath(self.path)
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if not os.path.isdir(there):
            raise UsageError(f"{encode_path(os.fsencode(there))} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"{self.shown} could not be written: no permission")
        if os.path.lexists(self.marker):
            if not overwrite:
                raise UsageError(f"{self.shown} holds a report; --overwrite replaces it")
            for name in sorted(set(os.listdir(self.path)) - set(self._noted())):
                if REPORT_FILE.fullmatch(name):
                    shown = encode_path(os.fsencode(self.file(name)))
                    raise UsageError(f"{shown} is not ferbatch's: take it away first")
        elif os.path.isdir(self.path) and not all(map(LEFTOVER.fullmatch, os.listdir(self.path))):
            raise UsageError(f"{self.shown} is not empty and holds no report: choose a new folder")

    @contextmanager
    def held(self, overwrite: bool) -> Iterator[None]:
        """Make the folder and keep other runs off it; LockedError if one has it."""
        with writing(self.shown):
            os.makedirs(self.path, exist_ok=True)
        with locked(self.file(MARKER)):
            self.check(overwrite)
            yield

    def finish(self, names: Sequence[str]) -> None:
        """Note the files that were written, and take away those of the report that they replace."""
        before = self._noted()
        for name in set(before) - set(names):
            if name == os.path.basename(name) and name not in ("", ".", ".."):
                remove(self.file(name))
        with replace_file(self.marker) as marker:
            marker.write(os.fsencode("".join(f"{name}\n" for name in names)))

    def _noted(self) -> list[str]:
        """The files that the marker lists."""
        with writing(self.shown), suppress(FileNotFoundError), open(self.marker, "rb") as stream:
            return os.fsdecode(stream.read()).splitlines()
        return []


def remove(path: str) -> None:
    """Take a file of ours away, if it is there; OutputError where that fails."""
    with writing(encode_path(os.fsencode(path))), suppress(FileNotFoundError):
        os.unlink(path)


def plan(path: str | None, format_name: str | None) -> Output:
    """The Output that --output and --format mean together; UsageError where they disagree."""
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
    shown = encode_path(os.fsencode(path))
    if suffix in WRITERS and format_name not in (None, suffix):
        raise UsageError(f"--output {shown} and --format {format_name} disagree")
    if suffix not in WRITERS and format_name is None:
        known = ", ".join(f".{name}" for name in WRITERS)
        raise UsageError(f"{shown} has no known suffix ({known}); or say --format")
    return Output(path, check_format(format_name or suffix))
