"""Images in stores and on the web are labelled as those of a folder are, however the store behaves."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import Fault, Store, serving
from support import Ferbatch, crossed, face_file

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

LABELS = ("happy", "sad", "neutral", "surprise")
N = 60
WAYS = [(), ("--isolate", "--workers", "2"), ("--no-isolate", "--workers", "2"), ("--workers", "0")]


def keys(n: int = N) -> list[str]:
    return [f"{LABELS[at % 4]}/{at:03} ü+&.jpg" for at in range(n)]


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of drawn faces in folders that are called like labels."""
    with serving(Store({"faces": {key: face_file(at) for at, key in enumerate(keys())}})) as one:
        yield one


@pytest.fixture
def label(store: Store, ferbatch_in: Ferbatch, model: Path) -> Callable[..., Any]:
    """Label what is in the store: label("s3://faces") -> CompletedProcess."""

    def call(*args: str, read: int = 30, **options: Any) -> Any:
        faults = {"store": {"address": store.address, "read": read}}
        return ferbatch_in("label", *args, "--model", model, faults=faults, **options)

    return call


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def written(folder: Path, store: Store, name: str = "faces") -> None:
    for key, data in store.buckets[name].items():
        path = folder / name / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("way", "prefix"), crossed(WAYS, ["s3://faces", "s3://faces/happy", "s3a://faces/", "URL/faces"])
)
def test_a_bucket_is_labelled_as_the_folder_that_it_would_be(
    way: tuple[str, ...], prefix: str, label: Any, store: Store, ferbatch_in: Ferbatch, tmp_path: Path, model: Path
) -> None:
    written(tmp_path, store)
    store.wait, store.page = 0.005, 7
    path = prefix.replace("URL", store.address)
    folder = "faces/happy" if path.endswith("/happy") else "faces"
    assert ferbatch_in("label", folder, "--model", model, "-o", "local.csv").returncode == 0
    done = label(path, "-o", "there.csv", *way)
    assert done.returncode == 0, done.stderr
    local, there = rows(tmp_path / "local.csv"), rows(tmp_path / "there.csv")
    key = (lambda one: one) if path.startswith("s3") else (lambda one: one.replace(" ü+&", "%20%C3%BC%2B%26"))
    assert [*there] == [path.rstrip("/") + key(one.removeprefix(folder)) for one in local]
    for ours, theirs in zip(local.values(), there.values(), strict=True):
        assert {**theirs, "path": ""} == {**ours, "path": ""}
    assert store.most_at_once <= 64


def test_a_list_names_objects_of_several_stores(label: Any, store: Store, tmp_path: Path) -> None:
    first, second, *_ = keys()
    (tmp_path / "own.jpg").write_bytes(face_file(0))
    listed = [f"s3://faces/{second}", "own.jpg", f"{store.address}/faces/{first}", "s3://faces/none.jpg"]
    done = label("-", "-o", "labels.csv", input="\n".join(listed).encode())
    assert done.returncode == 3, done.stderr
    found = rows(tmp_path / "labels.csv")
    assert [*found] == listed
    assert [row["error_kind"] for row in found.values()] == ["", "", "", "not_found"]
    assert store.asked[f"GET /faces/{first}"] == 1


WRONG = [
    (Fault(404), "not_found", 1),
    (Fault(403), "permission", 1),
    (Fault(503), "unreachable", 6),
    (Fault(500, times=3), "", 4),
    (Fault(short=100), "unreachable", 6),
    (Fault(short=100, times=2), "", 3),
    (Fault(hangs=True, times=1), "", 2),
    (Fault(size=1_000_000), "unreadable", 6),
    (Fault(other=b"<html>not what you asked for</html>"), "unreadable", 1),
    (Fault(other=face_file(99)), "", 1),
    (Fault(size=2**40), "too_large", 0),
]


