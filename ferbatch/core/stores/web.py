"""The web: what is at a URL, by libcurl, which takes half the time of clients that are written in Python."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ferbatch.core.errors import UsageError
from ferbatch.core.records import MAX_BYTES, Version
from ferbatch.core.stores.answers import Fetched, StoreError, check, version_in
from ferbatch.core.stores.urls import not_installed

ESCAPE = re.compile("%[0-9A-Fa-f]{2}")  # in what is encoded
HOST = re.compile(r"(\w+://)([^/?#\0]+)(.*)", re.DOTALL)
SPAN = re.compile(r"bytes (\d+)-(\d+)/(\d+)")  # in Content-Range
SLOWEST = 100  # bytes a second, of an answer that has taken longer than READ
CONNECT, READ = 5, 30  # seconds that a server may take to be there, and to go on with an answer
NO_URL = "there can be no such object"
REDIRECTS = 10  # in a row, at the most
BUFFER = 2**17  # bytes that are received at once, at the most


class Answer(NamedTuple):
    """What a server answers."""

    status: int
    headers: Mapping[str, str]  # by their names in small letters
    data: bytes


class Web:
    """A client with so many connections."""

    def __init__(self, connections: int, redirects: int = REDIRECTS) -> None:
        """To be used in one event loop; UsageError where pycurl is not there.

        redirects: that are followed; with 0, no ~/.netrc is looked into either: requests are signed.
        """
        try:
            import pycurl
        except ImportError:
            raise UsageError(not_installed("https")) from None
        self.curl: Any = pycurl
        self.redirects, self.proxies = redirects, getproxies()
        self.multi = pycurl.AsyncCurlMulti()
        self.multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self.room = asyncio.Semaphore(connections)
        self.idle: list[Any] = []  # handles, of which each is a request at a time
        # Of libcurl's errors: those that say that a redirect leads nowhere (the second also that what answers speaks no
        # HTTP), and that nobody is there.
        self.no_url = (pycurl.E_URL_MALFORMAT, pycurl.E_UNSUPPORTED_PROTOCOL)
        self.silences = {
            *(pycurl.E_COULDNT_RESOLVE_PROXY, pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT),
            *(pycurl.E_OPERATION_TIMEDOUT, pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION),
        }

    async def close(self) -> None:
        """Let its connections go."""
        await self.multi.aclose()

    async def asked(
        self, url: str, headers: Mapping[str, str] | None = None, most: int = MAX_BYTES, *, head: bool = False
    ) -> Answer:
        """The answer to a GET, or to HEAD; StoreError for any but success.

        most: bytes of it that are wanted; where it has more, it is left when somewhat more have come.
        """
        curl, lines, data = self.curl, list[bytes](), list[bytes]()
        left = most

        def take(chunk: bytes) -> int | None:
            nonlocal left
            data.append(chunk)
            left -= len(chunk)
            return None if left >= 0 else 0  # 0 ends it

        async with self.room:
            handle = self.idle.pop() if self.idle else self._handle()
            if self.proxies:
                self._set_proxy(handle, url)
            handle.setopt(curl.URL, encoded(url))
            handle.setopt(curl.NOBODY, head)
            handle.setopt(curl.HTTPHEADER, [f"{name}: {value}" for name, value in (headers or {}).items()])
            handle.setopt(curl.HEADERFUNCTION, lines.append)
            handle.setopt(curl.WRITEFUNCTION, take)
            try:
                await self.multi.perform(handle)
            except curl.error as error:
                if left >= 0:
                    raise self._meant(error.args[0], handle, bool(data)) from None
            status: int = handle.getinfo(curl.RESPONSE_CODE)
            self.idle.append(handle)
        answer = Answer(status, _headers(lines), b"".join(data))
        data.clear()  # the handle holds on to it until its next request
        check(status, answer.headers.get("retry-after", ""))
        return answer

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched:
        """What is there."""
        answer = await self.asked(url, headers)
        if len(answer.data) > MAX_BYTES:
            raise StoreError("too_large", f"more than {MAX_BYTES:,} bytes, which is the limit")
        return Fetched(answer.data, _version(answer, len(answer.data)))

    async def look(self, url: str) -> Version:
        """The version of what is there, by the headers of HEAD, or of GET from a server that refuses that."""
        try:
            answer = await self.asked(url, head=True)
            if "content-length" in answer.headers:
                return _version(answer)
        except StoreError as error:
            if error.kind == "not_found" or error.passing:
                raise
        return _version(await self.asked(url, most=0))

    async def begins(self, url: str, n: int) -> bytes:
        """The first `n` bytes of what is there, or fewer."""
        return (await self.asked(url, {"Range": f"bytes=0-{n - 1}"}, n)).data[:n]

    async def span(self, url: str, headers: Mapping[str, str], start: int, end: int) -> Fetched:
        """The bytes from `start` to `end` of what is there, and the version of the whole."""
        answer = await self.asked(url, {**headers, "Range": f"bytes={start}-{end - 1}"}, end - start)
        said = SPAN.fullmatch(answer.headers.get("content-range", ""))
        if answer.status != 206 or said is None or (int(said[1]), int(said[2]) + 1) != (start, end):
            raise StoreError("unreadable", "its server does not send parts of a file, by which an archive is read")
        if len(answer.data) != end - start:
            sent = f"the store sends {len(answer.data):,} bytes of {end - start:,}"
            raise StoreError("unreadable", sent, passing=True)
        return Fetched(answer.data, version_in(answer.headers, int(said[3])))

    async def is_page(self, url: str) -> bool:
        """Whether a page is there, rather than a file."""
        kind = (await self.asked(url, most=0)).headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower() == "text/html"

    def _handle(self) -> Any:
        """What asks, one request at a time, with the patience and by the certificates of all of them."""
        curl, handle, roots = self.curl, self.curl.Curl(), ssl.get_default_verify_paths()
        options = {
            "NOSIGNAL": 1,  # there are other threads
            "HTTP_VERSION": curl.CURL_HTTP_VERSION_1_1,  # a request takes a connection, of which there are so many
            "CONNECTTIMEOUT": CONNECT,
            "LOW_SPEED_LIMIT": SLOWEST,
            "LOW_SPEED_TIME": READ,
            "PROTOCOLS": curl.PROTO_HTTP | curl.PROTO_HTTPS,
            "REDIR_PROTOCOLS": curl.PROTO_HTTP | curl.PROTO_HTTPS,
            "FOLLOWLOCATION": self.redirects > 0,
            "MAXREDIRS": self.redirects,
            "PATH_AS_IS": self.redirects == 0,  # what is signed
            "BUFFERSIZE": BUFFER,
            "ACCEPT_ENCODING": "identity",  # sizes are those of what is stored
            "USERAGENT": "ferbatch",
        }
        if roots.cafile or roots.capath:  # else libcurl knows of some, where it knows of any
            handle.unsetopt(curl.CAINFO)
            options |= {name: at for name, at in (("CAINFO", roots.cafile), ("CAPATH", roots.capath)) if at}
        if self.redirects:
            options["COOKIEFILE"] = ""  # what a server sets before it leads on is sent to it
            netrc = os.environ.get("NETRC") or os.path.join(os.path.expanduser("~"), ".netrc")
            if os.path.exists(netrc):
                options |= {"NETRC": curl.NETRC_OPTIONAL, "NETRC_FILE": netrc}
        for name, value in options.items():
            handle.setopt(getattr(curl, name), value)
        return handle

    def _set_proxy(self, handle: Any, url: str) -> None:
        split = urlsplit(url)
        proxy = self.proxies.get(split.scheme) or self.proxies.get("all")
        if proxy and not proxy_bypass(split.hostname or ""):
            handle.setopt(self.curl.PROXY, "" if proxy_bypass(split.netloc) else proxy)
        else:
            handle.unsetopt(self.curl.PROXY)

    def _meant(self, code: int, handle: Any, begun: bool) -> StoreError:
        """What an error of libcurl's means; its own words may hold what is secret."""
        curl = self.curl
        leads_on = 300 <= handle.getinfo(curl.RESPONSE_CODE) < 400
        if code == curl.E_TOO_MANY_REDIRECTS or (code in self.no_url and leads_on):
            return StoreError("unreadable", "its server leads on to nowhere: in a circle, or away from the web")
        if code == curl.E_URL_MALFORMAT:
            return StoreError("not_found", NO_URL)
        silent = code in self.silences
        if begun and code == curl.E_OPERATION_TIMEDOUT:
            why = f"the store sends less than {SLOWEST} bytes a second"
        else:
            names = [name for name in dir(curl) if name.startswith("E_") and getattr(curl, name) == code]
            name = min(names, key=lambda name: name.startswith(("E_FTP", "E_MULTI")), default=f"E {code}")
            why = f"the store does not answer (CURL{name})"
        return StoreError("unreachable", why, passing=True, silent=silent)


def encoded(url: str) -> str:
    """A URL as it may be sent: what none may hold is encoded; so is each `%`, unless it is encoded already."""
    if (split := HOST.fullmatch(url)) is None:
        raise StoreError("not_found", NO_URL)
    scheme, host, path = split.groups()
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise StoreError("not_found", NO_URL) from None
    kept = "%" if ESCAPE.search(url) else ""
    return scheme + host + quote(path, safe=f"/:?#[]@!$&'()*+,;=~{kept}", errors="surrogateescape")


def _headers(lines: Sequence[bytes]) -> dict[str, str]:
    """Those of the last answer, after the ones that led to it."""
    begin = max((at for at, line in enumerate(lines) if line.startswith(b"HTTP/")), default=0)
    parts = (line.decode("latin-1").partition(":") for line in lines[begin + 1 : -1])
    return {name.lower(): value.strip() for name, _, value in parts}


def _version(answer: Answer, size: int | None = None) -> Version:
    length = answer.headers.get("content-length", "")
    return version_in(answer.headers, int(length) if length.isdecimal() else size)
