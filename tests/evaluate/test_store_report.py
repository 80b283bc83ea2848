"""A report in a store is the one of a folder, its page put last, and only what is ferbatch's is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from forks import Ended, Forks
from store_proxy import Proxy, Wrong

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

URL = "s3://bucket/out/report"
Run = Callable[..., Ended]


@pytest.fixture
def run(forks: Forks, proxy: Proxy, faces: Callable[..., Path], tmp_path: Path, model: Path) -> Run:
    """`ferbatch evaluate --truth test` by a process of its own."""
    for name in ("happy", "sad"):
        faces(f"test/{name}", 5)

    def call(*options: str, starts: bool = False) -> Any:
        command = ("evaluate", "--truth", "test", "-q", "--model", str(model), *options)
        there = {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": str(tmp_path / "spools")}
        return (forks.start if starts else forks)(tmp_path, *command, faults={"store": there, "plain_charts": {}})

    return call


def there(bucket: Any) -> dict[str, bytes]:
    found = bucket.objects.filter(Prefix="out/report/")
    return {one.key.removeprefix("out/report/"): one.get()["Body"].read() for one in found}


def spooled(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "spools").glob("*") if path.is_dir()]


@pytest.fixture
def local(run: Run, tmp_path: Path) -> dict[str, bytes]:
    """The same in a folder."""
    assert run("--report", "report").code == 0
    return {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir() if path.suffix != ".lock"}


def test_a_report_there_is_the_one_here_and_its_page_comes_last(
    run: Run, bucket: Any, local: dict[str, bytes], proxy: Proxy, tmp_path: Path
) -> None:
    def look() -> None:
        seen.append(set(there(bucket)))

    seen: list[set[str]] = []
    proxy.wrong.append(Wrong("PUT", "/report.html", then=look, lost=True, times=1))
    ended = run("--report", f"{URL}/")
    assert (ended.code, ended.stderr) == (0, "")
    found = there(bucket)
    assert {name for name in found if found[name] != local.get(name)} <= {"report.html"}  # it says its command
    assert found.keys() == local.keys()
    assert seen == [local.keys() - {"report.html"} | {".ferbatch.lock"}]
    assert not spooled(tmp_path)
    listed = found[".ferbatch"].decode().split()
    assert sorted(listed) == sorted(found.keys() - {".ferbatch"})


def test_what_exists_is_treated_as_in_a_folder(run: Run, bucket: Any, local: dict[str, bytes], tmp_path: Path) -> None:
    bucket.put_object(Key="out/report/mine.txt", Body=b"mine")
    ended = run("--report", URL)
    assert (ended.code, f"{URL} is not empty and holds no report" in ended.stderr) == (2, True), ended.stderr
    bucket.Object("out/report/mine.txt").delete()
    assert run("--report", URL, "--model", "cnn-lite-v2").code == 0  # two models
    assert "labels-2.csv" in there(bucket)
    bucket.put_object(Key="out/report/in/mine.txt", Body=b"mine")
    ended = run("--report", URL)
    assert (ended.code, f"{URL} holds a report; --overwrite replaces it" in ended.stderr) == (2, True), ended.stderr
    bucket.put_object(Key="out/report/report.mine", Body=b"mine")
    ended = run("--report", URL, "--overwrite")
    assert (ended.code, f"{URL}/report.mine is not ferbatch's" in ended.stderr) == (2, True), ended.stderr
    bucket.Object("out/report/report.mine").delete()
    ended = run("--report", URL, "--overwrite")
    assert (ended.code, ended.stderr) == (0, "")
    assert there(bucket).keys() == local.keys() | {"in/mine.txt"}
    assert not spooled(tmp_path)


def test_labels_that_would_be_replaced_are_not_judged(
    forks: Forks, run: Run, bucket: Any, proxy: Proxy, tmp_path: Path
) -> None:
    assert run("--report", URL).code == 0
    there = {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": str(tmp_path / "spools")}
    command = ("evaluate", "--predictions", f"{URL}/labels.csv", "--report", f"{URL}/", "--overwrite")
    ended = forks(tmp_path, *command, faults={"store": there})
    assert (ended.code, f"{URL}/labels.csv lies in {URL}, which would be replaced" in ended.stderr) == (2, True)
    command = ("evaluate", "--predictions", f"{URL}/labels.csv", "--report", "s3://bucket/other", "-q")
    assert forks(tmp_path, *command, faults={"store": there, "plain_charts": {}}).code == 0
    ended = forks(tmp_path, *command[:4], "https://host/report", faults={"store": there})
    assert (ended.code, "https:// paths are of images alone" in ended.stderr) == (2, True), ended.stderr


def test_a_report_that_cannot_be_put_is_kept_and_said(run: Run, bucket: Any, proxy: Proxy, tmp_path: Path) -> None:
    proxy.wrong.append(Wrong("PUT", "/report.json", status=503))
    ended = run("--report", URL)
    assert (ended.code, ended.stderr.count("\n")) == (74, 1), ended.stderr
    (spool,) = spooled(tmp_path)
    assert f"/report.json could not be written: the store answers 503; the report is in {spool}" in ended.stderr
    assert (spool / "report.html").exists()
    assert not {"report.html", ".ferbatch.lock"} & set(there(bucket))
    proxy.wrong.clear()
    assert run("--report", URL, "--overwrite").code == 0
    assert not spooled(tmp_path)
    proxy.wrong.append(Wrong("PUT", ".lock", status=403))
    ended = run("--report", "s3://bucket/other")
    assert (ended.code, "the store refuses it (403)" in ended.stderr) == (74, True), ended.stderr
    proxy.wrong.clear()
    ended = run("--report", "s3://nowhere/report")
    assert (ended.code, "there is no such bucket: s3://nowhere" in ended.stderr) == (2, True), ended.stderr


def test_one_run_at_a_time_and_none_leaves_a_lock(run: Run, bucket: Any, proxy: Proxy, tmp_path: Path) -> None:
    putting, goes_on = Event(), Event()
    proxy.wrong.append(Wrong("PUT", "/report.json", times=1, then=lambda: (putting.set(), goes_on.wait(60))))
    first = run("--report", URL, starts=True)
    assert putting.wait(60)
    second = run("--report", URL, "--overwrite")
    goes_on.set()
    assert (first.wait(), second.code) == (0, 75), second.stderr
    assert f"another run is writing {URL}: process " in second.stderr
    assert ".ferbatch.lock" not in there(bucket)
    assert not spooled(tmp_path)
