"""A folder of a data set, as the Hugging Face Hub has them, is labelled and judged by the tables of images in it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from data_sets import INFOS, NAMES, README, laid_out, table
from support import Ferbatch, face_file, parquet_tools, rows_of


@pytest.fixture
def run(ferbatch_here: Ferbatch, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A command with the tiny model -> CompletedProcess."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: ferbatch_here(*args, "--model", model)


def paths_in(path: str = "labels.csv") -> list[str]:
    return [row["path"] for row in rows_of(Path(path))]


def test_a_data_set_is_labelled_by_the_images_of_its_tables(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    done = run("label", "./ds", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    names = [("test-00000-of-00001", range(11, 15)), ("train-00000-of-00002", range(6))]
    names.append(("train-00001-of-00002", range(6, 11)))
    assert paths_in() == [f"./ds/data/{name}.parquet/{at:03}.jpg" for name, spread in names for at in spread]
    assert b"1 hidden file, 1 other file left aside" in done.stderr
    shards = sorted(str(path) for path in Path("ds/data").iterdir())
    assert run("label", *shards, "-o", "named.csv").returncode == 0
    assert [{**row, "path": ""} for row in rows_of(Path("labels.csv"))] == [
        {**row, "path": ""} for row in rows_of(Path("named.csv"))
    ]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("default/train/0000.parquet", True),
        ("default/partial-train/0003.parquet", True),
        ("data/whatever.parquet", True),
        ("plain/test-00000-of-00001-0123456789abcdef.parquet", True),
        ("sub/train.parquet", True),
        ("sub/validation_2.PARQUET", True),
        ("faces.parquet", False),
        ("sub/features.parquet", False),
        ("restrained.parquet", False),
    ],
)
def test_tables_of_images_are_known_by_what_the_hub_calls_them(
    name: str, taken: bool, run: Any, faces: Callable[..., Path], tmp_path: Path
) -> None:
    faces("ds", 1)
    (tmp_path / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "ds" / name).write_bytes(table(0, 3, named=False, held="bytes"))
    done = run("label", "ds", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    wanted = [f"ds/{name}/{at:09d}" for at in range(3)] if taken else []
    assert sorted(paths_in()) == sorted([*wanted, "ds/0000.jpg"])
    assert (b"1 archive (name one to label what it holds) left aside" in done.stderr) != taken


def test_tables_without_images_stay_aside_whatever_they_are_called(
    run: Any, faces: Callable[..., Path], tmp_path: Path
) -> None:
    pa, pq = parquet_tools()
    folder = faces("ds/data", 2)
    pq.write_table(pa.table({"x": [1.0, 2.0]}), folder / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({"path": ["0000.jpg"]}), folder / "paths.parquet")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "0000.jpg"}]}), folder / "test.parquet")
    pq.write_table(pa.table({"audio": [{"bytes": b"RIFF\0\0\0\0WAVE", "path": "0.wav"}]}), folder / "0000.parquet")
    (folder / "broken.parquet").write_bytes(b"PAR1 no more")
    (folder / "dir.parquet").mkdir()
    shutil.copy(folder / "0000.jpg", folder / "dir.parquet" / "0.jpg")
    done = run("label", "ds", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert paths_in() == ["ds/data/0000.jpg", "ds/data/0001.jpg", "ds/data/dir.parquet/0.jpg"]
    assert b"4 archives (name one to label what it holds), " in done.stderr
    assert b"1 table of paths alone (name one to label what it lists) left aside" in done.stderr


def test_a_shard_that_is_damaged_is_a_row_and_arrow_files_are_counted(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    path = tmp_path / "ds/data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "ds/data/data-00000-of-00001.arrow").write_bytes(b"\xff\xff\xff\xff Arrow")
    done = run("label", "ds", "-o", "labels.csv")
    assert done.returncode == 3
    failed = {row["path"]: row["error_kind"] for row in rows_of(Path("labels.csv")) if row["status"] == "error"}
    assert failed == {"ds/data/train-00001-of-00002.parquet": "unreadable"}
    assert len(paths_in()) == 11
    assert b"1 Arrow table not read (write Parquet instead)" in done.stderr


def test_a_link_to_a_shard_that_is_not_there_is_a_row(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    (tmp_path / "ds/data/train-00002-of-00003.parquet").symlink_to("gone")
    assert run("label", "ds", "-o", "labels.csv").returncode == 3
    failed = {row["path"]: row["error_kind"] for row in rows_of(Path("labels.csv")) if row["status"] == "error"}
    assert failed == {"ds/data/train-00002-of-00003.parquet": "not_found"}


def test_a_truth_of_which_a_shard_is_damaged_is_none(run: Any, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    path = tmp_path / "ds/data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    evaluate = partial(run, "evaluate", "--truth", "ds")
    for done in (evaluate(), evaluate("--split", "train"), ferbatch_here("train", "ds", "-o", "m.safetensors")):
        assert done.returncode == 2
        assert b"ds/data/train-00001-of-00002.parquet is damaged or not there" in done.stderr
    assert evaluate("--split", "test").returncode == 0
    assert evaluate("--exclude", "train-00001-*").returncode == 0


def test_images_are_found_behind_rows_without_any_and_in_the_column_that_is_called_so(run: Any, tmp_path: Path) -> None:
    pa, pq = parquet_tools()
    (tmp_path / "ds").mkdir()
    some = [{"bytes": face_file(at), "path": f"{at}.jpg"} for at in range(3)]
    masks = [{"bytes": face_file(9), "path": f"mask{at}.jpg"} for at in range(43)]
    made = pa.table({"mask": masks, "image": [*[None] * 40, *some], "image.path": ["no"] * 43})
    for name, rows in {"train": 43, "test": 0}.items():
        pq.write_table(made.slice(0, rows), f"ds/{name}-00000-of-00001.parquet", row_group_size=10)
    done = run("label", "ds", "-o", "labels.csv")
    assert done.returncode == 3, done.stderr
    assert b"aside" not in done.stderr
    good = [row["path"] for row in rows_of(Path("labels.csv")) if row["status"] != "error"]
    assert good == [f"ds/train-00000-of-00001.parquet/{at}.jpg" for at in range(3)]
    assert len(paths_in()) == 43


def test_a_shard_whose_name_is_no_utf8_is_read(run: Any, tmp_path: Path) -> None:
    (tmp_path / "ds").mkdir()
    shard = os.fsencode(tmp_path / "ds") + b"/train-\xff.parquet"
    Path(os.fsdecode(shard)).write_bytes(table(0, 3))
    for source in (tmp_path / "ds", os.fsdecode(shard)):
        done = run("label", source, "-o", "labels.csv", "--overwrite")
        assert done.returncode == 0, done.stderr
        assert len(paths_in()) == 3


def test_without_pyarrow_the_sentence_names_what_reads_the_tables(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out(tmp_path / "ds")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else found(name))
    done = run("label", "ds", "-o", "labels.csv")
    assert done.returncode == 4
    assert b"3 tables not looked into (pip install 'ferbatch[parquet]')" in done.stderr


def test_rules_for_folders_are_those_for_tables_in_them(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    wanted = {
        ("--exclude", "test-*"): 11,
        ("--exclude", "data/train-00000-of-00002.parquet/000.jpg"): 14,
        ("--exclude", "*.parquet"): 0,
        ("--exclude", "0*.jpg"): 0,
        ("--no-recursive",): 0,
    }
    for rules, n in wanted.items():
        done = run("label", "ds", "--list", *rules)
        assert done.stdout.count(b"taken ") == n, rules
    assert run("label", "ds/data", "--no-recursive", "-o", "labels.csv").returncode == 0
    assert len(paths_in()) == 15


def test_overlapping_paths_label_a_row_once_and_links_are_read(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "blobs")
    for path in (tmp_path / "blobs/data").iterdir():  # as the Hub's cache has them
        (tmp_path / "ds/data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ds/data" / path.name).symlink_to(path)
    first = "ds/data/train-00000-of-00002.parquet"
    for at, paths in enumerate((["ds", first], [first, "ds"], ["ds", "ds/data"], ["ds/data", "./ds"])):
        assert run("label", *paths, "-o", f"{at}.csv").returncode == 0
        assert len({row["path"].removeprefix("./") for row in rows_of(Path(f"{at}.csv"))}) == 15
        assert len(paths_in(f"{at}.csv")) == 15


def test_runs_that_go_on_know_what_they_did(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    assert run("label", "ds", "-o", "whole.csv").returncode == 0
    path = tmp_path / "ds/data/train-00001-of-00002.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:-9])  # the last of the tables, and now a row that fails
    stopped = run("label", "ds", "-o", "labels.csv", "--on-error", "stop", "--batch-size", "4")
    assert stopped.returncode == 3
    path.write_bytes(good)
    done = run("label", "ds", "-o", "labels.csv", "--resume", "--verbose", "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert b"15 images, 5 to label" in done.stderr
    assert Path("labels.csv").read_bytes() == Path("whole.csv").read_bytes()
    (tmp_path / "ds/data/validation-00000-of-00001.parquet").write_bytes(table(50, 3))
    done = run("label", "ds", "-o", "labels.csv", "--incremental", "--verbose")
    assert b"18 images, 3 to label" in done.stderr


@pytest.mark.parametrize("where", ["schema", "README.md", "dataset_infos.json"])
def test_evaluate_takes_the_truth_from_the_column_of_classes(where: str, run: Any, tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ds", says=where == "schema")
    if where == "README.md":
        pytest.importorskip("yaml", reason="PyYAML is installed with ferbatch[parquet]")
        (folder / where).write_text(README)
    elif where == "dataset_infos.json":
        (folder / where).write_text(json.dumps(INFOS))
    for at in range(15):  # the same images in class folders
        (tmp_path / "same" / NAMES[at % 3]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "same" / NAMES[at % 3] / f"{at:03}.jpg").write_bytes(face_file(at))
    said = {}
    for source in ("ds", "same"):
        done = run("evaluate", "--truth", source, "--format", "json")
        assert done.returncode == 0, done.stderr
        said[source] = json.loads(done.stdout)
    assert said["ds"]["results"][0]["accuracy"] == said["same"]["results"][0]["accuracy"]
    assert said["ds"]["subject"]["others"] == said["same"]["subject"]["others"] == {"angry": 5}
    one = run("evaluate", "--truth", "ds/data/train-00000-of-00002.parquet", "--format", "json")
    assert json.loads(one.stdout)["subject"]["others"] == {"angry": 2}


def test_numbers_without_names_are_said_and_may_be_given_some(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds", says=False)
    done = run("evaluate", "--truth", "ds")
    assert done.returncode == 2
    assert b"the classes of ds are numbers: say what they mean with --classes 0=LABEL,1=LABEL,2=LABEL" in done.stderr
    done = run("evaluate", "--truth", "ds", "--classes", "1=happy,2=sad,9=neutral", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert b"--classes: nothing is called 9\n" in done.stderr
    assert json.loads(done.stdout)["subject"]["others"] == {"0": 5}


def test_a_split_may_be_chosen_and_a_column(run: Any, tmp_path: Path) -> None:
    laid_out(tmp_path / "ds")
    for more, n in {("--split", "test"): 4, ("--split", "Train"): 11, ("--label-column", "label"): 15}.items():
        done = run("evaluate", "--truth", "ds", "--format", "json", *more)
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)["subject"]
        assert data["images"] + sum(data["others"].values()) == n
    for more, said in {
        ("--split", "dev"): b"--split: no table in ds is called like dev (there is: test, train)",
        ("--label-column", "gone"): b"--label-column: ds/data/test-00000-of-00001.parquet has no column gone (it has:",
        ("--images", "ds"): b"--images needs a table, and ds is a folder",
    }.items():
        done = run("evaluate", "--truth", "ds", *more)
        assert done.returncode == 2
        assert said in done.stderr, done.stderr


def test_tables_beside_class_folders_and_without_classes_go_by_folders(run: Any, tmp_path: Path) -> None:
    pa, pq = parquet_tools()
    for label in ("happy", "sad"):
        os.makedirs(f"ds/{label}")
        images = [{"bytes": face_file(at), "path": f"{at}.jpg"} for at in range(3)]
        pq.write_table(pa.table({"image": images}), f"ds/{label}/train-00000-of-00001.parquet")
    done = run("evaluate", "--truth", "ds", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["subject"]["per_label"] == {"happy": 3, "sad": 3, "neutral": 0, "surprise": 0}
    assert run("label", "ds", "-o", "labels.csv").returncode == 0
    assert {row["truth"] for row in rows_of(Path("labels.csv"))} == {"happy", "sad"}
