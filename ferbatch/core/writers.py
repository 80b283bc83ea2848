"""WRITERS: format name -> how rows become bytes. Memory does not grow with their number."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Protocol

from ferbatch.core.batch import Batch
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import columns
from ferbatch.core.rows import AS_CSV, AS_JSON, AS_VALUES, as_word, columns_of

TEXT_COLUMNS = frozenset({"path", "truth", "label", "status", "error_kind", "error"})
WHOLE_COLUMNS = frozenset({"face", "x", "y", "width", "height", "face_turn"})
ROW_GROUP = 16_384  # rows of a Parquet row group


class Writer(Protocol):
    """Writes rows to where it was made to write; that stays open."""

    labels: Sequence[str]

    def write(self, batch: Batch) -> None: ...

    def flush(self) -> None:
        """Hand on what is written."""

    def close(self) -> None:
        """Write what comes after the last row."""


class OfStream(Writer):
    """A writer to a binary stream."""

    stream: BinaryIO

    def flush(self) -> None:
        self.stream.flush()


def type_of(column: str) -> str:
    """The type of a column's values, where an output has types, as Arrow calls it."""
    return "string" if column in TEXT_COLUMNS else "int32" if column in WHOLE_COLUMNS else "float64"


class CsvWriter(OfStream):
    """RFC 4180, lines end in LF; every path and error is quoted, probabilities have four digits.

    A label is quoted where it must be.
    """

    def __init__(self, stream: BinaryIO, labels: Sequence[str]) -> None:
        self.stream, self.labels = stream, labels
        self.stream.write((",".join(map(as_word, columns(labels))) + "\n").encode())

    def write(self, batch: Batch) -> None:
        rows = zip(*columns_of(batch, self.labels, AS_CSV).values(), strict=True)
        self.stream.write(("\n".join(map(",".join, rows)) + "\n").encode())


class JsonLinesWriter(OfStream):
    """One JSON object a line, null where a column does not apply."""

    def __init__(self, stream: BinaryIO, labels: Sequence[str]) -> None:
        self.stream, self.labels = stream, labels
        names = (json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in columns(labels))
        self.form = "{" + ", ".join(f"{name}: %s" for name in names) + "}"

    def write(self, batch: Batch) -> None:
        rows = zip(*columns_of(batch, self.labels, AS_JSON).values(), strict=True)
        self.stream.write(self._lines(map(self.form.__mod__, rows)).encode())

    def _lines(self, objects: Iterable[str]) -> str:
        return "".join([f"{one}\n" for one in objects])


class JsonWriter(JsonLinesWriter):
    """One JSON array of objects, an object a line."""

    before = "[\n"

    def _lines(self, objects: Iterable[str]) -> str:
        before, self.before = self.before, ",\n"
        return before + ",\n".join(objects)

    def close(self) -> None:
        self.stream.write(b"[\n\n]\n" if self.before == "[\n" else b"\n]\n")


class ParquetWriter(OfStream):
    """Typed columns in row groups; needs pyarrow."""

    def __init__(self, stream: BinaryIO, labels: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.stream, self.labels = stream, labels
        self.schema = pa.schema([(name, type_of(name)) for name in columns(labels)])
        self.table = pa.Table
        self.file = pq.ParquetWriter(stream, self.schema)
        self.waiting: dict[str, list[Any]] = {name: [] for name in columns(labels)}

    def write(self, batch: Batch) -> None:
        for name, values in columns_of(batch, self.labels, AS_VALUES).items():
            self.waiting[name] += values
        while len(self.waiting["path"]) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        group = {name: values[:ROW_GROUP] for name, values in self.waiting.items()}
        self.file.write_table(self.table.from_pydict(group, self.schema))
        self.waiting = {name: values[ROW_GROUP:] for name, values in self.waiting.items()}

    def close(self) -> None:
        if self.waiting["path"]:
            self._flush()
        self.file.close()


WRITERS: dict[str, Callable[[BinaryIO, Sequence[str]], Writer]] = {
    "csv": CsvWriter,
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
    "parquet": ParquetWriter,
}


def check_format(name: str) -> str:
    """The format's name; UsageError if there is none such or what it needs is not installed."""
    if name not in WRITERS:
        raise UsageError(f"no format called '{escape(name)}' (known: {', '.join(WRITERS)})")
    if name == "parquet" and not importlib.util.find_spec("pyarrow"):
        raise UsageError("parquet needs pyarrow: pip install 'ferbatch[parquet]'")
    return name
