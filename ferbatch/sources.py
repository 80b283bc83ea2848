"""Where images come from: folders, files, lists. Lists each path once, in order, at under 200 bytes an image."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from ferbatch.errors import UsageError
from ferbatch.filetypes import SIGNATURE_BYTES, type_of_bytes, type_of_name
from ferbatch.paths import encode_path
from ferbatch.records import ImageRef

LIST = b"-"  # among PATHS: the list on stdin
CHUNK = 2**16  # bytes of a list to read at a time
MARKER = ".ferbatch"  # in folders that ferbatch writes; they are never read as sources

SPELLINGS = {  # what people call a folder -> its label
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}


def label_of(folder: str, labels: Sequence[str]) -> str | None:
    """The label a folder of this name stands for, whatever its case or plural; None if it stands for none."""
    name = folder.strip().casefold()
    for spelling in (name, name.removesuffix("s")):
        label = SPELLINGS.get(spelling, spelling)
        if label in labels:
            return label
    return None


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive images of one folder: names alone, because a million whole paths would not be small."""

    folder: bytes  # as printed, with its slash; empty for files named without a folder
    names: list[bytes]
    truth: str | None


@dataclass
class Listing(Sequence[ImageRef]):
    """The images found, in order; made into ImageRefs only when asked for one."""

    runs: list[_Run] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # index of each run's first image
    left_aside: int = 0  # files that are no images

    def __len__(self) -> int:
        return self.starts[-1] + len(self.runs[-1].names) if self.runs else 0

    def __getitem__(self, index: int) -> ImageRef:  # type: ignore[override]  # no slices: nothing needs them
        if not 0 <= index < len(self):
            raise IndexError(index)
        at = bisect_right(self.starts, index) - 1
        run = self.runs[at]
        file = run.folder + run.names[index - self.starts[at]]
        return ImageRef(encode_path(file), file, run.truth)

    def add(self, folder: bytes, name: bytes, truth: str | None) -> None:
        """One more image at the end."""
        last = self.runs[-1] if self.runs else None
        if last is None or last.folder != folder or last.truth != truth:
            self.starts.append(len(self))
            self.runs.append(_Run(folder, [name], truth))
        else:
            last.names.append(name)


class _Lister:
    """Walks PATHS into a Listing, remembering what it has listed."""

    def __init__(self, labels: Sequence[str], recursive: bool) -> None:
        self.labels = labels
        self.recursive = recursive
        self.listing = Listing()
        self.walked: dict[bytes, list[bytes]] = {}  # folder -> what it held, sorted
        self.named: dict[bytes, set[bytes]] = {}  # folder -> names given one by one

    def add_file(self, path: bytes) -> None:
        """A file named by the user: always a row, whatever it is."""
        folder, name = os.path.split(path)
        prefix = path[: len(path) - len(name)]
        key = _identity(folder)
        if not self._listed(key, name):
            self.named.setdefault(key, set()).add(name)
            self.listing.add(prefix, name, None)

    def _listed(self, key: bytes, name: bytes) -> bool:
        walked = self.walked.get(key, [])
        at = bisect_left(walked, name)
        return walked[at : at + 1] == [name] or name in self.named.get(key, ())

    def add_folder(self, path: bytes) -> None:
        """A folder and, if recursive, those below it, in the bytewise order of the whole paths."""
        if os.path.lexists(os.path.join(path, os.fsencode(MARKER))):
            raise UsageError(f"{encode_path(path)} was written by ferbatch and is not read as a source")
        prefix = path.rstrip(b"/") + b"/"
        root = _identity(path)
        truth = label_of(os.fsdecode(os.path.basename(root)), self.labels)
        stack = [self._entries(prefix, root, truth)]
        while stack:
            for below, name, key, label, is_folder in stack[-1]:
                if is_folder:
                    stack.append(self._entries(below + name + b"/", os.path.join(key, name), label))
                    break
                if not self._listed(key, name):
                    self.listing.add(below, name, label)
            else:
                stack.pop()

    def _entries(
        self, prefix: bytes, key: bytes, truth: str | None
    ) -> Iterator[tuple[bytes, bytes, bytes, str | None, bool]]:
        """The images and folders directly in one folder, sorted so that whole paths come out sorted."""
        found: list[bytes] = []  # folders end in a slash
        try:
            with os.scandir(prefix) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found.append(entry.name + b"/")
                    elif self._is_image(entry):
                        found.append(entry.name)
        except OSError:  # not ours to list: a row says so, and the run goes on
            parent, name = os.path.split(prefix.rstrip(b"/"))
            found.clear()
            yield parent + b"/" if parent else b"", name, os.path.dirname(key), truth, False
        found.sort()
        for name in found:
            if not name.endswith(b"/"):
                yield prefix, name, key, truth, False
            elif self.recursive and not os.path.lexists(prefix + name + os.fsencode(MARKER)):
                label = label_of(os.fsdecode(name[:-1]), self.labels)
                yield prefix, name[:-1], key, label or truth, True
        self.walked[key] = found

    def _is_image(self, entry: os.DirEntry[bytes]) -> bool:
        """By its extension, or where that is unknown by its first bytes; what is no image is counted."""
        known = type_of_name(entry.name) is not None
        if known and (entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))):
            return True  # a dangling link is a row that says so
        if not known and entry.is_file():
            with suppress(OSError), open(entry.path, "rb") as stream:
                if type_of_bytes(stream.read(SIGNATURE_BYTES)):
                    return True
        self.listing.left_aside += 1
        return False


def _identity(folder: bytes) -> bytes:
    """One name for a folder however it is spelled; links stay distinct, `..` is resolved as the system does."""
    parts = folder.split(b"/")
    if b".." in parts:
        at = len(parts) - parts[::-1].index(b"..")
        folder = os.path.join(os.path.realpath(b"/".join(parts[:at])), *parts[at:])
    return os.path.abspath(folder or b".")


def list_images(
    paths: Iterable[str | bytes | os.PathLike[str]],
    labels: Sequence[str],
    *,
    listed: Iterable[bytes] = (),
    recursive: bool = True,
) -> Listing:
    """The images under `paths` (folders and files), each path once; `-` among them stands for the paths in `listed`.

    Folders are sorted bytewise by whole path. Truth is the nearest folder at or below PATH named like one of
    `labels`. A path that is missing raises UsageError; a missing file in `listed` keeps its place, to become a row.
    """
    lister = _Lister(labels, recursive)
    for path in map(os.fsencode, paths):
        if path == LIST:
            for one in listed:
                lister.add_folder(one) if os.path.isdir(one) else lister.add_file(one)
        elif os.path.isdir(path):
            lister.add_folder(path)
        elif os.path.lexists(path):
            lister.add_file(path)
        else:
            raise UsageError(f"no such file or folder: {encode_path(path)}")
    return lister.listing


def read_list(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    """The paths in a list, one at a time; empty ones are skipped."""
    rest = b""
    while chunk := stream.read(CHUNK):
        *whole, rest = (rest + chunk).split(separator)
        yield from filter(None, whole)
    if rest:
        yield rest
