"""Labels files read back as pandas DataFrames."""

from __future__ import annotations

import os

import pandas as pd

from ferbatch.errors import UsageError
from ferbatch.paths import encode_path
from ferbatch.writers import TEXT_COLUMNS, check_format


def read_labels(path: str) -> pd.DataFrame:
    """The rows of a csv, json, jsonl or parquet labels file; '' and NaN where a column does not apply.

    UsageError where the suffix names no format, or what the format needs is not installed.
    """
    suffix = check_format(os.path.splitext(path)[1].lstrip(".").lower())
    texts = dict.fromkeys(TEXT_COLUMNS, "str")
    if suffix == "csv":
        frame = pd.read_csv(path, dtype=texts, keep_default_na=False)
    elif suffix == "parquet":
        frame = pd.read_parquet(path)
    else:
        frame = pd.read_json(path, lines=suffix == "jsonl", dtype=False, precise_float=True)
    missing = TEXT_COLUMNS - set(frame.columns)
    if missing:
        raise UsageError(f"{encode_path(os.fsencode(path))} is no labels file: no column {', '.join(sorted(missing))}")
    for name in frame.columns:
        frame[name] = frame[name].fillna("").astype("str") if name in TEXT_COLUMNS else pd.to_numeric(frame[name])
    return frame
