"""Shares of a folder, labelled apart and merged, give the file that one run writes, to the byte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Ferbatch, rows_of

from ferbatch.core.errors import UsageError
from ferbatch.core.options import shard_of
from ferbatch.sources.listing import list_images
from ferbatch.sources.shards import share

N = 60


@pytest.fixture
def run(ferbatch_here: Ferbatch, model: Path, tmp_path: Path, faces: Callable[..., Path]) -> Callable[..., int]:
    """`ferbatch label` on three folders of faces, with a broken one and odd names; its exit code."""
    for name in ("in/happy", "in/sad", "in/more"):
        faces(name, N // 3)
    (tmp_path / "in/happy/0003.jpg").write_bytes(b"broken")
    os.rename(tmp_path / "in/more/0001.jpg", tmp_path / "in/more/=é\nx.jpg")
    shutil.copytree(model.parent, tmp_path / "model")

    def call(*options: str, paths: tuple[str, ...] = ("in",)) -> int:
        command = ("label", *paths, "-q", "--model", "model/tiny.safetensors", *options)
        return ferbatch_here(*command).returncode

    return call


def in_parts(run: Callable[..., int], of: int, *options: str, **how: tuple[str, ...]) -> list[str]:
    """Every share labelled; the files, the last one first."""
    for number in range(1, of + 1):
        assert run("--shard", f"{number}/{of}", *options, **how) in (0, 3)
    return [f"labels.{number}-of-{of}.csv" for number in range(of, 0, -1)]


@pytest.mark.parametrize("format_", ["csv", "json", "jsonl", "parquet"])
def test_merged_parts_are_what_one_run_writes(
    run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path, format_: str
) -> None:
    assert run("-o", f"one.{format_}") == 3
    parts = in_parts(run, 3)
    assert ferbatch_here("merge", *parts, "-o", f"all.{format_}", "-q").returncode == 3  # one image is broken
    assert (tmp_path / f"all.{format_}").read_bytes() == (tmp_path / f"one.{format_}").read_bytes()
    one, every = (json.loads((tmp_path / f"{name}.{format_}.report.json").read_text()) for name in ("one", "all"))
    assert every == one
    one, every = (json.loads((tmp_path / f"{name}.{format_}.run.json").read_text()) for name in ("one", "all"))
    assert {**every["counts"]} == one["counts"]
    assert every["sha256"] == one["sha256"]
    assert not list(tmp_path.glob("all.*.journal"))
    assert not list(tmp_path.glob("labels.*.report.*"))  # a share's report would say little


def test_what_was_merged_is_brought_up_to_date_like_any_other_output(
    run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    ferbatch_here("merge", *in_parts(run, 2), "-q")
    shutil.copy(tmp_path / "in/sad/0000.jpg", tmp_path / "in/sad/0000b.jpg")
    assert run("--incremental") == 0
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == 1
    run("-o", "one.csv")
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_parts_that_were_brought_up_to_date_merge(
    run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    parts = in_parts(run, 3)
    shutil.copy(tmp_path / "in/sad/0000.jpg", tmp_path / "in/happy/0000b.jpg")
    (tmp_path / "in/more/0005.jpg").unlink()
    in_parts(run, 3, "--incremental")
    run("-o", "one.csv")
    ferbatch_here("merge", *parts, "-q")
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_a_list_keeps_its_order(run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    paths = ("in/sad", "in/happy/0002.jpg", "in")  # overlapping, and not in the order of their names
    assert run("-o", "one.csv", paths=paths) == 3
    ferbatch_here("merge", *in_parts(run, 4, paths=paths), "-q")
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_what_is_allowed_in_the_parts_is_allowed_in_the_whole(
    run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    parts = in_parts(run, 2, "--allow", "unreadable")
    assert ferbatch_here("merge", *parts, "-q").returncode == 0
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"]["allowed"] == {"unreadable": 1}


def test_a_share_may_be_empty(run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    paths = ("in/happy/0001.jpg", "in/happy/0002.jpg")
    parts = in_parts(run, 5, paths=paths)
    assert sum(len(rows_of(tmp_path / part)) for part in parts) == 2
    assert ferbatch_here("merge", *parts, "-q").returncode == 0
    assert [row["path"] for row in rows_of(tmp_path / "labels.csv")] == list(paths)


def test_a_new_file_moves_no_other(tmp_path: Path, faces: Callable[..., Path]) -> None:
    folder = faces("in", N)
    before = [set(share(list_images([folder], ()), number, 4).listing.files()) for number in (1, 2, 3, 4)]
    shutil.copy(folder / "0000.jpg", folder / "0000b.jpg")
    after = [set(share(list_images([folder], ()), number, 4).listing.files()) for number in (1, 2, 3, 4)]
    assert all(old <= new for old, new in zip(before, after, strict=True))
    assert sum(map(len, after)) == N + 1
    assert min(map(len, before)) > N / 4 / 3


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "1", "1/", "/3", "1/0", "-1/3", "1/3/5", "one/3", "1/99999", ""])
def test_no_other_share_is_taken(wrong: str) -> None:
    with pytest.raises(UsageError, match="--shard is I/N"):
        shard_of(wrong)


def test_what_does_not_belong_together_is_not_merged(
    run: Callable[..., int], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    parts = in_parts(run, 2)
    run("-o", "one.csv")
    run("-o", "other.csv", "--shard", "2/2", "--min-confidence", "0.5")
    run("-o", "of3.csv", "--shard", "2/3")
    shutil.copy(tmp_path / "in/sad/0000.jpg", tmp_path / "in/sad/0000b.jpg")
    run("-o", "later.csv", "--shard", "1/2")
    shutil.copy(tmp_path / "labels.1-of-2.csv", tmp_path / "edited.csv")
    for suffix in ("run.json", "run.jsonl"):
        shutil.copy(tmp_path / f"labels.1-of-2.csv.{suffix}", tmp_path / f"edited.csv.{suffix}")
    (tmp_path / "edited.csv").write_bytes((tmp_path / "edited.csv").read_bytes() + b"\n")
    (tmp_path / "begun.csv").write_bytes(b"")
    (tmp_path / "begun.csv.journal").write_bytes(b"")
    second, first = parts
    for given, said in {
        (first,): "1 part of 2 missing: 2/2",
        (first, first): f"share 1/2 is there twice: {first} and {first}",
        (first, "one.csv"): "one.csv is no part",
        (first, "other.csv"): f"--min-confidence is 0.0 in {first}, 0.5 in other.csv",
        (first, "of3.csv"): f"{first} is one of 2 shares, of3.csv one of 3",
        ("later.csv", second): "the parts saw different images: of later.csv the whole is 61",
        ("edited.csv", second): "edited.csv is not as ferbatch wrote it",
        ("begun.csv", second): "begun.csv is of a run that is not finished",
        ("gone.csv", second): "no such file: gone.csv",
        (first, second, "labels.csv"): "no such file: labels.csv",
    }.items():
        done = ferbatch_here("merge", *given, "-q")
        assert (done.returncode, said in done.stderr.decode()) == (2, True), (given, done.stderr)
        assert not (tmp_path / "labels.csv").exists()
    assert f"{first} is one of the parts" in ferbatch_here("merge", *parts, "-o", first, "--overwrite").stderr.decode()


def test_another_share_on_an_output_is_another_run(run: Callable[..., int], tmp_path: Path) -> None:
    run("--shard", "1/2", "-o", "x.csv")
    before = (tmp_path / "x.csv").read_bytes()
    assert run("--shard", "2/2", "-o", "x.csv", "--resume") == 2
    assert run("-o", "x.csv", "--resume") == 2
    assert (tmp_path / "x.csv").read_bytes() == before
