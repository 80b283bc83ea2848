"""The folder of a store that a report is put to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ferbatch.commands.evaluate.folder import LEFTOVERS, REPORT_FILE, ReportFolder
from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import writing
from ferbatch.core.locks import locked
from ferbatch.core.names import shown
from ferbatch.core.options import Existing
from ferbatch.core.records import MARKER
from ferbatch.core.stores import objects, spools
from ferbatch.core.stores.locks import StoreLock

MOST_MARKER = 2**20  # bytes
PAGE = "report.html"  # what is put last: it speaks of the others


class StoreReportFolder(ReportFolder):
    """A report that is written to a spool of this machine, and put as whole objects when it is finished."""

    def __init__(self, url: str) -> None:
        """`url`: of the folder, as `objects.folder` has it."""
        super().__init__(spools.of(objects.plain(url)))
        self.url = url
        self.names: Sequence[str] = ()  # of what is finished

    @property
    def shown(self) -> str:
        return shown(self.url)

    def place(self, name: str) -> str:
        return f"{self.url}/{name}"

    def holds(self, path: str) -> bool:
        return os.path.dirname(objects.plain(path)) == objects.plain(self.url)

    def check(self, existing: Existing) -> None:
        spools.check()
        start = len(self.place(""))
        names = {path[start:] for page in objects.below(self.url, deep=False) for path in page}
        if MARKER in names:
            if not existing.overwrite:
                raise UsageError(f"{self.shown} holds a report; --overwrite replaces it")
            for name in sorted(names - set(self._noted())):
                if REPORT_FILE.fullmatch(name):
                    raise UsageError(f"{shown(self.place(name))} is not ferbatch's: take it away first")
        elif not all(map(LEFTOVERS.fullmatch, names)):
            raise UsageError(f"{self.shown} is not empty and holds no report: choose a new folder")

    @contextmanager
    def held(self, existing: Existing) -> Iterator[None]:
        spools.check()
        lock = StoreLock(f"{self.place(MARKER)}.lock", self.shown)
        with locked(self.path, self.shown), lock.held():
            self.check(existing)
            self._clear()
            with writing(shown(self.path)):
                os.makedirs(self.path, mode=0o700)
            try:
                yield
            except BaseException:
                self._clear()
                raise
            try:
                lock.check()
                self._put()
            except OutputError as error:
                raise OutputError(f"{error}; the report is in {shown(self.path)}") from error
            self._clear()

    def finish(self, names: Sequence[str]) -> None:
        self.names = names

    def _put(self) -> None:
        """Have the files as objects, and those of the report that they replace no more; there is a marker all along."""
        gone = [name for name in self._noted() if name not in self.names and REPORT_FILE.fullmatch(name)]
        self._note([*self.names, *gone])
        for name in self.names:
            if name != PAGE:
                objects.put(self.file(name), self.place(name))
        objects.remove_all([self.place(name) for name in gone])
        if gone:
            self._note(self.names)
        objects.put(self.file(PAGE), self.place(PAGE))

    def _note(self, names: Sequence[str]) -> None:
        objects.write(self.place(MARKER), os.fsencode("".join(f"{name}\n" for name in names)))

    def _noted(self) -> list[str]:
        return os.fsdecode(objects.begins(self.place(MARKER), MOST_MARKER) or b"").splitlines()

    def _clear(self) -> None:
        with writing(shown(self.path)), suppress(FileNotFoundError):
            shutil.rmtree(self.path)
