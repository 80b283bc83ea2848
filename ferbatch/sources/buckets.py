"""What lies in stores below one of PATHS, in the bytewise order of whole paths; what is said of it is remembered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from ferbatch.core import archives
from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path
from ferbatch.core.records import MARKER, NO_VERSION, Rules
from ferbatch.core.stores import known, remote, urls
from ferbatch.core.stores.answers import Entry, StoreError
from ferbatch.images.formats import SIGNATURE_BYTES, type_of_name
from ferbatch.sources.aside import (
    ARCHIVE,
    BELOW,
    OWN_FOLDER,
    TAKEN,
    Globs,
    Reason,
    by_content,
    by_rules,
)

DEEPEST = 64  # folders in one another; more is a web server's loop

Pages = Iterator[list[Entry]]


class Folder(NamedTuple):
    """A path that others lie below, and the beginning of what does, which had to be asked for to know it."""

    path: bytes  # with its slash
    pages: Pages
    deep: bool  # whether folders in it are entered


def folder_at(path: bytes, deep: bool) -> Folder | None:
    """What lies below a path; None where it is one object's. UsageError where nothing is there, or cannot be listed."""
    urls.check_installed(urls.scheme_of(path) or "")
    folder, is_bucket = path.rstrip(b"/") + b"/", b"/" not in path.partition(b"://")[2].rstrip(b"/")
    if not path.partition(b"://")[2].strip(b"/"):
        raise UsageError(f"{encode_path(path)} names no bucket ({encode_path(path.rstrip(b'/'))}//bucket/folder does)")
    try:
        if urls.scheme_of(path) in urls.WEB:
            return Folder(folder, _pages(folder, deep), deep) if _is_page(path) else None
        if not urls.is_ordered(path):
            remote.ahead().probe(path)
        pages = _pages(folder, deep)
        found = next((page for page in pages if page), None)
    except StoreError as error:
        if error.kind == "not_found" and not is_bucket and _is_there(path):
            return None
        raise unfit(path, error) from None
    if found is None and not is_bucket:
        if not _is_there(path):
            raise UsageError(f"no such object, and nothing below it: {encode_path(path)[:200]}")
        return None
    return Folder(folder, chain([found or []], pages), deep)


def begun(files: Sequence[bytes]) -> dict[bytes, bytes]:
    """The first bytes of objects, by which those are judged that are not called like images; none of what fails."""
    return dict(zip(files, remote.ahead().begins(files, SIGNATURE_BYTES), strict=True)) if files else {}


class Found(NamedTuple):
    """What is below a path: an object, or a folder that is left aside with all that is in it."""

    prefix: bytes  # of the folder that it is in, with its slash
    name: bytes  # with a slash, if it is a folder
    truth: str | None
    reason: Reason  # TAKEN, or why it is left aside


def below(folder: Folder, truth_of: Callable[[str], str | None], rules: Rules, globs: Globs | None) -> Iterator[Found]:
    """What is in a folder and below, in order, as Walk has it of a folder of files."""
    judge = _Judge(folder, rules, globs)
    top = truth_of(os.fsdecode(os.path.basename(folder.path[:-1])))
    inner, truth = b"", top  # the folder of the object before, below the path; and what is true of what is in it
    try:
        for page in folder.pages:
            for name, reason in judge.reasons(page):
                start = name.rstrip(b"/").rfind(b"/") + 1
                if name[:start] != inner:
                    inner = name[:start]
                    above = map(os.fsdecode, reversed(inner.split(b"/")))
                    truth = next(filter(None, map(truth_of, above)), top)
                yield Found(folder.path + inner, name[start:], truth, reason)
    except StoreError as error:
        raise unfit(folder.path, error) from None


