"""What lies in stores is listed as what lies in folders is, by whatever package reads them."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem
from stores import Store, serving
from support import face_file

from ferbatch.core import archives
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.files import version_of, versions_of
from ferbatch.core.records import MARKER, Rules
from ferbatch.core.stores import known, remote, urls
from ferbatch.images.decode import read_bytes
from ferbatch.sources.listing import Listing, list_images, look_through

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")

LABELS = ("happy", "sad", "neutral", "surprise")
OBJECTS = {
    key: face_file(at)
    for at, key in enumerate(
        [
            *("a/b/1.jpg", "a/b-c/2.jpg", "a/b.jpg", "a/é ü.png", "happy/x/3.jpg", "sad/4.JPG", "z.jpg", "notes.txt"),
            *(
                ".hidden.jpg",
                "a/.thumbnails/5.jpg",
                "@eaDir/x/6.jpg",
                "a/noname",
                "7.part",
                "raw/8.jpg",
                "raw/sad/9.jpg",
            ),
            *("crops/1.jpg", "crops/sad/1.jpg", "a/b/c/d/e.jpg"),
        ]
    )
} | {"notes.txt": b"no image", f"crops/{MARKER}": b"", "a/empty/": b""}


class Blocking(AbstractFileSystem):
    """A store whose package blocks, as that of the Hugging Face Hub does."""

    protocol = ("gs", "gcs")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        below = [key for key in (f"bucket/{key}" for key in OBJECTS) if key.startswith(f"{path.rstrip('/')}/")]
        if not below:
            raise FileNotFoundError(path)
        names = {path.rstrip("/") + "/" + key[len(path.rstrip("/")) + 1 :].partition("/")[0] for key in below}
        return [self.info(name) for name in names]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        key = path.removeprefix("bucket/")
        if key in OBJECTS:
            return {"name": path, "type": "file", "size": len(OBJECTS[key]), "md5Hash": str(hash(OBJECTS[key]))}
        if any(one.startswith(f"{key}/") for one in OBJECTS) or path == "bucket":
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if path == "bucket/z.jpg":
            raise PermissionError("Bearer verysecret is not good enough")
        return OBJECTS[path.removeprefix("bucket/")][start:end]


class Waiting(AsyncFileSystem):
    """A store whose package has one event loop for all, as those of Google and Azure do."""

    protocol = ("gs", "gcs")
    within = Blocking(skip_instance_cache=True)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        return self.within.ls(path)

    async def _info(self, path: str, **_: Any) -> Any:
        return self.within.info(path)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self.within.cat_file(path, start, end)


@pytest.fixture(params=["s3", "blocking", "waiting"])
def bucket(
    request: pytest.FixtureRequest, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The path of a bucket that holds OBJECTS."""
    with serving(Store({"bucket": dict(OBJECTS)}, page=3)) as store:
        fault("store", address=store.address)
        monkeypatch.setitem(urls.STORES, "gs", urls.Store(("fsspec",), "gcs", "nowhere"))
        monkeypatch.setitem(_registry, "gs", Blocking if request.param == "blocking" else Waiting)
        yield "s3://bucket" if request.param == "s3" else "gs://bucket"
        if remote._ahead:
            remote._ahead.close()


def folder(where: Path) -> Path:
    for key, data in OBJECTS.items():
        path = where / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if not key.endswith("/"):
            path.write_bytes(data)
    return where / "bucket"


def found(listing: Listing) -> list[tuple[bytes, str | None]]:
    return [(listing[at].file, listing[at].truth) for at in range(len(listing))]


