"""Sources in object stores and on the web: which paths lead there, what is known of them, and one's bytes.

Whoever opens a file asks here first: `files.stat_of` and `images.decode.read_bytes`. In memory a listed object costs 24
bytes. Nothing here imports a store's package; `ahead.py` and `stores.py` do, where there is something to fetch.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ferbatch.core.errors import UsageError
from ferbatch.core.records import CONNECTIONS, NO_VERSION, Version

if TYPE_CHECKING:
    from ferbatch.core.ahead import Ahead

REMOTE = -2  # in place of the number of links to a file: it is in a store


class Store(NamedTuple):
    """What reads the paths of a scheme."""

    package: str  # to import
    extra: str  # of ferbatch, which brings it
    keys: str  # where its credentials come from, for people


STORES = {
    **dict.fromkeys(("s3", "s3a"), Store("s3fs", "s3", "AWS_ACCESS_KEY_ID, AWS_PROFILE or ~/.aws")),
    **dict.fromkeys(("gs", "gcs"), Store("gcsfs", "gcs", "GOOGLE_APPLICATION_CREDENTIALS or gcloud's login")),
    **dict.fromkeys(
        ("az", "abfs", "abfss"),
        Store("adlfs", "azure", "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with a key or login"),
    ),
    "hf": Store("huggingface_hub", "hf", "HF_TOKEN or hf's login"),
    **dict.fromkeys(("http", "https"), Store("aiohttp", "http", "~/.netrc")),
}
WEB = ("http", "https")
LONGEST_SCHEME = max(map(len, STORES))

# Parameters of a query that let whoever has the URL in: by a word in their names, and those that come beside them.
_SECRET = re.compile(r"(?i)^x-(amz|goog)-|^sig$|sign|token|secret|passw|pwd|credential|auth|(api|access).?key|session")
_BESIDE = re.compile(
    r"(?i)^(expires|policy|key-pair-id|googleaccessid|sv|st|se|sr|sp|sip|spr|ss|srt|skoid|sktid|skt|ske|sks|skv)$"
)

_whole: dict[bytes, str] = {}  # of URLs that hold a secret: the URL without it -> as it was given
_told: dict[bytes, Version] = {}  # of what this process was handed by one that listed it
_ahead: Ahead | None = None  # of this process


def scheme_of(path: bytes) -> str | None:
    """The key of STORES that a path begins with; None where it is a file's."""
    end = path.find(b"://", 0, LONGEST_SCHEME + 3)
    scheme = path[:end].decode("latin-1").lower() if end > 0 else ""
    return scheme if scheme in STORES else None


def is_remote(path: bytes) -> bool:
    """Whether a path leads into a store or the web."""
    return b"://" in path[: LONGEST_SCHEME + 3] and scheme_of(path) is not None


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
    _whole[clean] = os.fsdecode(path)
    return clean


def check_installed(scheme: str) -> None:
    """UsageError where what reads the paths of a scheme is not there."""
    if importlib.util.find_spec(STORES[scheme].package) is None:
        raise UsageError(not_installed(scheme))


def not_installed(scheme: str) -> str:
    """What to do where it is not, in a sentence."""
    package, extra, _ = STORES[scheme]
    return f"{scheme}:// paths need {package}: pip install 'ferbatch[{extra}]'"


def whole(file: bytes) -> str:
    """The URL to fetch a file by."""
    return _whole.get(file) or file.decode("utf-8", "surrogateescape")


