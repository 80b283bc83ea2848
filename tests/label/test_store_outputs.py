"""Labels in a store are those of a file, whole or not there, whatever ends a run, and one run writes them at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from forks import Ended, Forks
from store_proxy import Proxy, Wrong
from support import Ferbatch, parquet_tools, some

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

BATCH, N = 6, 20
URL = "s3://bucket/out/labels.csv"
NAMES = ["labels.csv", "labels.csv.run.json", "labels.csv.run.jsonl"]
HUSH = "verysecret", "AKIDEXAMPLE"


@pytest.fixture
def images(faces: Callable[..., Path]) -> Path:
    folder = faces("images", N)
    (folder / "0007.jpg").write_bytes(b"broken")
    return folder


Run = Callable[..., Ended]


@pytest.fixture
def run(forks: Forks, proxy: Proxy, images: Path, tmp_path: Path, model: Path) -> Run:
    """`ferbatch label images -q` in batches of BATCH, by a process of its own, on machine `on`."""

    def call(*options: str, on: str = "here", faults: Any = None, starts: bool = False, **how: Any) -> Any:
        command = ("label", "images", "-q", "--model", str(model), "--batch-size", str(BATCH), *options)
        faults = {
            "store": {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": str(tmp_path / "spools" / on)},
            "plain_charts": {},
            **({} if on == "here" else {"other_host": {"name": on}}),
            **(faults or {}),
        }
        return (forks.start if starts else forks)(tmp_path, *command, faults=faults, **how)

    return call


def there(bucket: Any) -> dict[str, bytes]:
    """The objects of `out/` by their names."""
    found = bucket.objects.filter(Prefix="out/")
    return {one.key.removeprefix("out/"): one.get()["Body"].read() for one in found}


def spooled(tmp_path: Path, on: str = "here") -> list[Path]:
    return [path for path in (tmp_path / "spools" / on).glob("*") if path.is_dir()]


@pytest.fixture
def local(run: Run, tmp_path: Path) -> bytes:
    """The labels as a file."""
    assert run("-o", "local.csv").code == 3
    return (tmp_path / "local.csv").read_bytes()


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_an_object_is_the_file_of_the_same_run(kind: str, run: Run, bucket: Any, tmp_path: Path) -> None:
    if kind == "parquet":
        parquet_tools()
    assert run("-o", f"local.{kind}").code == 3
    ended = run("-o", f"s3a://bucket/out/labels.{kind}")
    assert (ended.code, ended.stdout) == (3, b"")
    found = there(bucket)
    assert [*found] == [f"labels.{kind}", f"labels.{kind}.run.json", f"labels.{kind}.run.jsonl"]
    assert found[f"labels.{kind}"] == (tmp_path / f"local.{kind}").read_bytes()
    said = json.loads(found[f"labels.{kind}.run.json"])
    assert (said["options"]["output"], said["counts"]["images"]) == (f"s3a://bucket/out/labels.{kind}", N)
    assert not spooled(tmp_path)


def test_the_report_is_beside_the_labels_and_goes_with_them(
    run: Run, bucket: Any, faces: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("happy", "sad"):
        faces(f"images/{name}", 4)
    assert run("-o", URL).code == 3
    report = [name for name in there(bucket) if name.startswith("labels.csv.report.")]
    assert {"labels.csv.report.html", "labels.csv.report.json", "labels.csv.report.md"} < {*report}
    assert run("-o", URL, "--overwrite", "--no-truth").code == 3
    assert [*there(bucket)] == NAMES


def test_what_is_there_is_left_alone_unless_it_may_be_replaced(run: Run, bucket: Any, local: bytes) -> None:
    for name in (*NAMES, "labels.csv.report.html"):
        bucket.put_object(Key=f"out/{name}", Body=b"mine")
        ended = run("-o", URL)
        assert (ended.code, f"s3://bucket/out/{name} exists; --overwrite" in ended.stderr) == (2, True), ended.stderr
        assert there(bucket) == {name: b"mine"}
        bucket.Object(f"out/{name}").delete()
    bucket.put_object(Key="out/labels.csv", Body=b"mine")
    assert run("-o", URL, "--incremental").code == 2
    assert there(bucket) == {"labels.csv": b"mine"}
    assert run("-o", URL, "--overwrite").code == 3
    assert there(bucket)["labels.csv"] == local


def test_an_incremental_run_of_another_machine_goes_by_the_objects(
    run: Run, bucket: Any, images: Path, faces: Callable[..., Path], tmp_path: Path
) -> None:
    assert run("-o", URL, "--incremental").code == 3
    faces("images", 3, first=N)
    (images / "0000.jpg").unlink()
    ended = run("-o", URL, "--incremental", "--verbose", on="there")
    assert ended.code == 0, ended.stderr
    assert "22 images, 3 to label" in ended.stderr
    assert run("-o", "local.csv").code == 3
    assert there(bucket)["labels.csv"] == (tmp_path / "local.csv").read_bytes()
    assert run("-o", URL, "--resume", on="third").code == 0
    assert not spooled(tmp_path, "there") + spooled(tmp_path, "third")
    bucket.put_object(Key="out/labels.csv", Body=there(bucket)["labels.csv"] + b"mine\n")
    ended = run("-o", URL, "--incremental")
    assert (ended.code, "is not as ferbatch wrote it" in ended.stderr) == (2, True)


def test_a_killed_run_goes_on_from_its_spool(run: Run, bucket: Any, local: bytes, tmp_path: Path) -> None:
    steps = run("-o", URL).events
    bucket.objects.all().delete()
    for at in some(range(2, steps + 1), 6):
        ended = run("-o", URL, kill_at=at)
        assert ended.code == -9
        put = [name for name in there(bucket) if name != "labels.csv.lock"]
        assert put in ([], NAMES), at  # all of it where it was killed in what comes after
        if begun := any((spool / "labels.csv.journal").exists() for spool in spooled(tmp_path)):
            ended = run("-o", URL)
            assert (ended.code, "is left of an unfinished run" in ended.stderr) == (2, True)
        assert run("-o", URL, "--resume").code in (0, 3)
        assert there(bucket)["labels.csv"] == local, (at, begun)
        assert [*there(bucket)] == NAMES
        assert not spooled(tmp_path)
        bucket.objects.all().delete()


@pytest.mark.parametrize("again", ["--resume", "--incremental"])
@pytest.mark.parametrize("ending", [".run.json", ".run.jsonl", ".csv"])
def test_a_run_that_is_killed_while_it_puts_goes_on(
    again: str, ending: str, run: Run, bucket: Any, local: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    pids: list[int] = []
    proxy.wrong.append(Wrong("PUT", ending, breaks=True, times=1, then=lambda: os.kill(pids[0], signal.SIGKILL)))
    running = run("-o", URL, starts=True)
    pids.append(running.pid)
    assert running.wait() == -9
    assert "labels.csv" not in there(bucket)
    assert run("-o", URL, again).code == 0
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)
    assert not spooled(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_while_it_puts_lets_go_of_its_lock(
    number: int, run: Run, bucket: Any, local: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    pids: list[int] = []
    proxy.wrong.append(Wrong("PUT", "/labels.csv", status=503, then=lambda: os.kill(pids[0], number)))
    running = run("-o", URL, starts=True)
    pids.append(running.pid)
    _, said = running.communicate()
    assert (running.returncode, said.count(b"\n")) == (128 + number, 1), said
    assert said.endswith(b"; --resume goes on with what is done\n")
    assert not {"labels.csv", "labels.csv.lock"} & {*there(bucket)}
    proxy.wrong.clear()
    assert run("-o", URL, "--resume").code == 0
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)


@pytest.mark.parametrize(("method", "ending"), [("PUT", ".lock"), ("DELETE", ".lock")])
def test_a_run_that_is_stopped_leaves_no_lock(
    method: str, ending: str, run: Run, bucket: Any, proxy: Proxy, tmp_path: Path
) -> None:
    def stop() -> None:
        os.kill(pids[0], signal.SIGINT)
        time.sleep(0.2)  # it would be gone

    pids: list[int] = []
    begun, goes_on = Event(), Event()
    proxy.wrong.append(Wrong("GET", "/bucket", times=1, then=lambda: (begun.set(), goes_on.wait(60))))
    proxy.wrong.append(Wrong(method, ending, times=1, then=stop))
    running = run("-o", URL, starts=True)
    assert begun.wait(60)
    pids.append(running.pid)
    goes_on.set()
    assert running.wait() == 130
    assert "labels.csv.lock" not in there(bucket)
    again = run("-o", URL, "--resume")
    assert (again.code in (0, 3), "died" in again.stderr) == (True, False), again.stderr


@pytest.mark.parametrize("scheme", ["S3", "S3A"])
def test_a_scheme_may_be_in_capitals(scheme: str, run: Run, bucket: Any, local: bytes) -> None:
    assert run("-o", URL.replace("s3", scheme)).code == 3
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)


FAILS = [
    (Wrong("PUT", "/labels.csv", status=503), "the store answers 503"),
    (Wrong("PUT", "/labels.csv", status=403), "the store refuses it (403) (credentials come from AWS_ACCESS_KEY_ID"),
    (Wrong("PUT", "/labels.csv", breaks=True), "the store does not answer"),
    (Wrong("PUT", "/labels.csv", status=200), "the store keeps 0 bytes of"),
    (Wrong("PUT", ".run.jsonl", status=200), "the store keeps 0 bytes of"),
]


@pytest.mark.parametrize(("wrong", "said"), FAILS, ids=[f"{one.ending} {said[:24]}" for one, said in FAILS])
def test_what_cannot_be_put_is_kept_and_put_later(
    wrong: Wrong, said: str, run: Run, bucket: Any, local: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.wrong.append(wrong)
    ended = run("-o", URL)
    assert (ended.code, ended.stderr.count("\n")) == (74, 1), ended.stderr
    assert said in ended.stderr
    assert ended.stderr.endswith("; --resume goes on with what is done\n")
    assert "labels.csv" not in there(bucket)
    assert "labels.csv.lock" not in there(bucket)
    proxy.wrong.clear()
    refused = run("-o", URL)
    assert (refused.code, "is left of an unfinished run" in refused.stderr) == (2, True)
    asked = proxy.asked.copy()
    assert run("-o", URL, "--resume").code == 0
    assert (proxy.asked - asked)["PUT /bucket/out/labels.csv"] == 1
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)
    assert not spooled(tmp_path)


def test_what_fails_for_a_while_is_put(run: Run, bucket: Any, local: bytes, proxy: Proxy, tmp_path: Path) -> None:
    for method, ending in (("PUT", ".csv"), ("PUT", ".run.json"), ("PUT", ".lock"), ("HEAD", ".csv"), ("GET", ".lock")):
        times = 1 if method == "HEAD" else 2  # less is waited for before there is work to lose
        proxy.wrong += [Wrong(method, ending, status=503, times=times), Wrong(method, ending, lost=True, times=times)]
    ended = run("-o", URL)
    assert ended.code == 3, ended.stderr
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)
    assert all(one.times == 0 for one in proxy.wrong)


def test_what_others_have_put_meanwhile_is_not_replaced(
    run: Run, bucket: Any, local: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.wrong.append(Wrong("PUT", "/labels.csv", status=403))
    assert run("-o", URL).code == 74
    proxy.wrong.clear()
    assert run("-o", URL, "--overwrite", on="there").code == 3
    theirs = there(bucket)
    ended = run("-o", URL, "--resume")
    assert (ended.code, "has changed since the unfinished run in" in ended.stderr) == (2, True), ended.stderr
    assert there(bucket) == theirs
    ended = run("-o", URL, "--incremental")
    assert (ended.code, "which is let go" in ended.stderr) == (0, True), ended.stderr
    assert there(bucket)["labels.csv"] == local
    assert not spooled(tmp_path)


@pytest.mark.parametrize("on", ["here", "there"])
def test_a_second_run_is_told_of_the_first(on: str, run: Run, bucket: Any, local: bytes, proxy: Proxy) -> None:
    putting, goes_on = Event(), Event()
    proxy.wrong.append(Wrong("PUT", ".run.json", times=1, then=lambda: (putting.set(), goes_on.wait(60))))
    first = run("-o", URL, starts=True)
    assert putting.wait(60)
    second = run("-o", URL, "--overwrite", on=on)
    goes_on.set()
    assert (first.wait(), second.code) == (3, 75)
    assert second.stderr.startswith(f"ferbatch: another run is writing {URL}: process ")
    assert f"on {socket.gethostname()}, since 20" in second.stderr
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)


def test_a_lock_is_renewed_for_as_long_as_its_run_goes_on(run: Run, bucket: Any, proxy: Proxy) -> None:
    putting, goes_on = Event(), Event()
    proxy.wrong.append(Wrong("PUT", ".run.json", times=1, then=lambda: (putting.set(), goes_on.wait(60))))
    running = run("-o", URL, starts=True, faults={"soon_renewed": {"seconds": 0.1}})
    assert putting.wait(60)
    first = now = json.loads(there(bucket)["labels.csv.lock"])
    deadline = time.monotonic() + 60
    while now["until"] == first["until"] and time.monotonic() < deadline:
        time.sleep(0.05)
        now = json.loads(there(bucket)["labels.csv.lock"])
    goes_on.set()
    assert now["until"] > first["until"]
    assert {**now, "until": ""} == {**first, "until": ""}
    assert running.wait() == 3
    assert [*there(bucket)] == NAMES


def locks(**said: Any) -> bytes:
    """A lock object as a run of another machine leaves it."""
    until = (datetime.now(UTC) + timedelta(seconds=said.pop("seconds", 200))).isoformat()
    whole = {"pid": 7, "host": "elsewhere", "space": "", "since": "2024-01-02T03:04:05+00:00", "until": until}
    return json.dumps({"ferbatch_lock": 1, "run": "theirs", **whole, **said}).encode()


def test_the_lock_of_a_dead_run_is_taken_and_that_of_another_is_not(
    run: Run, bucket: Any, local: bytes, tmp_path: Path
) -> None:
    space = os.readlink("/proc/self/ns/pid")
    ours = {"host": socket.gethostname(), "space": space}
    for left, code in (
        (locks(), 75),
        (locks(**ours, pid=1), 75),
        (locks(**(ours | {"space": "pid:[1]"}), pid=2**22 + 1), 75),
        (locks(seconds=-1), 3),
        (locks(**ours, pid=2**22 + 1), 3),
        (b"mine", 2),
        (b"", 2),
    ):
        bucket.put_object(Key="out/labels.csv.lock", Body=left)
        ended = run("-o", URL)
        assert ended.code == code, (left, ended.stderr)
        if code == 3:
            assert f"the last run on {URL} died (process " in ended.stderr
            assert [*there(bucket)] == NAMES
        else:
            assert there(bucket) == {"labels.csv.lock": left}
            assert "taken away" in ended.stderr or "take it away first" in ended.stderr
        bucket.objects.all().delete()


@pytest.mark.parametrize("condition", ["ignored", "refused"])
def test_a_store_without_conditional_put_is_said(
    condition: str, run: Run, bucket: Any, local: bytes, proxy: Proxy
) -> None:
    proxy.condition = condition
    ended = run("-o", URL)
    assert (ended.code, "knows no conditional put" in ended.stderr) == (3, True), ended.stderr
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)
    bucket.put_object(Key="out/labels.csv.lock", Body=locks())
    assert run("-o", URL, "--overwrite").code == 75


def test_a_run_that_lost_its_lock_puts_nothing(run: Run, bucket: Any, proxy: Proxy) -> None:
    def lose() -> None:
        bucket.put_object(Key="out/labels.csv.lock", Body=locks())

    proxy.wrong.append(Wrong("GET", "/images/last.jpg", times=1, then=lose))
    bucket.put_object(Key="images/last.jpg", Body=b"broken")
    ended = run("s3://bucket/images", "-o", URL)
    assert (ended.code, "another run writes" in ended.stderr, "process 7 on elsewhere" in ended.stderr) == (
        75,
        True,
        True,
    ), ended.stderr
    assert [*there(bucket)] == ["labels.csv.lock"]
    bucket.Object("out/labels.csv.lock").delete()
    assert run("s3://bucket/images", "-o", URL, "--resume").code == 0
    assert [*there(bucket)] == NAMES


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("s3://nowhere/labels.csv", 2, "there is no such bucket: s3://nowhere"),
        ("s3://No_Bucket!/labels.csv", 2, "there is no such bucket: s3://No_Bucket!"),
        ("s3://bucket/labels\udcff.csv", 2, "keys are UTF-8"),
        ("s3://bucket/labels.csv?versionId=1.csv", 2, "say no version"),
        (f"s3://bucket/{'long' * 250}.csv", 2, "too long: 1,0"),
        ("s3://bucket", 2, "names no object: s3://bucket/labels.csv does"),
        ("s3://labels.csv", 2, "names no object: s3://bucket/labels.csv does"),
        ("s3://bucket/labels.txt", 2, "has no known suffix"),
        ("s3://bucket/labels.csv --format json", 2, "disagree"),
        ("s3://key:hush/more@bucket/labels.csv", 2, "holds a name, a password or keys"),
        (
            "hf://datasets/a/b/labels.csv",
            2,
            "hf:// paths are of images alone: what ferbatch writes is in files, s3://, gs:// or az://",
        ),
        ("https://example.org/labels.csv", 2, "https:// paths are of images alone"),
    ],
)
def test_what_is_no_place_for_labels_is_said(url: str, code: int, said: str, run: Run, tmp_path: Path) -> None:
    ended = run("-o", *url.split())
    assert (ended.code, ended.stderr.count("\n")) == (code, 1), ended.stderr
    assert said in ended.stderr
    assert "hush" not in ended.stderr
    assert not spooled(tmp_path)


def test_a_log_is_of_this_machine(run: Run) -> None:
    ended = run("-o", URL, "--log-file", "s3://bucket/log")
    assert (ended.code, "s3:// takes labels, reports and pictures, and not this" in ended.stderr) == (2, True), (
        ended.stderr
    )


def test_what_is_there_is_looked_at_by_one_listing(
    run: Run, bucket: Any, local: bytes, proxy: Proxy, images: Path
) -> None:
    assert run("-o", URL).code == 3
    heads = {name: n for name, n in proxy.asked.items() if name.startswith("HEAD")}
    assert heads == {f"HEAD /bucket/out/{name}": 1 for name in NAMES}  # each after it was put
    assert proxy.asked["GET /bucket"] == 3  # before, under the lock, and at the end
    assert sum(proxy.asked.values()) <= 20
    for at in range(4):
        bucket.put_object(Key=f"out/labels.csv{at}", Body=b"")
    proxy.asked.clear()
    assert run("-o", URL, "--incremental", faults={"short_listings": {"most": 5}}).code == 0
    assert proxy.asked["HEAD /bucket/out/labels.csv.run.json"] > 1
    assert there(bucket)["labels.csv"] == local


def test_a_store_that_refuses_or_is_not_there_ends_the_run_before_it_labels(
    run: Run, bucket: Any, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.wrong.append(Wrong("PUT", ".lock", status=403))
    ended = run("-o", URL, "--verbose")
    assert (ended.code, "the store refuses it (403)" in ended.stderr) == (74, True), ended.stderr
    assert ended.stderr.count("\n") == 1
    proxy.address = "http://127.0.0.1:9"
    ended = run("-o", URL)
    assert (ended.code, "the store does not answer" in ended.stderr) == (74, True), ended.stderr
    ended = run("-o", URL, faults={"store": {"address": "", "FERBATCH_SPOOL": "spools"}})
    assert (ended.code, "spools is no absolute path" in ended.stderr) == (2, True), ended.stderr
    (tmp_path / "file").write_bytes(b"")
    ended = run("-o", URL, faults={"store": {"address": "", "FERBATCH_SPOOL": str(tmp_path / "file" / "in")}})
    assert (ended.code, "FERBATCH_SPOOL names another folder" in ended.stderr) == (74, True), ended.stderr
    assert not spooled(tmp_path)


def test_large_objects_are_put_in_parts(
    run: Run, bucket: Any, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 2**14)
    parts = {"parts": {"size": 2**14}}
    bucket.put_object(Key="out/labels.csv", Body=b"mine")
    seen: list[bytes] = []
    proxy.wrong.append(Wrong("POST", "/labels.csv", then=lambda: seen.append(there(bucket)["labels.csv"])))
    listed = b"\n".join(f"no{at}.jpg".encode() for at in range(1_000))
    command = ("-", "-o", URL, "--overwrite", "--max-errors", "100%")
    ended = run(*command, stdin=listed, faults=parts)
    assert ended.code == 3, ended.stderr
    data = there(bucket)["labels.csv"]
    assert len(data) > 3 * 2**14
    assert seen == [b"mine", b"mine"]  # when it is begun, and before it is completed
    assert proxy.asked["PUT /bucket/out/labels.csv"] >= 3
    assert run("-", *command[1:2], "local.csv", stdin=listed).code == 3
    assert (tmp_path / "local.csv").read_bytes() == data
    proxy.wrong[:] = [Wrong("PUT", "/labels.csv", status=503)]
    assert run(*command, stdin=listed, faults=parts).code == 74
    assert there(bucket)["labels.csv"] == data
    assert not [*bucket.multipart_uploads.all()]


def test_parts_are_merged_from_a_store_into_a_store(
    run: Run, bucket: Any, local: bytes, proxy: Proxy, forks: Forks, tmp_path: Path
) -> None:
    parts = ["s3://bucket/parts/1.csv", "2.csv"]
    for number, part in enumerate(parts, 1):
        assert run("--shard", f"{number}/2", "-o", part).code in (0, 3)

    def merge(*options: str) -> Ended:
        spool = str(tmp_path / "spools" / "here")
        faults = {"store": {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": spool}}
        return forks(tmp_path, "merge", *parts, "-q", *options, faults=faults)

    proxy.wrong.append(Wrong("PUT", "/labels.csv", status=403))
    ended = merge("-o", URL)
    assert (ended.code, ended.stderr.count("\n")) == (74, 1)
    assert not spooled(tmp_path)
    proxy.wrong.clear()
    assert merge("-o", URL).code == 2  # the sidecar is there
    assert merge("-o", URL, "--overwrite").code == 3
    assert (there(bucket)["labels.csv"], [*there(bucket)]) == (local, NAMES)
    assert run("-o", URL, "--incremental", on="there").code == 0
    assert merge("-o", parts[0]).code == 2
    parts[1] = "s3://bucket/parts/none.csv"
    ended = merge("-o", "whole.csv")
    assert (ended.code, "no such file: s3://bucket/parts/none.csv" in ended.stderr) == (2, True), ended.stderr


def test_labels_in_a_store_are_read_and_evaluated(
    run: Run, bucket: Any, proxy: Proxy, faces: Callable[..., Path], forks: Forks, tmp_path: Path
) -> None:
    for name in ("happy", "sad"):
        faces(f"images/{name}", 6)
    faults = {"store": {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": str(tmp_path / "spools" / "here")}}
    said = []
    for output in ("local.csv", URL):
        assert run("-o", output).code == 3
        ended = forks(tmp_path, "evaluate", "--predictions", output, "--format", "json", "-q", faults=faults)
        assert ended.code == 0, ended.stderr
        said.append(ended.stdout.replace(URL.encode(), b"local.csv"))
    assert said[0] == said[1]
    for path, why in ((f"{URL[:-4]}.json", "no such file: "), ("s3://nowhere/labels.csv", "no such file: ")):
        ended = forks(tmp_path, "evaluate", "--predictions", path, faults=faults)
        assert (ended.code, why in ended.stderr) == (2, True), ended.stderr
    proxy.wrong.append(Wrong("HEAD", "/labels.csv", status=403))
    ended = forks(tmp_path, "evaluate", "--predictions", URL, faults=faults)
    assert (ended.code, "could not be looked at: the store refuses it (403)" in ended.stderr) == (2, True), ended.stderr


def test_no_secret_is_written_anywhere(run: Run, bucket: Any, proxy: Proxy, tmp_path: Path) -> None:
    proxy.wrong.append(Wrong("PUT", "/labels.csv", status=403))
    log = ("--log-file", "log", "--log-format", "json", "--verbose")
    said = run("-o", URL, *log).stderr
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    proxy.wrong.clear()
    said += run("-o", URL, "--resume", *log).stderr + run("-o", URL, "--incremental", *log).stderr
    assert len(spooled(tmp_path)) == 0
    texts = [*kept, *there(bucket).values(), said.encode(), (tmp_path / "log").read_bytes()]
    assert len(texts) > 6
    for secret in HUSH:
        assert not any(secret.lower().encode() in text.lower() for text in texts)


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/l.csv", "s3"), ("gs://b/l.csv", "gcs"), ("abfs://b/l.csv", "azure")]
)
def test_what_is_not_installed_is_said(
    url: str, extra: str, ferbatch_here: Ferbatch, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    done = ferbatch_here("label", "images", "-o", url)
    assert (done.returncode, f"pip install 'ferbatch[{extra}]'".encode() in done.stderr) == (2, True)
