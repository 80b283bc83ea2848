"""Labels in a folder, so many images to a file, with a manifest that says what is in which."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ferbatch.commands.label.output import Output
from ferbatch.core.batch import Batch
from ferbatch.core.errors import UsageError
from ferbatch.core.files import replace_file, sha256_of, sync_folder, writing
from ferbatch.core.names import escape, shown
from ferbatch.core.records import SCHEMA
from ferbatch.core.version import __version__
from ferbatch.core.writers import WRITERS, Writer
from ferbatch.stream.journal import Done, Journal

IMAGES = 10_000  # of a part
MANIFEST = "manifest.json"
BEFORE = ".before"  # what was there, for the moment in which folders change places
OURS = re.compile(rf"(part-\d{{5,}}\.({'|'.join(WRITERS)})|{re.escape(MANIFEST)})(\.part)?|{re.escape(BEFORE)}")
MOST_MANIFEST = 2**28  # characters, to read


def holds_parts(path: str) -> bool:
    """Whether it is a folder of parts."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def format_of(path: str) -> str:
    """The format of a folder's parts, by its name or its manifest; csv where neither says one."""
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    if suffix in WRITERS:
        return suffix
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as stream:
            name = json.loads(stream.read(MOST_MANIFEST))["format"]
        return name if name in WRITERS else "csv"
    return "csv"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a manifest says of a part."""

    file: str
    first: int  # number of its first image among all
    images: int
    rows: int
    sha256: str


class PartsWriter(Writer):
    """Writes each so many images to a file of their own, and the manifest in the end."""

    def __init__(self, folder: str, format_: str, labels: Sequence[str], mark: bytes) -> None:
        """`mark`: what each file begins with."""
        self.folder, self.format, self.labels, self.mark = folder, format_, labels, mark
        self.entries: list[Entry] = []
        self.images = self.rows = 0  # of the part that is written just now
        self.stack = ExitStack()  # it is there whole when this ends well
        self.writer: Writer | None = None  # of it

    def write(self, batch: Batch) -> None:
        while len(batch):
            writer = self.writer or self._begin()
            part = batch.part(0, IMAGES - self.images)
            writer.write(part)
            self.images += len(part)
            self.rows += int(np.maximum(part.crops_of, 1).sum())
            batch = batch.part(len(part), len(batch))
            if self.images == IMAGES:
                self._end()

    @property
    def name(self) -> str:
        """Of the part that is written just now, or of the next."""
        return f"part-{len(self.entries):05}.{self.format}"

    def _begin(self) -> Writer:
        stream = self.stack.enter_context(replace_file(os.path.join(self.folder, self.name)))
        stream.write(self.mark)
        self.writer = WRITERS[self.format](stream, self.labels)
        return self.writer

    def _end(self) -> None:
        assert self.writer  # or no part has begun
        self.writer.close()
        self.writer.flush()
        self.stack.close()
        file = os.path.join(self.folder, self.name)
        first = self.entries[-1].first + self.entries[-1].images if self.entries else 0
        self.entries.append(Entry(self.name, first, self.images, self.rows, sha256_of(file) or ""))
        self.writer, self.images, self.rows = None, 0, 0

    def flush(self) -> None:
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        if self.images or not self.entries:
            self.writer = self.writer or self._begin()
            self._end()
        with replace_file(os.path.join(self.folder, MANIFEST)) as stream:
            stream.write((json.dumps(self._manifest(), indent=2) + "\n").encode())

    def _manifest(self) -> dict[str, Any]:
        entries = self.entries
        return {
            "ferbatch": __version__,
            "schema": SCHEMA,
            "format": self.format,
            "labels": list(self.labels),
            "images": sum(entry.images for entry in entries),
            "rows": sum(entry.rows for entry in entries),
            "parts": [asdict(entry) for entry in entries],
        }

    def __enter__(self) -> PartsWriter:
        return self

    def __exit__(self, *why: Any) -> None:
        """Take away the part that is not whole, if there is one."""
        self.stack.__exit__(*why)


class PartsOutput(Output):
    """A folder of labels files. What is beside a labels file is beside the folder."""

    in_parts = True

    def __init__(self, path: str, format_: str) -> None:
        super().__init__(path, format_)
        self.shown = f"{self.shown}/"

    def _there(self, path: str) -> bool:
        if path not in (self.path, self.part):
            return super()._there(path)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise UsageError(f"{shown(path)} is not a folder")
        with writing(shown(path)):
            names = os.listdir(path) if os.path.lexists(path) else []
        if others := sorted(name for name in names if not OURS.fullmatch(name)):
            name = escape(others[0])
            raise UsageError(f"{shown(path)}/ holds other files ({name} for one): parts need a folder of their own")
        return bool(names)

    def is_mine(self, path: str) -> bool:
        below = os.path.dirname(os.path.realpath(path))
        return super().is_mine(path) or below in map(os.path.realpath, (self.path, self.part))

    @property
    def exists(self) -> bool:
        return holds_parts(self.path)

    def clear(self) -> None:
        """What there is of the parts is in the journal as well, and written again."""
        with writing(self.shown), suppress(FileNotFoundError):
            shutil.rmtree(self.part)

    def sha256_of(self, path: str) -> str | None:
        """Of a folder: the hash of its files' names and hashes; None where there is none."""
        if path not in (self.path, self.part):
            return super().sha256_of(path)
        if not holds_parts(path):
            return None
        whole = hashlib.sha256()
        for name in sorted({*os.listdir(path)} - {BEFORE}):
            whole.update(f"{name} {sha256_of(os.path.join(path, name))}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    @contextmanager
    def recording(
        self, labels: Sequence[str], head: Mapping[str, Any], before: Done | None = None, base: Done | None = None
    ) -> Iterator[tuple[Writer, Journal | None]]:
        mark = codecs.BOM_UTF8 if self.bom else b""
        with self._journal(head, before) as journal, self._folder() as folder:
            with PartsWriter(folder, self.format, labels, mark) as writer:
                yield writer, journal
            self._put_in_place()
        journal.finish(self.state)

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """A new folder for the parts, which goes where they are not finished."""
        self.clear()
        with writing(self.shown):
            os.mkdir(self.part)
        try:
            yield self.part
        except BaseException:
            shutil.rmtree(self.part, ignore_errors=True)
            raise

    def _put_in_place(self) -> None:
        """The new folder in the place of the old one, whose permissions it gets."""
        with writing(self.shown):
            if os.path.isdir(self.path):
                os.chmod(self.part, stat.S_IMODE(os.stat(self.path).st_mode))
                os.rename(self.path, os.path.join(self.part, BEFORE))
            os.rename(self.part, self.path)
            sync_folder(os.path.dirname(self.path) or ".")
            with suppress(FileNotFoundError):
                shutil.rmtree(os.path.join(self.path, BEFORE))

    def is_marked_otherwise(self) -> bool:
        if self.format != "csv":
            return False
        with writing(self.shown), open(os.path.join(self.path, "part-00000.csv"), "rb") as stream:
            return (stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8) != self.bom
