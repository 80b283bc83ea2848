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
from functools import cache
from typing import Any

import numpy as np

from ferbatch.core.errors import OutputError
from ferbatch.core.files import sync_folder, writing
from ferbatch.core.names import shown
from ferbatch.core.records import ERROR_KINDS, STATUSES, Box, ImageRef, Prediction, Version

FORMAT = 2
BEGINNING = b'{"ferbatch_journal"'
LINES_AT_ONCE = 64  # written together
SYNC_EVERY = 1.0  # seconds after which lines are forced to the disk
ENCODER = json.JSONEncoder(separators=(",", ":"))
LONGEST_LINE = 2**22  # bytes; a longer line is none of ours


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says of one image."""

    line: bytes
    path: str
    version: Version | None
    whole_picture: bool
    rows: Sequence[Sequence[Any]]  # as _row makes them

    @property
    def error_kind(self) -> str | None:
        return self.rows[0][3]  # type: ignore[no-any-return]

    def predictions(self, ref: ImageRef) -> list[Prediction]:
        """The image's rows; their truth is that of where it lies today."""
        return [_prediction(ref, row) for row in self.rows]


def line_of(path: str, version: Version | None, whole_picture: bool, found: Sequence[Prediction]) -> bytes:
    """The journal's line for an image, with its line end."""
    first = found[0]
    if version and first.label is not None and first.face is None and _is_plain(path):  # as nearly all are
        line = _plain_line(tuple(first.probabilities))
        values = (version.size, version.mtime_ns, whole_picture, first.status, first.label)
        return (line % (path, *values, *first.probabilities.values())).encode()
    file = (version.size, version.mtime_ns) if version else (None, None)
    return ENCODER.encode([path, *file, int(whole_picture), *map(_row, found)]).encode() + b"\n"


def _is_plain(text: str) -> bool:
    """Whether a text stands in JSON as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


@cache
def _plain_line(labels: tuple[str, ...]) -> str:
    """What the encoder makes of a labelled image, in a quarter of its time, with places for the values."""
    probabilities = ",".join(ENCODER.encode(label).replace("%", "%%") + ":%r" for label in labels)
    return f'["%s",%d,%d,%d,["%s","%s",{{{probabilities}}},null,null]]\n'


def _row(prediction: Prediction) -> list[Any]:
    """A prediction as the journal's line holds it: status, label, probabilities, error_kind, error; then of a face its
    number and its box."""
    values = [prediction.status, prediction.label, prediction.probabilities, prediction.error_kind, prediction.error]
    box = prediction.box
    return [*values, prediction.face, box.x, box.y, box.width, box.height, box.score] if box else values


def _prediction(ref: ImageRef, row: Sequence[Any]) -> Prediction:
    """The prediction that `_row` made a row of."""
    status, label, probabilities, error_kind, error, *face = row
    confidence = probabilities[label] if label else None
    number, box = (face[0], Box(*face[1:])) if face else (None, None)
    return Prediction(ref.path, ref.truth, status, label, confidence, probabilities, error_kind, error, number, box)


def entry_of(line: bytes, labels: Sequence[str]) -> Entry | None:
    """What a line says of an image that a model with these labels saw; None if it is damaged or somebody else's."""
    try:
        path, size, mtime_ns, whole_picture, *rows = json.loads(line)
        version = None if size is None else Version(int(size), int(mtime_ns))
        if not isinstance(path, str) or not rows or not all(_can_be(row, labels) for row in rows):
            return None
        if len(rows) > 1 and [row[5] for row in rows] != list(range(len(rows))):
            return None
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return Entry(line, path, version, bool(whole_picture), rows)


def _can_be(row: Any, labels: Sequence[str]) -> bool:
    """Whether this can be a row of a model with these labels; ValueError or TypeError for what is no row at all."""
    status, label, probabilities, kind, error, *face = row
    if status == "error":
        return label is None and probabilities == {} and kind in ERROR_KINDS and isinstance(error, str) and not face
    if status == "no_face":
        return (label, probabilities, kind, error, face) == (None, {}, None, None, [])
    if face and not (len(face) == 6 and all(type(one) is int for one in face[:5]) and isinstance(face[5], float)):
        return False
    found = list(probabilities.values())
    numbers = all(isinstance(one, float) and 0 <= one <= 1 for one in found)
    named = tuple(probabilities) == tuple(labels) and label in labels
    right = numbers and named and probabilities[label] == max(found)
    return right and status in STATUSES and kind is None and error is None


class Journal:
    """Appends to a journal; OutputError where that cannot be done."""

    def __init__(self, path: str, end: int | None, head: Mapping[str, Any]) -> None:
        """Begin a journal with what `head` says of the run, or go on with one that is whole up to the byte `end`."""
        self.path, self.shown = path, shown(path)
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
            self.lines.append(json.dumps({"ferbatch_journal": FORMAT, **head}).encode() + b"\n")
            self.sync()
            sync_folder(os.path.dirname(path) or ".")

    def add(self, line: bytes) -> None:
        """One more line; it may wait a second, or until there are LINES_AT_ONCE."""
        self.lines.append(line)
        if time.monotonic() - self.synced > SYNC_EVERY:
            self.sync()
        elif len(self.lines) >= LINES_AT_ONCE:
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
        self.shown = shown(path)
        with writing(self.shown):
            self.stream = open(path, "rb")  # noqa: SIM115  # for as long as the run goes on
        first = self.stream.readline(LONGEST_LINE)
        self.head = _head(first)  # what run it is of; None: of one that died before it could say so
        # No journal at all; one that a power cut turned into zeros is one.
        self.foreign = not BEGINNING.startswith(first[: len(BEGINNING)]) and bool(first.strip(b"\0"))
        self.end = len(first) if self.head is not None else 0  # bytes, up to the end of the last whole line
        while self.head is not None and (line := self.stream.readline(LONGEST_LINE)).endswith(b"\n"):
            if entry := entry_of(line, labels):
                keys.append(hash(entry.path))
                offsets.append(self.end)
            self.end += len(line)
        every = np.array(keys, np.int64)
        order = every.argsort(kind="stable")
        newest = np.ones(len(order), bool)  # whether a line is the last one about its image
        newest[:-1] = every[order][1:] != every[order][:-1]
        self.keys, self.offsets = every[order][newest], np.array(offsets, np.int64)[order][newest]
        self.asked = np.zeros(len(self.keys), bool)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, path: str) -> tuple[int, Entry] | None:
        """Where the line about an image begins, and what it says; None if there is none."""
        key = hash(path)
        index = int(np.searchsorted(self.keys, key))
        if index == len(self.keys) or self.keys[index] != key:
            return None
        offset = int(self.offsets[index])
        entry = self.read(offset)
        if entry.path != path:  # two paths with one hash
            return None
        self.asked[index] = True
        return offset, entry

    def read(self, offset: int) -> Entry:
        """What the line that begins at this byte says; OutputError if it is not the one that was there."""
        with writing(self.shown):
            self.stream.seek(offset)
            entry = entry_of(self.stream.readline(LONGEST_LINE), self.labels)
        if entry is None:
            raise OutputError(f"{self.shown} was changed by somebody else")
        return entry

    def gone(self) -> Iterator[str]:
        """The paths of images it holds that `find` was not asked for."""
        for offset in np.sort(self.offsets[~self.asked]):
            yield self.read(int(offset)).path


def head_of(path: str) -> dict[str, Any] | None:
    """What a journal says of its run; None if it does not say."""
    with writing(shown(path)), open(path, "rb") as stream:
        return _head(stream.readline(LONGEST_LINE))


def _head(line: bytes) -> dict[str, Any] | None:
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