class Index:
    """The versions of objects that were listed or looked at; 24 bytes each."""

    def __init__(self) -> None:
        self.new = {name: array("q") for name in ("key", *Version._fields)}
        self.keys, self.sizes, self.times = (np.zeros(0, np.int64) for _ in range(3))

    def add(self, file: bytes, version: Version) -> None:
        """What is said of an object now; of what was said before, it is forgotten."""
        for column, value in zip(self.new.values(), (hash(file), *version), strict=True):
            column.append(value)

    def find(self, file: bytes) -> Version | None:
        """The version of an object; None where it is not known."""
        if self.new["key"]:
            self._sort()
        if not len(self.keys):
            return None
        at = int(np.searchsorted(self.keys, hash(file)))
        if at == len(self.keys) or self.keys[at] != hash(file):
            return None
        return Version(int(self.sizes[at]), int(self.times[at]))

    def _sort(self) -> None:
        """Take in what is new, the last that was said of each."""
        new = [np.array(column, np.int64) for column in self.new.values()]
        columns = [np.concatenate(pair) for pair in zip((self.keys, self.sizes, self.times), new, strict=True)]
        for column in self.new.values():
            del column[:]
        order = columns[0].argsort(kind="stable")
        keys = columns[0][order]
        last = order[np.append(keys[1:] != keys[:-1], True)]
        self.keys, self.sizes, self.times = (column[last] for column in columns)


index = Index()


def ahead(connections: int = CONNECTIONS) -> Ahead:
    """What fetches in this process; a process that was forked has one of its own."""
    global _ahead
    if _ahead is None or _ahead.process != os.getpid():
        from ferbatch.core.ahead import Ahead

        _ahead = Ahead(connections, before=_ahead)
    return _ahead


def version_of(file: bytes) -> Version | None:
    """The version of an object by its listing, or by a look at it; None where there was neither."""
    return _told.get(file) or index.find(file)


def stat_of(file: bytes) -> os.stat_result | None:
    """What os.stat would say of an object: what its listing said, or its own answer; None where it has none."""
    version = version_of(file) or ahead().version(file)
    if version == NO_VERSION:
        return None
    numbers = (stat.S_IFREG | 0o444, 0, 0, REMOTE, 0, 0, max(version.size, 0), 0, 0, 0)
    return os.stat_result(numbers, {"st_mtime_ns": version.mtime_ns})


def look_at(files: Sequence[bytes]) -> dict[bytes, Version]:
    """What stores say of those of these files that are in one and were not listed, asked about many at once."""
    unknown = [file for file in files if is_unlisted(file)]
    found = dict(zip(unknown, ahead().versions(unknown), strict=True)) if unknown else {}
    for file, version in found.items():
        if version != NO_VERSION:
            index.add(file, version)
    return found


def is_unlisted(file: bytes) -> bool:
    """Whether only its store could say how large it is."""
    return is_remote(file) and version_of(file) is None


def read(file: bytes) -> bytes:
    """An object's content; UnreadableImageError where it cannot be had."""
    return ahead().take(file)


def expect(files: Sequence[bytes], connections: int = CONNECTIONS) -> None:
    """Fetch what is in stores of these files, in their order, before it is asked for; by so many connections."""
    there = [file for file in files if is_remote(file)]
    if there:
        ahead(connections).expect(there)


def forget(files: Sequence[bytes]) -> None:
    """Let go of what is done with, or was expected and will not be asked for."""
    for file in files if _told else ():
        _told.pop(file, None)
    if _ahead is not None and _ahead.process == os.getpid():
        _ahead.forget(files)


def wait_for(file: bytes) -> None:
    """Wait until what was expected is there, or why not."""
    if is_remote(file):
        ahead().wait_for(file)


def waited() -> float:
    """Seconds that this process has waited for stores."""
    return _ahead.waited if _ahead is not None and _ahead.process == os.getpid() else 0.0


Known = list[tuple[Version | None, str | None]]


def known(files: Sequence[bytes]) -> Known | None:
    """What a process that was not forked has to know to read these files; None where none is in a store."""
    if not any(map(is_remote, files)):
        return None
    return [(index.find(file) if is_remote(file) else None, _whole.get(file)) for file in files]


def learn(files: Sequence[bytes], known: Known | None) -> None:
    """Take over what another process knows of these files, until they are forgotten."""
    for file, (version, url) in zip(files, known or (), strict=False):
        if version is not None:
            _told[file] = version
        if url is not None:
            _whole[file] = url
