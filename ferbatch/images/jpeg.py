"""Small plain JPEGs straight from libjpeg-turbo: the pixels that Pillow gives, in a quarter of its time."""

from __future__ import annotations

import importlib.metadata
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
