"""Where an output goes and what may already be there: checked before any work, held by a lock while it runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from filelock import FileLock, Timeout

from ferbatch.errors import LockedError, OutputError, UsageError
from ferbatch.paths import OutputStream, encode_path, replace_file, writing
from ferbatch.writers import WRITERS, check_format

STDOUT = "-"


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
    def report(self) -> str:
        return f"{self.path}.report.txt"

    @property
    def shown(self) -> str:
        """The path, safe to print."""
        return encode_path(os.fsencode(self.path)) if self.is_file else "stdout"

    def check(self, overwrite: bool) -> None:
        """UsageError or OutputError if this output must not or cannot be written."""
        if not self.is_file:
            return
        self._refuse((self.path, self.sidecar, self.report), overwrite)
        folder = os.path.dirname(self.path) or "."
        if not os.path.isdir(folder):
            raise UsageError(f"no folder {encode_path(os.fsencode(folder))} to write {self.shown} in")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self.shown} could not be written: no permission to write in its folder")

    def _refuse(self, paths: Iterable[str], overwrite: bool) -> None:
        for path in paths:
            shown = encode_path(os.fsencode(path))
            with writing(shown), suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(path)  # what the system has against the name itself
            if os.path.lexists(path) and not os.path.isfile(path):
                raise UsageError(f"{shown} is not a regular file (rows go to stdout with -o -)")
            if os.path.exists(path) and not overwrite:
                raise UsageError(f"{shown} exists; --overwrite replaces it")

    @contextmanager
    def held(self, overwrite: bool) -> Iterator[None]:
        """Keep other runs off this output; LockedError if one has it, and what `check` raises if one just had."""
        if not self.is_file:
            yield
            return
        lock = FileLock(f"{self.path}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise LockedError(f"another run is writing {self.shown}") from error
        except OSError as error:
            raise OutputError(f"{self.shown} could not be written: {error.strerror}") from error
        try:
            self.check(overwrite)
            if os.path.lexists(f"{self.path}.part") and not overwrite:
                raise UsageError(f"{self.shown}.part is left of a run that was killed; --overwrite replaces it")
            yield
        finally:
            with suppress(OSError):  # before the release: filelock takes no lock on a file that is gone
                os.unlink(lock.lock_file)
            lock.release()

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
        with writing(encode_path(os.fsencode(self.report))), suppress(FileNotFoundError):
            os.unlink(self.report)


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
