"""An archive in a bucket or on the web is labelled as it is from a file, in place."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import Fault, Store, serving
from support import Ferbatch, crossed, face_file, parquet_tools, rows_of

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

LABELS = ("happy", "sad", "neutral", "surprise")
FILES = {f"{LABELS[at % 4]}/{at:03} ü.jpg": face_file(at) for at in range(40)} | {
    "happy/broken.jpg": b"broken",
    "sad/notes.txt": b"no image",
    "sad/._0001.jpg": b"of a Mac",
    "sad/nosuffix": face_file(99),
    "../../out.jpg": face_file(98),
}
KINDS = ("zip", "tar", "tar.gz", "tar.zst", "parquet")
WAYS = [(), ("--isolate", "--workers", "2"), ("--no-isolate", "--workers", "2"), ("--workers", "0")]
PLACES = ["s3://faces", "URL/faces"]


def packed(kind: str, files: dict[str, bytes] = FILES) -> bytes:
    """An archive of this kind."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for at, (name, data) in enumerate(files.items()):
                archive.writestr(name, data, zipfile.ZIP_STORED if at % 2 else None)
    elif kind == "parquet":
        pa, pq = parquet_tools()
        images = [{"bytes": data, "path": name} for name, data in files.items()]
        pq.write_table(pa.table({"image": images}), stream, row_group_size=7)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if kind.endswith("gz") else "w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    if kind.endswith("zst"):
        zstandard = pytest.importorskip("zstandard", reason="zstandard is installed with ferbatch[zstd]")
        return bytes(zstandard.compress(stream.getvalue()))
    return stream.getvalue()


@pytest.fixture
def store() -> Iterator[Store]:
    with serving(Store({"faces": {}})) as one:
        yield one


@pytest.fixture
def label(store: Store, ferbatch_in: Ferbatch, model: Path) -> Callable[..., Any]:
    """Label what is in the store: label("s3://faces/x.zip") -> CompletedProcess."""

    def call(*args: str, **options: Any) -> Any:
        faults = {"store": {"address": store.address}}
        return ferbatch_in("label", *args, "--model", model, faults=faults, **options)

    return call


def content(path: Path, source: str) -> list[dict[str, str]]:
    return [{**row, "path": row["path"].removeprefix(source)} for row in rows_of(path)]


@pytest.mark.parametrize(
    ("way", "kind", "place"), [(*pair, PLACES[at % 2]) for at, pair in enumerate(crossed(WAYS, KINDS))]
)
def test_an_archive_is_labelled_as_it_is_from_a_file(
    way: tuple[str, ...], kind: str, place: str, label: Any, store: Store, tmp_path: Path
) -> None:
    place = place.replace("URL", store.address)
    store.buckets["faces"][f"in.{kind}"] = data = packed(kind)
    (tmp_path / f"in.{kind}").write_bytes(data)
    store.wait = 0.005
    assert label(f"in.{kind}", "-o", "local.csv").returncode == 3
    done = label(f"{place}/in.{kind}", "-o", "there.csv", *way)
    assert done.returncode == 3, done.stderr
    local, there = content(tmp_path / "local.csv", "in"), content(tmp_path / "there.csv", f"{place}/in")
    assert len(local) > 40
    assert there == local
    counts = [json.loads((tmp_path / f"{name}.csv.run.json").read_text()) for name in ("local", "there")]
    assert counts[0]["counts"] == counts[1]["counts"]
    assert [*tmp_path.glob("**/*ü*")] == []
    assert store.most_at_once <= 64


