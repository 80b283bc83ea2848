"""Parts in a store are those of a folder, with a manifest that is there when they all are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Ended, Forks
from store_proxy import Proxy, Wrong

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

URL = "s3://bucket/out/labels/"
BESIDE = ["labels.run.json", "labels.run.jsonl"]
Run = Callable[..., Ended]


@pytest.fixture
def run(forks: Forks, proxy: Proxy, faces: Callable[..., Path], tmp_path: Path, model: Path) -> Run:
    """`ferbatch label images`, or another command, by a process of its own: 20 images, 6 to a part."""
    faces("images", 20)

    def call(*options: str, on: str = "here", **how: Any) -> Ended:
        command = options if options[0] == "merge" else ("label", "images", "--model", str(model), *options)
        there = {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": str(tmp_path / "spools" / on)}
        return forks(tmp_path, *command, "-q", faults={"store": there, "small_parts": {"images": 6}}, **how)

    return call


def there(bucket: Any) -> dict[str, bytes]:
    found = bucket.objects.filter(Prefix="out/")
    return {one.key.removeprefix("out/"): one.get()["Body"].read() for one in found}


def parts(bucket: Any) -> dict[str, bytes]:
    return {name[7:]: data for name, data in there(bucket).items() if name.startswith("labels/")}


def spooled(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "spools").glob("*/*") if path.is_dir()]


@pytest.fixture
def local(run: Run, tmp_path: Path) -> dict[str, bytes]:
    assert run("-o", "local/").code == 0
    return {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}


def test_parts_there_are_those_here(
    run: Run, bucket: Any, local: dict[str, bytes], proxy: Proxy, faces: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[set[str]] = []
    proxy.wrong.append(Wrong("PUT", "/manifest.json", times=1, then=lambda: seen.append(set(there(bucket)))))
    ended = run("-o", URL)
    assert (ended.code, ended.stderr) == (0, "")
    assert len(local) == 5
    assert parts(bucket) == local
    assert seen == [{*(f"labels/{name}" for name in local), *BESIDE, "labels.lock"} - {"labels/manifest.json"}]
    assert json.loads(there(bucket)["labels.run.json"])["options"]["output"] == URL
    ended = run("-o", URL)
    assert (ended.code, f"{URL}manifest.json exists; --overwrite" in ended.stderr) == (2, True), ended.stderr
    for at in range(15, 20):
        (tmp_path / f"images/00{at}.jpg").unlink()
    faces("images", 1, first=30)
    assert run("-o", URL, "--incremental", on="elsewhere").code == 0
    assert run("-o", "local/", "--overwrite").code == 0
    assert parts(bucket) == {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}
    assert len(parts(bucket)) == 4
    assert sorted(there(bucket)) == sorted([*(f"labels/{name}" for name in parts(bucket)), *BESIDE])
    assert run("-o", URL, "--resume").code == 0
    assert not spooled(tmp_path)


@pytest.mark.parametrize("ending", ["/part-00001.csv", "/manifest.json", ".run.json"])
def test_parts_that_cannot_be_put_are_put_later(
    ending: str, run: Run, bucket: Any, local: dict[str, bytes], proxy: Proxy, tmp_path: Path
) -> None:
    assert run("-o", URL, "--min-confidence", "0.9").code == 0
    assert parts(bucket) != local
    proxy.wrong.append(Wrong("PUT", ending, status=403))
    ended = run("-o", URL, "--overwrite")
    assert (ended.code, ended.stderr.count("\n")) == (74, 1), ended.stderr
    assert "manifest.json" not in parts(bucket)  # or it would speak of others
    proxy.wrong.clear()
    ended = run("-o", URL, "--resume")
    assert (ended.code, ended.stderr) == (0, "")
    assert parts(bucket) == local
    assert not spooled(tmp_path)


def test_what_is_none_of_its_parts_is_let_be(run: Run, bucket: Any) -> None:
    bucket.put_object(Key="out/labels/mine.csv", Body=b"mine")
    ended = run("-o", URL, "--overwrite")
    assert (ended.code, f"{URL} holds other objects (mine.csv for one)" in ended.stderr) == (2, True), ended.stderr
    assert parts(bucket) == {"mine.csv": b"mine"}
    ended = run("-o", "s3://bucket/", "--format", "csv")
    assert (ended.code, "names no folder: s3://bucket/folder does" in ended.stderr) == (2, True), ended.stderr


def test_parts_are_merged_and_keep_their_format(run: Run, bucket: Any, local: dict[str, bytes], tmp_path: Path) -> None:
    assert run("-o", "whole.csv").code == 0
    assert run("-o", URL).code == 0
    assert run("merge", URL, "-o", "merged.csv").code == 0
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    ended = run("merge", URL, "-o", "s3://bucket/other/")
    assert (ended.code, "merge makes one file of many parts" in ended.stderr) == (2, True), ended.stderr
    assert run("-o", "s3://bucket/out/lines/", "--format", "jsonl").code == 0
    assert run("-o", "s3://bucket/out/lines/", "--incremental").code == 0
    assert sorted(name for name in there(bucket) if name.startswith("lines/")) == [
        *(f"lines/{name}" for name in ("manifest.json", *(f"part-0000{at}.jsonl" for at in range(4)))),
    ]
