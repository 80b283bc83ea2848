"""Labels that go to a store: written to files of this machine as ever, and put there as whole objects at the end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ferbatch.commands.label.output import BEGUN, MOST_SIDECAR, THERE, Output
from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import EXISTS, replace_file, sha256_of, writing
from ferbatch.core.locks import Holder, check_free, locked
from ferbatch.core.names import brief, shown
from ferbatch.core.options import Existing
from ferbatch.core.records import Version
from ferbatch.core.stores import objects, spools
from ferbatch.core.stores.locks import StoreLock
from ferbatch.stream.journal import head_in

MOST_HEAD = 2**22  # bytes of a journal's first line


class StoreOutput(Output):
    """One labels object and those beside it.

    Its spool, a folder of this machine, holds the files that become them: what a run goes on from is fetched into it
    first. It is gone when all is put; that of a run which was cut short stays, and says in `origin` on what it began.
    """

    def __init__(self, url: str, format_: str, spool: str | None = None) -> None:
        """`url`: of the labels; `format_`: a key of WRITERS; `spool`: another folder than the one it has."""
        plain = objects.plain(url)
        self.spool = spool or spools.of(plain)
        super().__init__(os.path.join(self.spool, f"labels.{format_}"), format_)
        self.url, self.shown = url, shown(url)
        self.owner, self.of_journal = plain, shown(self.journal)
        self.of_state, self.of_report = f"{self.shown}.run.jsonl", f"{self.shown}.report"
        self.origin = os.path.join(self.spool, "origin.json")
        self.lock: StoreLock | None = None  # while it is held
        self.found: Mapping[str, Version] = {}  # what was there when it was looked at last
        # The labels come last: when they are there, all is.
        self.main = self.path  # of the files that are put, the one that says that there are labels
        self.objects = [*self.report_files, self.sidecar, self.state, self.path]

    def url_of(self, file: str) -> str:
        """Where a file of the spool belongs."""
        return self.url + file.removeprefix(self.path)

    def check(self, existing: Existing, *, held: bool = False) -> None:
        spools.check()
        key = max((self.url_of(file).split("/", 3)[3] for file in (*self.objects, self.main)), key=len)
        if (n := len(key.encode())) > objects.MOST_KEY:
            raise UsageError(
                f"a name beside {brief(self.url)} is too long: {n:,} bytes, of {objects.MOST_KEY:,} at most"
            )
        self._look(patient=held)
        if existing.overwrite:
            return
        going_on, begun = existing.resume or existing.incremental, self.unfinished
        if begun and not going_on:
            if not held:
                check_free(self.spool, self.shown)  # or the run is not unfinished, but going on
            raise UsageError(f"{shown(self.spool)} {BEGUN}")
        if going_on and (begun or self.main in self.found or self._is_sidecar_ours()):
            return
        for file in (self.main, self.state, self.sidecar, *self.report_files):
            if file in self.found:
                raise UsageError(f"{shown(self.url_of(file))} {THERE if file == self.main else EXISTS}")

    def _look(self, *, patient: bool = True) -> None:
        """Find the files whose objects are there, and what those are."""
        found = objects.there([self.url_of(file) for file in self.objects], patient=patient)
        self.found = {file: found[url] for file in self.objects if (url := self.url_of(file)) in found}

    def _is_sidecar_ours(self) -> bool:
        with suppress(ValueError, RecursionError):
            said = json.loads(objects.begins(self.url_of(self.sidecar), MOST_SIDECAR) or b"")
            return isinstance(said, dict) and "ferbatch" in said
        return False

    @contextmanager
    def held(self, existing: Existing, labels: Sequence[str]) -> Iterator[Holder | None]:
        spools.check()
        lock = StoreLock(f"{self.url}.lock", self.shown)
        with locked(self.spool, self.shown) as dead, lock.held() as dead_there:
            self.lock = lock
            if not lock.is_sure:
                self.notes.append(
                    f"the store of {self.shown} knows no conditional put: two runs that begin at once may both write"
                )
            self.check(existing, held=True)
            try:
                self._begin(existing)
                yield dead or dead_there
            finally:
                if not self.unfinished:
                    self._clear()

    def _begin(self, existing: Existing) -> None:
        """Have in the spool what the run goes on from, and nothing else."""
        going_on = existing.resume or existing.incremental
        if going_on and self.unfinished:
            if self._is_begun_on_these():
                if not os.path.exists(self.journal):  # it was finished, and could not be put
                    self.put()
                return
            changed = f"{self.shown} has changed since the unfinished run in {shown(self.spool)} began"
            if not (existing.incremental or existing.overwrite):
                raise UsageError(f"{changed}; --overwrite, in place of --resume, begins again")
            self.notes.append(f"{changed}, which is let go")
        self._clear()
        with writing(shown(self.spool)):
            os.makedirs(self.spool, mode=0o700)
        if going_on:
            self._fetch()
        self._note(self.found.get(self.main))

    def _is_begun_on_these(self) -> bool:
        """Whether the labels that are there are those that the run in the spool began on, or its own."""
        if self._said_at_origin()["labels"] == _as_json(self.found.get(self.main)):
            return True
        with suppress(OSError), open(self.sidecar, "rb") as stream:
            return stream.read() == objects.begins(self.url_of(self.sidecar), MOST_SIDECAR)
        return False

    def fetch(self) -> None:
        """Have in the spool what is there; OutputError where it cannot be had."""
        self._look(patient=False)
        self._fetch()

    def _fetch(self) -> None:
        """The objects that a run goes by as files of the spool; the report is written anew by every run."""
        files = [file for file in (self.sidecar, self.state, *self._label_files()) if file in self.found]
        self.check_room(sum(self.found[file].size for file in files))
        for file in files:
            objects.get(self.url_of(file), file)

    def _label_files(self) -> list[str]:
        """The files of the spool that become the labels which are there, that which says so last."""
        return [self.path]

    def check_room(self, needed: int) -> None:
        try:
            super().check_room(needed)
        except OutputError as error:
            raise OutputError(f"{error}; {spools.SPOOL} names another folder") from error

    def _note(self, labels: Version | None) -> None:
        """Write down that the spool is of a run that begins on these labels."""
        with replace_file(self.origin) as stream:
            said = {"output": self.shown, "labels": _as_json(labels), "sidecar": sha256_of(self.sidecar)}
            stream.write(json.dumps(said).encode() + b"\n")

    def _said_at_origin(self) -> dict[str, Any]:
        """What was written down; nothing where the spool is of no run."""
        with suppress(OSError, ValueError), open(self.origin, encoding="utf-8") as stream:
            return {"labels": None, "sidecar": None, **json.load(stream)}
        return {}

    @property
    def unfinished(self) -> bool:
        """Whether the spool holds a run that was cut short, or is finished and not put."""
        said = self._said_at_origin()
        finished = os.path.exists(self.path) and said.get("sidecar") != sha256_of(self.sidecar)
        return bool(said) and (os.path.exists(self.journal) or finished)

    def put(self) -> None:
        """Have the files of a finished run as objects; what they replace and has none of its own goes."""
        if self.lock is not None:
            self.lock.check()
        self._put_files()
        self._look()
        self._note(self.found.get(self.main))

    def _put_files(self) -> None:
        for file in self.objects:
            if os.path.exists(file):
                objects.put(file, self.url_of(file))
            elif file in self.found:
                objects.remove(self.url_of(file))

    def drop(self) -> None:
        self._clear()

    def _clear(self) -> None:
        with writing(shown(self.spool)), suppress(FileNotFoundError):
            shutil.rmtree(self.spool)

    def head_of(self, path: str) -> Mapping[str, Any]:
        if self.unfinished:
            return super().head_of(path)
        if path == self.journal:
            return {}
        line, end, _ = (objects.begins(self.url_of(path), MOST_HEAD) or b"").partition(b"\n")
        return head_in(line + end)


def _as_json(version: Version | None) -> list[int] | None:
    return None if version is None else [*version]
