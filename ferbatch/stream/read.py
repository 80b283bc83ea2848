"""The decode stage: references -> Batches with their crops, or the reasons why not. Without torch, for processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core.batch import Batch, References
from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.files import stat_of, version_in
from ferbatch.core.records import LARGE_SIDE, WIDE_RATIO, Box, Decoding, Failure, Version
from ferbatch.core.stores import remote
from ferbatch.core.stores.urls import is_remote
from ferbatch.images import crops, faces
from ferbatch.images.decode import SEARCHED_SIDE, GrayImage, decode, read_bytes
from ferbatch.images.face_files import make_room, settle, write_crops
from ferbatch.images.formats import type_of_name
from ferbatch.images.inputs import input_of, luma_of, model_input

SOON = 0.4  # seconds after which what is decoded is handed on, however few images it is
# Images whose faces a device finds together, at the most, and pixels and bytes of theirs from which there are no more.
MOST_TOGETHER, HELD = 64, 2**24

T = TypeVar("T")


class Watch(Protocol):
    """Told what is being worked on, so that it is known where a process dies or takes too long."""

    def __call__(self, number: int | None, together: int = 1) -> None:
        """From the image of this number on so many, any of which may be to blame; None: none is."""


class Content(NamedTuple):
    """What one image holds, or why it could not be read."""

    inputs: Sequence[NDArray[np.uint8]] = ()  # model inputs, (size, size) each
    boxes: Sequence[Box] | None = None  # of its faces; None where it was taken whole
    large: bool = False  # whether it was, and is too large or too wide for a cropped face
    missed: bool = False  # whether it was, for no face was found in it
    failure: Failure | None = None


Some = tuple[list[Content], list[Version]]


class Opened(NamedTuple):
    """A file that is read, and the image in it where faces are to be looked for."""

    data: bytes
    suffix_type: str | None
    luma: NDArray[np.uint8] | None  # its pixels, from the quicker decoder where that has them
    image: GrayImage | None

    @property
    def size(self) -> int:
        """Bytes and pixels that are held for it, about."""
        return len(self.data) + (self.image.pixels.width * self.image.pixels.height if self.image else 0)


def gathered(
    first: int, references: References, size: int, contents: Sequence[Content], versions: Sequence[Version]
) -> Batch:
    """Images as a batch, of which the first has this number: what became of each, as inputs of `size` pixels a side."""
    inputs = [pixels for content in contents for pixels in content.inputs]
    searched = np.array([content.boxes is not None for content in contents], np.bool_)
    image = np.repeat(np.arange(len(contents)), [len(content.inputs) for content in contents])
    found = [box for content in contents for box in content.boxes or ()]
    boxes = np.zeros((len(inputs), len(Box._fields)))
    boxes[searched[image]] = np.reshape(found, (-1, len(Box._fields)))
    return Batch(
        first,
        references,
        np.array(versions, np.int64).reshape(-1, 2),
        {place: content.failure for place, content in enumerate(contents) if content.failure},
        searched,
        np.array([content.large for content in contents], np.bool_),
        np.array([content.missed for content in contents], np.bool_),
        image,
        boxes[:, :4].astype(np.int64),
        boxes[:, 4],
        boxes[:, 5].astype(np.int64),
        boxes[:, 6],
        boxes[:, 7],
        np.concatenate([*inputs, np.zeros((0, size), np.uint8)]).reshape(-1, size, size),
    )


def unwatched(number: int | None, together: int = 1) -> None:
    """A Watch that nobody needs."""


def batches(first: int, references: References, decoding: Decoding, watch: Watch = unwatched) -> Iterator[Batch]:
    """Images as one Batch; where they take long, as several, so that what is done is not waited for.

    first: the number of the first image.
    references: to the images.
    decoding: how they become inputs of a model.
    watch: told which images are looked at, and None while stores are waited for and before a batch is handed on.
    """
    remote.expect(references.files, decoding.connections)
    if decoding.search.crops is not None and is_remote(os.fsencode(decoding.search.crops)):
        remote.ahead(decoding.connections)
    try:
        yield from _batches(first, references, decoding, watch)
    finally:
        remote.forget(references.files)


def _batches(first: int, references: References, decoding: Decoding, watch: Watch) -> Iterator[Batch]:
    begun, start = 0, time.monotonic()
    contents, versions = list[Content](), list[Version]()
    each = _one_by_one if decoding.search.device is None else _together
    for some, theirs in each(first, references, decoding, watch):
        contents += some
        versions += theirs
        end = begun + len(contents)
        if time.monotonic() - start > SOON or end == len(references.files):
            watch(None)
            settle(decoding.search.crops)
            yield gathered(first + begun, references.part(begun, end), decoding.size, contents, versions)
            contents, versions, begun, start = [], [], end, time.monotonic()


def _one_by_one(first: int, references: References, decoding: Decoding, watch: Watch) -> Iterator[Some]:
    """Images, each alone: what they hold, and their versions."""
    for number, path, file in zip(count(first), references.paths, references.files, strict=False):
        watch(None)  # nor does the time of the image before count any more
        remote.wait_for(file)  # before its time counts, which is that of decoding
        make_room(decoding.search.crops)
        watch(number)
        info = stat_of(file)
        yield [_or_failure(path, decoding, partial(read, path, file, decoding, info))], [version_in(info)]


def _together(first: int, references: References, decoding: Decoding, watch: Watch) -> Iterator[Some]:
    """Images, a few at a time, whose faces a device finds together: as many as MOST_TOGETHER and HELD allow.

    Whatever goes wrong while it does so, any of them may be to blame.
    """
    held, versions, size, last = list[Opened | Content](), list[Version](), 0, len(references.files) - 1
    for place, (path, file) in enumerate(zip(references.paths, references.files, strict=True)):
        watch(None)
        remote.wait_for(file)
        make_room(decoding.search.crops)
        watch(first + place)
        info = stat_of(file)
        versions.append(version_in(info))
        held.append(_or_failure(path, decoding, partial(opened, file, decoding, info)))
        size += held[-1].size if isinstance(held[-1], Opened) else 0
        if size < HELD and len(held) < MOST_TOGETHER and place < last:
            continue
        watch(first + place + 1 - len(held), len(held))
        to_search = [one.image for one in held if isinstance(one, Opened) and one.image]
        faces_of = iter(faces.find_all(to_search, decoding.search))
        contents = list[Content]()
        for at, one in enumerate(held, place + 1 - len(held)):
            if isinstance(one, Opened):
                watch(first + at)
                found, path = next(faces_of) if one.image else [], references.paths[at]
                one = _or_failure(path, decoding, partial(content_of, path, one, found, decoding))
            contents.append(one)
        yield contents, versions
        held, versions, size = [], [], 0


def _or_failure(path: str, decoding: Decoding, look: Callable[[], T]) -> T | Content:
    """What comes of looking at an image; a Content that says why where nothing does."""
    try:
        return look()
    except UnreadableImageError as error:
        write_crops(decoding.search.crops, path, anew=decoding.anew)
        return Content(failure=Failure(error.kind, str(error)))


def read(path: str, file: bytes, decoding: Decoding, info: os.stat_result | None = None) -> Content:
    """What the file holds; UnreadableImageError whatever it may hold instead.

    `decoding.search` says whether the image is taken whole, for one cropped face, or its faces are looked for: `auto`
    looks where the image is larger than a crop would be, and takes it whole after all where a face fills it, or where
    it may be a crop though none is found.
    OutputError where crops cannot be written.

    path: of the image, as printed; its crops are named by it.
    file: as opened.
    decoding: how it becomes inputs of a model.
    info: what os.stat says of it, where it was asked already.
    """
    held = opened(file, decoding, info)
    return content_of(path, held, faces.find(held.image, decoding.search) if held.image else [], decoding)


def opened(file: bytes, decoding: Decoding, info: os.stat_result | None = None) -> Opened:
    """The file's bytes, and the image in them where faces are to be looked for; arguments and errors as of `read`."""
    data, suffix_type = read_bytes(file, info), type_of_name(file)
    luma = None if decoding.by_pillow else luma_of(data, decoding.size)
    return Opened(data, suffix_type, luma, _to_search(data, luma, suffix_type, decoding))


