"""Rows of a table that are images, as FER2013 is handed out: `emotion,pixels,Usage`, the pixels as numbers.

Such a table is a folder of images to whoever opens them: `fer2013.csv/PrivateTest/fer0000012.png` is its row 12,
counted from 0, by the name that FER+ gives it. Nothing is unpacked.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.files import version_of
from ferbatch.core.records import Version

COLUMN = "pixels"
NAME = "fer{:07d}.png"
_NAME = re.compile(rb"fer(\d{7,})\.png")
_SEPARATOR = re.compile(rb"[,;\t]")  # between the columns; pixels have spaces between them


def read_row(file: bytes) -> bytes | None:
    """The image in a row of a table as a PGM file; None where `file` does not name such a row.

    UnreadableImageError where the row's pixels are no square of numbers from 0 to 255.
    """
    table, row = os.path.dirname(file), _NAME.fullmatch(os.path.basename(file))
    while table and not os.path.lexists(table):
        table = os.path.dirname(table)
    if row is None or not os.path.isfile(table):
        return None
    starts, number = _starts(table, version_of(table)), int(row[1])
    if number >= len(starts):
        return None
    with open(table, "rb") as stream:
        stream.seek(int(starts[number]))
        text = max(_SEPARATOR.split(stream.readline()), key=len).strip(b'" \r\n')
    try:
        pixels = bytes(map(int, text.split()))
    except ValueError:
        pixels = b""
    side = isqrt(len(pixels))
    if not side or side * side != len(pixels):
        raise UnreadableImageError("unreadable", "the row's pixels are no square of numbers from 0 to 255")
    return b"P5 %d %d 255\n" % (side, side) + pixels


@lru_cache(maxsize=2)
def _starts(table: bytes, _: Version) -> NDArray[np.int64]:
    """(N,) the byte at which each row begins; none where the table holds no pixels."""
    starts, at = list[int](), 0
    with open(table, "rb") as stream:
        header = stream.readline()
        if COLUMN.encode() not in header.lower():
            return np.zeros(0, np.int64)
        at = len(header)
        for line in stream:
            if line.strip():
                starts.append(at)
            at += len(line)
    return np.array(starts, np.int64)
