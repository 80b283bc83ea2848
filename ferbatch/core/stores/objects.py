"""Objects that outputs are: put, fetched and taken away, each whole, and what a store has against it in a sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TypeVar

from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import writing
from ferbatch.core.names import brief, shown
from ferbatch.core.records import NO_VERSION, Version
from ferbatch.core.stores import pages, puts, remote, urls
from ferbatch.core.stores.answers import Entry, StoreError

WRITTEN = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # schemes that outputs go to
ONE_NAME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
NO_TEXT = re.compile("[\ud800-\udfff]")  # bytes that are no UTF-8
MOST_KEY = 1024  # bytes of a key

T = TypeVar("T")


def check(path: str) -> str:
    """The path of an object that may be written; UsageError where it is none, or what writes it is not installed."""
    scheme, rest = _written(path)
    bucket, _, key = rest.partition("/")
    if not bucket or not key or key.endswith("/"):
        raise UsageError(f"{shown(path)} names no object: {scheme}://bucket/labels.csv does")
    return _fit(scheme, rest, "object")


def folder(path: str) -> str:
    """The path of a folder that may be written to, without a slash at its end; one of a file system as it stands.

    UsageError as of `check`.
    """
    if not urls.is_remote(os.fsencode(path)):
        return path
    scheme, rest = _written(path)
    bucket, _, key = rest.partition("/")
    if not bucket or not key.strip("/"):
        raise UsageError(f"{shown(path)} names no folder: {scheme}://bucket/folder does")
    if (n := len(key.encode(errors="surrogateescape"))) > MOST_KEY // 2:
        raise UsageError(f"{brief(path)} is too long for a folder: {n:,} bytes, of {MOST_KEY // 2} at most")
    return _fit(scheme, rest.rstrip("/"), "folder")


def _written(path: str) -> tuple[str, str]:
    """The scheme of a path and what comes after; UsageError where nothing is written to such."""
    path = os.fsdecode(urls.cleaned(os.fsencode(path)))
    scheme, _, rest = path.partition("://")
    scheme = scheme.lower()  # packages know no other
    if scheme not in WRITTEN:
        raise UsageError(
            f"{scheme}:// paths are of images alone: what ferbatch writes is in files, s3://, gs:// or az://"
        )
    return scheme, rest


def _fit(scheme: str, rest: str, what: str) -> str:
    """The path again, if a key may be so and what writes it is installed; `what` it should name."""
    path = f"{scheme}://{rest}"
    if "?versionId=" in rest or NO_TEXT.search(rest):
        raise UsageError(f"{shown(path)} names no {what}: keys are UTF-8, and say no version")
    urls.check_installed(scheme)
    return path


def plain(path: str) -> str:
    """The path of an object, as `check` gives it, as it is the same for all its spellings."""
    scheme, _, rest = path.partition("://")
    return f"{ONE_NAME.get(scheme, scheme)}://{rest}"


def there(paths: Sequence[str], *, patient: bool = True) -> dict[str, Version]:
    """What those of these objects are that are there; OutputError, of the last, where the store does not say it.

    paths: of one folder, and with names that begin alike.
    patient: whether work was done already that waits for the answer.
    """
    from ferbatch.core.stores.beside import beside
    from ferbatch.core.stores.patience import AT_FIRST, in_turn, patience

    stores = remote.ahead().stores

    async def look(file: bytes) -> Version | None:
        try:
            return await stores.look(file)
        except StoreError as error:
            if error.kind == "not_found":
                return None
            raise

    async def every() -> dict[str, Version]:
        alike = os.path.commonprefix(paths)  # noqa: RUF071 - it is names that begin alike
        listed = await beside(stores, alike) if len(paths) > 1 else None
        if listed is not None:
            return listed
        answers = await in_turn(look, [os.fsencode(path) for path in paths], len(paths))
        return {path: version for path, version in zip(paths, answers, strict=True) if version is not None}

    found = _asked(paths[-1], every, "looked at", patience.attempts if patient else AT_FIRST)
    return {path: found[path] for path in paths if path in found}


def put(local: str, path: str) -> None:
    """Have a file as an object."""
    with writing(shown(local)):  # where the file cannot be read back
        os.stat(local)
    _asked(path, lambda: puts.put(remote.ahead().stores, local, os.fsencode(path)))


def get(path: str, local: str) -> None:
    """Have an object as a file, in place of what is there."""
    _asked(path, lambda: puts.get(remote.ahead().stores, os.fsencode(path), local), "read")


@contextmanager
def fetched(path: str) -> Iterator[str]:
    """The path of a file with what an object holds, or of this very file where it is none, until the block ends.

    UsageError where it cannot be had.
    """
    if not urls.is_remote(os.fsencode(path)):
        yield path
        return
    path = check(path)
    with TemporaryDirectory(prefix="ferbatch-") as folder:
        try:
            local = os.path.join(folder, f"object{os.path.splitext(path)[1]}")
            if path not in there([path], patient=False):
                raise UsageError(f"no such file: {shown(path)}")
            get(path, local)
        except OutputError as error:
            raise UsageError(str(error)) from error
        yield local


def remove(path: str) -> None:
    """Take an object away, if it is there."""
    _asked(path, lambda: puts.remove(remote.ahead().stores, os.fsencode(path)))


def below(path: str, *, deep: bool = True) -> Iterator[list[str]]:
    """The paths of the objects in a folder, some at a time; none where there is no such bucket or folder.

    OutputError where they cannot be had.

    path: of the folder, without a slash at its end.
    deep: also in those below it, whose own paths end in a slash otherwise.
    """
    for page in _pages(path, deep):
        yield [os.fsdecode(os.fsencode(f"{path}/") + entry.name) for entry in page if entry.name]


def versions_in(path: str) -> dict[str, Version]:
    """The objects directly in a folder by their names, with what its listing says of each. Otherwise as `below`."""
    entries = [entry for page in _pages(path, deep=False) for entry in page if entry.name]
    return {os.fsdecode(entry.name): entry.version or NO_VERSION for entry in entries}


def _pages(path: str, deep: bool) -> Iterator[list[Entry]]:
    try:
        yield from pages.pages(os.fsencode(f"{path}/"), deep)
    except StoreError as error:
        if error.kind != "not_found":
            raise refused(path, error, "listed") from None


def remove_all(paths: Sequence[str]) -> None:
    """Take objects away that were listed."""
    if paths:
        files = [os.fsencode(path) for path in paths]
        _asked(paths[0], lambda: puts.remove_all(remote.ahead().stores, files), "taken away")


def begins(path: str, n: int) -> bytes | None:
    """The first bytes of an object, `n` at the most; None where there is none."""
    try:
        return remote.ahead().ask(lambda: remote.ahead().stores.begins(os.fsencode(path), n))
    except StoreError as error:
        if error.kind == "not_found":
            return None
        raise refused(path, error, "read") from None


def write(path: str, data: bytes) -> None:
    """Have a small object, in place of what is there; UsageError where there is no bucket."""
    _begun(path, lambda: puts.write(remote.ahead().stores, os.fsencode(path), data))


def create(path: str, data: bytes) -> bool | None:
    """Have a small object where there is none.

    False where there is one, None where the store does not take that condition; UsageError where there is no bucket.
    """
    return _begun(path, lambda: puts.create(remote.ahead().stores, os.fsencode(path), data))


def _begun(path: str, do: Callable[[], Awaitable[T]]) -> T:
    try:
        return remote.ahead().ask(do)
    except StoreError as error:
        if error.kind == "not_found":  # what is not there for a new object to lie in
            raise UsageError(f"there is no such bucket: {shown('/'.join(path.split('/')[:3]))}") from None
        raise refused(path, error) from None


def _asked(path: str, do: Callable[[], Awaitable[T]], done: str = "written", attempts: int | None = None) -> T:
    try:
        return remote.ahead().ask(do, attempts)
    except StoreError as error:
        raise refused(path, error, done) from None


def refused(path: str, error: StoreError, done: str = "written") -> OutputError:
    """What a store has against it, in a sentence; `done`: what could not be done with the object."""
    why, scheme = str(error), urls.scheme_of(os.fsencode(path)) or ""
    if error.kind == "permission":
        why += f" (credentials come from {urls.STORES[scheme].keys})"
    why = "it or its bucket is gone" if error.kind == "not_found" else why
    return OutputError(f"{shown(path)} could not be {done}: {why}")
