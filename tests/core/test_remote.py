"""Objects of stores: which paths lead to them, what may be said of them, and how they are fetched."""

from __future__ import annotations

import asyncio
import io
import tarfile
import tracemalloc
import zipfile
from calendar import timegm
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from time import strptime
from urllib.parse import quote

import pytest
from stores import Fault, Store, serving
from support import face_file

from ferbatch.core.batch import References
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.files import stat_of, version_of
from ferbatch.core.records import NO_VERSION, Decoding, Version, Workers
from ferbatch.core.stores import ahead, known, remote, signing, urls
from ferbatch.core.stores.answers import StoreError
from ferbatch.sources.listing import list_images
from ferbatch.stream.pool import Pool

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

N = 200
FILES = [f"s3://faces/{at:03}.jpg".encode() for at in range(N)]


class Listed:
    """Objects as images."""

    def __len__(self) -> int:
        return len(FILES)

    def references(self, indices: range) -> References:
        files = [FILES[at] for at in indices]
        return References([file.decode() for file in files], files, [None] * len(files))


@pytest.fixture
def store(fault: Callable[..., None]) -> Iterator[Store]:
    with serving(Store({"faces": {f"{at:03}.jpg": face_file(at) for at in range(N)}})) as one:
        fault("store", address=one.address)
        yield one
        if remote._ahead:
            remote._ahead.close()


@pytest.mark.parametrize(
    ("path", "is_one"),
    [("s3://b/k", True), ("S3://b/k", True), ("https://h/x.jpg", True), ("abfss://c@a.dfs.core.windows.net/k", True)]
    + [(path, False) for path in ("s3:/b/k", "faces/s3://b", "ftp://h/x", "./s3://b", "", "://", "C:\\x")],
)
def test_a_path_leads_into_a_store_by_its_scheme(path: str, is_one: bool) -> None:
    assert urls.is_remote(path.encode()) == is_one


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://h/a.jpg?X-Amz-Credential=k&X-Amz-Signature=s", "https://h/a.jpg"),
        ("https://h/a.jpg?x-goog-signature=s&alt=media", "https://h/a.jpg?alt=media"),
        ("https://h/a.jpg?sv=1&se=2&sig=s&id=3", "https://h/a.jpg?id=3"),
        ("https://h/a.jpg?hdnts=exp~hmac&id=3", "https://h/a.jpg?id=3"),
        ("https://h/a.jpg?jwt=e.y.J&id=3", "https://h/a.jpg?id=3"),
        ("https://h/a.jpg?Policy=p&Signature=s&Key-Pair-Id=k", "https://h/a.jpg"),
        ("https://h/a.jpg?apikey=s&n=1#part", "https://h/a.jpg?n=1"),
        ("https://h/a.jpg?id=1&size=2", "https://h/a.jpg?id=1&size=2"),
        ("http://h:80/a.jpg", "http://h:80/a.jpg"),
        ("http://[::1]:80/a@b:c.jpg", "http://[::1]:80/a@b:c.jpg"),
        ("s3://bucket/a?sig=1", "s3://bucket/a?sig=1"),
        ("abfs://container@account/a", "abfs://container@account/a"),
        ("s3://arn:aws:s3:eu:1:accesspoint/x/a", "s3://arn:aws:s3:eu:1:accesspoint/x/a"),
        ("faces/a.jpg?sig=1", "faces/a.jpg?sig=1"),
    ],
)
def test_what_signs_a_url_is_no_part_of_its_path(store: Store, url: str, clean: str) -> None:
    assert urls.cleaned(url.encode()).decode() == clean
    assert urls.whole(clean.encode()) == url
    assert urls.cleaned(clean.encode()).decode() == clean


@pytest.mark.parametrize(
    "path",
    [
        "https://a:hush@h/x",
        "https://hush@h/x",
        "http://a:hu/sh@h/x",
        "s3://k:hush@b/x",
        "s3://k:hu/sh@b/x",
        "gs://k:hush@b",
    ],
)
def test_a_path_with_a_password_is_refused_and_not_repeated(path: str) -> None:
    with pytest.raises(UsageError, match="name, a password or keys") as said:
        urls.cleaned(path.encode())
    assert "hu" not in str(said.value).replace("HF_", "")


@pytest.mark.parametrize("token", [None, "a/token+="])
@pytest.mark.parametrize(
    "start", ["http://host:9000", "http://host:80", "https://host:443", "https://host:80", "http://h"]
)
@pytest.mark.parametrize("key", ["a.jpg", "a b/ü+&=~(1).jpg", "%41/x"])
def test_a_signature_is_botocores(key: str, start: str, token: str | None) -> None:
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"{start}/bucket/{quote(key, safe='/-_.~')}"
    request = AWSRequest("GET", url)
    botocore.auth.S3SigV4Auth(Credentials("AK", "secret", token), "s3", "eu-west-1").add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    at = timegm(strptime(theirs["x-amz-date"], "%Y%m%dT%H%M%SZ"))
    keys = signing.Keys("AK", "secret", token)
    ours = {name.lower(): value for name, value in signing.signed(url, "eu-west-1", keys, at).items()}
    assert ours == theirs


