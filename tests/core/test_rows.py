"""A batch's bytes are those of its rows, written one by one, however the rows come in batches."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches import BATCHES, Image, batch_of, row_of, rows_of
from hypothesis import given
from hypothesis import strategies as st
from support import LABELS

from ferbatch.core import writers
from ferbatch.core.batch import Batch
from ferbatch.core.records import Prediction, columns
from ferbatch.core.rows import predictions
from ferbatch.core.writers import TEXT_COLUMNS, WHOLE_COLUMNS, WRITERS

Rows = Sequence[Prediction]
GROUP = 5  # rows of a Parquet row group, here


def values_of(rows: Rows) -> Iterator[dict[str, Any]]:
    """What a row says."""
    return (dict(row_of(row, LABELS)) for row in rows)


def quoted(value: str) -> str:
    stream = StringIO()
    csv.writer(stream, lineterminator="", quoting=csv.QUOTE_ALL).writerow([value])
    return stream.getvalue()


def as_csv(rows: Rows) -> bytes:
    """Paths and errors quoted, numbers with four digits, nothing where nothing applies."""
    lines = [",".join(columns(LABELS))]
    for values in values_of(rows):
        fields = []
        for name, value in values.items():
            if name in ("path", "error") and value is not None:
                fields.append(quoted(value))
            else:
                fields.append(f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value))
        lines.append(",".join(fields))
    return "".join(line + "\n" for line in lines).encode()


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(values, ensure_ascii=False) + "\n" for values in values_of(rows)).encode()


def as_json(rows: Rows) -> bytes:
    objects = ",\n".join(json.dumps(values, ensure_ascii=False) for values in values_of(rows))
    return f"[\n{objects}\n]\n".encode()


def as_parquet(rows: Rows) -> bytes:
    def type_of(name: str) -> str:
        return "string" if name in TEXT_COLUMNS else "int32" if name in WHOLE_COLUMNS else "float64"

    stream, schema = BytesIO(), pa.schema([(name, type_of(name)) for name in columns(LABELS)])
    with pq.ParquetWriter(stream, schema) as writer:
        for start in range(0, len(rows), GROUP):
            writer.write_table(pa.Table.from_pylist(list(values_of(rows[start : start + GROUP])), schema))
    return stream.getvalue()


ONE_BY_ONE = {"csv": as_csv, "json": as_json, "jsonl": as_jsonl, "parquet": as_parquet}


def written(name: str, batches: Sequence[Batch]) -> bytes:
    stream = BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers, "ROW_GROUP", GROUP)
        writer = WRITERS[name](stream, LABELS)
        for batch in batches:
            writer.write(batch)
        writer.close()
    return stream.getvalue()


@pytest.mark.parametrize("name", WRITERS)
@given(images=BATCHES, data=st.data())
def test_every_format_writes_a_batch_as_its_rows_one_by_one(
    name: str, images: list[Image], data: st.DataObject
) -> None:
    batch = batch_of(images)
    rows = [row for image in images for row in rows_of(image)]
    wanted = ONE_BY_ONE[name](rows)
    assert written(name, [batch] if images else []) == wanted
    cuts = sorted(data.draw(st.lists(st.integers(0, len(images)), max_size=6)))
    parts = [batch.part(*ends) for ends in zip([0, *cuts], [*cuts, len(images)], strict=True)]
    assert written(name, [part for part in parts if len(part)]) == wanted


@given(images=BATCHES)
def test_a_batchs_predictions_are_those_of_its_images(images: list[Image]) -> None:
    assert predictions(batch_of(images), LABELS) == list(map(rows_of, images))


@given(images=BATCHES.filter(bool))
def test_csv_is_read_back_by_any_reader(images: list[Image]) -> None:
    batch = batch_of(images)
    text = written("csv", [batch]).decode()
    assert "\r" not in text
    header, *found = csv.reader(StringIO(text, newline=""), strict=True)
    assert header == list(columns(LABELS))
    wanted = [row.path for image in images for row in rows_of(image)]
    assert [row[0] for row in found] == wanted
    assert {len(row) for row in found} <= {len(header)}
