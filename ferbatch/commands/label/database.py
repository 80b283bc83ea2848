"""Labels that go to a table of a database: the rows of a batch and its line of the journal in one transaction."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ferbatch.commands.label.output import BEGUN, THERE, Output
from ferbatch.core.batch import Batch
from ferbatch.core.database import Database
from ferbatch.core.errors import UsageError
from ferbatch.core.label_tables import Tables, check_columns, labels_in, tables_of
from ferbatch.core.locks import Holder
from ferbatch.core.options import Existing
from ferbatch.core.rows import AS_VALUES, columns_of
from ferbatch.core.writers import Writer
from ferbatch.stream.journal import Done, Journal, head_in, head_line

LINES_AT_ONCE = 8  # of a journal, in memory


class Run:
    """A run that goes on: what it does to the tables, of which nothing stays until it is committed."""

    def __init__(self, database: Database, connection: Connection, tables: Tables, number: int) -> None:
        """What is said for each batch is put into words once, which takes as long as to write some hundred rows."""
        self.database, self.connection, self.tables, self.number = database, connection, tables, number
        rows, runs, lines = tables
        self.line = lines.insert()
        self.gone = rows.delete().where(rows.c.path == sa.bindparam("of"))
        more = runs.update().where(runs.c.id == number)
        self.more = more.values(rows=runs.c.rows + sa.bindparam("more", type_=sa.BigInteger))

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.database.insert(self.connection, self.tables.rows, rows)
        self._count(len(rows))

    def delete(self, paths: Sequence[str]) -> None:
        """The rows of these images, where there are any."""
        self._count(-self.connection.execute(self.gone, [{"of": path} for path in paths]).rowcount)

    def add_line(self, line: bytes) -> None:
        """To its journal."""
        self.connection.execute(self.line, {"run": self.number, "line": line.decode()})

    def finish(self, sidecar: Mapping[str, Any]) -> None:
        """It is the one finished run from now on."""
        runs, lines = self.tables.runs, self.tables.lines
        self.connection.execute(lines.delete().where(lines.c.run != self.number))
        self.connection.execute(runs.delete().where(runs.c.id != self.number))
        self.connection.execute(runs.update().values(sidecar=json.dumps(sidecar)))

    def _count(self, more: int) -> None:
        """Have it said how many rows there are."""
        self.connection.execute(self.more, {"more": more})


class TableWriter(Writer):
    """Writes the rows of a batch, and ends its transaction."""

    def __init__(self, run: Run, labels: Sequence[str], *, replaces: bool) -> None:
        """`replaces`: whether there may be rows of the same images."""
        self.run, self.labels, self.replaces = run, labels, replaces

    def write(self, batch: Batch) -> None:
        if len(batch):
            if self.replaces:
                self.run.delete(batch.references.paths)
            self.run.insert(list(zip(*columns_of(batch, self.labels, AS_VALUES).values(), strict=True)))
        self.run.connection.commit()

    def flush(self) -> None:
        """Nothing waits to be written."""

    def close(self) -> None:
        """Nothing comes after the last row."""


class TableJournal(Journal):
    """The journal of a run in a table; a batch's line is there when its rows are."""

    def __init__(self, run: Run, shown: str) -> None:
        self.run, self.shown, self.synced = run, shown, time.monotonic()

    def _write(self, data: bytes) -> None:
        self.run.add_line(data.removesuffix(b"\n"))

    def sync(self) -> None:
        """The database sees to it."""


