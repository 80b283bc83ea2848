"""WRITERS: format name -> how rows become bytes. Memory does not grow with their number."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Protocol

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import DIGITS, Prediction, columns, row

TEXT_COLUMNS = frozenset({"path", "truth", "label", "status", "error_kind", "error"})
WHOLE_COLUMNS = frozenset({"face", "x", "y", "width", "height"})
ROW_GROUP = 16_384  # rows of a Parquet row group


class Writer(Protocol):
    """Writes predictions to the binary stream it was made with; the stream stays open."""

    def write(self, prediction: Prediction) -> None: ...
    def close(self) -> None: ...


def _values(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """A row's values; an error is one line that can be printed, whatever a decoder or the system said."""
    values = row(prediction, labels)
    if prediction.error:
        line = " ".join(prediction.error.split())
        values["error"] = "".join(char if char.isprintable() else "?" for char in line)
    return values


class CsvWriter:
    """RFC 4180, lines end in LF; every path and error is quoted, probabilities have four digits."""

    def __init__(self, stream: BinaryIO, labels: Sequence[str]) -> None:
        self.stream, self.labels = stream, labels
        self.stream.write((",".join(columns(labels)) + "\n").encode())
        numbers = dict.fromkeys(("confidence", *labels), f"%.{DIGITS}f")
        common = {"path": '"%s"', "truth": "%s", "label": "%s", **numbers, "status": "%s"}
        self.common = ",".join(common.get(name, "") for name in columns(labels)) + "\n"

    def write(self, prediction: Prediction) -> None:
        found = prediction
        if found.label is not None and found.error is None and found.face is None:  # as nearly all are
            path = found.path.replace('"', '""')
            values = (path, found.truth or "", found.label, found.confidence, *found.probabilities.values())
            line = self.common % (*values, found.status)
        else:
            line = ",".join(self._field(*value) for value in _values(found, self.labels).items()) + "\n"
        self.stream.write(line.encode())

    @staticmethod
    def _field(name: str, value: Any) -> str:
        if value is None:
            return ""
        if name in ("path", "error"):
            return '"' + str(value).replace('"', '""') + '"'
        return f"{value:.{DIGITS}f}" if isinstance(value, float) else str(value)

    def close(self) -> None:
        pass


class JsonLinesWriter:
    """One JSON object a line, null where a column does not apply."""

    def __init__(self, stream: BinaryIO, labels: Sequence[str]) -> None:
        self.stream, self.labels = stream, labels

    def write(self, prediction: Prediction) -> None:
        self.stream.write((self._object(prediction) + "\n").encode())

    def _object(self, prediction: Prediction) -> str:
        return json.dumps(_values(prediction, self.labels), ensure_ascii=False)

    def close(self) -> None:
        pass


class JsonWriter(JsonLinesWriter):
    """One JSON array of objects, an object a line."""

    before = "[\n"

    def write(self, prediction: Prediction) -> None:
        self.stream.write((self.before + self._object(prediction)).encode())
        self.before = ",\n"

    def close(self) -> None:
        self.stream.write(b"[\n\n]\n" if self.before == "[\n" else b"\n]\n")


class ParquetWriter:
    """Typed columns in row groups; needs pyarrow."""

    def __init__(self, stream: BinaryIO, labels: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.labels = labels
        self.schema = pa.schema([(name, self._type(name)) for name in columns(labels)])
        self.table = pa.Table
        self.file = pq.ParquetWriter(stream, self.schema)
        self.waiting: list[dict[str, Any]] = []

    @staticmethod
    def _type(name: str) -> str:
        return "string" if name in TEXT_COLUMNS else "int32" if name in WHOLE_COLUMNS else "float64"

    def write(self, prediction: Prediction) -> None:
        self.waiting.append(_values(prediction, self.labels))
        if len(self.waiting) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self.file.write_table(self.table.from_pylist(self.waiting, self.schema))
        self.waiting.clear()

    def close(self) -> None:
        if self.waiting:
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
        raise UsageError("parquet needs pyarrow: pip install pyarrow")
    return name