@pytest.mark.parametrize(
    ("rules", "recursive"),
    [
        (Rules(), True),
        (Rules(hidden=True), True),
        (Rules(exclude=("raw/", "*.png", "/a/b/*", "!/a/b/1.jpg")), True),
        (Rules(), False),
    ],
)
def test_a_bucket_is_listed_as_the_folder_that_it_would_be(
    bucket: str, rules: Rules, recursive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.fsencode(folder(tmp_path))
    local = list_images([here], LABELS, rules=rules, recursive=recursive)
    there = list_images([bucket], LABELS, rules=rules, recursive=recursive)
    assert [(file.replace(bucket.encode(), here), truth) for file, truth in found(there)] == found(local)
    assert there.left == local.left
    told: list[tuple[bytes, Any]] = []
    look_through([bucket], lambda path, reason: told.append((path, reason)), rules=rules, recursive=recursive)
    assert [path for path, reason in told if reason.kind == "taken"] == [file for file, _ in found(there)]


def test_each_object_is_listed_once_however_it_is_reached(bucket: str) -> None:
    everything = found(list_images([bucket], ()))
    paths = [f"{bucket}/a/b/1.jpg", f"{bucket}/a", bucket, f"{bucket}/sad/"]
    several = found(list_images(paths, ()))
    assert several[0] == everything[[file for file, _ in everything].index(os.fsencode(f"{bucket}/a/b/1.jpg"))]
    assert sorted(several) == everything
    listed = [os.fsencode(f"{bucket}/a/"), os.fsencode(f"{bucket}/none.jpg")]
    assert found(list_images(["-"], (), listed=listed))[-1] == (os.fsencode(f"{bucket}/none.jpg"), None)


def test_the_folder_that_is_named_may_be_the_truth(bucket: str) -> None:
    assert {truth for _, truth in found(list_images([f"{bucket}/sad", f"{bucket}/happy/x"], LABELS))} == {"sad", None}


def test_what_ferbatch_wrote_is_no_source(bucket: str) -> None:
    with pytest.raises(UsageError, match="was written by ferbatch"):
        list_images([f"{bucket}/crops"], ())


def test_what_is_not_there_is_said(bucket: str) -> None:
    with pytest.raises(UsageError, match=r"no such (object|bucket)"):
        list_images([f"{bucket}/none"], ())


def test_objects_are_read_and_their_versions_known(bucket: str) -> None:
    files = [file for file, _ in found(list_images([bucket], ())) if not file.endswith(b"z.jpg")]
    listed = versions_of(files)
    assert [read_bytes(file) for file in files] == [OBJECTS[file.decode().removeprefix(f"{bucket}/")] for file in files]
    known.index = known.Index()
    assert versions_of(files) == listed
    known.index = known.Index()
    remote.expect(files)
    assert [version_of(file) for file in files] == listed


@pytest.mark.parametrize("package", [Blocking, Waiting])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_read_by_whatever_package(
    kind: str, package: type, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = {f"sad/{at}.jpg": face_file(at) for at in range(9)} | {"unnamed": face_file(9), "notes.txt": b"no image"}
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name, data in faces.items():
            archive.writestr(name, data)
    if kind != "zip":
        with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in faces.items():
                (info := tarfile.TarInfo(name)).size = len(data)
                tar.addfile(info, io.BytesIO(data))
    fault("store", address="http://127.0.0.1:9")
    monkeypatch.setitem(urls.STORES, "gs", urls.Store(("fsspec",), "gcs", "nowhere"))
    monkeypatch.setitem(_registry, "gs", package)
    monkeypatch.setitem(OBJECTS, f"in.{kind}", stream.getvalue())
    listing = list_images([f"gs://bucket/in.{kind}"], LABELS)
    wanted = [*sorted(name for name in faces if name.startswith("sad")), *(["unnamed"] if kind != "tar.gz" else [])]
    assert [*listing.files()] == [f"gs://bucket/in.{kind}/{name}".encode() for name in wanted]
    assert [read_bytes(file) for file in listing.files()] == [faces[name] for name in wanted]
    assert [ref.truth for ref in listing][:9] == ["sad"] * 9
    monkeypatch.setitem(OBJECTS, f"in.{kind}", b"")  # the store has it no more
    if remote._ahead:
        remote._ahead.close()
    monkeypatch.setattr(remote, "_ahead", None)
    archives._open_ones.clear()
    archives._streamed.clear()
    with pytest.raises(UnreadableImageError):
        read_bytes(next(listing.files()))
