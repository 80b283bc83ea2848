"""What stores answer: an object's content, its version, what lies in a folder; and what may be wrong, in our words.

An error never repeats what a package says: that may hold keys, and URLs that let in whoever has them.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal, NamedTuple, TypeVar

from ferbatch.core.errors import UsageError
from ferbatch.core.records import Version

TELLS = (  # what packages call that which changes with an object's content, the best first
    *("etag", "ETag", "content_md5", "md5Hash", "blob_id", "generation", "content-md5"),
    *("LastModified", "last_modified", "last-modified", "updated", "mtime", "created"),
)
SILENCE = re.compile("Connect|Timeout")  # in what packages call it when nobody answers
NO_KEYS = frozenset(["NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "NoAuthTokenError"])
BAD_KEYS = frozenset(["AzureSigningError", "ClientAuthenticationError", "RefreshError"])
FORBIDDEN = "Forbidden"  # what Google's package begins an OSError with that is one
GONE, DENIED, LATER = (404, 410), (401, 403, 407), (408, 425, 429)  # HTTP's statuses; from 500 on: later as well
NEVER = 501  # but for this one: the server does not know what it is asked to do

T = TypeVar("T")


class StoreError(Exception):
    """An object or a listing that cannot be had."""

    def __init__(
        self, kind: str, message: str, *, passing: bool = False, after: float = 0.0, silent: bool = False
    ) -> None:
        """What is wrong.

        kind: one of records.ERROR_KINDS.
        message: for people.
        passing: whether it may be had when it is asked for again.
        after: seconds that the store wants to be left alone for.
        silent: whether nothing at all came of asking: its host may be gone.
        """
        super().__init__(message)
        self.kind, self.passing, self.after, self.silent = kind, passing, after, silent


class Fetched(NamedTuple):
    """An object's content, and its version."""

    data: bytes
    version: Version


class Entry(NamedTuple):
    """An object, or a folder of some, below a path."""

    name: bytes  # from that path on; a folder's ends in a slash
    version: Version | None = None  # None where the listing does not say it


def number_of(said: str) -> int:
    """What a store says of an object's content, its etag say, as a number of 63 bits."""
    text = said.removeprefix("W/").strip('"')
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def version_in(said: Mapping[str, Any], size: int | None) -> Version:
    """An object's version by what is said of it; where neither content nor size are, one that it never had before."""
    tells = next((said[name] for name in TELLS if said.get(name)), None)
    if tells is None and size is None:
        return Version(-1, random.getrandbits(63))
    return Version(-1 if size is None else size, 0 if tells is None else number_of(_spelled(tells)))


def _spelled(tells: Any) -> str:
    """A time as headers have it, be it read from one or not; anything else as it stands."""
    return format_datetime(tells.astimezone(UTC), usegmt=True) if isinstance(tells, datetime) else str(tells)


def version_listed(info: Mapping[str, Any]) -> Version | None:
    """An object's version by fsspec's dict about it; None where that does not say what there is to say."""
    version = version_in(info, info.get("size"))
    return version if version.size >= 0 and version.mtime_ns else None


def check(status: int, after: str = "") -> None:
    """StoreError for an HTTP status that is none of success; `after` is what the header Retry-After says."""
    if status in GONE:
        raise StoreError("not_found", "no such object")
    if status in DENIED:
        raise StoreError("permission", f"the store refuses it ({status})")
    if status in LATER or (status >= 500 and status != NEVER):
        pause = float(after) if after.isdecimal() else 0.0
        raise StoreError("unreachable", f"the store answers {status}", passing=True, after=pause)
    if status >= 300:
        raise StoreError("unreadable", f"the store answers {status}")


@contextmanager
def told() -> Iterator[None]:
    """StoreErrors for whatever a store's package raises."""
    try:
        yield
    except (StoreError, UsageError):
        raise
    except Exception as error:  # packages throw anything at all; nothing else is called in there
        raise meaning(error) from None


def refuses_create(error: Exception) -> Literal["there", "unknown"] | None:
    """What an exception says of the wish to put an object only where there is none.

    There is one; or the store, or its package, knows no such wish. None: it is of something else.
    """
    status = status_of(error)
    if isinstance(error, FileExistsError) or status in (409, 412):
        return "there"
    return "unknown" if status in (400, 405, 501) or type(error).__name__ == "ParamValidationError" else None


def meaning(error: Exception) -> StoreError:
    """What an exception of a store's package means."""
    status = status_of(error)
    if status is not None and status >= 300:
        try:
            check(status)
        except StoreError as meant:
            return meant
    if type(error).__name__ in NO_KEYS:
        return StoreError("permission", "no credentials were found")
    if type(error).__name__ in BAD_KEYS:
        return StoreError("permission", "the credentials are not valid")
    if isinstance(error, FileNotFoundError):
        return StoreError("not_found", "no such object")
    if isinstance(error, PermissionError) or (type(error) is OSError and str(error).startswith(FORBIDDEN)):
        return StoreError("permission", "the store refuses it")
    if type(error).__name__ in ("TooManyRedirects", "NonHttpUrlRedirectClientError", "InvalidUrlRedirectClientError"):
        return StoreError("unreadable", "its server leads on to nowhere: in a circle, or away from the web")
    if type(error).__name__ in ("InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError", "ParamValidationError"):
        return StoreError("not_found", "there can be no such object")
    name = type(error).__name__
    silent = SILENCE.search(name) is not None
    return StoreError("unreachable", f"the store does not answer ({name})", passing=True, silent=silent)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception of a store's package speaks of."""
    return _status(error) or _status_of_botocore(error) or _status_of_botocore(error.__cause__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception carries, in one of the ways that packages have."""
    answer = getattr(error, "response", None)
    named = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next(filter(None, map(_number, (getattr(answer, "status_code", None), *named))), None)


def _status_of_botocore(error: BaseException | None) -> int | None:
    answer = getattr(error, "response", None)
    return _number(answer.get("ResponseMetadata", {}).get("HTTPStatusCode")) if isinstance(answer, dict) else None


def _number(said: Any) -> int | None:
    return int(said) if isinstance(said, int) or (isinstance(said, str) and said.isdecimal()) else None
