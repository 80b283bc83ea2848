"""Where images come from: folders, files, lists. Lists each path once, in order.

An image costs its name and some 30 bytes, under 200 in all; a folder costs its path and some 500 bytes.
"""

from __future__ import annotations

import codecs
import itertools
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import References
from ferbatch.core.errors import UsageError
from ferbatch.core.names import count, encode_path, encode_paths
from ferbatch.core.records import MARKER, ImageRef
from ferbatch.images.formats import SIGNATURE_BYTES, type_of_bytes, type_of_name
from ferbatch.sources.labels import label_of

_Folder = tuple[bytes, str | None]  # the path of a folder as printed, and the truth of what lies in it

LIST = b"-"  # among PATHS: the list on stdin
CHUNK = 2**16  # bytes of a list that are read at a time


@dataclass
class Listing(Sequence[ImageRef]):
    """The images found, in order: a name and a folder's number each, made into ImageRefs only when asked for."""

    names: list[bytes] = field(default_factory=list)
    folder_of: array[int] = field(default_factory=lambda: array("I"))
    folders: list[_Folder] = field(default_factory=list)
    numbers: dict[_Folder, int] = field(default_factory=dict)
    left_aside: int = 0  # files that are no images
    links: int = 0  # links to folders, which are not followed

    @property
    def aside(self) -> str:
        """What was met and is not listed, in words; empty if there is nothing."""
        files = [f"{count(self.left_aside, 'other file')} left aside"] if self.left_aside else []
        links = [f"{count(self.links, 'link')} to folders not followed"] if self.links else []
        return ", ".join(files + links)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> ImageRef:  # type: ignore[override]  # no slices: nothing needs them
        prefix, truth = self.folders[self.folder_of[index]]
        file = prefix + self.names[index]
        return ImageRef(encode_path(file), file, truth)

    def by_folder(self) -> Iterator[tuple[bytes, str | None, int]]:
        """Each folder's path as printed, the truth of its images and how many of them there are."""
        images = np.bincount(np.array(self.folder_of, np.int64), minlength=len(self.folders)).tolist()
        for (prefix, truth), n in zip(self.folders, images, strict=True):
            yield prefix, truth, n

    def files(self) -> Iterator[bytes]:
        """The path of each image, as opened."""
        for name, folder in zip(self.names, self.folder_of, strict=True):
            yield self.folders[folder][0] + name

    def where(self, indices: NDArray[np.int64]) -> Listing:
        """The images with these indices, in their order; what was met besides images stays known."""
        chosen = indices.tolist()
        folder_of = array("I", [self.folder_of[index] for index in chosen])
        return replace(self, names=[self.names[index] for index in chosen], folder_of=folder_of)

    def references(self, indices: Sequence[int]) -> References:
        """References to the images with these indices."""
        folders = [self.folders[self.folder_of[index]] for index in indices]
        files = [prefix + self.names[index] for (prefix, _), index in zip(folders, indices, strict=True)]
        return References(encode_paths(files), files, [truth for _, truth in folders])

    def add(self, prefix: bytes, name: bytes, truth: str | None) -> None:
        """One more image at the end; `prefix` is its folder as printed, with its slash, or empty."""
        folder = (prefix, truth)
        number = self.numbers.setdefault(folder, len(self.folders))
        if number == len(self.folders):
            self.folders.append(folder)
        self.names.append(name)
        self.folder_of.append(number)


class _Lister:
    """Walks PATHS into a Listing, remembering what it has listed."""

    def __init__(self, truth_of: Callable[[str], str | None], recursive: bool) -> None:
        self.truth_of = truth_of  # a folder's name -> its truth
        self.recursive = recursive
        self.listing = Listing()
        self.identity = lru_cache(maxsize=4096)(_identity)  # a list names many files of one folder
        self.walked: dict[bytes, list[bytes]] = {}  # folder -> what it held, sorted
        self.named: dict[bytes, set[bytes]] = {}  # folder -> names given one by one

    def add_file(self, path: bytes) -> None:
        """A file named by the user: always a row, whatever it is."""
        folder, name = os.path.split(path)
        prefix = path[: len(path) - len(name)]
        key = self.identity(folder)
        if not self._listed(key, name):
            self.named.setdefault(key, set()).add(name)
            self.listing.add(prefix, name, None)

    def _listed(self, key: bytes, name: bytes) -> bool:
        walked = self.walked.get(key, [])
        index = bisect_left(walked, name)
        return walked[index : index + 1] == [name] or name in self.named.get(key, ())

    def add_folder(self, path: bytes) -> None:
        """A folder and, if recursive, those below it, in the bytewise order of the whole paths."""
        if os.path.lexists(os.path.join(path, os.fsencode(MARKER))):
            raise UsageError(f"{encode_path(path)} was written by ferbatch and is not read as a source")
        prefix = path.rstrip(b"/") + b"/"
        root = self.identity(path)
        truth = self.truth_of(os.fsdecode(os.path.basename(root)))
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
        again = key in self.walked
        try:
            with os.scandir(prefix) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found.append(entry.name + b"/")
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        self.listing.links += not again
                    elif _is_image(entry):
                        found.append(entry.name)
                    else:
                        self.listing.left_aside += not again
        except OSError:  # not ours to list, or its path is too long: a row says so, and the run goes on
            path = prefix.rstrip(b"/")
            name = os.path.basename(path)
            if not again:
                yield path[: len(path) - len(name)], name, os.path.dirname(key), truth, False
        found.sort()
        for name in found:
            if not name.endswith(b"/"):
                yield prefix, name, key, truth, False
            elif self.recursive and not os.path.lexists(prefix + name + os.fsencode(MARKER)):
                label = self.truth_of(os.fsdecode(name[:-1]))
                yield prefix, name[:-1], key, label or truth, True
        if found or not again:
            self.walked[key] = found


