"""The tables of a database that hold labels, and their rows read back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from ferbatch.core.database import database_at
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import columns
from ferbatch.core.writers import type_of

if TYPE_CHECKING:
    import pandas as pd

LONGEST_NAME = 63  # bytes of a column's name in PostgreSQL


class Tables(NamedTuple):
    """The tables that a run fills."""

    rows: Table  # the columns of every output
    runs: Table  # the finished run and the one that goes on: its sidecar when it is finished, its rows
    lines: Table  # of the runs' journals


def tables_of(name: str, labels: Sequence[str]) -> Tables:
    """The tables for the rows of a model with these labels. UsageError where a label can be no column's name."""
    if long := [label for label in labels if len(label.encode()) > LONGEST_NAME]:
        raise UsageError(f"the label {escape(long[0])[:40]}... is too long for a column's name in a database")
    kinds: dict[str, Any] = {"string": sa.Text, "int32": sa.Integer, "float64": sa.Double}
    meta = sa.MetaData()
    rows = sa.Table(name, meta, *(sa.Column(one, kinds[type_of(one)]) for one in columns(labels)))
    sa.Index(f"{name}_path", rows.c.path, postgresql_using="hash")  # which takes a path of any length
    number, whole = partial(sa.Column, "id", sa.Integer, primary_key=True), sa.BigInteger
    runs = sa.Table(f"{name}_run", meta, number(), sa.Column("sidecar", sa.Text), sa.Column("rows", whole))
    run = sa.Column("run", sa.Integer, index=True)
    lines = sa.Table(f"{name}_journal", meta, number(), run, sa.Column("line", sa.Text))
    return Tables(rows, runs, lines)


def labels_in(connection: Connection, name: str) -> tuple[str, ...]:
    """The labels that the columns of the table are for; none where it is no table of labels, or not there."""
    inspector = sa.inspect(connection)
    names = [one["name"] for one in inspector.get_columns(name)] if inspector.has_table(name) else []
    with suppress(ValueError):
        return tuple(names[names.index("confidence") + 1 : names.index("status")])
    return ()


def check_columns(connection: Connection, tables: Tables, shown: str) -> None:
    """UsageError where one of the tables is there with other columns: it is somebody else's."""
    inspector = sa.inspect(connection)
    for table in filter(lambda one: inspector.has_table(one.name), tables):
        there = [f"{c['name']} {c['type'].compile(connection.dialect)}" for c in inspector.get_columns(table.name)]
        wanted = [f"{column.name} {column.type.compile(connection.dialect)}" for column in table.columns]
        if there == wanted:
            continue
        at = next((at for at, (one, other) in enumerate(zip(there, wanted)) if one != other), len(there))  # noqa: B905
        one, other = (escape(names[at])[:60] if at < len(names) else "none" for names in (there, wanted))
        raise UsageError(
            f"{shown} has a table {table.name} with other columns: number {at + 1} is {one}, and not {other};"
            " ?table=NAME at the URL's end names another"
        )


def read_rows(url: str) -> pd.DataFrame:
    """The rows of a table of labels, by path and face; UsageError where there is none, OutputError where it fails."""
    import pandas as pd

    database = database_at(url)
    missing = f"{database.shown} has no table {database.table}"
    if not database.check():
        raise UsageError(missing)
    with database.speaking(), database.connect() as connection:
        if not sa.inspect(connection).has_table(database.table):
            raise UsageError(missing)
        frame = pd.read_sql_table(database.table, connection)
    by = [name for name in ("path", "face") if name in frame.columns]
    return frame.sort_values(by, kind="stable", ignore_index=True, na_position="first")
