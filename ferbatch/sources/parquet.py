"""Parquet tables as pandas DataFrames, those that hold images among them, as Hugging Face's datasets do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ferbatch.core import archives
from ferbatch.core.containers import damages, image_column
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.names import brief, encode_path
from ferbatch.sources.cells import text_of
from ferbatch.sources.features import class_names
from ferbatch.sources.kinds import LABEL_COLUMNS
from ferbatch.sources.layout import plain

IN_TABLE = "ferbatch: image"  # a column that is made of the names of a table's own images
UNNAMED = "index"  # a frame's index that nobody named


def read_parquet(path: str) -> pd.DataFrame:
    """The rows, but in place of a column of images the names of those, by which they are opened in the table."""
    import pyarrow.parquet as pq  # an extra

    with pq.ParquetFile(path) as file:
        found, schema = image_column(file), file.schema_arrow
    frame = pd.read_parquet(path, columns=[name for name in schema.names if found is None or name != found[0]])
    for column, names in names_in(schema, os.fsencode(path)).items():
        if column in frame.columns:
            frame[column] = named(frame[column].tolist(), names)
    if found is None:
        return _with_index(frame)
    return _with_index(frame).assign(
        **{IN_TABLE: [os.fsdecode(name) for name in archives.look_into(os.fsencode(path))[0]]}
    )


def names_in(schema: Any, path: bytes) -> dict[str, list[str]]:
    """The names of the numbers in those columns of a table that have some, by its Arrow schema and its path."""
    numbers = [field.name for field in schema if str(field.type).lstrip("u").startswith("int")]
    labels = [name for name in numbers if plain(name) in LABEL_COLUMNS]
    return class_names(schema.metadata or {}, labels, path)


def named(values: Iterable[Any], names: Sequence[str] | None) -> list[str]:
    """What values are called; without `names`, they are text themselves. Nothing where there is none."""
    if names is None:
        return [text_of(value).strip() for value in values]
    numbers = (int(value) if value is not None and value == value else -1 for value in values)
    return [names[number] if 0 <= number < len(names) else "" for number in numbers]


def shows(path: bytes, asked: str | None = None) -> list[str] | None:
    """What each row of a table shows, by its column for that, in a store too; None where it has no such column.

    asked: the column's name; UsageError where it has none such, or the table cannot be read.
    """
    import pyarrow.parquet as pq  # an extra

    try:
        with pq.ParquetFile(archives.source_of(path)) as file:
            schema = file.schema_arrow
            names = names_in(schema, path)
            column = _label_column(path, schema, [*names], asked)
            values = file.read(columns=[column], use_threads=False).column(0).to_pylist() if column else []
    except UnreadableImageError as error:
        raise archives.not_had(path, error) from None
    except damages() as error:
        raise archives.unfit(path, error) from error
    return named(values, names.get(column)) if column else None


def _label_column(path: bytes, schema: Any, classed: Sequence[str], asked: str | None) -> str | None:
    """The column that says what each row shows; of several the usual name comes first, then what has names."""
    columns = {plain(field.name): field.name for field in schema if not str(field.type).startswith(("struct", "list"))}
    if asked is not None and plain(asked) not in columns:
        there = brief(", ".join(schema.names), 120)
        raise UsageError(f"--label-column: {encode_path(path)} has no column {brief(asked, 40)} (it has: {there})")
    if asked is not None:
        return str(columns[plain(asked)])
    return next((columns[name] for name in LABEL_COLUMNS if name in columns), classed[0] if classed else None)


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index as columns, where that is no mere count of the rows."""
    index = frame.index
    if isinstance(index, pd.RangeIndex) or (index.names == [None] and pd.api.types.is_integer_dtype(index.dtype)):
        return frame
    names = [name if name is not None else f"{UNNAMED}{at or ''}" for at, name in enumerate(index.names)]
    return frame.reset_index(names=names, allow_duplicates=True)
