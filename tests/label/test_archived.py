"""An archive is labelled as the folder that it was made of, without being unpacked."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Ferbatch, parquet_tools, rows_of

KINDS = ("zip", "tar", "tar.gz", "parquet")
Label = Callable[..., int]


@pytest.fixture
def label(ferbatch_here: Ferbatch, model: Path, tmp_path: Path, faces: Callable[..., Path]) -> Label:
    """`ferbatch label` with these arguments; beside it the folder `in`, of faces and what lies beside them."""
    for name in ("in/happy", "in/sad/deep", "in/more"):
        faces(name, 9)
    folder = tmp_path / "in"
    (folder / "happy/0003.jpg").write_bytes(b"broken")
    (folder / "happy/notes.txt").write_text("no image")
    (folder / "more/._0001.jpg").write_bytes(b"of a Mac")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/0001.jpg").write_bytes(b"of a Mac")
    shutil.copy(folder / "more/0002.jpg", folder / "more/nosuffix")
    shutil.copytree(model.parent, tmp_path / "model")

    def call(*arguments: str) -> int:
        return ferbatch_here("label", "-q", "--model", "model/tiny.safetensors", *arguments).returncode

    return call


def pack(folder: Path, kind: str, *, backwards: bool = False) -> Path:
    """An archive of this kind beside a folder, with all that is in it."""
    path = folder.with_name(f"{folder.name}.{kind}")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if backwards:
        files.reverse()
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    elif kind == "parquet":
        pa, pq = parquet_tools()
        images = [{"bytes": file.read_bytes(), "path": str(file.relative_to(folder))} for file in files]
        pq.write_table(pa.table({"image": images}), path, row_group_size=7)
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            for file in files:
                tar.add(file, file.relative_to(folder))
    return path


def content(path: Path, source: str) -> list[dict[str, str]]:
    """The rows, without the source that their paths begin with."""
    return [{**row, "path": row["path"].removeprefix(f"{source}/")} for row in rows_of(path)]


@pytest.mark.parametrize("isolated", ["--isolate", "--no-isolate"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_labelled_like_its_folder(label: Label, tmp_path: Path, kind: str, isolated: str) -> None:
    folder = tmp_path / "in"
    if kind in ("tar.gz", "parquet"):  # where there is no first look at what has no suffix, or each row is an image
        (folder / "more/nosuffix").unlink()
    if kind == "parquet":
        (folder / "happy/notes.txt").unlink()
    pack(folder, kind)
    assert label("in", "-o", "folder.csv", "--workers", "2") == 3
    assert label(f"in.{kind}", "-o", "archive.csv", "--workers", "2", isolated) == 3
    assert content(tmp_path / "archive.csv", f"in.{kind}") == content(tmp_path / "folder.csv", "in")
    reports = [json.loads((tmp_path / f"{name}.csv.report.json").read_text()) for name in ("folder", "archive")]
    assert reports[0]["results"][0]["accuracy"] == reports[1]["results"][0]["accuracy"]
    counts = [json.loads((tmp_path / f"{name}.csv.run.json").read_text())["counts"] for name in ("folder", "archive")]
    assert counts[0] == counts[1]


def test_what_is_packed_as_a_whole_keeps_its_own_order(label: Label, tmp_path: Path) -> None:
    for kind in ("tar", "tar.gz"):
        pack(tmp_path / "in", kind, backwards=True)
        label(f"in.{kind}", "-o", f"{kind}.csv")
    sorted_, own = (
        [row["path"] for row in content(tmp_path / f"{kind}.csv", f"in.{kind}")] for kind in ("tar", "tar.gz")
    )
    assert sorted_ == sorted(sorted_)
    assert own == [path for path in reversed(sorted_) if "nosuffix" not in path]


def test_rules_for_folders_are_those_for_archives(label: Label, tmp_path: Path) -> None:
    pack(tmp_path / "in", "zip")
    for at, rules in enumerate((["--hidden"], ["--exclude", "deep/"], ["--exclude", "0*.jpg"], ["--no-recursive"])):
        codes = {label(source, "-o", f"{source}{at}.csv", *rules) for source in ("in", "in.zip")}
        assert len(codes) == 1, rules
        if codes != {4}:
            assert content(tmp_path / f"in.zip{at}.csv", "in.zip") == content(tmp_path / f"in{at}.csv", "in"), rules


def test_the_archives_name_may_tell_the_truth_and_no_recursion_takes_what_lies_on_top(
    label: Label, tmp_path: Path
) -> None:
    os.rename(pack(tmp_path / "in/happy", "zip"), tmp_path / "Happy.zip")
    assert label("Happy.zip", "--no-recursive") == 3
    assert {row["truth"] for row in rows_of(tmp_path / "labels.csv")} == {"happy"}


def test_only_what_changed_in_an_archive_is_labelled_again(label: Label, tmp_path: Path) -> None:
    for kind in ("zip", "tar"):
        pack(tmp_path / "in", kind)
        assert label(f"in.{kind}", "-o", f"{kind}.csv") == 3
        shutil.copy(tmp_path / "in/more/0001.jpg", tmp_path / "in/happy/0004.jpg")
        (tmp_path / "in/sad/deep/0001.jpg").unlink()
        pack(tmp_path / "in", kind, backwards=True)
        label(f"in.{kind}", "-o", f"{kind}.csv", "--incremental")
        this_run = json.loads((tmp_path / f"{kind}.csv.run.json").read_text())["this_run"]
        assert (this_run["processed"], this_run["gone"]) == (1, 1)
        label(f"in.{kind}", "-o", "whole.csv", "--overwrite")
        assert (tmp_path / f"{kind}.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        shutil.copy(tmp_path / "in/more/0001.jpg", tmp_path / "in/sad/deep/0001.jpg")
        shutil.copy(tmp_path / "in/more/0005.jpg", tmp_path / "in/happy/0004.jpg")


def test_names_that_would_lead_out_write_nothing_outside(label: Label, tmp_path: Path) -> None:
    data = (tmp_path / "in/more/0001.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("../../out.jpg", "/out.jpg", "a/../../../out.jpg", "out.jpg"):
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("out.jpg", data)
    before = {*tmp_path.rglob("*"), *tmp_path.parent.glob("*")}
    assert label("evil.zip", "--annotate", "seen") == 0
    rows = rows_of(tmp_path / "labels.csv")
    names = ["out.jpg", "out.jpg#2", "out.jpg#3", "out.jpg#4", "out.jpg#5"]
    assert [row["path"] for row in rows] == [f"evil.zip/{name}" for name in names]
    assert len({row["confidence"] for row in rows}) == 1
    made = {*tmp_path.rglob("*"), *tmp_path.parent.glob("*")} - before
    assert {path.relative_to(tmp_path).parts[0].split(".")[0] for path in made} == {"seen", "labels"}


def test_a_bomb_is_too_large_and_a_lie_is_an_error(label: Label, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("big.jpg", "w") as big:
        for _ in range(300):
            big.write(bytes(2**20))
    assert label("x.zip") == 3
    assert [row["error_kind"] for row in rows_of(tmp_path / "labels.csv")] == ["too_large"]
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1_000).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data)
    assert label("x.zip", "--overwrite") == 3
    assert [row["error_kind"] for row in rows_of(tmp_path / "labels.csv")] == ["unreadable"]


def test_what_is_no_archive_ends_the_run_before_anything_is_written(
    ferbatch_here: Ferbatch, label: Label, tmp_path: Path
) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    (tmp_path / "x.tar.gz").write_bytes((pack(tmp_path / "in", "tar.gz")).read_bytes()[:-2_000])
    for name in ("x.zip", "x.tar.gz"):
        done = ferbatch_here("label", name, "-q")
        assert done.returncode == 2
        assert f"{name} cannot be read as an archive" in done.stderr.decode()
    pa, pq = parquet_tools()
    pq.write_table(pa.table({"path": ["a.jpg"], "label": ["happy"]}), tmp_path / "x.parquet")
    done = ferbatch_here("label", "x.parquet", "-q")
    assert (done.returncode, b"none of the 1 image of x.parquet is there" in done.stderr) == (2, True)
    assert not list(tmp_path.glob("labels*"))


def test_archives_in_folders_are_left_aside_and_said(ferbatch_here: Ferbatch, label: Label, tmp_path: Path) -> None:
    shutil.move(pack(tmp_path / "in/happy", "zip"), tmp_path / "in/happy/more.zip")
    done = ferbatch_here("label", "in", "--model", "model/tiny.safetensors")
    assert "1 archive (name one to label what it holds)" in done.stderr.decode()
    assert not [row for row in rows_of(tmp_path / "labels.csv") if ".zip" in row["path"]]
    listed = ferbatch_here("label", "in/happy/more.zip", "--list").stdout.decode()
    assert "in/happy/more.zip/0001.jpg" in listed
    assert "notes.txt" in listed


def test_a_member_alone_is_labelled_by_its_path(label: Label, tmp_path: Path) -> None:
    pack(tmp_path / "in", "zip")
    assert label("in.zip/happy/0001.jpg") == 0
    assert [row["path"] for row in rows_of(tmp_path / "labels.csv")] == ["in.zip/happy/0001.jpg"]
    assert label("in.zip/happy/none.jpg", "--overwrite") == 2


def test_an_archive_of_class_folders_is_a_truth(ferbatch_here: Ferbatch, label: Label, tmp_path: Path) -> None:
    pack(tmp_path / "in", "zip")
    reports = []
    for truth in ("in", "in.zip"):
        command = ("evaluate", "--truth", truth, "--model", "model/tiny.safetensors", "--format", "json", "-q")
        reports.append(json.loads(ferbatch_here(*command).stdout)["results"][0])
    assert reports[0]["accuracy"] == reports[1]["accuracy"]
    assert reports[0]["confusion_matrix"] == reports[1]["confusion_matrix"]


def test_a_parquet_table_of_images_and_labels_is_a_truth(ferbatch_here: Ferbatch, label: Label, tmp_path: Path) -> None:
    pa, pq = parquet_tools()
    files = [file for name in ("happy", "sad") for file in sorted((tmp_path / "in" / name).rglob("0*.jpg"))]
    images = [{"bytes": file.read_bytes(), "path": None} for file in files]
    truths = [file.relative_to(tmp_path / "in").parts[0] for file in files]
    pq.write_table(pa.table({"image": images, "label": truths}), tmp_path / "in.parquet", row_group_size=5)
    shutil.rmtree(tmp_path / "in/more")
    reports = []
    for truth in ("in", "in.parquet"):
        command = ("evaluate", "--truth", truth, "--model", "model/tiny.safetensors", "--format", "json", "-q")
        reports.append(json.loads(ferbatch_here(*command).stdout)["results"][0])
    assert reports[0]["confusion_matrix"] == reports[1]["confusion_matrix"]
