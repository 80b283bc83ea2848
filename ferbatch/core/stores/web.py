"""The web: what is at a URL, by aiohttp."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies

from ferbatch.core.errors import UsageError
from ferbatch.core.records import MAX_BYTES, Version
from ferbatch.core.stores.answers import Fetched, StoreError, check, version_in

ESCAPE = re.compile("%[0-9A-Fa-f]{2}")  # in what is encoded
SPAN = re.compile(r"bytes (\d+)-(\d+)/(\d+)")  # in Content-Range
SLOWEST = 100  # bytes a second, of an answer that has taken longer than READ
CONNECT, READ = 5, 30  # seconds that a server may take to be there, and to go on with an answer


class Web:
    """A client with so many connections."""

    def __init__(self, connections: int) -> None:
        """To be used in one event loop; UsageError where aiohttp is not there."""
        try:
            import aiohttp
            import yarl
        except ImportError:
            raise UsageError("http:// and https:// paths need aiohttp: pip install 'ferbatch[http]'") from None
        self.url_of = yarl.URL
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=READ),
            headers={"Accept-Encoding": "identity"},  # sizes are those of what is stored
            trust_env=_environment_speaks(),
        )

    @asynccontextmanager
    async def asked(
        self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> AsyncIterator[Any]:
        """The answer to a request, of which headers alone are read so far; StoreError for any but success."""
        address = self.url_of(encoded(url), encoded=True) if ESCAPE.search(url) else self.url_of(url)
        async with self.session.request(method, address, headers=headers, allow_redirects=True) as answer:
            check(answer.status, answer.headers.get("Retry-After", ""))
            yield answer

    async def close(self) -> None:
        """Let its connections go."""
        await self.session.close()

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched:
        """What is there."""
        async with self.asked(url, headers) as answer:
            data = await _body(answer, MAX_BYTES)
            if len(data) > MAX_BYTES:
                raise StoreError("too_large", f"more than {MAX_BYTES:,} bytes, which is the limit")
            return Fetched(data, _version(answer, len(data)))

    async def look(self, url: str) -> Version:
        """The version of what is there, by the headers of HEAD, or of GET from a server that refuses that."""
        try:
            async with self.asked(url, method="HEAD") as answer:
                if "Content-Length" in answer.headers:
                    return _version(answer)
        except StoreError as error:
            if error.kind == "not_found" or error.passing:
                raise
        async with self.asked(url) as answer:
            return _version(answer)

    async def begins(self, url: str, n: int) -> bytes:
        """The first `n` bytes of what is there, or fewer."""
        async with self.asked(url, {"Range": f"bytes=0-{n - 1}"}) as answer:
            return (await _body(answer, n))[:n]

    async def span(self, url: str, start: int, end: int, headers: Mapping[str, str] | None = None) -> Fetched:
        """The bytes from `start` to `end` of what is there, and the version of the whole."""
        async with self.asked(url, {**(headers or {}), "Range": f"bytes={start}-{end - 1}"}) as answer:
            said = SPAN.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or said is None or (int(said[1]), int(said[2]) + 1) != (start, end):
                raise StoreError("unreadable", "its server does not send parts of a file, by which an archive is read")
            data = await _body(answer, end - start)
            if len(data) != end - start:
                sent = f"the store sends {len(data):,} bytes of {end - start:,}"
                raise StoreError("unreadable", sent, passing=True)
            return Fetched(data, version_in(answer.headers, int(said[3])))

    async def is_page(self, url: str) -> bool:
        """Whether a page is there, rather than a file."""
        async with self.asked(url) as answer:
            return bool(answer.content_type == "text/html")


async def _body(answer: Any, most: int) -> bytes:
    """What an answer holds, or somewhat more than `most` bytes of it; StoreError where it hardly comes at all."""
    data, start = bytearray(), time.monotonic()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > most:
            break
        if len(data) < SLOWEST * (time.monotonic() - start - READ):
            why = f"the store sends less than {SLOWEST} bytes a second"
            raise StoreError("unreachable", why, passing=True, silent=True)
    return bytes(data)


def encoded(url: str) -> str:
    """A URL that is encoded already, but for what none may hold: spaces, and all that is not ASCII."""
    return quote(url, safe="%/:?#[]@!$&'()*+,;=~", errors="surrogateescape")


def _environment_speaks() -> bool:
    """Whether there may be proxies or passwords to take from the environment; looking there costs time each time."""
    netrc = os.environ.get("NETRC") or os.path.join(os.path.expanduser("~"), ".netrc")
    return bool(getproxies()) or os.path.exists(netrc)


def _version(answer: Any, size: int | None = None) -> Version:
    length = answer.headers.get("Content-Length", "")
    return version_in(answer.headers, int(length) if length.isdecimal() else size)
