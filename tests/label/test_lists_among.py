"""What a shell names for `*`: texts and tables among the images of a folder, of which nobody may have meant a list."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Ferbatch, rows_of

from ferbatch.core.options import SAYS_ALL
from ferbatch.sources import tables
from ferbatch.sources.lists import lists_in

NO_LISTS = {  # name -> content, and what the row says
    "annotations.json": (b'{"images":[{"file_name":"images/0000.jpg"}],"annotations":[{"id":1}]}', "unreadable"),
    "binary.csv": (bytes(range(256)) * 8, "unreadable"),
    "binary.txt": (bytes(range(256)) * 8, "unreadable"),
    "budget.csv": (b"id;amount\n1;2\n", "unreadable"),
    "empty.csv": (b"", "truncated"),
    "empty.txt": (b"", "truncated"),
    "events.jsonl": (b'{"event":"x"}\n{"event":"y"}\n', "unreadable"),
    "gap.csv": (b"path,n\n,1\n", "unreadable"),
    "moved.csv": (b"path\nelsewhere/0000.jpg\n", "unreadable"),
    "moved.txt": (b"elsewhere/0000.jpg\n", "unreadable"),
    "notes.txt": (b"nothing about\nimages here\n", "unreadable"),
    "password.csv": (b"url\nhttps://me:hush@example.org/1.jpg\n", "unreadable"),
    "requirements.txt": (b"numpy==1.2\npandas>=2\n", "unreadable"),
}


@pytest.fixture
def among(faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, an earlier run's files, and texts of all kinds."""
    monkeypatch.chdir(tmp_path)
    faces("images", 4)
    assert ferbatch_here("label", "images").returncode == 0
    for name, (data, _) in NO_LISTS.items():
        Path(name).write_bytes(data)
    return tmp_path


def test_what_is_no_list_among_other_paths_is_a_row(among: Path, ferbatch_here: Ferbatch) -> None:
    done = ferbatch_here("label", *sorted(os.listdir()), "--overwrite")
    assert done.returncode == 3, done.stderr
    rows = {row["path"]: row["error_kind"] for row in rows_of(among / "labels.csv")}
    images = {f"images/{name}": "" for name in os.listdir("images")}
    own = dict.fromkeys(("labels.csv", "labels.csv.run.json", "labels.csv.run.jsonl"), "unreadable")
    assert rows == {name: kind for name, (_, kind) in NO_LISTS.items()} | images | own
    said = done.stderr.decode()
    assert "budget.csv is not read as a list of images: budget.csv has none of the columns path, file," in said
    assert "moved.txt is not read as a list of images: none of the 1 image of moved.txt is there" in said
    assert "labels.csv is read" not in said
    assert "requirements.txt is not read as a list of images: requirements.txt has none of the columns" in said
    assert "hush" not in said
    assert b"list of" not in ferbatch_here("label", *sorted(os.listdir()), "--overwrite", "--quiet").stderr


def test_a_list_among_other_paths_is_said(among: Path, ferbatch_here: Ferbatch) -> None:
    Path("some.txt").write_text("images/0000.jpg\nimages/0001.jpg\n")
    done = ferbatch_here("label", "images/0002.jpg", "some.txt", "labels.csv", "-o", "new.csv")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(among / "new.csv")) == 4
    assert b"some.txt is read as a list of 2 images" in done.stderr
    assert b"labels.csv is read as a list of 4 images" in done.stderr


def test_what_names_no_image_in_its_first_rows_is_not_read_further(
    among: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = b"2026-01-01 12:00:00 INFO one\n"
    for name in ("log.txt", "log.csv"):
        Path(name).write_bytes(log * 1000)
    Path("log.jsonl").write_bytes(b'{"event":"x"}\n' * 1000)
    read = []
    table = tables.Table

    def seen(path: str, frame: tables.pd.DataFrame, *more: object) -> tables.Table:
        read.append(len(frame))
        return table(path, frame, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "Table", seen)
    lists, _ = lists_in(["images", "log.txt", "log.csv", "log.jsonl"], SAYS_ALL)
    assert not lists
    assert read == [tables.LOOKED_AT] * 3
