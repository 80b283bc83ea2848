"""What is at a URL, however its server is reached; and how many objects are on their way to S3 at once."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import os
import re
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stores import Fault, Store, serving
from support import face_file

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.stores import remote
from ferbatch.core.stores.answers import StoreError
from ferbatch.core.stores.patience import WIDEST, Width
from ferbatch.core.stores.web import encoded

pytest.importorskip("pycurl", reason="pycurl is installed with ferbatch[http]")
pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")

KEYS = ["a.jpg", "a b/ü+&.jpg", "50%.jpg", "a/../b.jpg"]
FACES = {key: face_file(at) for at, key in enumerate(KEYS)}


@pytest.fixture
def store(fault: Callable[..., None]) -> Iterator[Store]:
    with serving(Store({"faces": dict(FACES)})) as one:
        fault("store", address=one.address)
        yield one
        if remote._ahead:
            remote._ahead.close()


def header(store: Store, name: str) -> str | None:
    """What the last request said in a header."""
    lines = [line.partition(": ") for line in store.head.decode("latin-1").split("\r\n")]
    return next((value for key, _, value in lines if key.lower() == name), None)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h/a.jpg", "http://h/a.jpg"),
        ("http://h/a b%.jpg", "http://h/a%20b%25.jpg"),
        ("http://h/a%20b ü.jpg", "http://h/a%20b%20%C3%BC.jpg"),
        ("http://h?q=ü b#part", "http://h?q=%C3%BC%20b#part"),
        ("https://bücher.example:80/ü", "https://xn--bcher-kva.example:80/%C3%BC"),
        ("http://[::1]:80/a@b:c.jpg", "http://[::1]:80/a@b:c.jpg"),
    ],
)
def test_a_url_is_sent_as_urls_are(url: str, sent: str) -> None:
    assert encoded(url) == sent


@pytest.mark.parametrize("url", ["http:///a.jpg", "http://?a", "nothing", "http://\udcff/a"])
def test_a_url_without_a_host_is_none(url: str) -> None:
    with pytest.raises(StoreError, match="there can be no such object") as said:
        encoded(url)
    assert said.value.kind == "not_found"


@pytest.mark.parametrize("key", KEYS)
def test_an_object_of_s3_is_read_whatever_its_key(key: str, store: Store) -> None:
    assert remote.read(f"s3://faces/{key}".encode()) == FACES[key]
    assert "Signature=" in (header(store, "authorization") or "")


def test_a_version_of_an_object_is_that_version(fault: Callable[..., None], moto: str, bucket: Any) -> None:
    fault("store", address=moto)
    bucket.Versioning().enable()
    try:
        first, last = face_file(1), face_file(2) + b"longer"
        version = bucket.put_object(Key="a b.jpg", Body=first).version_id
        bucket.put_object(Key="a b.jpg", Body=last)
        file = f"s3://bucket/a b.jpg?versionId={version}".encode()
        assert remote.read(file) == first
        [looked] = remote.ahead().versions([file])
        assert looked.size == len(first)
        assert remote.ahead().begins([file], 300) == [first[:300]]
        assert remote.read(b"s3://bucket/a b.jpg") == last
        bucket.Object("a b.jpg").delete()
        remote.forget([file])
        assert remote.read(file) == first
    finally:
        bucket.object_versions.delete()
        if remote._ahead:
            remote._ahead.close()


def test_what_is_signed_is_led_nowhere(store: Store) -> None:
    with serving(Store({"faces": dict(FACES)})) as other:
        store.faults["a.jpg"] = Fault(302, location=f"{other.address}/faces/a.jpg")
        assert remote.read(f"{store.address}/faces/a.jpg".encode()) == FACES["a.jpg"]
        assert other.asked.pop("GET /faces/a.jpg") == 1
        mine = remote.ahead()
        with pytest.raises(StoreError, match="the store answers 302"):
            mine.wait(mine.stores.signing.get(f"{store.address}/faces/a.jpg", {"Authorization": "all"}))
        assert not other.asked


def test_passwords_of_netrc_are_for_the_web_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    remote.read(f"{store.address}/faces/a.jpg".encode())
    assert header(store, "authorization") == "Basic bWU6aHVzaA=="
    remote.read(b"s3://faces/a.jpg")
    assert (header(store, "authorization") or "").startswith("AWS4-HMAC-SHA256 ")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_a_proxy_of_the_environment_is_asked(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, store.address)
    monkeypatch.setattr("ferbatch.core.stores.ahead.patience.attempts", 1)
    for asked in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(asked, raising=False)
    assert remote.read(b"http://nowhere.test/faces/a.jpg") == FACES["a.jpg"]
    assert store.head.startswith(b"GET http://nowhere.test/faces/a.jpg ")
    monkeypatch.setenv("no_proxy", store.address.removeprefix("http://"))
    remote.read(f"{store.address}/faces/a b/ü+&.jpg".encode())
    assert store.head.startswith(b"GET /faces/a%20b/")
    monkeypatch.setenv("no_proxy", "nowhere.test")
    with pytest.raises(UnreadableImageError, match="RESOLVE_HOST"):
        remote.read(b"http://nowhere.test/faces/a.jpg")


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that vouches for itself, and what serves with it."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography comes with moto")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "faces")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1), [])
    signed = made.add_extension(address, False).sign(key, hashes.SHA256())
    (folder / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    none, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return folder / "certificate.pem", context


def test_a_server_has_to_be_vouched_for(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, context = certificate(tmp_path)
    monkeypatch.setattr("ferbatch.core.stores.ahead.patience.attempts", 1)
    with serving(Store({"faces": dict(FACES)}), context) as safe:
        file = f"{safe.address}/faces/a.jpg".encode()
        with pytest.raises(UnreadableImageError, match="PEER_FAILED_VERIFICATION"):
            remote.read(file)
        assert not safe.asked
        monkeypatch.setenv("SSL_CERT_FILE", os.fspath(path))
        remote.ahead().stores.web.idle.clear()
        assert remote.read(file) == FACES["a.jpg"]


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of what says this to the first that comes, whatever it wants, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"no HTTP at all", "CURLE_UNSUPPORTED_PROTOCOL"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "CURLE_PARTIAL_FILE"),
    ],
)
def test_what_is_no_answer_may_be_one_the_next_time(
    answer: bytes, why: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferbatch.core.stores.ahead.patience.attempts", 1)
    with answering(answer) as address:
        with pytest.raises(UnreadableImageError, match=re.escape(f"({why})")) as said:
            remote.read(f"{address}/a.jpg".encode())
        assert said.value.kind == "unreachable"


def test_a_server_that_knows_no_head_is_asked_otherwise(store: Store) -> None:
    answers = {"HEAD": 501}
    answer = store.answer
    store.answer = lambda method, target: (  # type: ignore[method-assign]
        store.failed(answers[method], "NotImplemented") if method in answers else answer(method, target)
    )
    [version] = remote.ahead().versions([f"{store.address}/faces/a.jpg".encode()])
    assert version.size == len(FACES["a.jpg"])


def test_nothing_of_an_object_is_kept_once_it_is_handed_on(store: Store) -> None:
    n, size = 8, 2**22
    store.buckets["faces"]["large"] = bytes(size)
    mine = remote.ahead()

    async def fetched() -> list[int]:
        several = await asyncio.gather(*(mine.stores.web.get(f"{store.address}/faces/large") for _ in range(n)))
        return [len(one.data) for one in several]

    tracemalloc.start()
    try:
        assert mine.wait(fetched()) == [size] * n
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < n * size / 2
    finally:
        tracemalloc.stop()


def taken(width: Width, seconds: float, wanted: bool = True) -> int:
    """How many may be on their way once so many as may be now took so long each."""
    for _ in range(width.now):
        width.took(seconds, wanted)
    return width.now


def test_more_objects_are_on_their_way_for_as_long_as_that_is_of_use() -> None:
    width = Width(64)
    assert [taken(width, 0.03) for _ in range(5)] == [96, 144, 216, 256, 256]
    assert width.most == WIDEST * 64 == 256
    assert taken(width, 0.2) == 128  # the store has them wait
    assert taken(width, 0.2) == 64
    assert taken(width, 0.2) == 64
    assert taken(width, 0.06) == 64  # as many more would come later
    assert taken(width, 0.04, wanted=False) == 64
    assert taken(width, 0.04) == 96
    assert taken(Width(1), 0.03) == 2


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_host_of_the_web_is_spared(scheme: str, store: Store) -> None:
    store.wait, store.buckets["faces"] = 0.1, {f"{at:03}.jpg": face_file(at) for at in range(24)}
    start = "s3:/" if scheme == "s3" else store.address
    remote.ahead(2).width.now = 8
    files = [f"{start}/faces/{key}".encode() for key in store.buckets["faces"]]
    remote.expect(files)
    assert [remote.read(file) for file in files] == [*store.buckets["faces"].values()]
    assert (2 < store.most_at_once <= 8) if scheme == "s3" else store.most_at_once == 2
