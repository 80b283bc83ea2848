"""The journal of a run, a line per image that is done: what a killed run goes on from, and an incremental one.

A text file of JSON lines that only grows: first what run it is, then an array per image. A line that is cut short or
damaged is as good as absent: its image is done again.
"""

from __future__ import annotations

import io
import json
import os
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferbatch.errors import OutputError
from ferbatch.paths import encode_path, sync_folder, writing
from ferbatch.records import ERROR_KINDS, STATUSES, ImageRef, Prediction, Version

FORMAT = 1
BEGINNING = b'{"ferbatch_journal"'
BATCH = 64  # images whose lines are written at once
SYNC_EVERY = 1.0  # seconds between two times that the lines are forced to the disk
ENCODER = json.JSONEncoder(separators=(",", ":"))
LONGEST = 2**20  # bytes of a line; a longer one is none of ours


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says of one image."""

    line: bytes
    path: str
    version: Version | None
    whole_picture: bool
    values: tuple[Any, ...]  # of the Prediction: status, label, probabilities, error_kind, error

    @property
    def error_kind(self) -> str | None:
        return self.values[3]  # type: ignore[no-any-return]

    def prediction(self, ref: ImageRef) -> Prediction:
        """The image's row; its truth is that of where it lies today."""
        status, label, probabilities, error_kind, error = self.values
        confidence = probabilities[label] if label is not None else None
        return Prediction(ref.path, ref.truth, status, label, confidence, probabilities, error_kind, error)


def line_of(path: str, version: Version | None, whole_picture: bool, found: Prediction) -> bytes:
    """The journal's line for an image, with its line end."""
    file = (version.size, version.mtime_ns) if version else (None, None)
    values = (found.status, found.label, dict(found.probabilities), found.error_kind, found.error)
    return ENCODER.encode([path, *file, int(whole_picture), *values]).encode() + b"\n"


def entry_of(line: bytes, labels: Sequence[str]) -> Entry | None:
    """What a line says of an image that a model with these labels saw; None if it is damaged or somebody else's."""
    try:
        path, size, mtime_ns, whole_picture, *values = json.loads(line)
        version = None if size is None else Version(int(size), int(mtime_ns))
        if not isinstance(path, str) or not _can_be(*values, labels=labels):
            return None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return Entry(line, path, version, bool(whole_picture), tuple(values))


def _can_be(status: Any, label: Any, probabilities: Any, kind: Any, error: Any, *, labels: Sequence[str]) -> bool:
    """Whether these can be the values of a row."""
    if status == "error":
        return label is None and probabilities == {} and kind in ERROR_KINDS and isinstance(error, str)
    found = list(probabilities.values())
    numbers = all(isinstance(one, float) and 0 <= one <= 1 for one in found)
    named = tuple(probabilities) == tuple(labels) and label in labels
    right = numbers and named and probabilities[label] == max(found)
    return right and status in STATUSES and kind is None and error is None


class Journal:
    """Appends to a journal; OutputError where that cannot be done."""

    def __init__(self, path: str, end: int | None, run: Mapping[str, Any]) -> None:
        """Begin the journal of `run`, or go on with one that is whole up to the byte `end`."""
        self.path, self.shown = path, encode_path(os.fsencode(path))
        self.lines: list[bytes] = []
        self.synced = time.monotonic()
        with writing(self.shown):
            if end:
                self.stream = io.FileIO(path, "ab")
                self.stream.truncate(end)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(path)  # a link is no way to another file
                self.stream = io.FileIO(path, "xb")
        if not end:
            self.lines.append(json.dumps({"ferbatch_journal": FORMAT, **run}).encode() + b"\n")
            self.sync()
            sync_folder(os.path.dirname(path) or ".")

    def add(self, line: bytes) -> None:
        """One more line; it may wait a second, or until a batch is full."""
        self.lines.append(line)
        if time.monotonic() - self.synced > SYNC_EVERY:
            self.sync()
        elif len(self.lines) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        data = memoryview(b"".join(self.lines))
        self.lines.clear()
        with writing(self.shown):
            while data:
                data = data[self.stream.write(data) :]

    def sync(self) -> None:
        """Write what waits, and force it to the disk."""
        self.flush()
        with writing(self.shown):
            os.fsync(self.stream.fileno())
        self.synced = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.sync()
        finally:
            self.stream.close()

    def finish(self, path: str) -> None:
        """Give the closed journal of a finished run its lasting name."""
        with writing(self.shown):
            os.replace(self.path, path)
        sync_folder(os.path.dirname(path) or ".")


class Done:
    """What a journal holds, found by an image's path. In memory: 17 bytes an image."""

    def __init__(self, path: str, labels: Sequence[str]) -> None:
        """The journal of a run whose model has these labels.

        Raises OutputError where the file cannot be read; where it is damaged, what can be read counts.
        """
        self.labels = labels
        keys, offsets = array("q"), array("q")
        self.shown = encode_path(os.fsencode(path))
        with writing(self.shown):
            self.stream = open(path, "rb")  # noqa: SIM115  # for as long as the run goes on
        first = self.stream.readline(LONGEST)
        self.run = _run(first)  # None: of a run that died before it could say what it was
        # No journal at all; one that a power cut turned into zeros is one.
        self.foreign = not BEGINNING.startswith(first[: len(BEGINNING)]) and bool(first.strip(b"\0"))
        self.end = len(first) if self.run is not None else 0  # bytes, up to the end of the last whole line
        while self.run is not None and (line := self.stream.readline(LONGEST)).endswith(b"\n"):
            if entry := entry_of(line, labels):
                keys.append(hash(entry.path))
                offsets.append(self.end)
            self.end += len(line)
        every = np.array(keys, np.int64)
        order = every.argsort(kind="stable")
        newest = np.ones(len(order), bool)  # of the lines about one image
        newest[:-1] = every[order][1:] != every[order][:-1]
        self.keys, self.offsets = every[order][newest], np.array(offsets, np.int64)[order][newest]
        self.asked = np.zeros(len(self.keys), bool)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, path: str) -> tuple[int, Entry] | None:
        """Where the line about an image begins, and what it says; None if there is none."""
        key = hash(path)
        at = int(np.searchsorted(self.keys, key))
        if at == len(self.keys) or self.keys[at] != key:
            return None
        offset = int(self.offsets[at])
        entry = self.at(offset)
        if entry.path != path:  # two paths with one hash
            return None
        self.asked[at] = True
        return offset, entry

    def at(self, offset: int) -> Entry:
        """What the line that begins at this byte says; OutputError if it is not the one that was there."""
        with writing(self.shown):
            self.stream.seek(offset)
            entry = entry_of(self.stream.readline(LONGEST), self.labels)
        if entry is None:
            raise OutputError(f"{self.shown} was changed by somebody else")
        return entry

    def gone(self) -> Iterator[str]:
        """The paths of images it holds that `find` was not asked for."""
        for offset in np.sort(self.offsets[~self.asked]):
            yield self.at(int(offset)).path


def run_of(path: str) -> dict[str, Any] | None:
    """What run a journal is of; None if it does not say."""
    with writing(encode_path(os.fsencode(path))), open(path, "rb") as stream:
        return _run(stream.readline(LONGEST))


def _run(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.pop("ferbatch_journal", None) != FORMAT:
        return None
    paths, device = values.get("PATHS", []), values.get("--device", "")
    known = isinstance(paths, list) and all(isinstance(one, str) for one in paths) and isinstance(device, str)
    return values if known else None
