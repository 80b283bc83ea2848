"""The files about an image that go into a folder of their own: crops of its faces, a copy with boxes drawn."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from ferbatch.errors import OutputError, UsageError
from ferbatch.paths import decode_path, encode_path, writing
from ferbatch.records import MARKER, Existing

CROP, COPY = ".face{}.png", ".faces.jpg"  # what an image's name is followed by
OURS = re.compile(r".+(\.face\d+\.png|\.faces\.jpg)(\.part)?", re.DOTALL)
OF = "faces of "  # what a marker begins with; then comes the output that the faces belong to
LONGEST_NAME = 230  # bytes, of the 255 that file systems take
STAND_IN = re.compile(r"\(+(up|root|here)\)+")


@dataclass(frozen=True, slots=True)
class FaceFolder:
    """A folder of such files. It carries a marker that names the output they belong to; it is never a source."""

    path: str
    option: str  # that names it
    output: str  # as a path from the root; - for stdout

    @property
    def shown(self) -> str:
        """The path, safe to print."""
        return encode_path(os.fsencode(self.path))

    @property
    def marker(self) -> str:
        return os.path.join(self.path, MARKER)

    @property
    def is_there(self) -> bool:
        """Whether it is the folder of this very output."""
        return self._owner() == self.output

    def _owner(self) -> str | None:
        """The output that the faces in it belong to; '' where the marker is of something else, None without one."""
        with writing(self.shown), suppress(FileNotFoundError, NotADirectoryError):
            with open(self.marker, "rb") as stream:
                content = os.fsdecode(stream.read())
            return content.removeprefix(OF) if content.startswith(OF) else ""
        return None

    def check(self, existing: Existing) -> None:
        """UsageError if it is not ours, or holds the faces of another run that is not to be replaced."""
        if not self.path:
            raise UsageError(f"{self.option} is empty")
        if not os.path.lexists(self.path):
            return
        if not os.path.isdir(self.path):
            raise UsageError(f"{self.shown} is not a folder")
        with writing(self.shown):
            names = set(os.listdir(self.path)) - {MARKER}
        owner = self._owner()
        if owner == "" or (owner is None and names):
            raise UsageError(f"{self.shown} is not empty and no folder of faces: choose a new one for {self.option}")
        if names and not existing.overwrite and not (existing.any and owner == self.output):
            of = "an earlier run" if owner == self.output else encode_path(os.fsencode(owner or ""))
            raise UsageError(f"{self.shown} holds faces of {of}; --overwrite replaces them")

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


def file_for(folder: str, path: str) -> str:
    """The path in the folder that is like that of an image; what would lead out of the folder is written out.

    No two images have the same.
    """
    name = os.fsdecode(decode_path(path)).replace(os.sep, "/")
    inside = ["(up)" if part == ".." else _plain(part) for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        inside.insert(0, "(root)")
    return os.path.join(folder, *(inside or ["(here)"]))


def _plain(part: str) -> str:
    """The part of a path, or what stands for one that is too long to be added to, or means something else here."""
    if STAND_IN.fullmatch(part):
        return f"({part})"
    data = os.fsencode(part)
    if len(data) > LONGEST_NAME:
        return f"{os.fsdecode(data[: LONGEST_NAME - 20])}-{hashlib.sha256(data).hexdigest()[:16]}"
    return part.replace(":", "(colon)") if os.name == "nt" else part


def crop_file(folder: str, path: str, number: int) -> str:
    """The file for the crop of an image's face."""
    return file_for(folder, path) + CROP.format(number)


def copy_file(folder: str, path: str) -> str:
    """The file for an image's copy."""
    return file_for(folder, path) + COPY


def write_crops(folder: str, path: str, crops: Sequence[Image.Image]) -> None:
    """The crops of an image's faces; those of an earlier run that it had more of are taken away.

    Raises OutputError.
    """
    for number, one in enumerate(crops):
        write_picture(folder, crop_file(folder, path, number), one, "PNG")
    remove_crops(folder, path, len(crops))


def remove_crops(folder: str, path: str, number: int = 0) -> None:
    """Take away an image's crops from the one with this number on."""
    while _remove(folder, crop_file(folder, path, number)):
        number += 1


def remove_copy(folder: str, path: str) -> None:
    """Take away an image's copy, if there is one."""
    _remove(folder, copy_file(folder, path))


def _remove(folder: str, file: str) -> bool:
    """Whether the file was there, and is not now."""
    if not os.path.lexists(file) or not _is_inside(folder, file):
        return False
    with writing(encode_path(os.fsencode(file))):
        os.unlink(file)
    return True


def _is_inside(folder: str, file: str) -> bool:
    """Whether no link leads out of the folder on the way to the file."""
    top = os.path.realpath(folder)
    return os.path.commonpath([top, os.path.realpath(os.path.dirname(file))]) == top


def write_picture(folder: str, file: str, picture: Image.Image, kind: str) -> None:
    """A picture in the folder, under its name only when it is whole; OutputError where that cannot be done."""
    data = BytesIO()
    picture.save(data, kind, **({"quality": 90} if kind == "JPEG" else {}))
    shown, part = encode_path(os.fsencode(file)), f"{file}.part"
    with writing(shown):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        if not _is_inside(folder, file):
            raise OutputError(f"{shown} could not be written: a link leads out of the folder")
        with suppress(FileNotFoundError):
            os.unlink(part)  # a link is no way to another file
        try:
            with open(part, "xb") as stream:
                stream.write(data.getvalue())
            os.replace(part, file)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
