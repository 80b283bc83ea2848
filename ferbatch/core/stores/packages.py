"""Stores by fsspec's packages: one object's content, what it is, and what lies below a path.

All of it happens in the thread of an `Ahead`; what goes wrong is a StoreError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Any

from ferbatch.core.errors import UsageError
from ferbatch.core.records import Version
from ferbatch.core.stores import known, members, opening, urls
from ferbatch.core.stores.answers import (
    Entry,
    Fetched,
    StoreError,
    meaning,
    status_of,
    told,
    version_in,
    version_listed,
)
from ferbatch.core.stores.opening import AZURE, GCS, S3
from ferbatch.core.stores.patience import WIDEST
from ferbatch.core.stores.signing import Bucket, Keys
from ferbatch.core.stores.web import Web

AT_ONCE = 1_000  # entries of a listing
VERSION = "?versionId="  # comes after a key of S3's, and before which of an object's versions is meant
EXACTLY = {"hf": {"cache_type": "none"}}  # how packages are told to fetch no more of an object than they are asked for
PROBED = 20  # seconds that a store may take to say whether a path is there
TALKATIVE = (
    "s3fs",
    "aiobotocore",
    "botocore",
    "gcsfs",
    "google",
    "adlfs",
    "azure",
    "huggingface_hub",
    "fsspec",
    "asyncio",
)


class Stores:
    """The stores that a process has to do with."""

    def __init__(self, connections: int, before: Stores | None) -> None:
        """Nothing is opened yet.

        connections: to each store, at the most; to S3, WIDEST times as many.
        before: of the process that this one was forked from.
        """
        self.connections = connections
        self.systems: dict[str, Any] = {}  # scheme, of Azure with an account -> its fsspec filesystem
        # Of S3; None of those that its package alone can read. To find one out takes a second of a core.
        known = before.buckets if before else {}
        self.buckets: dict[str, Bucket | None] = {name: one for name, one in known.items() if _lasts(one)}
        self.threads = ThreadPoolExecutor(connections, "store")  # for packages that block
        for name in TALKATIVE:  # what they log may hold keys and signed URLs, and is said in our words anyway
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    async def close(self) -> None:
        """Let the connections go."""
        for web in ("web", "signing"):
            if web in vars(self):
                await vars(self)[web].close()
        for system in self.systems.values():
            if hasattr(system, "_s3creator"):
                await system._s3creator.__aexit__(None, None, None)
            if hasattr(system, "service_client"):
                await system.service_client.close()

    async def fetch(self, file: bytes) -> Fetched:
        """An object's content."""
        if (member := known.member_of(file)) is not None:
            place = member.place
            return Fetched(await members.content(self.span, member), Version(place.size, place.version))
        scheme, url = urls.scheme_of(file) or "", urls.whole(file)
        with told():
            fetched = await (self.web.get(url) if scheme in urls.WEB else self._signed(scheme, url, Web.get))
            listed = known.version_of(file)
            if fetched is None:
                data = bytes(await self.call(scheme, "cat_file", url, **_version_in(scheme, url)))
                fetched = Fetched(data, listed if listed and listed.size == len(data) else await self.look(file))
        if fetched.version.size not in (-1, len(fetched.data)) or (
            listed is not None and listed.mtime_ns == fetched.version.mtime_ns and listed.size != len(fetched.data)
        ):
            promised = listed.size if listed else fetched.version.size
            raise StoreError(
                "unreadable", f"the store sends {len(fetched.data):,} bytes and says {promised:,}", passing=True
            )
        return fetched

    async def fetch_together(self, files: Sequence[bytes]) -> list[Fetched | StoreError]:
        """The contents of members that lie beside each other in an archive, or why one of them cannot be had."""
        there = [member for member in map(known.member_of, files) if member is not None]
        return [
            part if isinstance(part, StoreError) else Fetched(part, Version(member.place.size, member.place.version))
            for member, part in zip(there, await members.contents(self.span, there), strict=True)
        ]

    async def span(self, file: bytes, start: int, end: int, version: Version) -> bytes:
        """The bytes from `start` to `end` of an object that is of this version; StoreError where it is another."""
        scheme, url = urls.scheme_of(file) or "", urls.whole(file)
        with told():
            if scheme in urls.WEB:
                fetched: Fetched | None = await self.web.span(url, {}, start, end)
            else:
                fetched = await self._signed(scheme, url, lambda web, *request: web.span(*request, start, end))
            if fetched is None:
                data = bytes(await self.call(scheme, "cat_file", url, start=start, end=end, **_exactly(scheme, url)))
                if len(data) != end - start:
                    raise StoreError(
                        "unreadable", f"the store sends {len(data):,} bytes of {end - start:,}", passing=True
                    )
                return data
        if fetched.version != version:
            raise StoreError("unreadable", "its archive was changed meanwhile")
        return fetched.data

    async def look(self, file: bytes) -> Version:
        """What an object is, without its content."""
        scheme, url = urls.scheme_of(file) or "", urls.whole(file)
        with told():
            if scheme in urls.WEB:
                return await self.web.look(url)
            if scheme in S3:  # its package would look for a folder where there is no object
                system = await self.system(url)
                bucket, key, _ = system.split_path(url)
                which = {"VersionId": said} if (said := url.partition(VERSION)[2]) else {}
                head = await system._call_s3("head_object", Bucket=bucket, Key=key, **which)
                return version_in(head, head["ContentLength"])
            info = await self.call(scheme, "info", url)
            if info.get("type") == "directory":
                raise StoreError("not_found", "no such object")
            return version_in(info, info.get("size"))

    async def begins(self, file: bytes, n: int) -> bytes:
        """The first bytes of an object, `n` at the most."""
        if (member := known.member_of(file)) is not None:
            return await members.content(self.span, member, n)
        scheme, url = urls.scheme_of(file) or "", urls.whole(file)
        with told():
            if scheme in urls.WEB:
                return await self.web.begins(url, n)
            try:
                return bytes(await self.call(scheme, "cat_file", url, start=0, end=n, **_exactly(scheme, url)))[:n]
            except Exception as error:  # whatever the package says of it
                if status_of(error) == 416:  # it is empty
                    return b""
                raise

    async def is_page(self, url: str) -> bool:
        """Whether a page of the web is there, rather than a file."""
        with told():
            return await self.web.is_page(url)

    async def flat(self, path: bytes, deep: bool) -> AsyncIterator[list[Entry]]:
        """What S3 has below a path ending in a slash, in order, some at a time; `deep`: in folders, too."""
        system = await self.system(path.decode("utf-8", "surrogateescape"))
        bucket, _, prefix = path.partition(b"://")[2].decode("utf-8", "surrogateescape").partition("/")
        start, page = len(f"{bucket}/{prefix}"), list[Entry]()
        with told():
            await self._bucket(urls.scheme_of(path) or "", bucket)  # for the processes that are forked from this one
            async for info in system._iterdir(bucket, prefix=prefix, delimiter="" if deep else "/"):
                is_folder = info["type"] == "directory"
                name = f"{info['name'][start:]}{'/' * is_folder}".encode("utf-8", "surrogateescape")
                page.append(Entry(name, None if is_folder else version_listed(info)))
                if len(page) == AT_ONCE:
                    yield sorted(page)  # folders come before objects
                    page = []
        yield sorted(page)

    async def probe(self, path: bytes) -> None:
        """StoreError where a store does not answer soon, whatever patience its package has."""
        scheme, url = urls.scheme_of(path) or "", path.decode("utf-8", "surrogateescape")
        with told(), suppress(FileNotFoundError):
            try:
                await asyncio.wait_for(self.call(scheme, "info", url), PROBED)
            except TimeoutError as error:
                raise StoreError("unreachable", f"the store does not answer ({type(error).__name__})") from None

    async def folder(self, path: bytes) -> list[Entry]:
        """What is directly in a folder, whose path ends in a slash, in no order."""
        scheme, url = urls.scheme_of(path) or "", path.decode("utf-8", "surrogateescape")
        on_web, entries = scheme in urls.WEB, dict[bytes, Entry]()
        with told():
            system = await self.system(url)
            inner = url if on_web else f"{system._strip_protocol(url).rstrip('/')}/"  # some leave the slash there
            found = await self.call(scheme, "ls", url, detail=True)
        for info in found:
            below = info["name"].removeprefix(inner)
            name = below.rstrip("/")
            if below == info["name"] or not name or "/" in name or (on_web and name[0] in "?#"):
                continue  # the folder itself, or a link that leads elsewhere
            is_folder = info.get("type") == "directory" or below.endswith("/")
            entry = Entry(f"{name}{'/' * is_folder}".encode("utf-8", "surrogateescape"), version_listed(info))
            entries[entry.name] = entry
        return [*entries.values()]

    @cached_property
    def web(self) -> Web:
        """The client of the web, made when it is first asked for, in the loop that it belongs to."""
        return Web(self.connections)

    @cached_property
    def signing(self) -> Web:
        """That of what is signed here, which is sent nowhere else."""
        return Web(WIDEST * self.connections, redirects=0)

    async def system(self, url: str) -> Any:
        """The filesystem that a path is in."""
        scheme, _, rest = url.partition("://")
        scheme, account = scheme.lower(), rest.partition("/")[0].partition("@")[2].partition(".")[0]
        known_as = f"{scheme}://{account}" if scheme in AZURE else scheme
        if known_as not in self.systems:
            urls.check_installed(scheme)
            try:
                self.systems[known_as] = opening.opened(scheme, account, self.connections)
            except ImportError:
                raise UsageError(urls.not_installed(scheme)) from None
            except Exception as error:  # whatever the package has against its environment
                raise StoreError("permission", f"its package cannot be set up: {type(error).__name__}") from None
            await opening.settle(scheme, self.systems[known_as])
        return self.systems[known_as]

    async def call(self, scheme: str, name: str, url: str, *values: Any, **more: Any) -> Any:
        """A method of a scheme's filesystem, in this loop if it can, else in a thread."""
        system = await self.system(url)
        path = system._strip_protocol(url)
        if system.async_impl:
            try:
                return await getattr(system, f"_{name}")(path, *values, **more)
            except Exception as error:  # whatever the package says of it
                if scheme in GCS and (meant := meaning(error)).passing:  # it has asked six times, with longer pauses
                    meant.passing = False
                    raise meant from None
                raise
        return await asyncio.get_running_loop().run_in_executor(
            self.threads, lambda: getattr(system, name)(path, *values, **more)
        )

    async def _signed(self, scheme: str, url: str, get: Callable[..., Awaitable[Fetched]]) -> Fetched | None:
        """What `get` gets of an object of S3, with a client, a URL and headers that are signed here.

        None where this way does not lead there, and of any other store.
        """
        name, _, key = url.partition("://")[2].partition("/")
        if scheme not in S3 or not key or VERSION in key or name.startswith("arn:"):
            return None
        bucket = await self._bucket(scheme, name)
        if bucket is None:
            return None
        try:
            return await get(self.signing, *await bucket.request(key))
        except StoreError as error:
            if error.passing or error.kind in ("not_found", "too_large"):
                raise
            return None  # in another region, say

    async def _bucket(self, scheme: str, name: str) -> Bucket | None:
        if name not in self.buckets:
            self.buckets[name] = await Bucket.of(await self.system(f"{scheme}://{name}"), name)
        return self.buckets[name]


def _version_in(scheme: str, url: str) -> dict[str, Any]:
    """How s3fs is told which version of an object is meant: it leaves out what the URL says of that."""
    said = url.partition(VERSION)[2] if scheme in S3 else ""
    return {"version_id": said, "max_concurrency": 1} if said else {}


def _exactly(scheme: str, url: str) -> dict[str, Any]:
    return {**EXACTLY.get(scheme, {}), **_version_in(scheme, url)}


def _lasts(bucket: Bucket | None) -> bool:
    """Whether a process may use what another one found out: keys that are renewed are so by its event loop."""
    return bucket is not None and (bucket.credentials is None or isinstance(bucket.credentials, Keys))
