"""Bytes or a gray image -> model input: the one preprocessing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images import jpeg
from ferbatch.images.decode import BLANK, decode

PREPROCESSING_VERSION = 2  # raised whenever what an image gives changes: its labels are then made again

# What `model_input` does, for the card: change both together.
PREPROCESSING = {
    "gray": "ITU-R 601-2 luma, over white where transparent",
    "aspect": "kept, centred on a black square",
    "filter": "bilinear",
    "antialias": True,
}
REDUCED_SIDE = 4  # a large JPEG is decoded at 1/2, 1/4 or 1/8 while both sides stay this many times the model's


def input_of(
    data: bytes,
    suffix_type: str | None,
    size: int,
    luma: NDArray[np.uint8] | None = None,
    *,
    by_pillow: bool = False,
) -> tuple[NDArray[np.uint8], int, int]:
    """The model input (size, size) of the image in `data`, and the image's own upright width and height.

    `luma` is what `luma_of` gave of the data; it makes the very same pixels, sooner. `by_pillow` is as in `decode`.
    Raises UnreadableImageError, whatever the decoder met.
    """
    if luma is not None:
        height, width = luma.shape
        return luma if luma.shape == (size, size) else model_input(Image.fromarray(luma), size), width, height
    image = decode(data, suffix_type, REDUCED_SIDE * size, by_pillow=by_pillow)
    return model_input(image.pixels, size), image.width, image.height


def luma_of(data: bytes, size: int) -> NDArray[np.uint8] | None:
    """(H, W) uint8, by the quicker decoder; None for what is no plain JPEG of a face. Raises UnreadableImageError."""
    luma = jpeg.luma(data, 2 * REDUCED_SIDE * size)  # from there on Pillow reduces
    if luma is not None:
        row = luma[0].tobytes()
        if row.count(row[0]) == len(row) and (luma == luma[0, 0]).all():
            raise UnreadableImageError("blank", BLANK)
    return luma


def model_input(gray: Image.Image, size: int) -> NDArray[np.uint8]:
    """The pixels the network sees, (size, size) uint8: PREPROCESSING in code, for train, label and evaluate."""
    if gray.size == (size, size):
        return np.array(gray)
    scale = size / max(gray.size)  # ImageOps.pad would do, but fails where a side comes out as 0
    width, height = (max(1, round(side * scale)) for side in gray.size)
    square = Image.new("L", (size, size))  # black, as the borders that augmentation makes in training
    resized = gray.resize((width, height), Image.Resampling.BILINEAR)  # Pillow's filters antialias when shrinking
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return np.array(square)