class DatabaseOutput(Output):
    """A table of labels, and two beside it that say of the runs what the files beside a labels file do."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.shown, database.scheme)
        self.is_file, self.database = False, database
        self.shown, self.owner = database.shown, database.place
        self.of_journal = self.of_state = f"the journal of {self.shown}"
        self.tables = tables_of(database.table, ())  # until the labels are known
        self.connection: Connection | None = None  # while it is held
        self.run: Run | None = None  # that has begun and is not finished
        self.open = ExitStack()  # what ends with the hold

    def check(self, existing: Existing, *, held: bool = False) -> None:
        if not self.database.check():
            return
        with self.database.speaking(), ExitStack() as stack:
            connection = self._held if held else stack.enter_context(self.database.connect())
            name = self.database.table
            check_columns(connection, tables_of(name, labels_in(connection, name)), self.shown)
            begun, finished, rows = self._found(connection)
            if existing.any or not (begun or finished or rows):
                return
            if begun and not held:  # or the run is not unfinished, but going on
                stack.enter_context(self.database.held(connection))
        raise UsageError(f"{self.shown} {BEGUN if begun else THERE}")

    @property
    def _held(self) -> Connection:
        assert self.connection is not None  # or it is not held
        return self.connection

    def _found(self, connection: Connection) -> tuple[int | None, int | None, bool]:
        """The numbers of the unfinished run and of the finished one, and whether there is a row."""
        known, (rows, runs, _) = sa.inspect(connection), self.tables
        numbers: dict[bool, int] = {}
        if known.has_table(runs.name):
            found = connection.execute(sa.select(runs.c.id, runs.c.sidecar.is_(None)))
            numbers = {unfinished: number for number, unfinished in found}
        row = known.has_table(rows.name) and connection.execute(sa.select(rows.c.path).limit(1)).first()
        connection.rollback()  # no transaction stays open while a listing is looked up, or a model loaded
        return numbers.get(True), numbers.get(False), bool(row)

    @contextmanager
    def held(self, existing: Existing, labels: Sequence[str]) -> Iterator[Holder | None]:
        self.database.check()
        with self.database.speaking(), self.database.connect() as connection, self.open:
            dead = self.open.enter_context(self.database.held(connection))
            self.connection = connection
            self.check(existing, held=True)
            self.tables = tables_of(self.database.table, labels)
            check_columns(connection, self.tables, self.shown)
            connection.rollback()
            yield dead

    def check_room(self, needed: int) -> None:
        self.database.check_room(needed)

    def is_mine(self, path: str) -> bool:
        return self.database.is_mine(path)

    @property
    def exists(self) -> bool:
        return any(self._found(self._held))

    @property
    def unfinished(self) -> bool:
        return self.run is not None

    def is_changed(self, begun_on: str | None) -> bool:
        """Whether rows came or went since ferbatch wrote them; what is said in them may be changed."""
        runs = self.tables.runs
        newest = self._held.execute(sa.select(runs.c.rows).order_by(runs.c.id.desc())).scalar()
        count = self._count()
        self._held.rollback()
        return newest is not None and newest != count

    def _count(self) -> int:
        """Rows of the table."""
        rows = self.tables.rows
        there = sa.inspect(self._held).has_table(rows.name)
        return self._held.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one() if there else 0

    def sha256_of(self, path: str) -> str | None:
        """None: there is no file."""
        return None

    def head_of(self, path: str) -> Mapping[str, Any]:
        if not self.database.check():
            return {}
        with self.database.speaking(), self.database.connect() as connection:
            begun, finished, _ = self._found(connection)
            lines, run = self.tables.lines, begun if path == self.journal else finished
            first = sa.select(lines.c.line).where(lines.c.run == run).order_by(lines.c.id).limit(1)
            line = None if run is None else connection.execute(first).scalar()
        return {} if line is None else head_in(line.encode() + b"\n")

    def done(self, path: str) -> Done | None:
        begun, finished, _ = self._found(self._held)
        run = begun if path == self.journal else finished
        if run is None:
            return None
        stream = self.open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # until the hold ends
        table = self.tables.lines
        lines = sa.select(table.c.line).where(table.c.run == run).order_by(table.c.id)
        for line in self._held.execute(lines, execution_options={"yield_per": LINES_AT_ONCE}).scalars():
            stream.write(line.encode() + b"\n")
        self._held.rollback()
        stream.seek(0)
        return Done(self.of_journal, stream)

    @contextmanager
    def recording(
        self, labels: Sequence[str], head: Mapping[str, Any], before: Done | None = None, base: Done | None = None
    ) -> Iterator[tuple[Writer, Journal | None]]:
        mode = self.database.begin(self._held)
        begun, finished, _ = self._found(self._held)
        self.tables.rows.metadata.create_all(self._held)
        run = self.run = self._run(begun) if before else self._begin(head, finished if base else None)
        self._held.commit()
        yield TableWriter(run, labels, replaces=bool(before or base)), TableJournal(run, self.of_journal)
        self._held.commit()
        self.run = None
        self.database.end(self._held, mode if begun is None else "")  # what was cut short left its own

    def _run(self, number: int | None) -> Run:
        assert number is not None  # or there was no journal to go on with
        return Run(self.database, self._held, self.tables, number)

    def _begin(self, head: Mapping[str, Any], base: int | None) -> Run:
        """A new run, on the rows of the finished one that has this number, or on none."""
        connection, (rows, runs, lines) = self._held, self.tables
        connection.execute(lines.delete().where(lines.c.run.is_distinct_from(base)))
        connection.execute(runs.delete().where(runs.c.id.is_distinct_from(base)))
        if base is None:
            connection.execute(rows.delete())
        new = connection.execute(runs.insert().values(rows=self._count())).inserted_primary_key
        run = self._run(new[0] if new else None)
        run.add_line(head_line(head).removesuffix(b"\n"))
        return run

    def forget(self, path: str) -> None:
        if self.run:
            self.run.delete([path])

    def keep(self, report: Mapping[str, Any] | None, sidecar: Mapping[str, Any]) -> None:
        """The sidecar. The report is printed; `ferbatch evaluate` writes it to a folder."""
        if self.run:
            self.run.finish(sidecar)
