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


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image on its way to the network: its reference and its pixels, or what went wrong, never parted."""

    ref: ImageRef
    pixels: NDArray[np.uint8] | None = None  # (size, size)
    error: Failure | None = None
    whole_picture: bool = False  # too large or too wide for a cropped face
    version: Version | None = None  # of the file, as it was before it was read; None: there was none


def version_of(file: bytes) -> Version | None:
    """What tells a file from what it was before; None if it cannot be had."""
    with suppress(OSError, ValueError):  # ValueError: a NUL in the name
        info = os.stat(file)
        return Version(info.st_size, info.st_mtime_ns)
    return None


def read(ref: ImageRef, size: int) -> Decoded:
    """The file as model input, (size, size), or as the reason why not; never raises for what a file may hold."""
    version = version_of(ref.file)
    try:
        image = images.decode(images.read_bytes(ref.file), type_of_name(ref.file), size)
    except UnreadableImageError as error:
        return Decoded(ref, error=Failure(error.kind, str(error)), version=version)
    whole = max(image.width, image.height) > LARGE_SIDE or image.width > WIDE_RATIO * image.height
    return Decoded(ref, images.model_input(image.pixels, size), whole_picture=whole, version=version)
