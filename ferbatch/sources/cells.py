"""Values of tables: the text that each is, or the images that a column holds in place of text."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ferbatch.images.formats import SIGNATURE_BYTES, type_of_bytes


def holds(column: pd.Series[Any]) -> str | None:
    """What a column holds in place of text, if it is images: bytes, or as Hugging Face has them, bytes and a name."""
    value = next((one for one in column if not _is_missing(one)), None)
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return "images (the bytes and the path of each)"
    if isinstance(value, bytes) and (type_of_bytes(value[:SIGNATURE_BYTES]) or b"\0" in value):
        return "images (the bytes of each)"
    return None


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """A table's value as it was written; a whole number that stood beside an empty value is no fraction."""
    if _is_missing(value):
        return ""
    if isinstance(value, bytes):  # which some writers of Parquet make of text
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict) and isinstance(value.get("path"), str):  # Hugging Face's, of an image that is a file
        return str(value["path"])
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
