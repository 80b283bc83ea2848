"""Where images come from: folders, files, lists. Lists each path once, in order.

An image costs its name and some 30 bytes, under 200 in all; a folder costs its path and some 500 bytes.
"""

from __future__ import annotations

import codecs
import itertools
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import References
from ferbatch.core.errors import UsageError
from ferbatch.core.names import encode_path, encode_paths, shown
from ferbatch.core.records import USUAL, ImageRef, Rules
from ferbatch.core.stores.urls import cleaned
from ferbatch.sources.aside import BY_HIDDEN, Reason, in_words
from ferbatch.sources.labels import label_of
from ferbatch.sources.walk import Tell, Walk

_Place = tuple[bytes, str | None]  # the path of a folder as printed, and the truth of what lies in it
STDIN = b"-"  # among PATHS: the list on stdin
Lists = Mapping[bytes, Iterable[bytes]]  # one of PATHS -> the paths that it stands for
CHUNK = 2**16  # bytes of a list that are read at a time


@dataclass
class Listing(Sequence[ImageRef]):
    """The images found, in order: a name and a folder's number each, made into ImageRefs only when asked for."""

    names: list[bytes] = field(default_factory=list)
    folder_of: array[int] = field(default_factory=lambda: array("I"))
    folders: list[_Place] = field(default_factory=list)
    numbers: dict[_Place, int] = field(default_factory=dict)
    left: Counter[Reason] = field(default_factory=Counter)  # what is left aside, by why

    @property
    def aside(self) -> str:
        """What was met and is not listed, in words; empty if there is nothing."""
        return in_words(self.left)

    @property
    def hides(self) -> bool:
        """Whether something is left aside that `Rules.hidden` takes."""
        return any(reason.kind in BY_HIDDEN for reason in self.left)

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


def list_images(
    paths: Iterable[str | bytes | os.PathLike[str]],
    labels: Sequence[str],
    *,
    listed: Lists | Iterable[bytes] | None = None,
    recursive: bool = True,
    classes: Mapping[str, str] | None = None,
    rules: Rules = USUAL,
) -> Listing:
    """The images under `paths` (folders and files), each path once; those in `listed` stand for other paths.

    Folders are sorted bytewise by whole path. A path that is missing raises UsageError; a missing file in `listed`
    keeps its place, to become a row.

    paths: PATHS as they were given.
    labels: an image's truth is the nearest folder at or below PATH that is named like one of these.
    listed: which of PATHS stand for others, and for which; or what `-` alone stands for.
    recursive: whether folders below PATH are walked.
    classes: other names of folders, in lower case, and the labels that they stand for.
    rules: what counts in folders; UsageError where a pattern in them is none.
    """
    listing = Listing()
    walk = Walk(partial(label_of, labels=labels, classes=classes), recursive, rules, listing.add)
    walk.add_all([_bytes_of(path) for path in paths], _lists(listed))
    listing.left = walk.left
    return listing


def found_aside(listing: Listing) -> str:
    """What there was besides images, for the end of a sentence that says there are none, or too few; or nothing."""
    hidden = "; --hidden takes in what is hidden" if listing.hides else ""
    return f" ({listing.aside}{hidden})" if listing.aside else ""


def look_through(
    paths: Iterable[str | bytes | os.PathLike[str]],
    tell: Tell,
    *,
    listed: Lists | Iterable[bytes] | None = None,
    recursive: bool = True,
    rules: Rules = USUAL,
) -> None:
    """Tell of each path that `list_images` meets, in its order, whether it would be taken, and why; keep none of them.

    Raises as `list_images` does; where several PATHS may overlap, names are kept to know what was listed already.
    """
    walk = Walk(lambda name: None, recursive, rules, lambda prefix, name, truth: None, tell)
    walk.add_all([_bytes_of(path) for path in paths], _lists(listed))


def _lists(listed: Lists | Iterable[bytes] | None) -> Lists:
    if isinstance(listed, Mapping):
        return listed
    return {} if listed is None else {STDIN: listed}


def _bytes_of(path: str | bytes | os.PathLike[str]) -> bytes:
    """A path as the system has it; UsageError for what cannot be one."""
    try:
        found = os.fsencode(path)
    except UnicodeEncodeError:
        found = b"\0"
    if b"\0" in found:
        raise UsageError(f"no file or folder can be called {shown(os.fsdecode(path))[:200]}")
    return cleaned(found)


def read_list(stream: BinaryIO, separator: bytes, name: str = "the list on stdin") -> Iterator[bytes]:
    """The paths in a list, one at a time; empty ones are skipped, and CRs where lines end in CR LF.

    A byte order mark is no part of the first path, unless a file is called so; after that of UTF-16, as PowerShell
    writes it, the list is read as that. Backslashes are slashes where only so a file is there. UsageError where a path
    holds a NUL, which none can; `name` is what that calls the list.
    """
    paths = _split(_chunks(stream, separator, name), separator)
    for path in itertools.chain([_without_mark(next(paths))], paths):
        if separator == b"\n" and path.endswith(b"\r") and not os.path.lexists(path):
            path = path[:-1]
        if path:
            yield _of_windows(path) if b"\\" in path else path


def _of_windows(path: bytes) -> bytes:
    """A path whose backslashes are slashes, where that leads to a file and the path as it stands does not."""
    other = path.replace(b"\\", b"/")
    return other if not os.path.lexists(path) and os.path.lexists(other) else path


def _without_mark(path: bytes) -> bytes:
    """The first path of a list without a byte order mark before it."""
    found = os.path.lexists(path) or os.path.lexists(path.removesuffix(b"\r"))
    return path if found else path.removeprefix(codecs.BOM_UTF8)


def _chunks(stream: BinaryIO, separator: bytes, name: str) -> Iterator[bytes]:
    """A stream piece by piece, in UTF-8 where it begins as UTF-16 does; UsageError for a NUL that separates nothing."""
    chunk = stream.read(CHUNK)
    # In what is UTF-16, every line end and most of a path are bytes of which one is a NUL.
    is_utf16 = separator == b"\n" and chunk[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and b"\0" in chunk
    decoder = codecs.getincrementaldecoder("utf-16")() if is_utf16 else None
    while chunk:
        try:
            text = decoder.decode(chunk).encode() if decoder else chunk
        except UnicodeDecodeError:
            raise UsageError(f"{name} begins as UTF-16 does and goes on otherwise: write it as UTF-8") from None
        if separator != b"\0" and b"\0" in text:
            raise UsageError(_of_nul(text, name))
        yield text
        chunk = stream.read(CHUNK)
    if decoder and decoder.getstate()[0]:
        raise UsageError(f"{name} is UTF-16 and ends within a character: write it as UTF-8")


def _of_nul(chunk: bytes, name: str) -> str:
    """What is wrong with a list in which there are NULs, in a sentence."""
    halves = ((b"\n\0", chunk[1:64:2]), (b"\0\n", chunk[0:64:2]))  # of what is ASCII one byte of two is a NUL
    if any(line_end in chunk and not half.strip(b"\0") for line_end, half in halves):
        return f"{name} seems to be UTF-16 without a byte order mark: write it as UTF-8"
    return f"{name} holds NUL bytes: say --null (-0) if they separate its paths"


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
