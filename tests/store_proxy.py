"""What stands between a run and moto's server: it hands on what is asked, but for what is to go wrong."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

counting = threading.Lock()
CODES = {403: "AccessDenied", 501: "NotImplemented", 503: "SlowDown"}


@dataclass
class Wrong:
    """What goes wrong with the first `times` requests of a method for a key that ends so."""

    method: str
    ending: str
    status: int = 0  # what is answered in place of handing it on; 200: as if it were done
    breaks: bool = False  # the connection is closed in the middle
    lost: bool = False  # it is handed on, and its answer does not come back
    body: bytes | None = None  # of the answer
    then: Callable[[], object] = lambda: None  # what happens first
    times: int = 1_000_000

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and path.endswith(self.ending)


@dataclass
class Proxy:
    """How it behaves; change it while it serves."""

    behind: str  # the address of the server
    wrong: list[Wrong] = field(default_factory=list)
    condition: str = "kept"  # If-None-Match: "kept", "ignored", or "refused"
    asked: Counter[str] = field(default_factory=Counter)  # "PUT /bucket/labels.csv"
    address: str = ""
    wait: float = 0.0  # seconds before a PUT is answered
    most_at_once: int = 0  # of them
    at_once: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.asked[f"{self.command} {path}"] += 1
        if self.command == "PUT" and self.proxy.wait:
            self.linger()
        headers = dict(self.headers.items())
        if self.proxy.condition == "refused" and "If-None-Match" in headers:
            return self.say(501)
        if self.proxy.condition == "ignored":
            headers.pop("If-None-Match", None)
        wrong = next((one for one in self.proxy.wrong if one.fits(self.command, path)), None)
        if wrong:
            wrong.times -= 1
            wrong.then()
            if wrong.breaks:
                self.close_connection = True
                return None
            if wrong.status:
                return self.say(wrong.status, wrong.body)
        connection = http.client.HTTPConnection(self.proxy.behind.removeprefix("http://"), timeout=60)
        connection.request(self.command, self.path, body, headers)
        got = connection.getresponse()
        data = got.read()
        connection.close()
        if wrong and wrong.lost:
            self.close_connection = True
            return None
        return self.say(got.status, data, got.getheaders())

    def linger(self) -> None:
        with counting:
            self.proxy.at_once += 1
            self.proxy.most_at_once = max(self.proxy.most_at_once, self.proxy.at_once)
        time.sleep(self.proxy.wait)
        with counting:
            self.proxy.at_once -= 1

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def say(self, status: int, data: bytes | None = None, headers: Any = ()) -> None:
        if data is None:
            code = CODES.get(status, "")
            data = f"<Error><Code>{code}</Code><Message>no luck</Message></Error>".encode() if status >= 300 else b""
            headers = [("Content-Type", "application/xml"), ("ETag", '"0"')]
        self.send_response(status)
        length = len(data)
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = int(value)
            elif name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)


@contextmanager
def standing_before(address: str) -> Iterator[Proxy]:
    """A proxy before the server at this address, until the end of the block."""
    proxy = Proxy(address)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
