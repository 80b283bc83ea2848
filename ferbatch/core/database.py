"""DATABASES: a URL's scheme -> how labels are kept in a table there. SQLAlchemy is imported where one is asked for."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from ferbatch.core.errors import LockedError, UsageError
from ferbatch.core.files import check_has_folder, check_room, unwritten, writing
from ferbatch.core.locks import Holder, locked
from ferbatch.core.names import escape, shown
from ferbatch.core.stores.urls import is_remote

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect, Table

URL = re.compile(r"[a-z][a-z0-9+.-]+://|(sqlite|postgres|postgresql):", re.IGNORECASE)
TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")
TABLE_ASKED = re.compile(r"(?<=[?&])table=([^&]*)&?")
KNOWN = "sqlite:///labels.db and postgresql://user@host/database are"  # examples of what is known
HEADER = b"SQLite format 3\0"
WAITS = 30  # seconds for somebody else's transaction in a SQLite file
DYING = "5s"  # within which a PostgreSQL server notes that the process of a session is gone
LONGEST_WORDS = 200  # characters of what a database says


class Database:
    """A table of labels in a database, by its URL."""

    scheme: ClassVar[str]
    needs: ClassVar[Sequence[str]]  # modules

    def __init__(self, table: str) -> None:
        self.table = table
        self.shown = ""  # safe to print: a URL without its password
        self.place = ""  # the same wherever it is said
        self.secrets: Sequence[str] = ()  # what no message may hold

    def connect(self) -> Connection:
        """A connection of its own; raises what `speaking` makes a sentence of."""
        raise NotImplementedError

    def held(self, connection: Connection) -> AbstractContextManager[Holder | None]:
        """Keep other runs off the table, LockedError if one has it; yields who held it and died, where it is known."""
        raise NotImplementedError

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows, the fastest way there is."""
        raise NotImplementedError

    def begin(self, connection: Connection) -> str:
        """Make ready for a transaction a batch; how it was before, for `end`."""
        return ""

    def end(self, connection: Connection, before: str) -> None:
        """Have it as it was before, where that can be done."""

    def check(self) -> bool:
        """Whether a database is there; UsageError or OutputError where none can be."""
        return True

    def check_room(self, needed: int) -> None:
        """OutputError if fewer bytes than these are known to be free."""

    def is_mine(self, path: str) -> bool:
        """Whether a path is that of a file of the database's."""
        return False

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """OutputError for what the database says against it, in a sentence without the URL's password."""
        from sqlalchemy.exc import DBAPIError

        try:
            yield
        except DBAPIError as error:
            said = " ".join(str(error.orig).split())
            for secret in self.secrets:
                said = said.replace(secret, "***")
            raise unwritten(self.shown, escape(said)[:LONGEST_WORDS]) from None


class Sqlite(Database):
    """A table in a SQLite file."""

    scheme, needs = "sqlite", ("sqlalchemy",)

    def __init__(self, url: str, table: str) -> None:
        super().__init__(table)
        path = url.removeprefix("sqlite:///")
        if path in (url, "", ":memory:") or "?" in path:
            raise UsageError(
                "a sqlite:// URL has a path after three slashes, and may say a table: sqlite:///labels.db is"
                " labels.db in this folder, sqlite:////srv/labels.db?table=faces the table faces in /srv/labels.db"
            )
        self.shown = f"sqlite:///{shown(path)}{_asked(table)}"
        self.file = os.path.realpath(path) if os.path.islink(path) else path
        self.place = f"sqlite:///{os.path.abspath(self.file)}{_asked(table)}"

    def check(self) -> bool:
        check_has_folder(self.file)
        if not os.path.lexists(self.file):
            return False
        if not os.path.isfile(self.file):
            raise UsageError(f"{self.shown} is not a regular file")
        with writing(self.shown), open(self.file, "rb") as stream:
            if stream.read(len(HEADER)) not in (HEADER, b""):
                raise UsageError(f"{self.shown} is a file, but no SQLite database")
        return True

    def check_room(self, needed: int) -> None:
        check_room(self.file, needed)

    def is_mine(self, path: str) -> bool:
        own = os.path.realpath(self.file)
        return os.path.realpath(path) in {f"{own}{end}" for end in ("", "-journal", "-wal", "-shm", ".lock")}

    def connect(self) -> Connection:
        import sqlalchemy as sa

        url = sa.URL.create("sqlite", database=self.file)
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": WAITS}).connect()

    @contextmanager
    def held(self, connection: Connection) -> Iterator[Holder | None]:
        with locked(self.file) as dead:
            yield dead

    def begin(self, connection: Connection) -> str:
        """Others can read meanwhile, and no transaction waits for the disk: a power cut may take some, each whole."""
        before = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
        connection.commit()
        return before

    def end(self, connection: Connection, before: str) -> None:
        """One file is left, that can be copied, and read where nothing may be written; not while somebody reads it."""
        from sqlalchemy.exc import OperationalError

        with suppress(OperationalError):
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            connection.exec_driver_sql(f"PRAGMA journal_mode={before or 'delete'}")

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        connection.exec_driver_sql(_insertion(table, connection.dialect), list(rows))


