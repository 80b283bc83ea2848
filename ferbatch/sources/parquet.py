"""Parquet tables as pandas DataFrames, those that hold images among them, as Hugging Face's datasets do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress

import pandas as pd

from ferbatch.core import archives
from ferbatch.core.containers import image_column

IN_TABLE = "ferbatch: image"  # a column that is made of the names of a table's own images
UNNAMED = "index"  # a frame's index that nobody named


def read_parquet(path: str) -> pd.DataFrame:
    """The rows, but in place of a column of images the names of those, by which they are opened in the table."""
    import pyarrow.parquet as pq  # an extra

    with pq.ParquetFile(path) as file:
        found, schema = image_column(file), file.schema_arrow
    frame = pd.read_parquet(path, columns=[name for name in schema.names if found is None or name != found[0]])
    if found is None:
        return _with_index(frame)
    for column, names in _class_names(schema.metadata or {}).items():
        if column in frame.columns:
            numbers = frame[column].fillna(-1).astype(int)
            frame[column] = [names[number] if 0 <= number < len(names) else "" for number in numbers]
    return _with_index(frame).assign(
        **{IN_TABLE: [os.fsdecode(name) for name in archives.look_into(os.fsencode(path))[0]]}
    )


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """What the numbers in columns mean, as Hugging Face's datasets write it."""
    with suppress(ValueError, LookupError, AttributeError, TypeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    return {}


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as columns, where that is no mere count of the rows."""
    index = frame.index
    if isinstance(index, pd.RangeIndex) or (index.names == [None] and pd.api.types.is_integer_dtype(index.dtype)):
        return frame
    names = [name if name is not None else f"{UNNAMED}{at or ''}" for at, name in enumerate(index.names)]
    return frame.reset_index(names=names, allow_duplicates=True)
