"""The folder that a report is written to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ferbatch.core.errors import UsageError
from ferbatch.core.files import check_is_folder, remove, replace_file, unwritten, writing
from ferbatch.core.locks import locked
from ferbatch.core.names import shown
from ferbatch.core.options import Existing
from ferbatch.core.records import MARKER

REPORT_FILE = re.compile(r"labels(-\d+)?\.csv|report\.(?!.*\.part$).+")
# What a report that was cut short leaves.
LEFTOVERS = re.compile(r"\.ferbatch\.(lock|part)|(labels|report)[-.].*\.part")


class ReportFolder:
    """A folder for a report. It carries a marker that lists the files ferbatch wrote; nothing else in it is touched."""

    def __init__(self, path: str) -> None:
        """`path`: where its files are written."""
        self.path = path

    @property
    def marker(self) -> str:
        return os.path.join(self.path, MARKER)

    @property
    def shown(self) -> str:
        """The path, safe to print."""
        return shown(self.path)

    def file(self, name: str) -> str:
        """Where a file of this name is written."""
        return os.path.join(self.path, name)

    def place(self, name: str) -> str:
        """Where it is in the end."""
        return self.file(name)

    def holds(self, path: str) -> bool:
        """Whether a file lies in this folder."""
        inside = os.path.realpath(os.path.dirname(path) or ".") == os.path.realpath(self.path)
        return inside and os.path.isfile(path)

    def check(self, existing: Existing) -> None:
        """UsageError or OutputError if the report must not or cannot be written here."""
        check_is_folder(self.path)
        nearest = os.path.abspath(self.path)  # the folder itself, or where it will be made
        while not os.path.lexists(nearest):
            nearest = os.path.dirname(nearest)
        check_is_folder(nearest)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise unwritten(self.shown, "no permission")
        if os.path.lexists(self.marker):
            if not existing.overwrite:
                raise UsageError(f"{self.shown} holds a report; --overwrite replaces it")
            for name in sorted(set(os.listdir(self.path)) - set(self._noted())):
                if REPORT_FILE.fullmatch(name):
                    raise UsageError(f"{shown(self.file(name))} is not ferbatch's: take it away first")
        elif os.path.isdir(self.path) and not all(map(LEFTOVERS.fullmatch, os.listdir(self.path))):
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
        """The files that the marker lists; none where there is no marker."""
        with writing(self.shown), suppress(FileNotFoundError), open(self.marker, "rb") as stream:
            return os.fsdecode(stream.read()).splitlines()
        return []
