"""What lies in stores below one of PATHS, in the bytewise order of whole paths; what is said of it is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, takewhile
from typing import NamedTuple, TypeVar

from ferbatch.core import remote
from ferbatch.core.answers import Entry, StoreError
from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path
from ferbatch.core.records import NO_VERSION
from ferbatch.images.formats import SIGNATURE_BYTES, type_of_name

DEEPEST = 64  # folders in one another; more is a web server's loop

Why = TypeVar("Why")
Pages = Iterator[list[Entry]]


class Folder(NamedTuple):
    """A path that others lie below, and the beginning of what does, which had to be asked for to know it."""

    path: bytes  # with its slash
    pages: Pages


def folder_at(path: bytes, deep: bool) -> Folder | None:
    """What lies below a path; None where it is one object's. UsageError where nothing is there, or cannot be listed."""
    remote.check_installed(remote.scheme_of(path) or "")
    folder, is_bucket = path.rstrip(b"/") + b"/", b"/" not in path.partition(b"://")[2].rstrip(b"/")
    if not path.partition(b"://")[2].strip(b"/"):
        raise UsageError(f"{encode_path(path)} names no bucket ({encode_path(path.rstrip(b'/'))}//bucket/folder does)")
    try:
        if remote.scheme_of(path) in remote.WEB:
            return Folder(folder, _pages(folder, deep)) if _is_page(path) else None
        pages = _pages(folder, deep)
        found = next((page for page in pages if page), None)
    except StoreError as error:
        if error.kind == "not_found" and not is_bucket and _is_there(path):
            return None
        raise _unfit(path, error) from None
    if found is None and not is_bucket:
        if not _is_there(path):
            raise UsageError(f"no such object, and nothing below it: {encode_path(path)[:200]}")
        return None
    return Folder(folder, chain([found or []], pages))


def below(folder: Folder, why: Callable[[bytes, bytes | None], Why | None]) -> Iterator[tuple[bytes, Why | None]]:
    """The objects in a folder, by their paths from it on, and None of each that is to be taken.

    What is left aside comes with why; of a folder that is, only the folder, whose path ends in a slash.

    why: says it of such a path by its name alone, and of an object that is not called like an image by its first bytes.
    """
    entered, left = b"", None  # the folder of the object before; and one that is left aside
    try:
        for page in folder.pages:
            taken: list[tuple[Entry, Why | None]] = []
            for entry in page:
                if left is not None and entry.name.startswith(left):
                    continue
                left, reason = _left(entry.name, entered, why)
                if left is not None:
                    taken.append((Entry(left), reason))
                elif not entry.name.endswith(b"/"):  # what marks a folder of no name is nothing
                    entered = entry.name[: entry.name.rfind(b"/") + 1]
                    taken.append((entry, why(entry.name, None)))
            yield from _looked_into(folder.path, taken, why)
    except StoreError as error:
        raise _unfit(folder.path, error) from None


def _left(
    name: bytes, entered: bytes, why: Callable[[bytes, bytes | None], Why | None]
) -> tuple[bytes | None, Why | None]:
    """The uppermost folder of an object that is left aside, and why; those above one in `entered` are not."""
    at = name.find(b"/")
    while at >= 0:
        above = name[: at + 1]
        if not entered.startswith(above) and (reason := why(above, None)) is not None:
            return above, reason
        at = name.find(b"/", at + 1)
    return None, None


def _looked_into(
    path: bytes, taken: list[tuple[Entry, Why | None]], why: Callable[[bytes, bytes | None], Why | None]
) -> Iterator[tuple[bytes, Why | None]]:
    """The same, of which those that are not called like images are judged by their first bytes."""
    unknown = [entry.name for entry, reason in taken if reason is None and type_of_name(entry.name) is None]
    begun = remote.ahead().begins([path + name for name in unknown], SIGNATURE_BYTES) if unknown else []
    judged = {name: why(name, data) for name, data in zip(unknown, begun, strict=True)}
    for entry, reason in taken:
        reason = judged.get(entry.name, reason)
        if reason is None and entry.version is not None:
            remote.index.add(path + entry.name, entry.version)
        yield entry.name, reason


def _pages(path: bytes, deep: bool) -> Pages:
    """What is below a folder of a store, in order."""
    if remote.is_ordered(path):
        return remote.ahead().pages(path, deep)
    return _folder_by_folder(path, b"", deep)


def _folder_by_folder(path: bytes, inner: bytes, deep: bool) -> Pages:
    entries = sorted(remote.ahead().folder(path + inner))
    at = 0
    while at < len(entries):
        files = [*takewhile(lambda entry: not entry.name.endswith(b"/"), entries[at:])]
        yield [entry._replace(name=inner + entry.name) for entry in files]
        at += len(files)
        if at < len(entries):
            if deep and inner.count(b"/") < DEEPEST:
                yield from _folder_by_folder(path, inner + entries[at].name, deep)
            at += 1


def _is_page(url: bytes) -> bool:
    """Whether a URL is that of a page that lists others, rather than of a file."""
    if type_of_name(url.partition(b"?")[0]):
        return False
    return remote.ahead().is_page(remote.whole(url))


def _is_there(path: bytes) -> bool:
    return remote.look_at([path]).get(path) != NO_VERSION


def _unfit(path: bytes, error: StoreError) -> UsageError:
    shown, scheme = encode_path(path)[:200], remote.scheme_of(path) or ""
    if error.kind == "permission":
        return UsageError(f"{shown} cannot be listed: {error} (credentials come from {remote.STORES[scheme].keys})")
    return UsageError(f"{shown} cannot be listed: {error}")