@pytest.mark.parametrize(("way", "wrong"), crossed(WAYS[:2], WRONG))
def test_what_goes_wrong_with_an_object_is_its_row(
    way: tuple[str, ...], wrong: tuple[Fault, str, int], label: Any, store: Store, tmp_path: Path
) -> None:
    bad, (fault, kind, times) = keys()[7], wrong
    store.faults[bad] = fault
    done = label("s3://faces", "-o", "labels.csv", *way, read=1 if fault.hangs else 30)
    assert done.returncode == (3 if kind else 0), done.stderr
    found = rows(tmp_path / "labels.csv")
    assert len(found) == N
    assert {path: row["error_kind"] for path, row in found.items() if row["error_kind"]} == (
        {f"s3://faces/{bad}": kind} if kind else {}
    )
    assert store.asked[f"GET /faces/{bad}"] == times


@pytest.mark.parametrize(
    ("refuses", "path", "said"),
    [
        (False, "s3://nowhere/faces", "s3://nowhere/faces cannot be listed: there is no such bucket"),
        (False, "s3://faces/nothing", "no such object, and nothing below it: s3://faces/nothing"),
        (True, "s3://faces", "the store refuses it (403) (credentials come from AWS_ACCESS_KEY_ID"),
        (True, "URL/faces/", "the store refuses it (403) (credentials come from ~/.netrc)"),
        (False, "URL/nowhere/", "cannot be listed: there is no such"),
        (False, "s3://key:abc/def@faces/happy", "a s3:// path holds a name, a password or keys"),
        (False, "https://me:hush@example.org/faces", "a https:// path holds a name, a password or keys"),
        (False, "s3://", "s3:// names no bucket"),
    ],
)
def test_a_source_that_is_not_there_ends_the_run_with_a_sentence(
    refuses: bool, path: str, said: str, label: Any, store: Store, tmp_path: Path
) -> None:
    store.refuses = refuses
    done = label(path.replace("URL", store.address), "-o", "labels.csv")
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert said in done.stderr.decode()
    assert not [*tmp_path.glob("labels*")]
    for secret in ("verysecret", "AKIDEXAMPLE", "abc/def", "hush"):
        assert secret not in done.stderr.decode()


@pytest.mark.parametrize(
    ("status", "said"), [(403, "the store refuses it (403) (cred"), (503, "the store answers 503")]
)
def test_an_object_that_cannot_be_looked_at_is_not_said_to_be_missing(
    status: int, said: str, label: Any, store: Store
) -> None:
    store.buckets["faces"]["one/only.jpg"] = b"x"
    store.faults["one/only.jpg"] = Fault(status)
    done = label("s3://faces/one/only.jpg", "-o", "labels.csv")
    assert (done.returncode, f"only.jpg cannot be looked at: {said}" in done.stderr.decode()) == (2, True), done.stderr


def test_a_store_that_nobody_serves_ends_the_run(label: Any, store: Store) -> None:
    store.address = "http://127.0.0.1:9"
    for path in ("s3://faces", "http://127.0.0.1:9/faces/"):
        done = label(path, "-o", "labels.csv")
        assert done.returncode == 2
        assert b"does not answer" in done.stderr


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("source", ["s3://faces", "-"])
def test_an_incremental_run_fetches_what_is_new_or_changed(
    source: str, etags: bool, label: Any, store: Store, tmp_path: Path
) -> None:
    store.etags = etags

    def again() -> Any:
        listed = "\n".join(f"{store.address}/faces/{key}" for key in sorted(store.buckets["faces"]))
        return label(source, "-o", "labels.csv", "--incremental", input=listed.encode() if source == "-" else b"")

    changed, unreachable, *_ = keys()
    store.faults[unreachable] = Fault(503, times=6)
    assert again().returncode == 3
    store.asked.clear()
    store.faults.clear()
    store.buckets["faces"][changed] = face_file(500) + (b"" if etags else b"\0")  # of the same second
    store.buckets["faces"]["new.jpg"] = face_file(501)
    done = again()
    assert done.returncode == 0, done.stderr
    asked = {one.split(" ", 1)[1] for one in store.asked if one.startswith("GET") and one.endswith(".jpg")}
    assert asked == {f"/faces/{key}" for key in (changed, unreachable, "new.jpg")}
    assert len(rows(tmp_path / "labels.csv")) == N + 1


