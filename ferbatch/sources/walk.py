"""Walks PATHS: folders in order, each path once, and of each entry whether it counts and if not, why."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

from ferbatch.core import archives
from ferbatch.core.errors import UsageError
from ferbatch.core.files import stat_of
from ferbatch.core.names import encode_path
from ferbatch.core.records import MARKER, Rules
from ferbatch.core.stores.urls import fetchable, is_remote
from ferbatch.images.formats import SIGNATURE_BYTES, type_of_name
from ferbatch.sources import buckets, hub
from ferbatch.sources.aside import (
    ARCHIVE,
    BELOW,
    LINK,
    LISTED,
    LOOP,
    OTHER_FILE,
    OWN_FOLDER,
    TABLE,
    TAKEN,
    Globs,
    Reason,
    by_content,
    by_rules,
)
from ferbatch.sources.expansion import expanded
from ferbatch.sources.packed import Folder, Members

Take = Callable[[bytes, bytes, str | None], None]  # an image's folder as printed, its name, its truth
Tell = Callable[[bytes, Reason], None]  # a path, a folder's with a slash at its end, and why it is taken or left aside


class Walk:
    """Walks PATHS and hands on each image once, remembering which they were."""

    def __init__(
        self,
        truth_of: Callable[[str], str | None],
        recursive: bool,
        rules: Rules,
        take: Take,
        tell: Tell | None = None,
        classes_in: Callable[[bytes], Sequence[str] | None] | None = None,
    ) -> None:
        """UsageError where a pattern of the rules is none.

        truth_of: a folder's name -> its truth.
        recursive: whether folders below PATH are walked.
        rules: what counts in them.
        take: is handed each image.
        tell: hears why each path is taken or left aside; None: what is left aside is counted alone.
        classes_in: a table of images -> what each row shows, which is handed on as its truth, be it a label or not.
        """
        self.truth_of, self.recursive, self.rules, self.take, self.tell = truth_of, recursive, rules, take, tell
        self.globs, self.classes_in = Globs(rules.exclude) if rules.exclude else None, classes_in
        self.members = Members(truth_of, recursive, rules, self.globs)
        self.left: Counter[Reason] = Counter()
        self.identity = lru_cache(maxsize=4096)(_identity)  # a list names many files of one folder
        self.walked: dict[bytes, list[bytes]] = {}  # folder -> what it held, sorted
        self.named: dict[bytes, set[bytes]] = {}  # folder -> names given one by one

    def add_all(self, paths: Sequence[bytes], lists: Mapping[bytes, Iterable[bytes]]) -> None:
        """Each of PATHS; those of `lists`, `-` for one, stand for the paths in them.

        UsageError where one of PATHS cannot be walked, before any is.
        """
        paths = expanded(paths)
        for path in paths:
            if not is_remote(path) and path not in lists:
                _check(path)
        for at, path in enumerate(paths):
            if path in lists:
                for one in map(fetchable, lists[path]):
                    # Most stores would have to be asked each time whether a name is that of a folder.
                    is_one = is_remote(one) and not one.endswith(b"/") and not archives.suffix_of(one)
                    self.add_file(one) if is_one else self._add(one, last=False)
            else:
                self._add(path, at + 1 == len(paths))

    def _add(self, path: bytes, last: bool) -> None:
        if is_remote(path):
            self.add_remote(path, last)
        elif os.path.isdir(path):
            self.add_folder(path, last)
        elif archives.is_archive(path):
            self.add_archive(path, last)
        else:
            self.add_file(path)

    def add_file(self, path: bytes) -> None:
        """A file named by the user: always a row, whatever it is."""
        folder, name = os.path.split(path)
        place = Folder(path[: len(path) - len(name)], self.identity(folder), None, 0)
        if self._hand_on(place, name):
            self.named.setdefault(place.key, set()).add(name)

    def _hand_on(self, folder: Folder, name: bytes) -> bool:
        """An image, unless it was before; whether it was not."""
        walked = self.walked.get(folder.key, [])
        index = bisect_left(walked, name)
        again = walked[index : index + 1] == [name] or name in self.named.get(folder.key, ())
        if not again:
            self.take(folder.prefix, name, folder.truth)
        if self.tell:
            self.tell(folder.prefix + name, LISTED if again else TAKEN)
        return not again

    def add_folder(self, path: bytes, last: bool) -> None:
        """A folder and, if recursive, those below it, in the bytewise order of the whole paths.

        What it holds is remembered, unless it is the `last` of PATHS.
        """
        _check_not_ours(path)
        prefix, key = path.rstrip(b"/") + b"/", self.identity(path)
        truth = self.truth_of(os.fsdecode(os.path.basename(key)))
        real = os.path.realpath(path) if self.rules.follow_links else b""
        stack = [self._entries(Folder(prefix, key, truth, len(prefix), real), last)]
        while stack:
            for folder, name in stack[-1]:
                if name.endswith(b"//"):
                    self._add_table(folder, name[:-2], last)
                elif name.endswith(b"/"):
                    stack.append(self._entries(self._below(folder, name[:-1]), last))
                    break
                else:
                    self._hand_on(folder, name)
            else:
                stack.pop()

    def add_remote(self, path: bytes, last: bool) -> None:
        """In a store: one object, or as of a folder those below a path."""
        folder = buckets.folder_at(path, self.recursive)
        if folder is None:
            self.add_archive(path, last) if archives.suffix_of(path) else self.add_file(path)
            return
        for prefix, name, truth, reason in buckets.below(folder, self.truth_of, self.rules, self.globs):
            if reason is ARCHIVE:
                reason = hub.judged(prefix, name)
            if reason is TABLE:
                self._add_table(Folder(prefix, prefix[:-1], truth, len(folder.path)), name, last)
            elif reason is TAKEN:
                if self._hand_on(Folder(prefix, prefix[:-1], truth, 0), name) and not last:
                    self.named.setdefault(prefix[:-1], set()).add(name)
            else:
                self._leave(prefix + name, reason)

    def add_archive(self, path: bytes, last: bool) -> None:
        """What an archive holds, as if it were a folder; in its own order where it is packed as a whole."""
        truth = self.truth_of(os.fsdecode(archives.stem_of(path)))
        self._add_members(path, Folder(path + b"/", self.identity(path), truth, len(path) + 1), last)

    def _add_table(self, folder: Folder, name: bytes, last: bool) -> None:
        """The images of a table that lies in a folder."""
        path = folder.prefix + name
        truth = self.truth_of(os.fsdecode(archives.stem_of(path))) or folder.truth
        self._add_members(path, Folder(path + b"/", os.path.join(folder.key, name), truth, folder.start), last)

    def _add_members(self, path: bytes, root: Folder, last: bool) -> None:
        for folder, name, reason in self.members.of(path, root, self.classes_in):
            if reason is not TAKEN:
                self._leave(folder.prefix + name, reason)
            elif self._hand_on(folder, name) and not last:
                self.named.setdefault(folder.key, set()).add(name)

    def _leave(self, path: bytes, reason: Reason) -> None:
        self.left[reason] += 1
        if self.tell:
            self.tell(path, reason)

    def _entries(self, folder: Folder, last: bool) -> Iterator[tuple[Folder, bytes]]:
        """The images and folders directly in one folder, sorted so that whole paths come out sorted."""
        found: list[bytes] = []  # folders end in a slash, tables of images in two
        told: dict[bytes, Reason] = {}
        again = folder.key in self.walked
        try:
            with os.scandir(folder.prefix) as entries:
                for entry in entries:
                    name, reason = entry.name, TAKEN
                    # Nearly all are plain files that are called like images; those need no more than a look at that.
                    plain = entry.is_file(follow_symlinks=False) and type_of_name(name)
                    if not plain or self.globs or name.startswith(b"."):
                        name, reason = self._why(entry, folder)
                    if reason is TAKEN:
                        found.append(name)
                    elif not again:
                        self.left[reason] += 1
                        if self.tell:
                            told[name] = reason
        except OSError:  # not ours to list, or its path is too long: a row says so, and the run goes on
            path = folder.prefix.rstrip(b"/")
            name = os.path.basename(path)
            if not again:
                yield folder._replace(prefix=path[: len(path) - len(name)], key=os.path.dirname(folder.key)), name
        found.sort()
        for name in sorted([*found, *told]) if told else found:
            if self.tell and name in told:
                self.tell(folder.prefix + name, told[name])
            else:
                yield folder, name
        if (found or not again) and not last:
            self.walked[folder.key] = found

    def _why(self, entry: os.DirEntry[bytes], folder: Folder) -> tuple[bytes, Reason]:
        """Whether an entry of a folder counts, and if not, why; its name is one that `_entries` has for it."""
        is_link = entry.is_symlink()
        is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir()
        name = entry.name + b"/" * is_folder
        if reason := by_rules((folder.prefix + entry.name)[folder.start :], is_folder, self.rules, self.globs):
            return name, reason
        if not is_folder:
            reason = self._why_file(entry, folder)
            return (name + b"//", TAKEN) if reason is TABLE else (name, reason)
        if not self.recursive:
            return name, BELOW
        if is_link and not self.rules.follow_links:
            return name, LINK
        if is_link and _is_above(os.path.realpath(entry.path), (*folder.crossed, folder.real)):
            return name, LOOP
        return name, OWN_FOLDER if os.path.lexists(os.path.join(entry.path, os.fsencode(MARKER))) else TAKEN

    def _why_file(self, entry: os.DirEntry[bytes], folder: Folder) -> Reason:
        """By its extension, or where that is unknown by its first bytes."""
        if type_of_name(entry.name):
            try:  # the system tells a plain file without a look at each
                return TAKEN if entry.is_file() or not os.path.exists(entry.path) else OTHER_FILE
            except OSError:  # a link to itself, or to where we may not look: a row will say so
                return TAKEN
        if archives.suffix_of(entry.name):
            return hub.judged(folder.prefix, entry.name, folder.key)
        with suppress(OSError):
            if entry.is_file():
                with open(entry.path, "rb") as stream:
                    return by_content(entry.name, stream.read(SIGNATURE_BYTES), self.rules)
        return OTHER_FILE

    def _below(self, folder: Folder, name: bytes) -> Folder:
        """A folder in a folder."""
        prefix = folder.prefix + name + b"/"
        real, crossed = folder.real, folder.crossed
        if self.rules.follow_links and os.path.islink(prefix[:-1]):
            real, crossed = os.path.realpath(prefix), (*crossed, real)
        elif self.rules.follow_links:
            real = os.path.join(real, name)
        truth = self.truth_of(os.fsdecode(name)) or folder.truth
        return Folder(prefix, os.path.join(folder.key, name), truth, folder.start, real, crossed)


def _check(path: bytes) -> None:
    """UsageError where one of PATHS is not there or, a folder, not to be walked."""
    if not os.path.lexists(path) and stat_of(path) is None:
        raise UsageError(f"no such file or folder: {encode_path(path)}")
    if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"{encode_path(path)} cannot be listed: permission denied")
    _check_not_ours(path)


def _check_not_ours(path: bytes) -> None:
    """UsageError where it is a folder that ferbatch wrote."""
    if os.path.lexists(os.path.join(path, os.fsencode(MARKER))):
        raise UsageError(f"{encode_path(path)} was written by ferbatch and is not read as a source")


def _is_above(folder: bytes, others: Sequence[bytes]) -> bool:
    """Whether a folder is one of others, or one that they lie in; all are real paths."""
    return any(os.path.join(other, b"").startswith(os.path.join(folder, b"")) for other in others)


def _identity(folder: bytes) -> bytes:
    """One name for a folder however it is spelled; links stay distinct, `..` is resolved as the system does."""
    if is_remote(folder):
        return folder
    parts = folder.split(b"/")
    if b".." in parts:
        end = len(parts) - parts[::-1].index(b"..")
        folder = os.path.join(os.path.realpath(b"/".join(parts[:end])), *parts[end:])
    return b"/" + os.path.abspath(folder or b".").lstrip(b"/")  # abspath leaves `//a`, which is `/a`
