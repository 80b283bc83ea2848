"""The files about an image that go into a folder of their own: crops of its faces, a copy with boxes drawn."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO

from PIL import Image

from ferbatch.core.files import unwritten, writing
from ferbatch.core.names import decode_path, shown

CROP, COPY = ".face{}.png", ".faces.jpg"  # what an image's name is followed by
LONGEST_NAME = 230  # bytes, of the 255 that file systems take
STAND_IN = re.compile(r"\(+(up|root|here)\)+")


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


def crop_path(folder: str, path: str, number: int) -> str:
    """The file for the crop of an image's face."""
    return file_for(folder, path) + CROP.format(number)


def write_crops(folder: str | None, path: str, crops: Sequence[Image.Image] = ()) -> None:
    """Have just these crops of an image in the folder, be there more of an earlier run; None: crops are not wanted.

    Raises OutputError.
    """
    if folder is None:
        return
    for number, one in enumerate(crops):
        write_picture(folder, crop_path(folder, path, number), one, "PNG")
    number = len(crops)
    while remove_file(folder, crop_path(folder, path, number)):
        number += 1


def remove_file(folder: str, file: str) -> bool:
    """Whether the file was there, and is not now."""
    if not os.path.lexists(file) or not _is_inside(folder, file):
        return False
    with writing(shown(file)):
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
    part = f"{file}.part"
    with writing(shown(file)):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        if not _is_inside(folder, file):
            raise unwritten(shown(file), "a link leads out of the folder")
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
