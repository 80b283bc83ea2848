"""PATHS that are spelled otherwise from one run to the next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Ferbatch, draw_face, rows_of


@pytest.fixture
def photos(faces: Callable[..., Path]) -> Path:
    faces("store", 1)
    return faces("photos", 4)


Label = Callable[..., Any]


def sidecar(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "labels.csv.run.json").read_text())  # type: ignore[no-any-return]


def paths(tmp_path: Path) -> list[str]:
    return [row["path"] for row in rows_of(tmp_path / "labels.csv")]


SPELLINGS = ["photos", "./photos", "photos/", "photos//", "./photos/.", ".//./photos"]


@pytest.mark.parametrize("begun", ["photos", "./photos/."])
def test_a_path_spelled_otherwise_is_the_same_and_rows_keep_their_spelling(
    begun: str, photos: Path, label: Label, tmp_path: Path
) -> None:
    label(paths=(begun, "store"))
    rows = (tmp_path / "labels.csv").read_bytes()
    for spelled in SPELLINGS:
        done = label("--incremental", "-q", paths=(spelled, "./store"))
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "labels.csv").read_bytes() == rows
        assert sidecar(tmp_path)["this_run"]["processed"] == 0
        assert label("--resume", "-q", paths=(spelled, "./store/")).returncode == 0
    draw_face(9).save(photos / "0009.jpg")
    label("--incremental", paths=("photos/", "store"))
    assert [path for path in paths(tmp_path) if "0009" in path] == [f"{begun}/0009.jpg"]


def test_spellings_that_the_system_or_the_command_line_tells_apart_are_others(
    photos: Path, label: Label, tmp_path: Path, faces: Any, ferbatch_in: Ferbatch, model: Path
) -> None:
    faces("-", 1)
    label(paths=("./-",))
    for other in ("photos", "photos/../-", str(tmp_path / "-"), "/-"):
        refused = label("--incremental", paths=(other,))
        assert refused.returncode == 2
    listed = ferbatch_in("label", "-", "--model", model, "--incremental", input=b"photos")
    assert (listed.returncode, b"of other images (PATHS was ./- and is -)" in listed.stderr) == (2, True)
    assert label("--incremental", "-q", paths=(".//-/",)).returncode == 0
