"""What lies in stores below one of PATHS, in the bytewise order of whole paths; what is said of it is remembered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from ferbatch.core import archives
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.names import encode_path
from ferbatch.core.records import MARKER, NO_VERSION, Rules
from ferbatch.core.stores import known, objects, remote, urls
from ferbatch.core.stores.answers import Entry, StoreError
from ferbatch.core.stores.pages import Pages, pages
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

MARK = os.fsencode(MARKER)


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
            return Folder(folder, pages(folder, deep), deep) if _is_page(path) else None
        if not urls.is_ordered(path):
            remote.ahead().probe(path)
        following = pages(folder, deep)
        found = next((page for page in following if page), None)
    except StoreError as error:
        if error.kind == "not_found" and not is_bucket and _is_there(path):
            return None
        raise unfit(path, error) from None
    if found is None and not is_bucket:
        if not _is_there(path):
            raise UsageError(f"no such object, and nothing below it: {encode_path(path)[:200]}")
        return None
    return Folder(folder, chain([found or []], following), deep)


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
        self.looked: dict[bytes, bool] = {}  # folders of the page before, and whether they have a marker

    def reasons(self, page: list[Entry]) -> Iterator[tuple[bytes, Reason]]:
        """Of objects in order, and why; in place of those in a folder that is left aside, it."""
        judged: dict[bytes, tuple[Entry, Reason]] = {}
        marked = self._marked(page)
        for entry in page:
            if self.left is not None and entry.name.startswith(self.left):
                continue
            reason = self._of_folders(entry.name, marked)
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

    def _marked(self, page: list[Entry]) -> set[bytes]:
        """Folders with a marker that comes after an object in them, which have to be asked for to be known in time."""
        if urls.scheme_of(self.path) not in objects.WRITTEN:
            return set()
        early = dict.fromkeys(
            entry.name[:at] for entry in page for at in _starts(entry.name) if b"" < entry.name[at:] < MARK
        )
        unknown = [above for above in early if above not in self.looked]
        found = remote.ahead().versions([self.path + above + MARK for above in unknown]) if unknown else []
        new = {above: version != NO_VERSION for above, version in zip(unknown, found, strict=True)}
        self.looked = {above: self.looked.get(above, False) or new.get(above, False) for above in early}
        return {above for above, is_marked in self.looked.items() if is_marked}

    def _of_folders(self, name: bytes, marked: set[bytes]) -> Reason:
        """Why the uppermost folder of an object that is left aside is so; `left` is then that folder."""
        self.left = None
        for at in _starts(name):
            above = name[:at]
            if above and not self.entered.startswith(above) and (reason := self._by_name(above)) is not TAKEN:
                self.left = above
                return reason
            if above in marked or name[at:] == MARK:
                self.left = above
                if not above:
                    path = encode_path(self.path)[:200]
                    raise UsageError(f"{path} was written by ferbatch and is not read as a source")
                return OWN_FOLDER
        return TAKEN

    def _by_name(self, path: bytes) -> Reason:
        reason = by_rules(path.rstrip(b"/"), path.endswith(b"/"), self.rules, self.globs)
        return reason or (ARCHIVE if archives.suffix_of(path) and not path.endswith(b"/") else TAKEN)


def _starts(name: bytes) -> Iterator[int]:
    """Where the name begins, below each of the folders above it, from the uppermost on."""
    at = 0
    while at != -1:
        yield at
        at = name.find(b"/", at) + 1 or -1


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
    """Whether there is such an object; UsageError where its store does not say it."""
    if known.is_unlisted(path):
        try:
            known.index.add(path, remote.ahead().looked_at(path))
        except UnreadableImageError as error:
            if error.kind != "not_found":
                raise unfit(path, StoreError(error.kind, str(error)), "looked at") from None
            return False
    return True


def unfit(path: bytes, error: StoreError, done: str = "listed") -> UsageError:
    """The error that says why nothing can be listed below a path, or what else cannot be `done`."""
    shown, scheme = encode_path(path)[:200], urls.scheme_of(path) or ""
    if error.kind == "permission":
        return UsageError(f"{shown} cannot be {done}: {error} (credentials come from {urls.STORES[scheme].keys})")
    if error.kind == "not_found" and scheme == "hf":  # which does not tell the one from the other
        keys = urls.STORES[scheme].keys
        return UsageError(
            f"{shown} cannot be listed: there is no such repository or folder, or it is not for everybody"
            f" (credentials come from {keys})"
        )
    if error.kind == "not_found":
        return UsageError(f"{shown} cannot be listed: there is no such bucket, folder or page")
    return UsageError(f"{shown} cannot be {done}: {error}")
