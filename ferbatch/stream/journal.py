"""The journal of a run, batch after batch: what a killed run goes on from, and an incremental one.

A text file of JSON lines that only grows: first what run it is; then, of each batch, an array for every image and an
object with their checksum. A batch that is cut short or damaged is as good as absent: its images are done again.
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
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import numpy as np

from ferbatch.core.batch import Batch, References
from ferbatch.core.errors import OutputError
from ferbatch.core.files import sync_folder, writing
from ferbatch.core.names import shown
from ferbatch.core.records import UNIT, Failure, Version
from ferbatch.core.rows import AS_JSON

FORMAT = 3
BEGINNING = b'{"ferbatch_journal"'
SYNC_EVERY = 1.0  # seconds after which lines are forced to the disk
LONGEST_LINE = 2**22  # bytes; a longer line is none of ours
DAMAGED = (ValueError, TypeError, LookupError, OverflowError, RecursionError)  # raised by lines that are not ours


class Known(NamedTuple):
    """An image that a journal has a line about."""

    offset: int  # bytes, of the line
    version: Version  # of its file, as it was then
    error_kind: str | None  # one of ERROR_KINDS where it could not be read


def lines_of(batch: Batch, labels: Sequence[str]) -> list[str]:
    """A line for each image of a batch, without its end: path, size, mtime_ns, whether it is a large whole picture,
    and what a model with these labels said: of each crop whether it is uncertain, its label, the probabilities and, of
    a face, the detector's score and the box; or of the image why there is none."""
    paths = map(encode_basestring_ascii, batch.references.paths)
    images = (paths, *batch.versions.T.tolist(), batch.large.tolist())
    names = map([AS_JSON.word(label) for label in labels].__getitem__, batch.best.tolist())
    crops = (
        batch.uncertain.tolist(),
        names,
        *(map(AS_JSON.units.__getitem__, units) for units in batch.units.T.tolist()),
    )
    of_image, of_crop = "[%s,%d,%d,%d,", f"[%d,%s,{','.join(['%s'] * len(labels))}"
    if len(batch.image) == len(batch) and not batch.searched.any() and not batch.failures:  # as nearly all are
        return list(map(f"{of_image}{of_crop}]]".__mod__, zip(*images, *crops, strict=True)))
    says = _said_of(batch, list(map(of_crop.__mod__, zip(*crops, strict=True))))
    return list(map(f"{of_image}%s]".__mod__, zip(*images, says, strict=True)))


def _said_of(batch: Batch, crops: list[str]) -> list[str]:
    """What the lines say of each image, from what they say of each crop but for its face."""
    faces = batch.searched[batch.image].tolist()
    boxes = map(",%r,%d,%d,%d,%d".__mod__, zip(batch.scores.tolist(), *batch.boxes.T.tolist(), strict=True))
    whole = [f"{crop}{box if face else ''}]" for crop, box, face in zip(crops, boxes, faces, strict=True)]
    ends = np.cumsum(batch.crops_of).tolist()
    says = [",".join(whole[start:end]) or "0" for start, end in zip([0, *ends], ends, strict=False)]
    for place, failure in batch.failures.items():
        says[place] = ",".join(map(encode_basestring_ascii, (failure.kind, failure.message)))
    return says


