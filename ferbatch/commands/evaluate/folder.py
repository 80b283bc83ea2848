"""The folder that a report is written to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import remove, replace_file, writing
from ferbatch.core.locks import locked
from ferbatch.core.names import encode_path
from ferbatch.core.options import Existing
from ferbatch.core.records import MARKER

REPORT_FILE = re.compile(r"labels(-\d+)?\.csv|report\.(?!.*\.part$).+")
LEFTOVER = re.compile(r"\.ferbatch\.(lock|part)|(labels|report)[-.].*\.part")  # of a report that was cut short


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

    def check(self, existing: Existing) -> None:
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
            if not existing.overwrite:
                raise UsageError(f"{self.shown} holds a report; --overwrite replaces it")
            for name in sorted(set(os.listdir(self.path)) - set(self._noted())):
                if REPORT_FILE.fullmatch(name):
                    shown = encode_path(os.fsencode(self.file(name)))
                    raise UsageError(f"{shown} is not ferbatch's: take it away first")
        elif os.path.isdir(self.path) and not all(map(LEFTOVER.fullmatch, os.listdir(self.path))):
            raise UsageError(f"{self.shown} is not empty and holds no report: choose a new folder")

    @contextmanager
    def held(self, existing: Existing) -> Iterator[None]:
        """Make the folder and keep other runs off it; LockedError if one has it."""
        with writing(self.shown):
            os.makedirs(self.path, exist_ok=True)
        with locked(self.file(MARKER)):
            self.check(existing)
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
