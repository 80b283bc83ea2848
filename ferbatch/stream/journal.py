"""The journal of a run, batch after batch: what a killed run goes on from, and an incremental one.

A text file of JSON lines that only grows: first what run it is; then each batch, column by column, with its checksum.
A batch that is cut short or damaged is as good as absent: its images are done again. That of a finished share of a
listing ends with where its images stand in the whole.
"""

from __future__ import annotations

import io
import json
import os
import time
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ferbatch.core.batch import OF_CROPS, OF_IMAGES, Batch, References, joined
from ferbatch.core.errors import OutputError
from ferbatch.core.files import sync_folder, writing
from ferbatch.core.names import shown
from ferbatch.core.records import ERROR_KINDS, MOST_TURN, UNIT, Failure
from ferbatch.images.limits import MAX_SIDE

FORMAT = 4
BEGINNING = b'{"ferbatch_journal"'
SYNC_EVERY = 1.0  # seconds after which lines are forced to the disk
LONGEST_LINE = 2**28  # bytes; a longer line is none of ours
LINE = b'{"crc32":"%08x","batch":%b}\n'
PLACED = b'{"crc32":"%08x","placed":%b}\n'
OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def head_line(head: Mapping[str, Any]) -> bytes:
    """The first line of the journal of a run of which this can be said."""
    return json.dumps({"ferbatch_journal": FORMAT, **head}).encode() + b"\n"


def line_of(batch: Batch) -> bytes:
    """A batch that a model was asked about, with its checksum; probabilities stand label by label."""
    # A surrogate, which may come with what a system says of a name, is no Unicode; it is not printed anyway.
    said = {place: why.message.encode("utf-8", "replace").decode() for place, why in batch.failures.items()}
    failures = {place: (why.kind, said[place]) for place, why in batch.failures.items()}
    columns = {name: getattr(batch, name) for name in (*OF_IMAGES, *OF_CROPS)} | {"units": batch.units.T}
    columns = {name: np.ascontiguousarray(values) for name, values in columns.items()}
    data = orjson.dumps({"paths": batch.references.paths, "failures": failures, **columns}, option=OPTIONS)
    return LINE % (zlib.crc32(data), data)


