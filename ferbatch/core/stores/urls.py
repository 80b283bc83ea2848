"""Paths that lead into object stores and the web: their schemes, what reads them, and what of them is secret."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Container
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from ferbatch.core.errors import UsageError


class Store(NamedTuple):
    """What reads the paths of a scheme."""

    packages: tuple[str, ...]  # to import
    extra: str  # of ferbatch, which brings it
    keys: str  # where its credentials come from, for people


STORES = {
    **dict.fromkeys(("s3", "s3a"), Store(("s3fs", "pycurl"), "s3", "AWS_ACCESS_KEY_ID, AWS_PROFILE or ~/.aws")),
    **dict.fromkeys(("gs", "gcs"), Store(("gcsfs",), "gcs", "GOOGLE_APPLICATION_CREDENTIALS or gcloud's login")),
    **dict.fromkeys(
        ("az", "abfs", "abfss"),
        Store(
            ("adlfs",), "azure", "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with a key or login"
        ),
    ),
    "hf": Store(("huggingface_hub",), "hf", "HF_TOKEN or hf's login"),
    **dict.fromkeys(("http", "https"), Store(("aiohttp", "pycurl"), "http", "~/.netrc")),
}
WEB = ("http", "https")
LONGEST_SCHEME = max(map(len, STORES))
SLASHES = 2  # before a host or bucket

# Parameters of a query that let whoever has the URL in: by a word in their names, and those that come beside them.
_SECRET = re.compile(
    r"(?i)^x-(amz|goog)-|^sig$|sign|token|secret|passw|pwd|credential|auth|(api|access).?key|session|jwt|hmac|^hdn(ts|ea)$"
)
_BESIDE = re.compile(
    r"(?i)^(expires|policy|key-pair-id|googleaccessid|sv|st|se|sr|sp|sip|spr|ss|srt|skoid|sktid|skt|ske|sks|skv)$"
)

streams: set[bytes] = set()  # archives in stores that are read from their beginning
secret: dict[bytes, str] = {}  # of URLs that hold a secret: the URL without it -> as it was given


def scheme_of(path: bytes) -> str | None:
    """The key of STORES that a path begins with; None where it is a file's."""
    end = path.find(b"://", 0, LONGEST_SCHEME + 3)
    scheme = path[:end].decode("latin-1").lower() if end > 0 else ""
    return scheme if scheme in STORES else None


def is_remote(path: bytes) -> bool:
    """Whether a path leads to an object of a store or the web, or a member of one that is fetched by itself."""
    return b"://" in path[: LONGEST_SCHEME + 3] and scheme_of(path) is not None and stream_of(path) is None


def above(file: bytes, archives: Container[bytes]) -> bytes | None:
    """The one of some archives that a path leads into; None where it is in none."""
    end = file.find(b"/", file.find(b"://") + 3)
    while end != -1:
        if file[:end] in archives:
            return file[:end]
        end = file.find(b"/", end + 1)
    return None


def stream_of(file: bytes) -> bytes | None:
    """The archive in a store that a path leads into, if it is one that is read from its beginning to its end."""
    return above(file, streams) if streams else None


def host_of(path: bytes) -> bytes:
    """The beginning of a path that says who is asked: scheme, and host or bucket."""
    return path[: path.find(b"/", path.find(b"://") + 3)]


def is_ordered(path: bytes) -> bool:
    """Whether its store lists all that is below a path in the bytewise order of whole keys."""
    bucket = path.partition(b"://")[2].partition(b"/")[0]
    return scheme_of(path) in ("s3", "s3a") and not bucket.endswith(b"--x-s3")


def cleaned(path: bytes) -> bytes:
    """A path as it may be written: without what signs a URL, which is kept for fetching alone.

    UsageError where it holds a user's name and password, or keys.
    """
    scheme = scheme_of(path)
    if scheme is None:
        return path
    place = path[len(scheme) + 3 :].partition(b"/")[0]
    if scheme in WEB:
        place = place.partition(b"?")[0]
        holds = b"@" in place or not re.fullmatch(rb"\[.*\](:\d*)?|[^:]*(:\d*)?", place)
    else:
        holds = (b":" in place and not place.startswith(b"arn:")) or (b"@" in place and scheme in ("s3", "s3a"))
    if holds:
        raise UsageError(
            f"a {scheme}:// path holds a name, a password or keys: leave them out of it,"
            f" credentials come from {STORES[scheme].keys}"
        )
    base, mark, query = path.partition(b"?")
    if scheme not in WEB or not mark:
        return path
    parts = query.partition(b"#")[0].decode("utf-8", "surrogateescape").split("&")
    if not any(_SECRET.search(part.partition("=")[0]) for part in parts):
        return path
    kept = [part for part in parts if not (_SECRET.search(name := part.partition("=")[0]) or _BESIDE.match(name))]
    clean = base + (b"?" + os.fsencode("&".join(kept)) if kept else b"")
    secret[clean] = os.fsdecode(path)
    return clean


def without_secret(path: str) -> str:
    """A path as `cleaned` has it, as text."""
    return os.fsdecode(cleaned(os.fsencode(path)))


def check_installed(scheme: str) -> None:
    """UsageError where what reads the paths of a scheme is not there."""
    if None in map(importlib.util.find_spec, STORES[scheme].packages):
        raise UsageError(not_installed(scheme))


@lru_cache(maxsize=len(STORES))
def check_once(scheme: str) -> None:
    """As `check_installed`, which has to look at the disk each time."""
    check_installed(scheme)


def fetchable(path: bytes) -> bytes:
    """A path of a list as `cleaned` has it; UsageError where what reads its store is not installed, too."""
    if not is_remote(path):
        return path
    check_once(scheme_of(path) or "")
    return cleaned(path)


def below(base: bytes, path: bytes) -> bytes:
    """The URL of what a relative path leads to from the URL of a folder; what signs that signs this as well.

    On the web a path is a name, of which no character is a delimiter: spaces, `?` and `%` are encoded. None leads out
    of the bucket, or to another host.
    """
    path, query = os.path.normpath(path), b""
    if scheme_of(base) in WEB:
        base, mark, query = base.partition(b"?")
        path, query = quote(path).encode(), mark + query
    base = base.rstrip(b"/")
    while path.startswith(b"../"):
        base, path = base.rpartition(b"/")[0] if base.count(b"/") > SLASHES else base, path[3:]
    return base.rstrip(b"/") + b"/" + path + query


def folder_of(path: bytes) -> bytes:
    """The URL of the folder that an object is in; with its query, where that signs the object's."""
    signed = secret.get(path)
    base, mark, query = (os.fsencode(signed) if signed else path).partition(b"?" if scheme_of(path) in WEB else b"\0")
    return base.rpartition(b"/")[0] + (mark + query if signed else b"")


def not_installed(scheme: str) -> str:
    """What to do where it is not, in a sentence."""
    packages, extra, _ = STORES[scheme]
    return f"{scheme}:// paths need {' and '.join(packages)}: pip install 'ferbatch[{extra}]'"


def whole(file: bytes) -> str:
    """The URL to fetch a file by."""
    return secret.get(file) or file.decode("utf-8", "surrogateescape")
