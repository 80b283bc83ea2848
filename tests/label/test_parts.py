"""Labels in a folder, so many images to a file: together they are what one file holds."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from support import Ferbatch, face_file, rows_of, some

from ferbatch.commands.label import parts

N, EACH = 50, 20  # images, and those of a part
Label = Callable[..., Any]


@pytest.fixture
def run(ferbatch_here: Ferbatch, model: Path, tmp_path: Path, faces: Callable[..., Path]) -> Label:
    """`ferbatch label` on two class folders of faces, with a broken one; what it says as text."""
    for name in ("in/happy", "in/sad"):
        faces(name, N // 2)
    (tmp_path / "in/happy/0003.jpg").write_bytes(b"broken")
    shutil.copytree(model.parent, tmp_path / "model")

    def call(*options: str) -> Any:
        done = ferbatch_here("label", "in", "--model", "model/tiny.safetensors", *options)
        done.stderr = done.stderr.decode()
        return done

    return call


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "IMAGES", EACH)


@pytest.mark.parametrize("format_", ["csv", "json", "jsonl", "parquet"])
def test_merged_they_are_what_one_file_holds(run: Label, ferbatch_here: Ferbatch, tmp_path: Path, format_: str) -> None:
    assert run("-o", f"one.{format_}", "-q").returncode == 3
    assert run("-o", "parts/", "--format", format_, "-q").returncode == 3
    assert ferbatch_here("merge", "parts", "-o", f"all.{format_}", "-q").returncode == 3
    assert (tmp_path / f"all.{format_}").read_bytes() == (tmp_path / f"one.{format_}").read_bytes()
    one, every = (json.loads((tmp_path / f"{name}.{format_}.run.json").read_text()) for name in ("one", "all"))
    assert every["counts"] == one["counts"]
    one, every, of_parts = (
        json.loads((tmp_path / f"{name}.report.json").read_text())
        for name in (f"one.{format_}", f"all.{format_}", "parts")
    )
    assert one == every == of_parts


def test_the_manifest_says_what_is_in_which(run: Label, tmp_path: Path) -> None:
    run("-o", "parts/", "-q")
    manifest = json.loads((tmp_path / "parts/manifest.json").read_text())
    assert (manifest["images"], manifest["rows"], manifest["format"]) == (N, N, "csv")
    assert manifest["labels"] == ["happy", "sad", "neutral", "surprise"]
    found = [(part["file"], part["first"], part["images"], part["rows"]) for part in manifest["parts"]]
    files = [f"part-{number:05}.csv" for number in range(3)]
    assert found == [(files[0], 0, 20, 20), (files[1], 20, 20, 20), (files[2], 40, 10, 10)]
    assert sorted(os.listdir(tmp_path / "parts")) == ["manifest.json", *files]
    for part in manifest["parts"]:
        content = (tmp_path / "parts" / part["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == part["sha256"]
        assert len(list(csv.reader(content.decode().splitlines()))) == part["rows"] + 1


def test_a_folder_may_be_called_as_a_file_and_is_known_again(run: Label, tmp_path: Path) -> None:
    run("-o", "labels.jsonl/", "-q")
    assert sorted(os.listdir(tmp_path / "labels.jsonl")) == [
        "manifest.json",
        *(f"part-0000{n}.jsonl" for n in range(3)),
    ]
    assert "exists; --overwrite replaces it" in run("-o", "labels.jsonl").stderr
    (tmp_path / "in/sad/new.jpg").write_bytes(face_file(7))
    assert run("-o", "labels.jsonl", "--incremental", "-q").returncode == 0
    assert json.loads((tmp_path / "labels.jsonl/manifest.json").read_text())["images"] == N + 1
    assert json.loads((tmp_path / "labels.jsonl.run.json").read_text())["this_run"]["processed"] == 1
    assert "is finished: there is nothing to resume" in run("-o", "labels.jsonl/", "--resume").stderr


def test_shards_in_parts_are_merged(run: Label, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    run("-o", "one.csv", "-q")
    for number in (1, 2):
        run("--shard", f"{number}/2", "-o", f"{number}/", "-q")
    assert ferbatch_here("merge", "1", "2/", "-q").returncode == 3
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_no_image_makes_a_part_without_rows(run: Label, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    options = ("--exclude", "*", "--exclude", "!sad/", "--exclude", "!0001.jpg")
    for number in (1, 2):
        run("--shard", f"{number}/2", "-o", f"{number}/", "-q", *options)
    assert sorted(len(rows_of(tmp_path / f"{number}/part-00000.csv")) for number in (1, 2)) == [0, 1]
    assert ferbatch_here("merge", "1", "2", "-q").returncode == 0


def test_what_is_not_as_it_was_written_is_not_merged_or_brought_up_to_date(
    run: Label, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    run("-o", "parts/", "-q")
    for change in ("part-00001.csv", "manifest.json"):
        shutil.copytree(tmp_path / "parts", tmp_path / "kept")
        with (tmp_path / "parts" / change).open("ab") as stream:
            stream.write(b"\n")
        done = ferbatch_here("merge", "parts", "-q")
        assert (done.returncode, b"parts is not as ferbatch wrote it" in done.stderr) == (2, True)
        assert "parts/ is not as ferbatch wrote it" in run("-o", "parts/", "--incremental").stderr
        shutil.rmtree(tmp_path / "parts")
        (tmp_path / "kept").rename(tmp_path / "parts")
    (tmp_path / "parts/part-00002.csv").unlink()
    assert ferbatch_here("merge", "parts", "-q").returncode == 2
    assert b"name that folder" in ferbatch_here("merge", "parts/part-00000.csv", "-q").stderr
    assert b"is a folder" in ferbatch_here("merge", "parts", "-o", "more/", "-q").stderr


def test_a_folder_of_somebody_elses_is_left_alone(run: Label, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    for options in ((), ("--overwrite",), ("--resume",)):
        done = run("-o", "mine/", *options)
        assert (done.returncode, "holds other files (notes.txt for one)" in done.stderr) == (2, True)
        assert "file is not a folder" in run("-o", "file/", *options).stderr
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]
    (tmp_path / "mine/notes.txt").unlink()
    assert run("-o", "mine/", "-q").returncode == 3  # an empty one is taken


def test_a_run_that_fails_leaves_the_old_parts_and_goes_on_with_what_is_done(run: Label, tmp_path: Path) -> None:
    run("-o", "whole/", "-q")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts/part-00001.csv").write_bytes(b"of another run")
    failed = run("-o", "parts/", "--overwrite", "--on-error", "stop", "--batch-size", "2", "-q")
    assert (failed.returncode, "stopped at in/happy/0003.jpg" in failed.stderr) == (3, True)
    assert {path.name for path in tmp_path.glob("parts*")} == {"parts", "parts.journal"}
    assert (tmp_path / "parts/part-00001.csv").read_bytes() == b"of another run"
    done = run("-o", "parts/", "--resume")
    assert (done.returncode, "going on with an unfinished run of parts/: 3 images done" in done.stderr) == (3, True)
    assert same(tmp_path / "parts", tmp_path / "whole")


def test_killed_at_any_step_of_writing_they_go_on_to_the_same_bytes(run: Label, tmp_path: Path, forks: Forks) -> None:
    command = ("label", "in", "--no-truth", "--model", "model/tiny.safetensors", "-q", "--batch-size", "16", "-o")
    hidden = tmp_path / "in/sad/0001.jpg"
    hidden.rename(tmp_path / "kept")
    assert forks(tmp_path, *command, "old/").code == 3
    (tmp_path / "kept").rename(hidden)
    assert forks(tmp_path, *command, "whole/").code == 3

    def old_ones() -> None:
        shutil.rmtree(tmp_path / "parts", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "parts")
        for suffix in ("run.json", "run.jsonl"):
            shutil.copy(tmp_path / f"old.{suffix}", tmp_path / f"parts.{suffix}")

    old_ones()
    steps = forks(tmp_path, *command, "parts/", "--overwrite", kill_at=None).events
    for step in some(range(1, steps + 1), 10):
        old_ones()
        assert forks(tmp_path, *command, "parts/", "--overwrite", kill_at=step).code == -9
        gone = not (tmp_path / "parts").exists()  # between two renames
        assert gone or any(same(tmp_path / "parts", tmp_path / name) for name in ("old", "whole")), step
        begun = (tmp_path / "parts.journal").exists()
        again = forks(tmp_path, *command, "parts/", "--resume" if begun else "--overwrite")
        assert again.code in (0, 3), (step, again.stderr)
        assert same(tmp_path / "parts", tmp_path / "whole"), step
        assert {path.name for path in tmp_path.glob("parts*")} == {"parts", "parts.run.json", "parts.run.jsonl"}, step


def same(one: Path, other: Path) -> bool:
    names = [sorted({*os.listdir(folder)} - {parts.BEFORE}) for folder in (one, other)]
    return names[0] == names[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names[0])
