"""Rows of Parquet tables are read some at a time, from one table at a time, in whatever order they are asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from data_sets import table

from ferbatch.core import archives, containers


def test_rows_come_in_any_order_and_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is an extra")
    monkeypatch.setattr(containers, "ROWS", 2)
    one, two = (os.fsencode(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    for path, start in ((one, 0), (two, 20)):
        Path(os.fsdecode(path)).write_bytes(table(start, 11))
    names = {path: archives.look_into(path)[0] for path in (one, two)}
    data = {path: [archives.read(path + b"/" + name) for name in names[path]] for path in (one, two)}
    assert len({*data[one], *data[two]}) == 22
    for path, at in ((one, 10), (two, 3), (one, 5), (one, 4), (two, 2), (two, 9), (one, 0)):
        assert archives.read(path + b"/" + names[path][at]) == data[path][at]
        held = [len(archives._open_ones[each].container.images) for each in (one, two)]  # type: ignore[attr-defined]
        assert sorted(map(bool, held)) == [False, True]
        assert max(held) <= 2
