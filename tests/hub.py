"""A server that answers as the Hugging Face Hub does what huggingface_hub asks it about data sets, in a thread."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
PAGE = 5  # entries of a listing that come at once


@dataclass
class Hub:
    """Data sets by name, each with its files; change them while it serves."""

    repos: dict[str, dict[str, bytes]]
    token: str | None = None  # without which nothing is given
    asked: Counter[str] = field(default_factory=Counter)  # "GET /datasets/..."
    failing: dict[str, list[int]] = field(default_factory=dict)  # path -> statuses to answer it with first
    address: str = ""

    def entry(self, repo: str, path: str) -> dict[str, Any] | None:
        """What is said of a file or folder."""
        files = self.repos[repo]
        if path in files:
            oid = hashlib.sha1(files[path]).hexdigest()
            return {"type": "file", "path": path, "size": len(files[path]), "oid": oid}
        if any(name.startswith(f"{path}/") for name in files):
            return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
        return None

    def tree(self, repo: str, folder: str, deep: bool) -> list[dict[str, Any]] | None:
        """What is in a folder; None where there is none."""
        start = f"{folder}/" if folder else ""
        below = [name[len(start) :] for name in self.repos[repo] if name.startswith(start)]
        if not below and folder:
            return None
        paths = {part for name in below for part in (_prefixes(name) if deep else [name.partition("/")[0]])}
        return [entry for path in sorted(paths) if (entry := self.entry(repo, start + path))]


def _prefixes(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def answer(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.asked[f"{self.command} {path}"] += 1
        if statuses := self.hub.failing.get(path):
            return self.say(statuses.pop(0), error="Failing")
        if self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.say(401, error="RepoNotFound")
        if found := REPO.fullmatch(split.path):
            return self.of_repo(
                *(group and unquote(group) for group in found.groups()), query=parse_qs(split.query), body=body
            )
        if found := FILE.fullmatch(split.path):
            return self.file(*map(unquote, found.groups()))
        return self.say(404, error="EntryNotFound")

    def of_repo(
        self, repo: str, what: str | None, revision: str | None, inner: str | None, *, query: Any, body: bytes
    ) -> None:
        if repo not in self.hub.repos:
            return self.say(401, error="RepoNotFound")
        if revision not in (None, "main", COMMIT, "refs/convert/parquet"):
            return self.say(404, error="RevisionNotFound")
        if what == "paths-info":
            fields = parse_qs(body.decode())
            paths = fields["paths"] if b"{" not in body else json.loads(body)["paths"]
            return self.json([entry for path in paths if (entry := self.hub.entry(repo, path))])
        if what != "tree":
            return self.json({"_id": "1", "id": repo, "sha": COMMIT, "private": False, "siblings": []})
        entries = self.hub.tree(repo, inner or "", query.get("recursive", ["false"])[0].lower() == "true")
        if entries is None:
            return self.say(404, error="EntryNotFound")
        at = int(query.get("cursor", ["0"])[0])
        more = {}
        if at + PAGE < len(entries):
            asked = self.path.partition("?")[0]
            rest = "&".join(f"{key}={values[0]}" for key, values in query.items() if key != "cursor")
            more = {"Link": f'<{self.hub.address}{asked}?{rest}&cursor={at + PAGE}>; rel="next"'}
        return self.json(entries[at : at + PAGE], more)

    def file(self, repo: str, revision: str, name: str) -> None:
        files = self.hub.repos.get(repo)
        if files is None or name not in files:
            return self.say(404, error="EntryNotFound" if files is not None else "RepoNotFound")
        data, headers, status = files[name], {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"'}, 200
        headers |= {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if span := RANGE.fullmatch(self.headers.get("Range", "")):
            start, end = int(span[1]), min(int(span[2] or len(data)) + 1, len(data))
            if start >= len(data):
                return self.say(416)
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{len(data)}"
            data = data[start:end]
        return self.say(status, data, headers)

    def json(self, value: Any, more: dict[str, str] | None = None) -> None:
        self.say(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(more or {})})

    def say(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, error: str = "") -> None:
        self.send_response(status)
        headers = {"X-Error-Code": error, "X-Error-Message": "no luck"} if error else headers or {}
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = answer


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The Hub at its address, until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
