"""The decode stage: references -> Batches with their crops, or the reasons why not. Without torch, for processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core.batch import Batch, References
from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.files import stat_of, version_in
from ferbatch.core.records import LARGE_SIDE, NO_VERSION, WIDE_RATIO, Box, Decoding, Failure, Search, Version
from ferbatch.images import faces
from ferbatch.images.decode import SEARCHED_SIDE, GrayImage, decode, read_bytes
from ferbatch.images.face_files import remove_crops, write_crops
from ferbatch.images.formats import type_of_name
from ferbatch.images.inputs import input_of, luma_of, model_input

SOON = 0.4  # seconds after which what is decoded is handed on, however few images it is
# What one image holds: model inputs, (size, size) each; the boxes of its faces, None where it is taken whole; and
# whether it is then too large or wide for a cropped face.
Content = tuple[Sequence[NDArray[np.uint8]], Sequence[Box] | None, bool]
NOTHING: Content = ((), None, False)


@dataclass(slots=True)
class Gathered:
    """Images that are decoded one after the other, until they are a Batch."""

    size: int  # pixels on each side of a model input
    contents: list[Content] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.contents)

    def add(self, content: Content | Failure, version: Version = NO_VERSION) -> None:
        """One more image: what it holds, or why it could not be read."""
        if isinstance(content, Failure):
            self.failures[len(self)] = content
            content = NOTHING
        self.contents.append(content)
        self.versions.append(version)

    def batch(self, first: int, references: References) -> Batch:
        """The images, of which the first has this number, with their references."""
        inputs = [pixels for found, _, _ in self.contents for pixels in found]
        crops = np.array([len(found) for found, _, _ in self.contents], np.int64)
        searched = np.array([boxes is not None for _, boxes, _ in self.contents], np.bool_)
        image = np.repeat(np.arange(len(self)), crops)
        corners, scores = np.zeros((len(inputs), 4), np.int64), np.zeros(len(inputs))
        found = [box for _, boxes, _ in self.contents if boxes for box in boxes]
        corners[searched[image]] = np.array([(b.x, b.y, b.width, b.height) for b in found], np.int64).reshape(-1, 4)
        scores[searched[image]] = [box.score for box in found]
        return Batch(
            first,
            references,
            np.array(self.versions, np.int64).reshape(-1, 2),
            self.failures,
            searched,
            np.array([large for _, _, large in self.contents], np.bool_),
            image,
            corners,
            scores,
            np.concatenate([*inputs, np.zeros((0, self.size), np.uint8)]).reshape(-1, self.size, self.size),
        )


def batches(
    first: int, references: References, decoding: Decoding, watch: Callable[[int | None], None] = lambda number: None
) -> Iterator[Batch]:
    """Images as one Batch; where they take long, as several, so that what is done is not waited for.

    first: the number of the first image.
    references: to the images.
    decoding: how they become inputs of a model.
    watch: told which image comes next, by its number, and None before a batch is handed on.
    """
    gathered, begun, start = Gathered(decoding.size), 0, time.monotonic()
    for place, (path, file) in enumerate(zip(references.paths, references.files, strict=True)):
        watch(first + place)
        info = stat_of(file)
        try:
            gathered.add(read(path, file, decoding, info), version_in(info))
        except UnreadableImageError as error:
            if decoding.search.crops:
                remove_crops(decoding.search.crops, path)
            gathered.add(Failure(error.kind, str(error)), version_in(info))
        if time.monotonic() - start > SOON or place + 1 == len(references.files):
            watch(None)
            yield gathered.batch(first + begun, references.part(begun, place + 1))
            gathered, begun, start = Gathered(decoding.size), place + 1, time.monotonic()


def read(path: str, file: bytes, decoding: Decoding, info: os.stat_result | None = None) -> Content:
    """What the file holds; UnreadableImageError whatever it may hold instead.

    `decoding.search` says whether the image is taken whole, for one cropped face, or its faces are looked for: `auto`
    looks where the image is larger than a crop would be, and takes it whole after all where a face fills it.
    OutputError where crops cannot be written.

    path: of the image, as printed; its crops are named by it.
    file: as opened.
    decoding: how it becomes inputs of a model.
    info: what os.stat says of it, where it was asked already.
    """
    search = decoding.search
    data = read_bytes(file, info)
    luma = None if decoding.by_pillow else luma_of(data, decoding.size)
    if search.mode != "whole" and not (luma is not None and _is_small(luma.shape[1], luma.shape[0], search)):
        image = _to_search(data, luma, type_of_name(file))
        if not _is_small(image.width, image.height, search):
            found = faces.find(image, search)
            if search.mode == "detect" or not faces.is_crop(image, found):
                return searched(path, image, found, decoding)
    # What was searched and taken whole after all is decoded a second time, at the scale of a whole image: its pixels
    # must be the same whichever way that was decided.
    pixels, width, height = input_of(data, type_of_name(file), decoding.size, luma)
    if search.crops:
        remove_crops(search.crops, path)
    large = search.mode == "whole" and (max(width, height) > LARGE_SIDE or width > WIDE_RATIO * height)
    return [pixels], None, large


def _is_small(width: int, height: int, search: Search) -> bool:
    """Whether `auto` takes an image of this size for a crop without a search."""
    return search.mode == "auto" and max(width, height) <= faces.SMALL_SIDE


def _to_search(data: bytes, luma: NDArray[np.uint8] | None, suffix_type: str | None) -> GrayImage:
    """The image to look for faces in, from the quicker decoder where that has it."""
    if luma is not None:
        return GrayImage(Image.fromarray(luma), luma.shape[1], luma.shape[0])
    return decode(data, suffix_type, SEARCHED_SIDE)


def searched(path: str, image: GrayImage, found: Sequence[faces.Face], decoding: Decoding) -> Content:
    """The faces found in the image, the largest first, as model inputs; writes their crops where these are wanted.

    path: of the image, as printed.
    image: its pixels, which the faces were found in.
    found: its faces, the largest first.
    decoding: says the size of a model input, the margin round a face and where crops go.
    """
    search = decoding.search
    crops = [faces.crop(image, face, search.margin) for face in found]
    if search.crops:
        write_crops(search.crops, path, crops)
    return [model_input(crop, decoding.size) for crop in crops], [faces.box(face, image) for face in found], False