def batch_of(line: bytes) -> Batch | None:
    """The batch that a line was made of, but for files and truths, which may be others today; None if it is damaged.

    A line that somebody made up, with a checksum that fits, is damaged where no batch can have what it says.
    """
    try:
        said = orjson.loads(_data(line, LINE))
        n, m, labels = len(said["paths"]), len(said["image"]), len(said["units"])
        shapes = {"versions": (n, 2), "boxes": (m, 4), "units": (labels, m)}
        columns: dict[str, Any] = {
            name: np.array(said[name], kind).reshape(shapes.get(name, n if name in OF_IMAGES else m))
            for name, kind in {**OF_IMAGES, **OF_CROPS}.items()
        }
        failures = {int(place): Failure(*why) for place, why in said["failures"].items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        return None
    most = {"image": n - 1, "boxes": MAX_SIDE, "scores": 1, "blurs": 1, "cuts": 1, "units": UNIT, "best": labels - 1}
    fits = (
        all(columns[name].min(initial=0) >= 0 and columns[name].max(initial=0) <= most[name] for name in most)
        and np.abs(columns["turns"]).max(initial=0) <= MOST_TURN
        and (np.diff(columns["image"]) >= 0).all()
        and (columns["units"][columns["best"], np.arange(m)] == columns["units"].max(axis=0, initial=0)).all()
        and all(isinstance(text, str) for text in (*said["paths"], *(why.message for why in failures.values())))
        and all(0 <= place < n and why.kind in ERROR_KINDS for place, why in failures.items())
    )
    references = References(said["paths"], [b""] * n, [None] * n)
    return Batch(0, references, failures=failures, **columns | {"units": columns["units"].T}) if fits else None


def _data(line: bytes, form: bytes) -> bytes:
    """What a line of this form holds; nothing where it is none, or is damaged."""
    data = line[len(form % (0, b"")) - 2 : -2]
    return data if line == form % (zlib.crc32(data), data) else b""


class Placed(NamedTuple):
    """Where N images of a share stand in the whole listing."""

    paths: Sequence[str]
    truths: Sequence[str | None]  # a label each, where a folder at or below PATH is named like one
    at: NDArray[np.int64]  # (N,) indices in the whole listing
    total: int  # images of the whole listing
    digest: str  # of all its paths


def placed_in(path: str) -> Iterator[Placed]:
    """What a journal says of where its images stand; nothing where it is of no share, or that share is not finished."""
    with writing(shown(path)), open(path, "rb") as stream:
        for line in iter(partial(stream.readline, LONGEST_LINE), b""):
            if data := _data(line, PLACED):
                yield Placed(**{**(said := orjson.loads(data)), "at": np.array(said["at"], np.int64)})


class Journal:
    """Appends to a journal; OutputError where that cannot be done."""

    def __init__(self, path: str, end: int | None, head: Mapping[str, Any]) -> None:
        """Begin a journal with what `head` says of the run, or go on with one that is whole up to the byte `end`."""
        self.path, self.shown = path, shown(path)
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
            self._write(head_line(head))
            self.sync()
            sync_folder(os.path.dirname(path) or ".")

    def head(self, head: Mapping[str, Any]) -> None:
        """Say anew what the run is, from here on."""
        self._write(head_line(head))

    def add(self, batch: Batch) -> None:
        """One more batch; it is forced to the disk after a second at the latest, if more come."""
        if len(batch):
            self._write(line_of(batch))
        if time.monotonic() - self.synced > SYNC_EVERY:
            self.sync()

    def place(self, placed: Placed) -> None:
        """Say where images of a share stand."""
        data = orjson.dumps(placed._asdict(), option=OPTIONS)
        self._write(PLACED % (zlib.crc32(data), data))

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        with writing(self.shown):
            while left:
                left = left[self.stream.write(left) :]

    def sync(self) -> None:
        """Force what is written to the disk."""
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
    """What a journal holds, found by an image's path. In memory: 21 bytes an image."""

    def __init__(self, path: str, stream: BinaryIO | None = None) -> None:
        """Raises OutputError where the file cannot be read; where it is damaged, what can be read counts.

        `stream`: what it is read from, where that is no file at this path.
        """
        self.shown = shown(path)
        with writing(self.shown):
            self.stream = stream or open(path, "rb")  # noqa: SIM115  # for as long as the run goes on
        first = self.stream.readline(LONGEST_LINE)
        self.head = head_in(first)  # what run it is of; nothing: of one that died before it could say so
        # No journal at all; one that a power cut turned into zeros is one.
        self.foreign = not BEGINNING.startswith(first[: len(BEGINNING)]) and bool(first.strip(b"\0"))
        self.end = len(first) if self.head else 0  # bytes, up to the end of the last whole batch
        keys, offsets, places = array("q"), array("q"), array("I")
        at = self.end
        while self.head and (line := self.stream.readline(LONGEST_LINE)).endswith(b"\n"):
            if batch := batch_of(line):
                keys.extend(map(hash, batch.references.paths))
                offsets.extend([at] * len(batch))
                places.extend(range(len(batch)))
                self.end = at + len(line)
            elif line.startswith(BEGINNING) and (head := head_in(line)):
                self.head, self.end = head, at + len(line)
            at += len(line)
        every = np.array(keys, np.int64)
        order = every.argsort(kind="stable")
        newest = np.ones(len(order), bool)  # whether a batch is the last one with its image
        newest[:-1] = every[order][1:] != every[order][:-1]
        chosen = order[newest]
        self.keys, self.offsets = every[chosen], np.array(offsets, np.int64)[chosen]
        self.places = np.array(places, np.uint32)[chosen]
        self.asked = np.zeros(len(self.keys), bool)
        self.last: tuple[int, Batch] | None = None  # the batch that was read last, and where it begins

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, paths: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Batch]]:
        """Images that it holds, batch after batch: their places among `paths`, the numbers to `read` them by, them."""
        keys = np.fromiter(map(hash, paths), np.int64, len(paths))
        numbers = np.searchsorted(self.keys, keys)
        there = np.flatnonzero(np.append(self.keys, 0)[numbers] == keys)
        there = there[numbers[there] < len(self.keys)]
        for part, batch in self._parts(numbers[there]):
            found = zip(there[part], batch.references.paths, strict=True)
            same = np.array([paths[place] == path for place, path in found])  # or they are two with one hash
            places = there[part][same]
            self.asked[numbers[places]] = True
            yield places, numbers[places], batch.where(same)

    def read(self, numbers: NDArray[np.int64]) -> Batch:
        """Images by their numbers; OutputError where the journal is not as it was."""
        parts = list(self._parts(numbers))
        return joined([batch for _, batch in parts], np.concatenate([part for part, _ in parts]))

    def _parts(self, numbers: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Images by their numbers, of which each batch has some: the places of those, and them. Each is read once."""
        offsets, places = self.offsets[numbers], self.places[numbers].astype(np.int64)
        order = offsets.argsort(kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(offsets[order])) + 1) if len(order) else ():
            yield part, self._batch(offsets[part[0]]).at(places[part])

    def _batch(self, offset: int) -> Batch:
        """The batch that begins at this byte."""
        if self.last is None or self.last[0] != offset:
            with writing(self.shown):
                self.stream.seek(offset)
                batch = batch_of(self.stream.readline(LONGEST_LINE))
            if batch is None:
                raise OutputError(f"{self.shown} was changed by somebody else")
            self.last = offset, batch
        return self.last[1]

    def gone(self) -> Iterator[str]:
        """The paths of images it holds that `find` was not asked for."""
        left = np.flatnonzero(~self.asked)
        for number in left[np.lexsort((self.places[left], self.offsets[left]))].tolist():
            yield self._batch(self.offsets[number]).references.paths[self.places[number]]


def head_of(path: str) -> dict[str, Any]:
    """What a journal says, at its beginning, of its run; nothing where there is none."""
    with suppress(OSError), open(path, "rb") as stream:
        return head_in(stream.readline(LONGEST_LINE))
    return {}


def head_in(line: bytes) -> dict[str, Any]:
    """What the first line of a journal says of its run; nothing where it is none."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not line.endswith(b"\n") or not isinstance(values, dict):
        return {}
    format_, paths, device = values.pop("ferbatch_journal", None), values.get("PATHS", []), values.get("--device", "")
    known = isinstance(format_, int) and isinstance(paths, list) and isinstance(device, str)
    return {**values, "journal": format_} if known and all(isinstance(one, str) for one in paths) else {}
