"""From a face that was found to its crop, as the networks' training faces are, and what a row says of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ferbatch.core.records import DIGITS, TURNED, Box, Search
from ferbatch.images import frames, quality
from ferbatch.images.decode import GrayImage
from ferbatch.images.faces import FACES, MAYBE_CROP, Face
from ferbatch.images.frames import Frame

FILLS = 1.25  # a face whose crop is larger than the image's shorter side by this fills it: the image is the crop
SMALLEST_CROP = 48  # pixels on a side: a smaller face is scaled up
ALMOST_SQUARE = 4 / 3  # the longer side of an image that may be a crop though no face is found, by the shorter, at most
# A face whose frame is this share of the image's shorter side is a crop already; it leans from so many degrees on.
# With both, `whole` and `detect` give the same label to 0.95 (FER2013) to 0.999 (RAF-DB) of the faces found.
CROPPED, LEANS = 0.85, 8.0


def is_crop(image: GrayImage, found: Sequence[Face]) -> bool:
    """Whether the largest of the faces found in an image fills it, and stands upright in it."""
    if not found or abs(found[0].turn) > TURNED:
        return False
    return found[0].frame.side >= FILLS * min(image.pixels.size)


def may_be_crop(image: GrayImage) -> bool:
    """Whether an image in which no face was found may be a crop of one all the same: it is small and almost square."""
    shorter, longer = sorted((image.width, image.height))
    return longer <= MAYBE_CROP and longer <= ALMOST_SQUARE * shorter


def box(face: Face, image: GrayImage) -> Box:
    """The face's box in whole pixels of the upright image, within its borders."""
    across, down = image.width / image.pixels.width, image.height / image.pixels.height
    left, top = max(0, round(face.x * across)), max(0, round(face.y * down))
    left, top = min(left, image.width - 1), min(top, image.height - 1)
    right, bottom = round((face.x + face.width) * across), round((face.y + face.height) * down)
    width, height = min(right, image.width) - left, min(bottom, image.height) - top
    return Box(left, top, max(1, width), max(1, height), round(min(1.0, face.score), DIGITS))


def crop(image: GrayImage, face: Face, search: Search = FACES) -> Image.Image:
    """The face as the networks want it, a gray square at its own resolution, by the margin that the search says.

    At most the image's resolution, at least SMALLEST_CROP pixels.
    """
    frame = _crop_frame(image, face, search)
    return frame.cut(image.pixels, max(SMALLEST_CROP, round(frame.side)))


def seen(image: GrayImage, face: Face, crop: Image.Image, search: Search = FACES) -> Box:
    """The face's box, and what its crop by this search tells of it."""
    turn = round(face.turn)
    return box(face, image)._replace(
        turn=180 if turn == -180 else turn,
        blur=round(quality.blur(crop), DIGITS),
        cut=round(_crop_frame(image, face, search).share_outside(image.pixels.size), DIGITS),
    )


def _crop_frame(image: GrayImage, face: Face, search: Search) -> Frame:
    """The frame of a face's crop.

    A face that fills the image is cropped already, by somebody: then it is as much of the image as there is in a
    square, and levelled only where it leans. Nothing else gives the same labels as the whole image.
    """
    bare, shorter = face.frame, min(image.pixels.size)
    if search.reframe or bare.side < CROPPED * shorter:
        return bare.widened(search.margin)
    level = 90 * round(face.turn / 90)
    axes = frames.axes(level) if abs(face.turn - level) <= LEANS else bare.axes
    half = np.array((shorter / 2, shorter / 2))
    middle = (bare.corner + bare.side / 2 * bare.axes.sum(0)).clip(half, np.array(image.pixels.size) - half)
    side = shorter * (1 + 2 * search.margin)
    return Frame(middle - side / 2 * axes.sum(0), axes, side)
