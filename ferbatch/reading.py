"""The decode stage: a reference -> Decoded, its pixels or the reason why not. Without torch, for worker processes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferbatch import images
from ferbatch.errors import UnreadableImageError
from ferbatch.filetypes import type_of_name
from ferbatch.records import LARGE_SIDE, WIDE_RATIO, Failure, ImageRef, Version

Scored = tuple[int, list[float]]  # the index of the label that a model gives, and each label's rounded probability


@dataclass(slots=True)
class Decoded:
    """An image on its way through the network: its reference and its pixels, or what went wrong, never parted."""

    ref: ImageRef
    pixels: NDArray[np.uint8] | None = None  # (size, size)
    error: Failure | None = None
    whole_picture: bool = False  # too large or too wide for a cropped face
    version: Version | None = None  # of the file, as it was before it was read; None: there was none
    scored: Scored | None = None  # where the process that decoded it computed as well, in place of the pixels


def version_of(file: bytes) -> Version | None:
    """What tells a file from what it was before; None if it cannot be had."""
    info = _stat(file)
    return Version(info.st_size, info.st_mtime_ns) if info else None


def _stat(file: bytes) -> os.stat_result | None:
    with suppress(OSError, ValueError):  # ValueError: a NUL in the name
        return os.stat(file)
    return None


def read(ref: ImageRef, size: int, *, by_pillow: bool = False) -> Decoded:
    """The file as model input, (size, size), or as the reason why not; never raises for what a file may hold.

    `by_pillow` leaves the quicker decoder of plain JPEGs alone.
    """
    info = _stat(ref.file)
    version = Version(info.st_size, info.st_mtime_ns) if info else None
    try:
        data = images.read_bytes(ref.file, info)
        pixels, width, height = images.input_of(data, type_of_name(ref.file), size, by_pillow=by_pillow)
    except UnreadableImageError as error:
        return Decoded(ref, error=Failure(error.kind, str(error)), version=version)
    return Decoded(
        ref, pixels, whole_picture=max(width, height) > LARGE_SIDE or width > WIDE_RATIO * height, version=version
    )
