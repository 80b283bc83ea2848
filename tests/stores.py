"""An object store for tests: what S3 answers to GET, HEAD and LIST, in a thread, and whatever can go wrong with it.

It waits before it answers as a store far away does. By itself, `python tests/stores.py FOLDER SECONDS`, it serves a
folder as the bucket `faces` and prints its address.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import sys
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

RANGE = re.compile(rb"(?i)\r\nrange: *bytes=(\d+)-(\d*)")
MODIFIED = "Tue, 02 Jan 2024 03:04:05 GMT"
REASONS = {
    200: "OK",
    206: "Partial Content",
    302: "Found",
    403: "Forbidden",
    404: "Not Found",
    500: "Internal",
    501: "Not Implemented",
    503: "Slow Down",
}
CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}


@lru_cache(maxsize=4096)
def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@dataclass
class Fault:
    """What goes wrong with an object, the first `times` that it is asked for."""

    status: int = 200  # what is answered in place of 200
    times: int = 1_000_000
    short: int = 0  # bytes that are missing of what was promised, when the connection is closed
    hangs: bool = False  # no answer ever comes
    size: int | None = None  # what a listing says of it
    other: bytes | None = None  # what it holds by the time that it is fetched
    shift: int = 0  # bytes by which a part of it begins too late
    drips: float = 0.0  # seconds between two bytes of an answer
    location: str = ""  # where a status of 302 leads


@dataclass
class Store:
    """Buckets, and how they behave; change it while it serves."""

    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)  # by key
    wait: float = 0.0  # seconds before each answer
    refuses: bool = False  # whoever asks, whatever for
    page: int = 1000  # keys of a listing that come at once
    etags: bool = True
    ranges: bool = True  # whether parts of an object are sent
    sent: int = 0  # bytes
    asked: Counter[str] = field(default_factory=Counter)  # how often each was: "GET /faces/a.jpg"
    at_once: int = 0  # answers that are waited for just now
    most_at_once: int = 0
    head: bytes = b""  # of the last request
    address: str = ""
    server: Any = None

    def answer(self, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        split = urlsplit(target)
        bucket, _, key = unquote(split.path).lstrip("/").partition("/")
        self.asked[f"{method} /{bucket}/{key}"] += 1
        if self.refuses:
            return self.failed(403)
        if bucket not in self.buckets:
            return self.failed(404, "NoSuchBucket")
        if "list-type" in split.query:
            return self.listed(bucket, {name: values[0] for name, values in parse_qs(split.query).items()})
        if not key or key.endswith("/"):
            return self.shown(bucket, key)
        fault = self.faults.get(key)
        if fault and fault.times and fault.status != 200:
            fault.times -= 1
            if fault.location:
                return fault.status, {"Location": fault.location}, b""
            return self.failed(fault.status)
        if key not in self.buckets[bucket]:
            return self.failed(404)
        data = self.buckets[bucket][key]
        if method == "GET" and fault and fault.other is not None:
            data = fault.other
        return 200, {"Content-Type": "image/jpeg", **self.of(data)}, data

    def of(self, data: bytes) -> dict[str, str]:
        etag = {"ETag": f'"{md5(data)}"'} if self.etags else {}
        return {"Last-Modified": MODIFIED, **etag}

    def shown(self, bucket: str, folder: str) -> tuple[int, dict[str, str], bytes]:
        """A page that lists a folder, as web servers make it."""
        below = [key[len(folder) :] for key in self.buckets[bucket] if key.startswith(folder)]
        if not below:
            return self.failed(404)
        names = sorted({name[: name.find("/") + 1] or name for name in below}, reverse=True)
        links = "".join(f'<a href="{quote(name)}">{escape(name)}</a><br>' for name in ("../", *names))
        body = f'<html><a href="?C=N;O=D">Name</a> <a href="http://elsewhere.test/x.jpg">x</a>{links}</html>'
        return 200, {"Content-Type": "text/html; charset=utf-8"}, body.encode()

    def failed(self, status: int, code: str = "") -> tuple[int, dict[str, str], bytes]:
        body = f"<Error><Code>{code or CODES[status]}</Code><Message>no luck</Message></Error>"
        return status, {"Content-Type": "application/xml"}, body.encode()

    def listed(self, bucket: str, asked: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """ListObjectsV2."""
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        keys = sorted(key for key in self.buckets[bucket] if key.startswith(prefix))
        after = asked.get("continuation-token") or asked.get("start-after", "")
        keys = keys[bisect_right(keys, after) :]
        most = min(self.page, int(asked.get("max-keys", self.page)))
        contents, folders, last = list[str](), list[str](), ""
        cut = False
        for key in keys:
            below = key[len(prefix) :]
            folder = prefix + below[: below.index(delimiter) + 1] if delimiter and delimiter in below else ""
            if folder and folders and folders[-1] == folder:
                last = key
                continue
            if len(contents) + len(folders) == most:
                cut = True
                break
            last = key
            if folder:
                folders.append(folder)
                continue
            data, fault = self.buckets[bucket][key], self.faults.get(key)
            size = fault.size if fault and fault.size is not None else len(data)
            etag = f"<ETag>&quot;{md5(data)}&quot;</ETag>" if self.etags else ""
            contents.append(
                f"<Contents><Key>{quote(key) if 'encoding-type' in asked else escape(key)}</Key><Size>{size}</Size>"
                f"<LastModified>2024-01-02T03:04:05.000Z</LastModified>{etag}"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if cut else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>{most}</MaxKeys>"
            f"<KeyCount>{len(contents) + len(folders)}</KeyCount><IsTruncated>{str(cut).lower()}</IsTruncated>{more}"
            + ("<EncodingType>url</EncodingType>" if "encoding-type" in asked else "")
            + "".join(contents)
            + "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders)
            + "</ListBucketResult>"
        )
        return 200, {"Content-Type": "application/xml"}, body.encode()


class _Connection(asyncio.Protocol):
    """One client's: requests are answered in their order."""

    def __init__(self, store: Store, connections: set[asyncio.Transport]) -> None:
        self.store, self.connections, self.begun = store, connections, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.connections.add(self.transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.begun += data
        while b"\r\n\r\n" in self.begun:
            head, _, self.begun = self.begun.partition(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            span, self.store.head = RANGE.search(head), head
            self.store.at_once += 1
            self.store.most_at_once = max(self.store.most_at_once, self.store.at_once)
            asyncio.get_running_loop().call_later(self.store.wait, self.reply, method, target, span)

    def reply(self, method: str, target: str, span: re.Match[bytes] | None) -> None:
        self.store.at_once -= 1
        status, headers, body = self.store.answer(method, target)
        fault = self.store.faults.get(unquote(urlsplit(target).path).lstrip("/").partition("/")[2])
        if span and status == 200 and self.store.ranges and method == "GET":
            late = fault.shift if fault else 0
            start, end = int(span[1]) + late, min(int(span[2] or len(body)) + 1 + late, len(body))
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{len(body)}"
            body = body[start:end]
        self.store.sent += len(body) if method == "GET" else 0
        if fault and fault.times and fault.hangs:
            fault.times -= 1
            return
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        content = b"" if method == "HEAD" else body
        if fault and fault.times and fault.short and method == "GET":
            fault.times -= 1
            content = content[: -fault.short]
        head = "\r\n".join([*lines, "", ""]).encode()
        if fault and fault.drips:
            self.transport.write(head)
            self.drip(content, fault.drips)
            return
        self.transport.write(head + content)
        if len(content) < len(body) and method == "GET":
            self.transport.close()

    def drip(self, content: bytes, wait: float) -> None:
        """The first byte of it now, and the others one after the other."""
        if content and not self.transport.is_closing():
            self.transport.write(content[:1])
            asyncio.get_running_loop().call_later(wait, self.drip, content[1:], wait)


@contextmanager
def serving(store: Store, certified: ssl.SSLContext | None = None) -> Iterator[Store]:
    """The store at its address, until the end of the block; by TLS with a certificate."""
    ready = threading.Event()
    loop, connections = asyncio.new_event_loop(), set[asyncio.Transport]()

    async def serve() -> None:
        store.server = await loop.create_server(
            lambda: _Connection(store, connections), "127.0.0.1", 0, backlog=512, ssl=certified
        )
        port = store.server.sockets[0].getsockname()[1]
        store.address = f"{'https' if certified else 'http'}://127.0.0.1:{port}"
        ready.set()

    async def end() -> None:
        store.server.close()
        for transport in [*connections]:
            transport.abort()
        await asyncio.sleep(0)
        loop.stop()

    thread = threading.Thread(target=lambda: (loop.create_task(serve()), loop.run_forever()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield store
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join()
        loop.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serving(Store({"faces": files}, wait=float(sys.argv[2]))) as one:
        print(one.address, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
