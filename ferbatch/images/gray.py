"""A decoded image of any mode -> gray or colour, over white, strip by strip."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags
OVERSHOOT = 1.1  # how far resampling may push a value over its range
PNG_SCALES = {"L;2": 85, "L;4": 17}  # by Pillow's name for the file's own depth
LARGE_PIXELS = 2**24  # in colour, images of more are decoded one at a time
ONE_IN_COLOUR = threading.Lock()  # held by the thread that decodes a large image in colour
STRIP_PIXELS = 2**20  # converted at a time


def transparent_value(image: Image.Image) -> Any:
    """What is transparent, as values of the decoded image: Pillow brings a PNG's pixels to 8 bits, but not this."""
    transparent = image.info.get("transparency")
    rawmode = image.tile[0].args if isinstance(image, PngImageFile) and len(image.tile) == 1 else None
    if rawmode in PNG_SCALES and isinstance(transparent, int):
        return transparent * PNG_SCALES[str(rawmode)]
    if rawmode == "RGB;16B" and isinstance(transparent, tuple):
        return tuple(value >> 8 for value in transparent)
    return transparent


def to_gray(image: Image.Image) -> Image.Image:
    """Any Pillow mode as L: transparency over white, more than 8 bits scaled. Strip by strip, to spare memory.

    The image itself is left as it is, but for being loaded.
    """
    transparent = transparent_value(image)  # loading forgets how the values were stored
    image.load()
    if image.mode == "L" and "transparency" not in image.info:
        return image
    convert = _scaler(image) if image.mode[0] in "IF" else _strip_to_gray
    gray = Image.new("L", image.size)
    for top, strip in _strips(image):
        if transparent is not None:
            strip.info["transparency"] = transparent
        gray.paste(convert(strip), (0, top))
    return gray


def to_colour(image: Image.Image, side: int | None) -> Image.Image:
    """Any Pillow mode as RGB, by way of gray where it has more than 8 bits; reduced while it stays `side` pixels long.

    Of large images one at a time, whatever the number of threads: it is their pixels that memory goes into.
    """
    with ONE_IN_COLOUR if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
        if image.mode[0] in "IF":
            return to_gray(image).convert("RGB")
        transparent = transparent_value(image)
        image.load()
        by = max(1, min(max(image.size) // side, *image.size)) if side else 1
        picture = Image.new("RGB", (-(-image.width // by), -(-image.height // by)))
        for top, strip in _strips(image, by):
            if transparent is not None:
                strip.info["transparency"] = transparent
            picture.paste(_strip_to_colour(strip).reduce(by), (0, top // by))
        return picture


def _strips(image: Image.Image, by: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """The image in strips of so many rows as can be divided `by` this, each with the row that it begins at."""
    rows = max(1, STRIP_PIXELS // image.width // by) * by
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_to_colour(strip: Image.Image) -> Image.Image:
    """RGB, over white where it is transparent; of a LAB image its lightness."""
    if strip.has_transparency_data:
        colours = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return strip.getchannel("L").convert("RGB") if strip.mode == "LAB" else strip.convert("RGB")


def _strip_to_gray(strip: Image.Image) -> Image.Image:
    return _strip_to_colour(strip).convert("L")


def _scaler(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes L of a strip of this image of more than 8 bits."""
    low, high = _range(image)
    inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0  # Pillow inverts 8 bits only
    transparent = image.info.get("transparency")

    def scale(strip: Image.Image) -> Image.Image:
        values = np.nan_to_num(np.asarray(strip, dtype=np.float64), nan=low, posinf=high, neginf=low)
        scaled = (values.clip(low, high) - low) * (255 / (high - low))
        if inverted:
            scaled = 255 - scaled
        if isinstance(transparent, int):
            scaled[values == transparent] = 255
        return Image.fromarray(scaled.round().astype(np.uint8))

    return scale


def _range(image: Image.Image) -> tuple[float, float]:
    """The values that are black and white: by the format, else the smallest customary range that holds them."""
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
        return 0.0, 2.0**bits - 1
    if image.mode == "I" and image.format == "PPM":
        return 0.0, 65535.0
    low, high = math.inf, -math.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        if (finite := values[np.isfinite(values)]).size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return 0.0, 1.0
    if low < 0:
        return low, max(high, low + 1e-9, low * (1 - 1e-15))  # never equal, however far below zero
    return 0.0, next((ceiling for ceiling in (1.0, 255.0, 65535.0) if high <= ceiling * OVERSHOOT), high)