def content_of(path: str, held: Opened, found: Sequence[faces.Face], decoding: Decoding) -> Content:
    """What an opened file holds, of which the faces were looked for; arguments and errors as of `read`."""
    search, image, missed = decoding.search, held.image, False
    if image:
        missed = not found and crops.may_be_crop(image)
        if search.mode == "detect" or not (missed or crops.is_crop(image, found)):
            return searched(path, image, found, decoding)
    # What was searched and taken whole after all is decoded a second time, at the scale of a whole image: its pixels
    # must be the same whichever way that was decided.
    pixels, width, height = input_of(
        held.data, held.suffix_type, decoding.size, held.luma, by_pillow=decoding.by_pillow
    )
    write_crops(search.crops, path, anew=decoding.anew)
    large = search.mode == "whole" and (max(width, height) > LARGE_SIDE or width > WIDE_RATIO * height)
    return Content([pixels], None, large, missed)


def _to_search(
    data: bytes, luma: NDArray[np.uint8] | None, suffix_type: str | None, decoding: Decoding
) -> GrayImage | None:
    """The image to look for faces in, from the quicker decoder where that has it; None where it is taken for a crop."""
    smallest = faces.SMALL_SIDE if decoding.search.mode == "auto" else 0
    if decoding.search.mode == "whole" or (luma is not None and max(luma.shape) <= smallest):
        return None
    if luma is not None:
        return GrayImage(Image.fromarray(luma), luma.shape[1], luma.shape[0])
    image = decode(data, suffix_type, SEARCHED_SIDE, by_pillow=decoding.by_pillow)
    return image if max(image.width, image.height) > smallest else None


def searched(path: str, image: GrayImage, found: Sequence[faces.Face], decoding: Decoding) -> Content:
    """The faces found in the image, the largest first, as model inputs; writes their crops where these are wanted.

    path: of the image, as printed.
    image: its pixels, which the faces were found in.
    found: its faces, the largest first.
    decoding: says the size of a model input, the margin round a face and where crops go.
    """
    search = decoding.search
    cut = [crops.crop(image, face, search) for face in found]
    write_crops(search.crops, path, cut, anew=decoding.anew)
    boxes = [crops.seen(image, face, crop, search) for face, crop in zip(found, cut, strict=True)]
    return Content([model_input(crop, decoding.size) for crop in cut], boxes)
