"""Tables read as pandas DataFrames: labels files, and what people keep about their images."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from ferbatch.core.database import database_at, is_url, name_of
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape, shown
from ferbatch.core.writers import TEXT_COLUMNS, WRITERS, check_format

# What people call the column that names the image.
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_name", "image_path")


def read_labels(path: str) -> pd.DataFrame:
    """The rows of a csv, json, jsonl or parquet labels file, or of a database; '' and NaN where nothing applies.

    UsageError where the suffix names no format, or what the format needs is not installed.
    """
    frame = _of_database(path) if is_url(path) else _parsed(path, dict.fromkeys(TEXT_COLUMNS, "str"))
    missing = TEXT_COLUMNS - set(frame.columns)
    if missing:
        raise UsageError(f"{name_of(path)} is no labels file: no column {', '.join(sorted(missing))}")
    for name in frame.columns:
        if name in TEXT_COLUMNS:
            frame[name] = frame[name].fillna("").astype("str")
        else:
            with suppress(ValueError):  # a text column of somebody else's stays one
                frame[name] = pd.to_numeric(frame[name])
    return frame


def _of_database(url: str) -> pd.DataFrame:
    database_at(url)  # says what is not installed
    from ferbatch.core.label_tables import read_rows  # imports SQLAlchemy, which is an extra

    return read_rows(url)


def read_table(path: str) -> pd.DataFrame:
    """The rows of any csv, json, jsonl or parquet table, every value a string ('' where there is none).

    UsageError where it cannot be read.
    """
    if not os.path.exists(path):
        raise UsageError(f"no such file: {shown(path)}")
    if os.path.splitext(path)[1].lstrip(".").lower() not in WRITERS:
        raise UsageError(f"{shown(path)} is no table: tables are {', '.join(WRITERS)}")
    frame = _parsed(path, object)
    if not len(frame.columns):
        raise UsageError(f"{shown(path)} has no columns")
    names = [str(name).strip() for name in frame.columns]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"{shown(path)} has two columns called {escape(twice[0])}")
    texts = {name: [_text(value) for value in frame[own]] for name, own in zip(names, frame.columns, strict=True)}
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in texts.items()})


def _text(value: Any) -> str:
    """A table's value as it was written; a whole number that stood beside an empty value is no fraction."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def column(frame: pd.DataFrame, names: Sequence[str], path: str) -> str:
    """The first column that goes by one of these names, whatever its case; UsageError if there is none."""
    spelled = {str(name).casefold().replace(" ", "_"): str(name) for name in reversed(frame.columns)}
    found = next((spelled[name] for name in names if name in spelled), None)
    if found is None:
        there = ", ".join(escape(str(name)) for name in frame.columns[:20])
        separated = (
            "; values must be separated by commas" if len(frame.columns) == 1 and set(there) & {";", "\\"} else ""
        )
        raise UsageError(f"{shown(path)} has none of the columns {', '.join(names)} (it has: {there}){separated}")
    return found


def _parsed(path: str, texts: Any) -> pd.DataFrame:
    try:
        return _read(path, texts)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UsageError(f"{shown(path)} cannot be read as a table: {escape(str(error).splitlines()[0])}") from error


def _read(path: str, texts: Any) -> pd.DataFrame:
    """The table as pandas reads it by its suffix; `texts` says which columns of a CSV file stay text."""
    suffix = check_format(os.path.splitext(path)[1].lstrip(".").lower())
    if suffix == "csv":
        with warnings.catch_warnings():  # a comma at the end of every row is no column
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                dtype=texts,
                index_col=False,
                keep_default_na=False,
                encoding="utf-8-sig",
                encoding_errors="surrogateescape",
            )
    if suffix == "parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=suffix == "jsonl", dtype=False, precise_float=True)
