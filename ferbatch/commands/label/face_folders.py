"""Folders of crops and of copies with boxes drawn, that belong to a labels file."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import repeat

from PIL import Image, ImageDraw, ImageFont

from ferbatch.core.batch import Batch
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.files import check_is_folder, writing
from ferbatch.core.names import shown
from ferbatch.core.options import Existing
from ferbatch.core.process import default_workers
from ferbatch.core.records import MARKER, Prediction
from ferbatch.core.rows import predictions
from ferbatch.core.stores import objects
from ferbatch.core.stores.urls import is_remote
from ferbatch.images.decode import GrayImage, decode, read_bytes
from ferbatch.images.face_files import COPY, file_for, make_room, remove_file, settle, write_picture
from ferbatch.images.formats import type_of_name

OURS = re.compile(r".+(\.face\d+\.png|\.faces\.jpg)(\.part)?", re.DOTALL)
MOST_MARKER = 2**16  # bytes
OF = "faces of "  # what a marker begins with; then comes the output that the faces belong to
LONGEST_SIDE = 1_600  # pixels of a copy
MOST_THREADS = 8  # that draw; each holds a photo in colour
# Of the boxes, in the order of the labels, round and round.
COLOURS = ("#ffd54a", "#6fb7ff", "#d0d0d0", "#ff8f6b", "#9be37d", "#d7a1ff")

Labelled = Generator[Batch, None, None]


class FaceFolder:
    """A folder of crops or copies. It carries a marker that names the output they belong to; it is never a source."""

    def __init__(self, path: str, option: str, output: str) -> None:
        """`option`: of the command line, that names the folder; `output`: a path from the root, - for stdout."""
        self.path, self.option, self.output = path, option, output
        self.shown = shown(path)  # safe to print
        self.marker = os.path.join(path, MARKER)

    @property
    def owner(self) -> str | None:
        """The output that the faces in it belong to; '' where the marker is of something else, None without one."""
        with writing(self.shown), suppress(FileNotFoundError, NotADirectoryError):
            with open(self.marker, "rb") as stream:
                content = os.fsdecode(stream.read())
            return content.removeprefix(OF) if content.startswith(OF) else ""
        return None

    def check(self, existing: Existing) -> None:
        """UsageError if it is not ours, or holds the faces of another run that is not to be replaced."""
        names, owner = self._holds_more(), self.owner
        if owner == "" or (owner is None and names):
            raise UsageError(f"{self.shown} is not empty and no folder of faces: choose a new one for {self.option}")
        if names and not existing.overwrite and not (existing.any and owner == self.output):
            of = "an earlier run" if owner == self.output else shown(owner or "")
            raise UsageError(f"{self.shown} holds faces of {of}; --overwrite replaces them")

    def _holds_more(self) -> bool:
        """Whether there is something besides the marker in it; UsageError where it cannot be a folder."""
        check_is_folder(self.path)
        with writing(self.shown), suppress(FileNotFoundError):
            return bool({*os.listdir(self.path)} - {MARKER})
        return False

    def begin(self, *, keep: bool) -> None:
        """Make the folder, with its marker; what an earlier run wrote goes, unless it is to be kept."""
        with writing(self.shown):
            os.makedirs(self.path, exist_ok=True)
            for folder, below, names in os.walk(self.path, topdown=False) if not keep else ():
                for name in filter(OURS.fullmatch, names):
                    os.unlink(os.path.join(folder, name))
                for name in below:
                    with suppress(OSError):  # not empty, or a link
                        os.rmdir(os.path.join(folder, name))
            with open(self.marker, "wb") as stream:
                stream.write(os.fsencode(OF + self.output))


class StoreFaceFolder(FaceFolder):
    """The same in a store, where a folder is what paths of objects begin with."""

    @property
    def owner(self) -> str | None:
        content = objects.begins(self.marker, MOST_MARKER)
        if content is None:
            return None
        return os.fsdecode(content).removeprefix(OF) if content.startswith(OF.encode()) else ""

    def _holds_more(self) -> bool:
        found = itertools.chain.from_iterable(objects.below(self.path, deep=False))
        return any(path != self.marker for path in found)

    def begin(self, *, keep: bool) -> None:
        for paths in objects.below(self.path) if not keep else ():
            objects.remove_all([path for path in paths if OURS.fullmatch(os.path.basename(path))])
        objects.write(self.marker, os.fsencode(OF + self.output))


def face_folder(path: str, option: str, output: str) -> FaceFolder:
    """The folder at a path, be it of a store; arguments as of FaceFolder."""
    if not path:
        raise UsageError(f"{option} is empty")
    kind = StoreFaceFolder if is_remote(os.fsencode(path)) else FaceFolder
    return kind(path, option, output)


def remove_copy(folder: str | None, path: str) -> None:
    """Take away an image's copy, if there is one; None: copies are not wanted."""
    if folder is not None:
        remove_file(folder, file_for(folder, path) + COPY)


def annotated(labelled: Labelled, folder: str, labels: Sequence[str]) -> Labelled:
    """The batches as they come, each when its images' copies are in the folder; a few are drawn at a time.

    Raises OutputError where a copy cannot be written.
    """
    threads = min(default_workers(), MOST_THREADS)
    with closing(labelled), ThreadPoolExecutor(threads) as pool:
        for batch in labelled:
            files, rows = batch.references.files, predictions(batch, labels)
            list(pool.map(write_copy, repeat(folder), files, rows, repeat(labels)))
            settle(folder)
            yield batch


def write_copy(folder: str, file: bytes, rows: Sequence[Prediction], labels: Sequence[str]) -> None:
    """A copy of an image in which its rows can be seen; none of one that cannot be read. Raises OutputError."""
    make_room(folder)
    if not rows[0].error_kind:
        with suppress(UnreadableImageError, MemoryError):  # it has changed, or leaves no room beside what is at work
            image = decode(read_bytes(file), type_of_name(file), LONGEST_SIDE, colour=True)
            write_picture(folder, file_for(folder, rows[0].path) + COPY, drawn(image, rows, labels), "JPEG")
            return
    remove_copy(folder, rows[0].path)


def drawn(image: GrayImage, rows: Sequence[Prediction], labels: Sequence[str]) -> Image.Image:
    """The picture, made smaller where it is large, with a box and a label for each row."""
    picture = image.pixels
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BILINEAR)
    across, down = picture.width / image.width, picture.height / image.height
    pen = ImageDraw.Draw(picture)
    pen.font = ImageFont.load_default(max(11, max(picture.size) // 60))
    line = max(1, max(picture.size) // 400)
    for row in rows:
        colour = COLOURS[labels.index(row.label) % len(COLOURS)] if row.label else "white"
        text = f"{row.label} {row.confidence:.2f}" if row.label else "no face"
        x, y, width, height = (pixels or 0 for pixels in (row.x, row.y, row.width, row.height))
        left, top = x * across, y * down
        if row.face is not None:
            right, bottom = left + width * across, top + height * down
            pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        _write(pen, text, (left, top), colour)
    return picture


def _write(pen: ImageDraw.ImageDraw, text: str, corner: tuple[float, float], colour: str) -> None:
    """Text on a ground of its own above a corner, or as near to that as the picture's borders let it."""
    x0, y0, x1, y1 = pen.textbbox((0, 0), text)
    width, height = x1 - x0 + 4, y1 - y0 + 4
    left = min(max(0.0, corner[0]), max(0.0, pen.im.size[0] - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((left, top, left + width, top + height), fill=colour)
    pen.text((left + 2 - x0, top + 2 - y0), text, fill="black")
