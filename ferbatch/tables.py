"""Tables read as pandas DataFrames: labels files, and what people keep about their images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ferbatch.errors import UsageError
from ferbatch.paths import encode_path, escape
from ferbatch.writers import TEXT_COLUMNS, check_format

# What people call the column that names the image.
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_name", "image_path")


def read_labels(path: str) -> pd.DataFrame:
    """The rows of a csv, json, jsonl or parquet labels file; '' and NaN where a column does not apply.

    UsageError where the suffix names no format, or what the format needs is not installed.
    """
    frame = _read(path, dict.fromkeys(TEXT_COLUMNS, "str"))
    missing = TEXT_COLUMNS - set(frame.columns)
    if missing:
        raise UsageError(f"{shown(path)} is no labels file: no column {', '.join(sorted(missing))}")
    for name in frame.columns:
        frame[name] = frame[name].fillna("").astype("str") if name in TEXT_COLUMNS else pd.to_numeric(frame[name])
    return frame


def read_table(path: str) -> pd.DataFrame:
    """The rows of any csv, json, jsonl or parquet table, every value a string ('' where there is none).

    UsageError where it cannot be read.
    """
    if not os.path.exists(path):
        raise UsageError(f"no such file: {shown(path)}")
    try:
        frame = _read(path, object)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise UsageError(f"{shown(path)} cannot be read as a table: {escape(str(error).splitlines()[0])}") from error
    if not len(frame.columns):
        raise UsageError(f"{shown(path)} has no columns")
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame.astype(object).where(frame.notna(), "").map(str)


def column(frame: pd.DataFrame, names: Sequence[str], path: str) -> str:
    """The first column that goes by one of these names, whatever its case; UsageError if there is none."""
    spelled = {str(name).casefold().replace(" ", "_"): str(name) for name in reversed(frame.columns)}
    found = next((spelled[name] for name in names if name in spelled), None)
    if found is None:
        there = ", ".join(escape(str(name)) for name in frame.columns[:20])
        raise UsageError(f"{shown(path)} has none of the columns {', '.join(names)} (it has: {there})")
    return found


def shown(path: str) -> str:
    """A path as messages print it."""
    return encode_path(os.fsencode(path))


def _read(path: str, texts: Any) -> pd.DataFrame:
    suffix = check_format(os.path.splitext(path)[1].lstrip(".").lower())
    if suffix == "csv":
        return pd.read_csv(
            path, dtype=texts, keep_default_na=False, encoding="utf-8-sig", encoding_errors="surrogateescape"
        )
    if suffix == "parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=suffix == "jsonl", dtype=False, precise_float=True)
