"""What archives hold, as if they were folders: of each member whether it counts and if not, why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from ferbatch.core import archives
from ferbatch.core.records import MAX_BYTES, Rules
from ferbatch.core.stores.urls import is_remote
from ferbatch.images.formats import SIGNATURE_BYTES, type_of_name
from ferbatch.sources import buckets
from ferbatch.sources.aside import BELOW, OTHER_FILE, TAKEN, Globs, Reason, by_content, by_rules


class Folder(NamedTuple):
    """A folder on the way, on a disk or in an archive."""

    prefix: bytes  # its path as printed, with its slash
    key: bytes  # its path however it is spelled
    truth: str | None  # of what lies in it
    start: int  # of the path below PATH, in `prefix`
    real: bytes = b""  # its real path, where links are followed
    crossed: tuple[bytes, ...] = ()  # the real paths of the folders in which the links to it lie


class Found(NamedTuple):
    """A member, or a folder that is left aside with all that is in it."""

    folder: Folder  # that it is in
    name: bytes  # with a slash, if it is a folder
    reason: Reason  # TAKEN, or why it is left aside


class Members:
    """Says what archives hold."""

    def __init__(
        self, truth_of: Callable[[str], str | None], recursive: bool, rules: Rules, globs: Globs | None
    ) -> None:
        """What it goes by, as Walk has it."""
        self.truth_of, self.recursive, self.rules, self.globs = truth_of, recursive, rules, globs

    def of(
        self, path: bytes, root: Folder, classes_in: Callable[[bytes], Sequence[str] | None] | None = None
    ) -> Iterator[Found]:
        """What an archive holds, in order: its own, where it is packed as a whole.

        path: its own.
        root: the folder that it counts as.
        classes_in: a table's path -> what each of its rows shows, which is the truth of that image then; None where it
            does not say that.
        """
        names, in_order = archives.look_into(path)
        begun = {} if in_order or not is_remote(path) else self._begun(path, root, names)
        classes = classes_in(path) if classes_in else None
        folders: dict[bytes, tuple[Folder, Reason]] = {b"": (root, TAKEN)}
        for at, member in enumerate(names if in_order else sorted(names)):
            within, name = os.path.split(member)
            yield from self._enter(within, folders)
            folder, reason = folders[within]
            if reason is not TAKEN:
                continue
            if classes is not None:
                folder = folder._replace(truth=self.truth_of(classes[at]) or classes[at] or None)
            reason = self._by_rules(folder.prefix + name, root, is_folder=False) or self._why(
                folder.prefix + name, in_order, begun
            )
            yield Found(folder, name, reason)

    def _begun(self, path: bytes, root: Folder, names: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The first bytes of members in a store whose names do not say what they are."""
        unknown = [root.prefix + name for name in names if type_of_name(name) is None]
        return buckets.begun([file for file in unknown if not self._by_rules(file, root, is_folder=False)])

    def _by_rules(self, path: bytes, root: Folder, *, is_folder: bool) -> Reason | None:
        return by_rules(path[root.start :], is_folder, self.rules, self.globs)

    def _enter(self, path: bytes, folders: dict[bytes, tuple[Folder, Reason]]) -> Iterator[Found]:
        """Have a folder of an archive in `folders`; of one that is left aside, and of none in it, say so."""
        if path in folders:
            return
        outer, name = os.path.split(path)
        yield from self._enter(outer, folders)
        above, reason = folders[outer]
        prefix = above.prefix + name + b"/"
        truth = self.truth_of(os.fsdecode(name)) or above.truth
        if reason is TAKEN:
            reason = self._by_rules(prefix[:-1], folders[b""][0], is_folder=True) or (
                TAKEN if self.recursive else BELOW
            )
            if reason is not TAKEN:
                yield Found(above, name + b"/", reason)
        folders[path] = Folder(prefix, os.path.join(above.key, name), truth, above.start), reason

    def _why(self, file: bytes, in_order: bool, begun: Mapping[bytes, bytes]) -> Reason:
        """By its extension; where that is unknown by its first bytes, unless to read them would cost too much."""
        if type_of_name(file) or archives.is_table(file):
            return TAKEN
        if file in begun:
            return by_content(file, begun[file], self.rules)
        with suppress(OSError):
            if not in_order and archives.stat_of(file).st_size <= MAX_BYTES:
                return by_content(file, archives.read(file)[:SIGNATURE_BYTES], self.rules)
        return OTHER_FILE