def batch_of(lines: Sequence[bytes], references: References, labels: Sequence[str]) -> Batch:
    """The images that lines are of, with what their model, which has these labels, said; DAMAGED where they are none.

    The references are those of today: an image's truth may have changed.
    """
    entries = [json.loads(line) for line in lines]
    n, number = len(entries), {label: index for index, label in enumerate(labels)}
    versions = np.array([entry[1:3] for entry in entries], np.int64).reshape(n, 2)
    failures = {at: Failure(*entry[4:]) for at, entry in enumerate(entries) if isinstance(entry[4], str)}
    crops = [(at, one) for at, entry in enumerate(entries) if entry[4] and at not in failures for one in entry[4:]]
    k, m = len(labels), len(crops)
    faces = [one[2 + k :] or [0.0, 0, 0, 0, 0] for _, one in crops]
    searched = np.array([entry[4] == 0 or len(entry[4]) == 7 + k for entry in entries], np.bool_)
    searched[list(failures)] = False
    return Batch(
        0,
        references,
        versions,
        failures,
        searched,
        np.array([entry[3] for entry in entries], np.bool_),
        image=np.array([at for at, _ in crops], np.int64),
        boxes=np.array([face[1:] for face in faces], np.int64).reshape(m, 4),
        scores=np.array([face[0] for face in faces], np.float64),
        units=np.rint(np.array([one[2 : 2 + k] for _, one in crops], np.float64).reshape(m, k) * UNIT).astype(np.int64),
        best=np.array([number[one[1]] for _, one in crops], np.int64),
        uncertain=np.array([one[0] for _, one in crops], np.bool_),
    )


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
            self._write(json.dumps({"ferbatch_journal": FORMAT, **head}).encode() + b"\n")
            self.sync()
            sync_folder(os.path.dirname(path) or ".")

    def add(self, batch: Batch, labels: Sequence[str]) -> None:
        """One more batch; its lines are forced to the disk after a second at the latest, if more come."""
        if not len(batch):
            return
        data = "\n".join(lines_of(batch, labels)).encode() + b"\n"
        self._write(data + b'{"images":%d,"crc32":%d}\n' % (len(batch), zlib.crc32(data)))
        if time.monotonic() - self.synced > SYNC_EVERY:
            self.sync()

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
    """What a journal holds, found by an image's path. In memory: 17 bytes an image."""

    def __init__(self, path: str, labels: Sequence[str]) -> None:
        """The journal of a run whose model has these labels.

        Raises OutputError where the file cannot be read; where it is damaged, what can be read counts.
        """
        self.labels, self.shown = labels, shown(path)
        with writing(self.shown):
            self.stream = open(path, "rb")  # noqa: SIM115  # for as long as the run goes on
        first = self.stream.readline(LONGEST_LINE)
        self.head = _head(first)  # what run it is of; None: of one that died before it could say so
        # No journal at all; one that a power cut turned into zeros is one.
        self.foreign = not BEGINNING.startswith(first[: len(BEGINNING)]) and bool(first.strip(b"\0"))
        self.end = len(first) if self.head is not None else 0  # bytes, up to the end of the last whole batch
        keys, offsets = array("q"), array("q")
        for start, lines in self._batches() if self.head is not None and self.head["journal"] == FORMAT else ():
            for line in lines:
                keys.append(hash(json.loads(line)[0]))
                offsets.append(start)
                start += len(line)
        every = np.array(keys, np.int64)
        order = every.argsort(kind="stable")
        newest = np.ones(len(order), bool)  # whether a line is the last one about its image
        newest[:-1] = every[order][1:] != every[order][:-1]
        self.keys, self.offsets = every[order][newest], np.array(offsets, np.int64)[order][newest]
        self.asked = np.zeros(len(self.keys), bool)

    def _batches(self) -> Iterator[tuple[int, list[bytes]]]:
        """Where each batch begins that is as it was written, and its lines; `end` goes to behind the last one."""
        start, lines, at = self.end, list[bytes](), self.end
        while (line := self.stream.readline(LONGEST_LINE)).endswith(b"\n"):
            at += len(line)
            if line.startswith(b"{"):
                if line == b'{"images":%d,"crc32":%d}\n' % (len(lines), zlib.crc32(b"".join(lines))):
                    yield start, lines
                    self.end = at
                start, lines = at, []
            else:
                lines.append(line)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, path: str) -> Known | None:
        """What is known of an image, for as much as a run must know to go on; None if there is no line about it."""
        key = hash(path)
        index = int(np.searchsorted(self.keys, key))
        if index == len(self.keys) or self.keys[index] != key:
            return None
        offset = int(self.offsets[index])
        there, size, mtime_ns, _, says, *_ = json.loads(self._line(offset))
        if there != path:  # two paths with one hash
            return None
        self.asked[index] = True
        return Known(offset, Version(size, mtime_ns), says if isinstance(says, str) else None)

    def read(self, offsets: Sequence[int], references: References) -> Batch:
        """What the lines that begin at these bytes say of images; OutputError if they are not those that were there."""
        try:
            return batch_of([self._line(offset) for offset in offsets], references, self.labels)
        except DAMAGED as error:
            raise OutputError(f"{self.shown} was changed by somebody else") from error

    def _line(self, offset: int) -> bytes:
        with writing(self.shown):
            self.stream.seek(offset)
            return self.stream.readline(LONGEST_LINE)

    def gone(self) -> Iterator[str]:
        """The paths of images it holds that `find` was not asked for."""
        for offset in np.sort(self.offsets[~self.asked]).tolist():
            yield json.loads(self._line(offset))[0]


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
    if not isinstance(values, dict) or not isinstance(format_ := values.pop("ferbatch_journal", None), int):
        return None
    paths, device = values.get("PATHS", []), values.get("--device", "")
    known = isinstance(paths, list) and all(isinstance(one, str) for one in paths) and isinstance(device, str)
    return {**values, "journal": format_} if known else None