def test_a_listed_object_costs_24_bytes() -> None:
    n, index = 50_000, known.Index()
    tracemalloc.start()
    for at in range(n):
        index.add(b"s3://faces/%d" % at, Version(at, at))
    assert index.find(b"s3://faces/7") == Version(7, 7)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 26 * n
    index.add(b"s3://faces/7", Version(8, 8))
    assert index.find(b"s3://faces/7") == Version(8, 8)
    assert index.find(b"s3://faces/none") is None


def test_an_object_is_known_by_its_size_and_etag_whoever_says_it(store: Store) -> None:
    listed = [entry for page in remote.ahead().pages(b"s3://faces/", True) for entry in page]
    assert [b"s3://faces/" + entry.name for entry in listed] == FILES
    file, url = FILES[3], f"{store.address}/faces/003.jpg".encode()
    remote.expect([file, url])
    versions = {listed[3].version, version_of(file), version_of(url), *remote.ahead().versions([file, url])}
    assert len(versions) == 1
    store.buckets["faces"]["003.jpg"] = face_file(3)[:-1] + b"\0"
    assert remote.ahead().versions([file])[0] not in versions
    assert version_of(b"s3://faces/none.jpg") == NO_VERSION
    assert stat_of(b"s3://faces/none.jpg") is None


@pytest.mark.parametrize("compute", [True, False])  # forked, or started afresh
def test_processes_fetch_with_connections_of_their_own(store: Store, compute: bool) -> None:
    for page in remote.ahead().pages(b"s3://faces/", True):
        for entry in page:
            assert entry.version
            known.index.add(b"s3://faces/" + entry.name, entry.version)
    forkserver._forkserver._stop()  # one that another test started has its environment, in which there is no store
    listed = [version_of(file) for file in FILES]
    store.faults["007.jpg"] = Fault(other=face_file(500))  # another one by the time that it is fetched
    workers, images = Workers(2, isolate=True), Listed()
    with Pool(Decoding(48), workers, 16, (lambda batch: batch) if compute else None) as pool:
        batches = [*pool.batches(images)]
    assert [tuple(version) for batch in batches for version in batch.versions.tolist()] == listed
    assert not any(batch.failures for batch in batches)
    assert sum(n for asked, n in store.asked.items() if asked.startswith("GET") and asked.endswith("jpg")) == N
    assert remote.read(FILES[0]) == face_file(0)  # this process goes on with its own


@pytest.mark.parametrize("compute", [False, True])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_processes_read_archives_that_this_one_looked_into(store: Store, kind: str, compute: bool) -> None:
    faces = {f"{at:03}.jpg": face_file(at) for at in range(N)}
    with tarfile.open(fileobj=(tar := io.BytesIO()), mode="w:gz" if kind.endswith("gz") else "w") as packed:
        for name, data in faces.items():
            (info := tarfile.TarInfo(name)).size = len(data)
            packed.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(zipped := io.BytesIO(), "w") as archive:
        for name, data in faces.items():
            archive.writestr(name, data)
    store.buckets["faces"][f"in.{kind}"] = (zipped if kind == "zip" else tar).getvalue()
    listing = list_images([urls.without_secret(f"{store.address}/faces/in.{kind}?sig=s")], ())
    with Pool(Decoding(48), Workers(2, isolate=True), 16, (lambda batch: batch) if compute else None) as pool:
        batches = [*pool.batches(listing)]
    assert sum(len(batch) for batch in batches) == N
    assert not any(batch.failures for batch in batches)
    assert [tuple(version) for batch in batches for version in batch.versions.tolist()] == [
        version_of(file) for file in listing.files()
    ]


def test_what_waits_to_be_asked_for_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "HELD", 10 * len(face_file(0)))
    mine = remote.ahead()
    remote.look_at(FILES)
    store.asked.clear()
    remote.expect(FILES)
    remote.wait_for(FILES[0])
    remote.wait_for(FILES[5])
    mine.wait(settled(mine))
    assert 6 <= sum(store.asked.values()) <= 20
    assert [remote.read(file) for file in FILES] == [face_file(at) for at in range(N)]
    assert mine.begun == mine.taken
    assert not mine.coming


async def settled(mine: ahead.Ahead) -> None:
    while mine.running:
        await asyncio.sleep(0.001)


def test_an_error_of_a_store_repeats_nothing_that_its_package_says(store: Store) -> None:
    store.faults["000.jpg"] = Fault(403)
    with pytest.raises(UnreadableImageError, match=r"^the store refuses it \(403\)$") as said:
        remote.read(FILES[0])
    assert said.value.kind == "permission"
    store.faults["001.jpg"] = Fault(503)
    with pytest.raises(UnreadableImageError, match=r"^the store answers 503$"):
        remote.read(FILES[1])
    assert store.asked["GET /faces/001.jpg"] == ahead.patience.attempts


def test_a_host_that_is_gone_is_not_asked_again_and_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, asked = [b"http://gone.test/%d.jpg" % at for at in range(30)], list[bytes]()
    one = remote.ahead(connections=1)

    async def fetch(file: bytes) -> object:
        asked.append(file)
        if file.startswith(b"http://gone.test"):
            raise StoreError("unreachable", "no answer", passing=True, silent=True)
        raise StoreError("unreachable", "busy", passing=True)

    monkeypatch.setattr(one.stores, "fetch", fetch)
    for files, times in ((gone, 3 * 6 + 27), (FILES[:5], 5 * 6), (gone[:2], 2)):
        asked.clear()
        for file in files:
            with pytest.raises(UnreadableImageError):
                remote.read(file)
        assert len(asked) == times