class _Judge:
    """Says why what is in a store is left aside, if it is."""

    def __init__(self, folder: Folder, rules: Rules, globs: Globs | None) -> None:
        self.path, self.deep, self.rules, self.globs = folder.path, folder.deep, rules, globs
        self.entered = b""  # the folder of the object before
        self.left: bytes | None = None  # a folder that is left aside

    def reasons(self, page: list[Entry]) -> Iterator[tuple[bytes, Reason]]:
        """Of objects in order, and why; in place of those in a folder that is left aside, it."""
        judged: dict[bytes, tuple[Entry, Reason]] = {}
        for entry in page:
            if self.left is not None and entry.name.startswith(self.left):
                continue
            reason = self._of_folders(entry.name)
            if self.left is not None:
                judged[self.left] = (Entry(self.left), reason)
            elif entry.name.endswith(b"/"):  # a folder; where all are entered, an object that is there to mark one
                if not self.deep:
                    judged[entry.name] = (entry, BELOW)
            else:
                self.entered = entry.name[: entry.name.rfind(b"/") + 1]
                judged[entry.name] = (entry, self._by_name(entry.name))
        unknown = [name for name, (_, reason) in judged.items() if reason is TAKEN and type_of_name(name) is None]
        for file, data in begun([self.path + name for name in unknown]).items():
            name = file[len(self.path) :]
            judged[name] = (judged[name][0], by_content(name, data, self.rules))
        for name, (entry, reason) in judged.items():
            if reason is TAKEN and entry.version is not None:
                known.index.add(self.path + name, entry.version)
            yield name, reason

    def _of_folders(self, name: bytes) -> Reason:
        """Why the uppermost folder of an object that is left aside is so; `left` is then that folder."""
        self.left = None
        at = name.find(b"/")
        while at >= 0:
            above = name[: at + 1]
            if not self.entered.startswith(above) and (reason := self._by_name(above)) is not TAKEN:
                self.left = above
                return reason
            at = name.find(b"/", at + 1)
        if os.path.basename(name) == os.fsencode(MARKER):
            self.left = name[: -len(MARKER)]
            if not self.left:
                raise UsageError(f"{encode_path(self.path)[:200]} was written by ferbatch and is not read as a source")
            return OWN_FOLDER
        return TAKEN

    def _by_name(self, path: bytes) -> Reason:
        reason = by_rules(path.rstrip(b"/"), path.endswith(b"/"), self.rules, self.globs)
        return reason or (ARCHIVE if archives.suffix_of(path) and not path.endswith(b"/") else TAKEN)


def _pages(path: bytes, deep: bool) -> Pages:
    """What is below a folder of a store, in order."""
    if urls.is_ordered(path):
        return remote.ahead().pages(path, deep)
    return _folder_by_folder(path, b"", deep)


def _folder_by_folder(path: bytes, inner: bytes, deep: bool) -> Pages:
    page: list[Entry] = []
    for entry in sorted(remote.ahead().folder(path + inner)):
        page.append(entry._replace(name=inner + entry.name))
        if deep and entry.name.endswith(b"/"):
            yield page
            page = []
            if inner.count(b"/") < DEEPEST:
                yield from _folder_by_folder(path, inner + entry.name, deep)
    yield page


def _is_page(url: bytes) -> bool:
    """Whether a URL is that of a page that lists others, rather than of a file."""
    if type_of_name(url.partition(b"?")[0]):
        return False
    try:
        return remote.ahead().is_page(urls.whole(url))
    except StoreError as error:
        if error.kind != "not_found" or url.endswith(b"/") or b"?" in url:
            raise
        return remote.ahead().is_page(urls.whole(url + b"/"))  # not every server leads from the one to the other


def _is_there(path: bytes) -> bool:
    return remote.look_at([path]).get(path) != NO_VERSION


def unfit(path: bytes, error: StoreError) -> UsageError:
    """The error that says why nothing can be listed below a path."""
    shown, scheme = encode_path(path)[:200], urls.scheme_of(path) or ""
    if error.kind == "permission":
        return UsageError(f"{shown} cannot be listed: {error} (credentials come from {urls.STORES[scheme].keys})")
    if error.kind == "not_found" and scheme == "hf":  # which does not tell the one from the other
        keys = urls.STORES[scheme].keys
        return UsageError(
            f"{shown} cannot be listed: there is no such repository or folder, or it is not for everybody"
            f" (credentials come from {keys})"
        )
    if error.kind == "not_found":
        return UsageError(f"{shown} cannot be listed: there is no such bucket, folder or page")
    return UsageError(f"{shown} cannot be listed: {error}")
