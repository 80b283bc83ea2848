"""The decode stage: a reference -> Decoded, its pixels or the reason why not. Without torch, for worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.files import stat_of
from ferbatch.core.records import LARGE_SIDE, WIDE_RATIO, Box, Decoding, Failure, ImageRef, Search, Version
from ferbatch.images import faces
from ferbatch.images.decode import SEARCHED_SIDE, GrayImage, decode, read_bytes
from ferbatch.images.face_files import remove_crops, write_crops
from ferbatch.images.formats import type_of_name
from ferbatch.images.inputs import input_of, luma_of, model_input

Scored = tuple[int, list[float]]  # the index of the label that a model gives, and each label's rounded probability
NOTHING = np.empty((0, 0, 0), np.uint8)  # no model inputs


@dataclass(slots=True)
class Decoded:
    """An image on its way through the network: its reference and its model inputs, or what went wrong, never parted."""

    ref: ImageRef
    inputs: NDArray[np.uint8] = field(
        default_factory=lambda: NOTHING
    )  # (N, size, size): nothing, the image, or its faces
    error: Failure | None = None
    whole_picture: bool = False  # too large or too wide for a cropped face, and taken for one
    version: Version | None = None  # of the file, as it was before it was read; None: there was none
    boxes: Sequence[Box] | None = None  # of its faces, the largest first; None: the image is taken whole
    scored: Sequence[Scored] = ()  # what a model says of each input, once it was asked


def read(ref: ImageRef, decoding: Decoding) -> Decoded:
    """The file as model inputs, (size, size) each, or as the reason why not; never raises for what a file may hold.

    `decoding.search` says whether the image is taken whole, for one cropped face, or its faces are looked for: `auto`
    looks where the image is larger than a crop would be, and takes it whole after all where a face fills it.
    OutputError where crops cannot be written.
    """
    info, search = stat_of(ref.file), decoding.search
    version = Version(info.st_size, info.st_mtime_ns) if info else None
    try:
        data = read_bytes(ref.file, info)
        luma = None if decoding.by_pillow else luma_of(data, decoding.size)
        if search.mode != "whole" and not (luma is not None and _is_small(luma.shape[1], luma.shape[0], search)):
            image = _to_search(data, luma, type_of_name(ref.file))
            if not _is_small(image.width, image.height, search):
                found = faces.find(image, search)
                if search.mode == "detect" or not faces.is_crop(image, found):
                    return searched(ref, image, found, decoding, version)
        # What was searched and taken whole after all is decoded a second time, at the scale of a whole image: its
        # pixels must be the same whichever way that was decided.
        return _whole(ref, data, luma, decoding, version)
    except UnreadableImageError as error:
        if search.crops:
            remove_crops(search.crops, ref.path)
        return Decoded(ref, error=Failure(error.kind, str(error)), version=version)


def _is_small(width: int, height: int, search: Search) -> bool:
    """Whether `auto` takes an image of this size for a crop without a search."""
    return search.mode == "auto" and max(width, height) <= faces.SMALL_SIDE


def _to_search(data: bytes, luma: NDArray[np.uint8] | None, suffix_type: str | None) -> GrayImage:
    """The image to look for faces in, from the quicker decoder where that has it."""
    if luma is not None:
        return GrayImage(Image.fromarray(luma), luma.shape[1], luma.shape[0])
    return decode(data, suffix_type, SEARCHED_SIDE)


def _whole(
    ref: ImageRef, data: bytes, luma: NDArray[np.uint8] | None, decoding: Decoding, version: Version | None
) -> Decoded:
    """The image as one model input.

    ref: the image.
    data: its file's content.
    luma: what the quicker decoder made of it, if it could.
    decoding: says the size of a model input, and where crops of an earlier run may lie.
    version: of the file, as it was before it was read.
    """
    search = decoding.search
    pixels, width, height = input_of(data, type_of_name(ref.file), decoding.size, luma)
    large = search.mode == "whole" and (max(width, height) > LARGE_SIDE or width > WIDE_RATIO * height)
    if search.crops:
        remove_crops(search.crops, ref.path)
    return Decoded(ref, pixels[np.newaxis], whole_picture=large, version=version)


def searched(
    ref: ImageRef,
    image: GrayImage,
    found: Sequence[faces.Face],
    decoding: Decoding,
    version: Version | None = None,
) -> Decoded:
    """The faces found in the image as model inputs; writes their crops where these are wanted.

    ref: the image.
    image: its pixels, which the faces were found in.
    found: its faces, the largest first.
    decoding: says the size of a model input, the margin round a face and where crops go.
    version: of the image's file; None if it has none.
    """
    search = decoding.search
    crops = [faces.crop(image, face, search.margin) for face in found]
    if search.crops:
        write_crops(search.crops, ref.path, crops)
    size = decoding.size
    inputs = np.array([model_input(crop, size) for crop in crops], np.uint8).reshape(-1, size, size)
    return Decoded(ref, inputs, version=version, boxes=[faces.box(face, image) for face in found])
