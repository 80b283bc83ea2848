"""What is known of objects in stores before they are fetched: their versions, 24 bytes for each that was listed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from ferbatch.core import urls
from ferbatch.core.records import Version
from ferbatch.core.urls import is_remote

told: dict[bytes, Version] = {}  # of what this process was handed by one that listed it


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


def version_of(file: bytes) -> Version | None:
    """The version of an object by its listing, or by a look at it; None where there was neither."""
    return told.get(file) or index.find(file)


def is_unlisted(file: bytes) -> bool:
    """Whether only its store could say how large it is."""
    return is_remote(file) and version_of(file) is None


Known = list[tuple[Version | None, str | None]]


def tell(files: Sequence[bytes]) -> Known | None:
    """What a process that was not forked has to know to read these files; None where none is in a store."""
    if not any(map(is_remote, files)):
        return None
    return [(index.find(file) if is_remote(file) else None, urls.secret.get(file)) for file in files]


def learn(files: Sequence[bytes], known: Known | None) -> None:
    """Take over what another process knows of these files, until they are forgotten."""
    for file, (version, url) in zip(files, known or (), strict=False):
        if version is not None:
            told[file] = version
        if url is not None:
            urls.secret[file] = url