def test_only_what_changed_in_an_archive_is_labelled_again(label: Any, store: Store, tmp_path: Path) -> None:
    faces = {name: data for name, data in FILES.items() if name.startswith(LABELS) and name.endswith(" ü.jpg")}
    for kind, again in (("zip", 2), ("tar", 2), ("parquet", 40)):
        store.buckets["faces"][f"in.{kind}"] = packed(kind, faces)
        command = (f"s3://faces/in.{kind}", "-o", f"{kind}.csv", "--verbose")
        assert label(*command).returncode == 0
        store.asked.clear()
        assert b"40 images, 0 to label" in label(*command, "--incremental").stderr
        changed = {**faces, "sad/001 ü.jpg": face_file(500) + b"\0"}
        del changed["sad/005 ü.jpg"]
        store.buckets["faces"][f"in.{kind}"] = packed(kind, {**changed, "new.jpg": face_file(501)})
        done = label(*command, "--incremental")
        assert done.returncode == 0, done.stderr
        this_run = json.loads((tmp_path / f"{kind}.csv.run.json").read_text())["this_run"]
        assert (this_run["processed"], this_run["gone"]) == (again, 1)
        assert label(f"s3://faces/in.{kind}", "-o", "whole.csv", "--overwrite").returncode == 0
        assert (tmp_path / f"{kind}.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_run_on_an_archive_goes_on(label: Any, store: Store, tmp_path: Path) -> None:
    for kind in ("zip", "tar.gz"):
        store.buckets["faces"]["in"] = b""
        store.buckets["faces"][f"in.{kind}"] = packed(kind)
        options = ("--no-truth", "--batch-size", "8")
        assert label(f"s3://faces/in.{kind}", "-o", f"{kind}.whole.csv", *options).returncode == 3
        stopped = label(f"s3://faces/in.{kind}", "-o", f"{kind}.csv", *options, "--on-error", "stop")
        assert stopped.returncode == 3
        done = label(f"s3://faces/in.{kind}", "-o", f"{kind}.csv", *options, "--resume")
        assert done.returncode == 3, done.stderr
        assert (tmp_path / f"{kind}.csv").read_bytes() == (tmp_path / f"{kind}.whole.csv").read_bytes()


def test_no_more_is_fetched_than_is_needed(label: Any, store: Store) -> None:
    """Of a zip what says where its members are, and each once; a tar is read through first."""
    noise = {f"{at}.bin": bytes(at for _ in range(2**16)) for at in range(200)}  # as others may lie in it
    faces = {name: data for name, data in FILES.items() if name.startswith(LABELS) and name.endswith("ü.jpg")}
    for kind, most in (("zip", 0.4), ("tar", 1.1)):
        with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:  # all of it stored
            for name, data in {**noise, **faces}.items():
                archive.writestr(name, data)
        data = stream.getvalue() if kind == "zip" else packed("tar", {**noise, **faces})
        store.buckets["faces"][f"in.{kind}"] = data
        store.sent = 0
        done = label(f"s3://faces/in.{kind}", "-o", f"{kind}.csv", "--exclude", "*.bin")
        assert done.returncode == 0, done.stderr
        assert store.sent < most * len(data)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_small_members_beside_each_other_are_fetched_together(kind: str, label: Any, store: Store) -> None:
    faces = {f"{at:03}.jpg": face_file(at) for at in range(200)}
    store.buckets["faces"][f"in.{kind}"] = packed(kind, faces)
    done = label(f"s3://faces/in.{kind}", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert sum(store.asked.values()) < 30
    store.buckets["faces"][f"in.{kind}"] = packed(kind, dict(reversed(faces.items())))
    assert label(f"s3://faces/in.{kind}", "-o", "back.csv").returncode == 0
    assert sum(store.asked.values()) > 200


def damaged_zip() -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            archive.writestr(name, face_file(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("c.jpg", face_file(2))
        with archive.open("bomb.jpg", "w") as big:
            for _ in range(300):
                big.write(bytes(2**20))
        archive.writestr("stored.jpg", face_file(3), zipfile.ZIP_STORED)
        archive.writestr("lzma.jpg", face_file(3), zipfile.ZIP_LZMA)
    data = bytearray(stream.getvalue())
    at = data.find(face_file(3))
    data[at + 100] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("way", WAYS[:2])
def test_bombs_duplicates_and_damage_are_what_they_are_in_files(
    way: tuple[str, ...], label: Any, store: Store, tmp_path: Path
) -> None:
    store.buckets["faces"]["x.zip"] = data = damaged_zip()
    (tmp_path / "x.zip").write_bytes(data)
    label("x.zip", "-o", "local.csv")
    done = label("s3://faces/x.zip", "-o", "there.csv", *way)
    assert done.returncode == 3, done.stderr
    there = content(tmp_path / "there.csv", "s3://faces/")
    kinds = {row["path"]: row["error_kind"] for row in there}
    assert {name.removeprefix("x.zip/"): kind for name, kind in kinds.items()} == {
        **{"a.jpg": "", "b.jpg": "", "c.jpg": "", "c.jpg#2": "", "bomb.jpg": "too_large"},
        **{"lzma.jpg": "unreadable", "stored.jpg": "unreadable"},
    }
    assert there == content(tmp_path / "local.csv", "")


@pytest.mark.parametrize(("kind", "name"), [("zip", "x.zip"), ("tar.gz", "x.tar.gz"), ("tar", "x.tar")])
def test_what_cannot_be_looked_into_ends_the_run(
    kind: str, name: str, label: Any, store: Store, tmp_path: Path
) -> None:
    wrong: list[tuple[bytes, Fault | None, str]] = [
        (b"no archive, whatever it is called" * 100, None, "cannot be read as an archive"),
        (packed(kind)[:-12_000], None, "cannot be read as an archive"),
        (packed(kind), Fault(403), "the store refuses it"),
        (packed(kind), Fault(503), "the store answers 503"),
    ]
    for data, fault, said in wrong:
        store.buckets["faces"][name] = data
        store.faults = {name: fault} if fault else {}
        done = label(f"{store.address}/faces/{name}", "-o", "labels.csv")
        assert done.returncode == 2, done.stderr
        assert said in done.stderr.decode()
        assert not [*tmp_path.glob("labels*")]
    store.faults, store.ranges = {}, False
    store.buckets["faces"][name] = packed(kind)
    done = label(f"{store.address}/faces/{name}", "-o", "labels.csv")
    assert done.returncode == 2
    assert b"its server does not send parts of a file" in done.stderr


def test_a_part_that_is_another_one_is_no_image(label: Any, store: Store, tmp_path: Path) -> None:
    store.buckets["faces"]["in.tar"] = packed("tar", {f"{at}.jpg": face_file(at) for at in range(4)})
    assert label(f"{store.address}/faces/in.tar", "-o", "right.csv").returncode == 0
    store.faults["in.tar"] = Fault(shift=512)
    done = label(f"{store.address}/faces/in.tar", "-o", "labels.csv")
    assert done.returncode == 2
    assert b"its server does not send parts of a file" in done.stderr


def test_a_member_that_says_to_be_large_packed_is_not_fetched(label: Any, store: Store, tmp_path: Path) -> None:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("a.jpg", face_file(0))
        archive.writestr("b.bin", bytes(2**21))
    data = bytearray(stream.getvalue())
    at = data.index(b"PK\1\2") + 20  # where the directory says how much a.jpg takes
    data[at : at + 4] = (2**20).to_bytes(4, "little")
    (tmp_path / "in.zip").write_bytes(data)
    store.buckets["faces"]["in.zip"] = bytes(data)
    for path in ("in.zip", "s3://faces/in.zip"):
        store.sent = 0
        assert label(path, "-o", "labels.csv", "--exclude", "*.bin", "--overwrite").returncode == 3
        row = rows_of(tmp_path / "labels.csv")[0]
        assert row["error"].startswith("damaged in its archive: 1,048,576 bytes, packed, for ")
    assert store.sent < 2**21


@pytest.mark.parametrize(("kind", "way"), crossed(["zip", "tar", "tar.gz"], WAYS[:2]))
def test_a_store_that_fails_for_a_while_costs_nothing(
    kind: str, way: tuple[str, ...], label: Any, store: Store
) -> None:
    store.buckets["faces"][f"in.{kind}"] = packed(kind, {f"{at}.jpg": face_file(at) for at in range(20)})
    store.faults[f"in.{kind}"] = Fault(short=10, times=3)
    done = label(f"s3://faces/in.{kind}", "-o", "labels.csv", *way)
    assert done.returncode == 0, done.stderr


def test_an_archive_that_is_replaced_meanwhile_gives_no_label(
    label: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = packed("tar", {f"{at}.jpg": face_file(at) for at in range(20)})
    other = packed("tar", {f"{at}.jpg": face_file(at + 50) for at in range(20)})
    store.buckets["faces"]["in.tar"] = data
    answer, times = store.answer, iter(range(1_000))

    def replaced(method: str, target: str) -> Any:
        if method == "GET" and "in.tar" in target and "list-type" not in target and next(times) == 1:
            store.buckets["faces"]["in.tar"] = other
        return answer(method, target)

    monkeypatch.setattr(store, "answer", replaced)
    done = label("s3://faces/in.tar", "-o", "labels.csv")
    assert done.returncode == 3, done.stderr
    rows = rows_of(tmp_path / "labels.csv")
    assert {row["error"] for row in rows if row["status"] == "error"} == {"its archive was changed meanwhile"}
    assert label("s3://faces/in.tar", "-o", "labels.csv", "--overwrite").returncode == 0


def test_shards_are_named_by_numbers_or_by_a_pattern(label: Any, store: Store, tmp_path: Path) -> None:
    for at in range(12):
        files = {
            f"{at}-{n}.{ending}": data for n in range(3) for ending, data in (("jpg", face_file(n)), ("cls", b"1"))
        }
        store.buckets["faces"][f"shards/shard-{at:03}.tar"] = packed("tar", files)
    store.buckets["faces"]["shards/list.txt"] = b"no shard"
    names = [f"shard-{at:03}.tar" for at in range(12)]
    for place in ("s3://faces", f"{store.address}/faces"):
        for pattern, wanted in {
            "shard-{000..009}.tar": names[:10],
            "shard-{008..011}.tar": names[8:],
            "*.tar": names,
            "shard-00*.tar": names[:10],
        }.items():
            done = label(f"{place}/shards/{pattern}", "-o", "labels.csv", "--overwrite")
            assert done.returncode == 0, done.stderr
            rows = [row["path"] for row in rows_of(tmp_path / "labels.csv")]
            assert rows == [f"{place}/shards/{name}/{int(name[6:9])}-{n}.jpg" for name in wanted for n in range(3)]
    listed = "\n".join(f"s3://faces/shards/{name}" for name in names[:2]).encode()
    assert label("-", "-o", "labels.csv", "--overwrite", input=listed).returncode == 0
    assert len(rows_of(tmp_path / "labels.csv")) == 6
    for path, said in {
        "s3://faces/shards/*.zip": "nothing in s3://faces/shards/ is called like *.zip",
        "s3://faces/shards/{1..999999}.tar": "stands for 999,999 paths",
    }.items():
        done = label(path, "-o", "none.csv")
        assert done.returncode == 2
        assert said in done.stderr.decode()
    done = label("s3://faces/shards", "-o", "none.csv")
    assert done.returncode == 4
    assert b"12 archives (name one to label what it holds)" in done.stderr


def test_an_archive_behind_a_signed_url_is_read_and_the_signature_written_nowhere(
    label: Any, store: Store, tmp_path: Path
) -> None:
    for kind in ("zip", "tar.gz"):
        store.buckets["faces"][f"in.{kind}"] = packed(kind)
        url = f"{store.address}/faces/in.{kind}"
        for way in WAYS[:2]:
            done = label(f"{url}?sv=1&sig=hush", "-o", "labels.csv", "--overwrite", "--verbose", *way)
            assert done.returncode == 3, done.stderr
            assert b"hush" not in done.stderr
            assert all(row["path"].startswith(f"{url}/") for row in rows_of(tmp_path / "labels.csv"))
        for path in tmp_path.glob("labels*"):
            assert b"hush" not in path.read_bytes()


def test_evaluate_takes_the_truth_from_an_archive_in_a_store(
    store: Store, ferbatch_in: Ferbatch, tmp_path: Path, model: Path
) -> None:
    for kind in ("zip", "tar.gz"):
        (tmp_path / f"in.{kind}").write_bytes(packed(kind))
        store.buckets["faces"][f"in.{kind}"] = packed(kind)
        said = []
        for source in (f"in.{kind}", f"s3://faces/in.{kind}"):
            faults = {"store": {"address": store.address}}
            done = ferbatch_in("evaluate", "--truth", source, "--model", model, "--format", "json", faults=faults)
            assert done.returncode == 3, done.stderr
            said.append(done.stdout.replace(b"s3://faces/", b""))
        assert said[0] == said[1]


def test_a_real_server_of_s3_gives_parts_of_archives(ferbatch_in: Ferbatch, tmp_path: Path, model: Path) -> None:
    server = pytest.importorskip("moto.server", reason="moto is installed with ferbatch[test]")
    import boto3

    one = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    one.start()
    try:
        address = "http://{}:{}".format(*one.get_host_and_port())
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="bucket")
        for kind in ("zip", "tar", "tar.gz", "parquet"):
            (tmp_path / f"in.{kind}").write_bytes(packed(kind))
            client.put_object(Bucket="bucket", Key=f"a/in.{kind}", Body=packed(kind))
            assert (
                ferbatch_in("label", f"in.{kind}", "-o", "local.csv", "--overwrite", "--model", model).returncode == 3
            )
            command = ("label", f"s3://bucket/a/in.{kind}", "-o", "there.csv", "--overwrite", "--model", model)
            done = ferbatch_in(*command, faults={"store": {"address": address}})
            assert done.returncode == 3, done.stderr
            assert content(tmp_path / "there.csv", "s3://bucket/a/in") == content(tmp_path / "local.csv", "in")
    finally:
        one.stop()