def test_a_run_that_was_stopped_goes_on(label: Any, store: Store, tmp_path: Path) -> None:
    done = label("s3://faces", "-o", "whole.csv", "--no-truth")
    assert done.returncode == 0, done.stderr
    store.faults[keys()[30]] = Fault(503, times=6)
    done = label("s3://faces", "-o", "labels.csv", "--no-truth", "--on-error", "stop", "--batch-size", "8")
    assert done.returncode == 3
    store.asked.clear()
    done = label("s3://faces", "-o", "labels.csv", "--no-truth", "--resume", "--batch-size", "8")
    assert done.returncode == 0, done.stderr
    assert 0 < sum(n for one, n in store.asked.items() if one.endswith(".jpg")) < N
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_no_secret_is_written_anywhere(label: Any, store: Store, tmp_path: Path) -> None:
    first, second, third, *_ = (f"{store.address}/faces/{key.replace(' ü+&', '')}" for key in keys())
    store.buckets["faces"] = {key.replace(" ü+&", ""): data for key, data in store.buckets["faces"].items()}
    signed = [
        f"{first}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDHUSH%2Fx&X-Amz-Signature=hush01",
        f"{second}?id=7&sv=2024&sig=hush02%3D",
        f"{third}?id=8&token=hush03",
        f"{third}?id=9&access_token=hush04",
        f"{store.address}/faces/gone.jpg?Expires=1&Signature=hush05&Key-Pair-Id=hush06",
    ]
    for more in ((), ("--incremental", "--verbose"), ("--overwrite", "--isolate", "--log-format", "json")):
        done = label("-", "-o", "labels.csv", "--log-file", "log", *more, input="\n".join(signed).encode())
        assert done.returncode == (0 if "--incremental" in more else 3), done.stderr
        assert b"hush" not in (done.stdout + done.stderr).lower()
    clean = [first, f"{second}?id=7", f"{third}?id=8", f"{third}?id=9", f"{store.address}/faces/gone.jpg"]
    assert [*rows(tmp_path / "labels.csv")] == clean
    files = [*tmp_path.rglob("*")]
    assert len(files) > 3
    for path in files:
        if path.is_file():
            for secret in (b"hush", b"verysecret", b"akidexample"):
                assert secret not in path.read_bytes().lower(), path
    assert label(signed[0], "-o", "one.csv").returncode == 0
    assert b"hush" not in (tmp_path / "one.csv.run.json").read_bytes() + (tmp_path / "one.csv.run.jsonl").read_bytes()


def test_objects_are_fetched_while_others_are_decoded(label: Any, store: Store) -> None:
    store.wait = 0.02
    done = label("s3://faces", "-o", "labels.csv", "--isolate", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert 16 <= store.most_at_once <= 64


def test_evaluate_reads_the_truth_from_a_store(
    store: Store, ferbatch_in: Ferbatch, tmp_path: Path, model: Path
) -> None:
    written(tmp_path, store)
    said = []
    for source in ("faces", "s3://faces"):
        faults = {"store": {"address": store.address}}
        done = ferbatch_in("evaluate", "--truth", source, "--model", model, "--format", "json", faults=faults)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.replace(b"s3://faces", b"faces"))
    assert said[0] == said[1]


def test_a_real_server_of_s3_is_read(moto: str, ferbatch_in: Ferbatch, tmp_path: Path, model: Path) -> None:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )
    client.create_bucket(Bucket="bucket")
    for at, key in enumerate(keys(12)):
        client.put_object(Bucket="bucket", Key=f"faces/{key}", Body=face_file(at))
    client.put_object(Bucket="bucket", Key="faces/notes.txt", Body=b"no image")

    def label(*more: str) -> Any:
        faults = {"store": {"address": moto}}
        return ferbatch_in("label", "s3://bucket/faces", "--model", model, *more, faults=faults)

    done = label()
    assert done.returncode == 0, done.stderr
    assert b"1 other file left aside" in done.stderr
    assert [*rows(tmp_path / "labels.csv")] == sorted(f"s3://bucket/faces/{key}" for key in keys(12))
    client.put_object(Bucket="bucket", Key=f"faces/{keys(12)[3]}", Body=face_file(77))
    done = label("--incremental", "--verbose")
    assert done.returncode == 0, done.stderr
    assert b"12 images, 1 to label" in done.stderr