def _is_image(entry: os.DirEntry[bytes]) -> bool:
    """By its extension, or where that is unknown by its first bytes."""
    if type_of_name(entry.name):
        try:  # the system tells a plain file without a look at each
            return entry.is_file() or not os.path.exists(entry.path)
        except OSError:  # a link to itself, or to where we may not look: a row will say so
            return True
    with suppress(OSError):
        if entry.is_file():
            with open(entry.path, "rb") as stream:
                return type_of_bytes(stream.read(SIGNATURE_BYTES)) is not None
    return False


def _identity(folder: bytes) -> bytes:
    """One name for a folder however it is spelled; links stay distinct, `..` is resolved as the system does."""
    parts = folder.split(b"/")
    if b".." in parts:
        end = len(parts) - parts[::-1].index(b"..")
        folder = os.path.join(os.path.realpath(b"/".join(parts[:end])), *parts[end:])
    return b"/" + os.path.abspath(folder or b".").lstrip(b"/")  # abspath leaves `//a`, which is `/a`


def list_images(
    paths: Iterable[str | bytes | os.PathLike[str]],
    labels: Sequence[str],
    *,
    listed: Iterable[bytes] | None = None,
    recursive: bool = True,
    classes: Mapping[str, str] | None = None,
) -> Listing:
    """The images under `paths` (folders and files), each path once; with `listed`, `-` stands for the paths in it.

    Folders are sorted bytewise by whole path. A path that is missing raises UsageError; a missing file in `listed`
    keeps its place, to become a row.

    paths: PATHS as they were given.
    labels: an image's truth is the nearest folder at or below PATH that is named like one of these.
    listed: the paths that `-` stands for.
    recursive: whether folders below PATH are walked.
    classes: other names of folders, in lower case, and the labels that they stand for.
    """
    lister = _Lister(partial(label_of, labels=labels, classes=classes), recursive)
    for path in map(os.fsencode, paths):
        if path == LIST and listed is not None:
            for one in listed:
                lister.add_folder(one) if os.path.isdir(one) else lister.add_file(one)
        elif os.path.isdir(path):
            if not os.access(path, os.R_OK | os.X_OK):
                raise UsageError(f"{encode_path(path)} cannot be listed: permission denied")
            lister.add_folder(path)
        elif os.path.lexists(path):
            lister.add_file(path)
        else:
            raise UsageError(f"no such file or folder: {encode_path(path)}")
    return lister.listing


def read_list(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    """The paths in a list, one at a time; empty ones are skipped, and CRs where lines end in CR LF.

    A byte order mark is no part of the first path, unless a file is called so; after that of UTF-16, as PowerShell
    writes it, the list is read as that. UsageError where a path holds a NUL, which none can.
    """
    paths = _split(_chunks(stream, separator), separator)
    for path in itertools.chain([_without_mark(next(paths))], paths):
        if separator == b"\n" and path.endswith(b"\r") and not os.path.lexists(path):
            path = path[:-1]
        if path:
            yield path


def _without_mark(path: bytes) -> bytes:
    """The first path of a list without a byte order mark before it."""
    found = os.path.lexists(path) or os.path.lexists(path.removesuffix(b"\r"))
    return path if found else path.removeprefix(codecs.BOM_UTF8)


def _chunks(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    """A stream piece by piece, in UTF-8 where it begins as UTF-16 does; UsageError for a NUL that separates nothing."""
    chunk = stream.read(CHUNK)
    # In what is UTF-16, every line end and most of a path are bytes of which one is a NUL.
    is_utf16 = separator == b"\n" and chunk[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and b"\0" in chunk
    decoder = codecs.getincrementaldecoder("utf-16")() if is_utf16 else None
    while chunk:
        try:
            text = decoder.decode(chunk).encode() if decoder else chunk
        except UnicodeDecodeError:
            raise UsageError(
                "the list on stdin begins as UTF-16 does and goes on otherwise: write it as UTF-8"
            ) from None
        if separator != b"\0" and b"\0" in text:
            raise UsageError(_of_nul(text))
        yield text
        chunk = stream.read(CHUNK)
    if decoder and decoder.getstate()[0]:
        raise UsageError("the list on stdin is UTF-16 and ends within a character: write it as UTF-8")


def _of_nul(chunk: bytes) -> str:
    """What is wrong with a list in which there are NULs, in a sentence."""
    halves = ((b"\n\0", chunk[1:64:2]), (b"\0\n", chunk[0:64:2]))  # of what is ASCII one byte of two is a NUL
    if any(line_end in chunk and not half.strip(b"\0") for line_end, half in halves):
        return "the list on stdin seems to be UTF-16 without a byte order mark: write it as UTF-8"
    return "the list on stdin holds NUL bytes: say --null (-0) if they separate its paths"


def _split(chunks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """The parts of a stream between separators, the last one too."""
    begun: list[bytes] = []  # parts of a path that the next chunk goes on with
    for chunk in chunks:
        *whole, rest = chunk.split(separator)
        if whole:
            yield b"".join(begun) + whole[0]
            yield from whole[1:]
            begun.clear()
        begun.append(rest)
    yield b"".join(begun)
