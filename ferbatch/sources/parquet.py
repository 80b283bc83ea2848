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
from ferbatch.core.records import MAX_BYTES
from ferbatch.core.stores import known
from ferbatch.sources.cells import text_of
from ferbatch.sources.features import class_names
from ferbatch.sources.kinds import LABEL_COLUMNS
from ferbatch.sources.layout import plain

IN_TABLE = "ferbatch: image"  # a column that is made of the names of a table's own images
UNNAMED = "index"  # a frame's index that nobody named


def holds_images(path: str) -> bool:
    """Whether a column of a table is images; what pyarrow raises for a damaged one."""
    with archives.looked_at(os.fsencode(path)) as file:
        return image_column(file) is not None


def read_parquet(path: str) -> pd.DataFrame:
    """The rows, but in place of a column of images the names of those, by which they are opened in the table.

    UsageError where it is in a store, and too large to be read.
    """
    name = os.fsencode(path)
    with archives.looked_at(name) as file:
        found, schema = image_column(file), file.schema_arrow
    if found is None and (version := known.version_of(name)) is not None and version.size > MAX_BYTES:
        raise UsageError(f"{encode_path(name)} cannot be read: {version.size:,} bytes, the limit is {MAX_BYTES:,}")
    columns = [one for one in schema.names if found is None or one != found[0]]
    frame = pd.read_parquet(archives.source_of(name), columns=columns)
    for column, names in names_in(schema, name).items():
        if column in frame.columns:
            frame[column] = named(frame[column].tolist(), names)
    if found is None:
        return _with_index(frame)
    return _with_index(frame).assign(**{IN_TABLE: [os.fsdecode(one) for one in archives.look_into(name)[0]]})


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
    try:
        with archives.looked_at(path) as file:
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