class Postgres(Database):
    """A table in PostgreSQL. The URL is libpq's, whose environment and files count as they do for psql."""

    scheme, needs = "postgresql", ("sqlalchemy", "psycopg")

    def __init__(self, url: str, table: str) -> None:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        super().__init__(table)
        try:
            said = {name: str(value) for name, value in conninfo_to_dict(url).items()}
            path = url.removeprefix("postgresql://").partition("?")[0].partition("/")[2]
            if url.count("@") > 1 or "@" in path or not (said.get("port") or "1").replace(",", "").isdecimal():
                raise ProgrammingError  # a part of a password was taken for something else
        except ProgrammingError:  # whose words may hold a password
            raise UsageError(
                "a postgresql:// URL is like postgresql://user:password@host:5432/database?sslmode=require, with %40"
                " for an @ in a name or a password, %3A for a :, %2F for a /, %25 for a %; this one cannot be read"
            ) from None
        self.url = url
        passwords = [said[name] for name in ("password", "sslpassword") if said.get(name)]
        self.secrets = [text for one in passwords for text in (one, quote(one, safe=""))]
        user = said.get("user", "") + (":***" if passwords else "")
        port = f":{said['port']}" if "port" in said else ""
        where = f"{user}{'@' if user else ''}{said.get('host', '')}{port}/{said.get('dbname', '')}"
        self.shown = self.place = f"postgresql://{shown(where)}{_asked(table)}"

    def connect(self) -> Connection:
        import psycopg
        import sqlalchemy as sa

        opened = partial(psycopg.connect, self.url, fallback_application_name="ferbatch", client_encoding="utf8")
        return sa.create_engine("postgresql+psycopg://", poolclass=sa.NullPool, creator=opened).connect()

    @contextmanager
    def held(self, connection: Connection) -> Iterator[Holder | None]:
        from sqlalchemy import text
        from sqlalchemy.exc import OperationalError

        name = "concat(current_schema(), '.', CAST(:table AS text))"
        lock = f"SELECT pg_advisory_lock(hashtext('ferbatch'), hashtext({name}))"
        try:
            connection.execute(text(f"SET LOCAL lock_timeout = '{DYING}'"))
            connection.execute(text(lock), {"table": self.table})
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            raise LockedError(f"another run is writing {self.shown}") from None
        connection.commit()  # the lock stays until the session ends
        yield None

    def insert(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        from sqlalchemy.exc import DBAPIError

        copy = f"COPY {connection.dialect.identifier_preparer.format_table(table)} FROM STDIN"
        driver: Any = connection.connection
        try:
            with driver.cursor() as cursor, cursor.copy(copy) as stream:
                for row in rows:
                    stream.write_row(row)
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(copy, None, error) from None


DATABASES: dict[str, type[Sqlite | Postgres]] = {"sqlite": Sqlite, "postgresql": Postgres, "postgres": Postgres}


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is the URL of a database, or would be, and no path."""
    return isinstance(path, str) and bool(URL.match(path)) and not is_remote(os.fsencode(path))


def database_at(url: str) -> Sqlite | Postgres:
    """The table that a URL names; UsageError where it cannot be read, or what it needs is not installed."""
    scheme, rest = url.split(":", 1)
    kind = DATABASES.get(scheme.lower())
    if kind is None:
        raise UsageError(f"{escape(scheme)[:40]}:// is no database that ferbatch writes to; {KNOWN}")
    if missing := [name for name in kind.needs if not importlib.util.find_spec(name)]:
        raise UsageError(f"{kind.scheme}:// needs {' and '.join(missing)}: pip install 'ferbatch[sql]'")
    asked = TABLE_ASKED.search(rest)
    table = asked[1] if asked else "labels"
    if not TABLE.fullmatch(table):
        raise UsageError(
            f"?table= is letters, digits and _, 50 at the most, as in ?table=faces_2024, not {escape(table)[:50]}"
        )
    return kind(f"{kind.scheme}:{TABLE_ASKED.sub('', rest).rstrip('?&')}", table)


def name_of(path: str) -> str:
    """A path, or the URL of a database, as every message writes it: without its password."""
    return database_at(path).shown if is_url(path) else shown(path)


@cache
def _insertion(table: Table, dialect: Dialect) -> str:
    """How a row is inserted, in SQL; to find the words takes as long as to insert some hundred."""
    return str(table.insert().compile(dialect=dialect))


def _asked(table: str) -> str:
    return "" if table == "labels" else f"?table={table}"
