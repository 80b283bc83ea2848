"""JPEGs straight from libjpeg-turbo: the pixels that Pillow gives, sooner, and the warnings that it swallows."""

from __future__ import annotations

import importlib.metadata
import os
import re
import tempfile
import threading
from contextlib import suppress
from typing import cast

import numpy as np
import PIL
from numpy.typing import NDArray

try:
    import simplejpeg
except ImportError:  # no wheel for every machine; Pillow does it all
    simplejpeg = None

PILLOW = f"pillow {PIL.__version__}"  # alone, as it stands in a sidecar
BEGINNING = b"\xff\xd8\xff"
QUICK_BYTES = 2**16  # of a file, at the most; in a larger one the time goes into what both decoders do alike
SPACES = ("Gray", "YCbCr")  # the colour spaces that hold luma as such
SCAN = 0xDA  # the marker before the pixels
PLAIN = {0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xDD, 0xFE, SCAN}  # tables, sizes, comments: markers that turn nothing round
APPLICATION = {
    0xE0: b"JFIF\0",
    0xEE: b"Adobe",
}  # segments of programs' own that turn nothing round
APPLICATION_BYTES = 14  # of such a segment, at the least
WARNING = re.compile("Corrupt JPEG|Premature end|Inconsistent|Invalid SOS|Unknown Adobe|Warning:")  # of libjpeg's
STDERR, ONE_AT_A_TIME = 2, threading.Lock()


def decoders() -> list[str]:
    """What images may be decoded by, as it stands in a sidecar, the best first; the last is PILLOW."""
    return [f"simplejpeg {importlib.metadata.version('simplejpeg')}, {PILLOW}", PILLOW] if simplejpeg else [PILLOW]


def luma(data: bytes, limit: int) -> NDArray[np.uint8] | None:
    """(H, W) luma of a JPEG with sides under `limit` pixels.

    None for whatever else there is to see to: an orientation, another colour space, the least damage. Pillow, the
    reference, has the word then.
    """
    if simplejpeg is None or len(data) > QUICK_BYTES or not data.startswith(BEGINNING):
        return None
    with suppress(Exception):  # whatever it raises for damage, mere warnings of libjpeg's among it
        if not _is_plain(data):
            return None
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if max(height, width) < limit and space in SPACES:
            return cast("NDArray[np.uint8]", simplejpeg.decode_jpeg(data, "GRAY", strict=True)[:, :, 0])
    return None


def gray(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    """(height, width) luma of a JPEG, at the scale that gives this size.

    None for another colour space, and for the least damage: then Pillow has the word, and `check`.
    """
    if simplejpeg is None:
        return None
    with suppress(Exception):  # as in `luma`
        if simplejpeg.decode_jpeg_header(data)[2] in SPACES:
            pixels = simplejpeg.decode_jpeg(data, "GRAY", min_height=height, min_width=width, min_factor=1 + 1e-9)
            if pixels.shape == (height, width, 1):
                return cast("NDArray[np.uint8]", pixels[:, :, 0])
    return None


def warning(data: bytes) -> str | None:
    """libjpeg's first warning of a JPEG; None where it has none, nothing ("") where it gives up without one."""
    if simplejpeg is not None:
        try:
            space = "CMYK" if simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK") else "GRAY"
            simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, min_factor=8)
            return None
        except Exception as error:
            if WARNING.search(str(error)):
                return str(error)
    return _printed_warning(data)  # simplejpeg does not know every kind


def _printed_warning(data: bytes) -> str | None:
    """The same by OpenCV, whose libjpeg prints its warnings. Slower, and what else is printed meanwhile comes later."""
    import cv2  # takes a tenth of a second

    with ONE_AT_A_TIME, tempfile.TemporaryFile() as printed:
        stderr = os.dup(STDERR)
        os.dup2(printed.fileno(), STDERR)
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        finally:
            os.dup2(stderr, STDERR)
            os.close(stderr)
        printed.seek(0)
        lines = printed.read().decode("utf-8", "replace").splitlines(keepends=True)
    os.write(STDERR, "".join(line for line in lines if not WARNING.match(line)).encode())
    words = next((line.strip() for line in lines if WARNING.match(line)), None)
    return words or (None if image is not None else "")


def _is_plain(data: bytes) -> bool:
    """Whether there is nothing before the pixels but what every JPEG has. IndexError where the file ends before."""
    offset, marker = 2, 0
    while marker != SCAN:
        marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4])
        start = APPLICATION.get(marker)
        known = marker in PLAIN if start is None else data.startswith(start, offset + 4) and length >= APPLICATION_BYTES
        if data[offset] != 0xFF or not known:
            return False
        offset += 2 + length
    return True
