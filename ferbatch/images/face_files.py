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
from ferbatch.core.stores.urls import is_remote

CROP, COPY = ".face{}.png", ".faces.jpg"  # what an image's name is followed by
LONGEST_NAME = 230  # bytes, of the 255 that file systems take
LONGEST_KEY = 1_000  # bytes, of the 1,024 that stores take
# Of a key: bytes that are no text, controls, what Azure takes for a slash and packages for the version of an object.
ODD = re.compile(r"[\x00-\x1f%\\\x7f-\x9f\ud800-\udfff]|\?(?=version)", re.IGNORECASE)
STAND_IN = re.compile(r"\(+(up|root|here)\)+")


def file_for(folder: str, path: str) -> str:
    """The path in the folder that is like that of an image; what would lead out of the folder is written out.

    No two images have the same. In keys of a store, what is no text, or means something else there, is `%NN`.
    """
    there = is_remote(os.fsencode(folder))
    name = os.fsdecode(decode_path(path)).replace(os.sep, "/")
    inside = ["(up)" if part == ".." else _plain(part) for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        inside.insert(0, "(root)")
    inside = inside or ["(here)"]
    return _key_for(folder, "/".join(inside)) if there else os.path.join(folder, *inside)


def _key_for(folder: str, name: str) -> str:
    """The path of an object, short enough to be added to."""
    file = f"{folder}/{ODD.sub(lambda one: ''.join(f'%{byte:02X}' for byte in os.fsencode(one[0])), name)}"
    data = file.encode()
    if len(data.split(b"/", 3)[3]) <= LONGEST_KEY:
        return file
    kept = data[: len(data) - len(data.split(b"/", 3)[3]) + LONGEST_KEY - 20].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(data).hexdigest()[:16]}"


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


def write_crops(folder: str | None, path: str, crops: Sequence[Image.Image] = (), *, anew: bool = False) -> None:
    """Have just these crops of an image in the folder, be there more of an earlier run; None: crops are not wanted.

    Raises OutputError. In a store, what this begins is done when `settle` comes back.

    folder: a path of the file system or of a store.
    path: of the image, as printed.
    crops: of its faces, in order.
    anew: whether there can be none of an earlier run, which a store need not be asked about then.
    """
    if folder is None:
        return
    for number, one in enumerate(crops):
        write_picture(folder, crop_path(folder, path, number), one, "PNG")
    number = len(crops)
    if is_remote(os.fsencode(folder)):
        if not anew:
            from ferbatch.core.stores import sending  # which most runs need not load

            sending.remove_numbered(lambda number: crop_path(folder, path, number), number)
        return
    while remove_file(folder, crop_path(folder, path, number)):
        number += 1


def make_room(folder: str | None) -> None:
    """Wait while much is on its way to a folder in a store; OutputError where something of it cannot be put."""
    if folder is not None and is_remote(os.fsencode(folder)):
        from ferbatch.core.stores import sending

        sending.make_room()


def settle(folder: str | None) -> None:
    """Wait until all that was begun for a folder is done; OutputError where some of it cannot be."""
    if folder is not None and is_remote(os.fsencode(folder)):
        from ferbatch.core.stores import sending

        sending.settle()


def remove_file(folder: str, file: str) -> bool:
    """Whether the file was there, and is not now; of an object that is not known here."""
    if is_remote(os.fsencode(folder)):
        from ferbatch.core.stores import sending

        sending.remove(file)
        return True
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
    """A picture in the folder, under its name only when it is whole; OutputError where that cannot be done.

    In a store it is there when `settle` comes back.
    """
    data = BytesIO()
    picture.save(data, kind, **({"quality": 90} if kind == "JPEG" else {}))
    if is_remote(os.fsencode(folder)):
        from ferbatch.core.stores import sending

        sending.put(file, data.getvalue())
        return
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
