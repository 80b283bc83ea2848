"""Bytes -> upright gray image -> model input. The one door around the decoder, and the one preprocessing.

What a person sees is what counts: EXIF orientation is applied, transparency is laid over white, 16-bit values are
scaled, the first frame of an animation is taken. ICC profiles are not applied.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ferbatch.errors import UnreadableImageError
from ferbatch.filetypes import IMAGE_TYPES, SIGNATURE_BYTES, type_of_bytes

MAX_BYTES = 256 * 2**20  # of one file
MAX_PIXELS = 2 * 89_478_485  # of one image; where Pillow itself begins to refuse

# What `model_input` does, for the card: change both together.
PREPROCESSING = {
    "gray": "ITU-R 601-2 luma, over white where transparent",
    "aspect": "stretched to the square",
    "filter": "bilinear",
    "antialias": True,
}
BITS_PER_SAMPLE = 258  # the TIFF tag
REDUCED_SIDE = 4  # a large JPEG is decoded at 1/2, 1/4 or 1/8 while both sides stay this many times the model's


@dataclass(frozen=True, slots=True)
class GrayImage:
    """A decoded image: mode L and upright; large JPEGs come reduced, `width` and `height` are the file's own."""

    pixels: Image.Image
    width: int  # pixels, upright, before any reduction
    height: int


def read_bytes(file: bytes) -> bytes:
    """A regular file's content; UnreadableImageError where it is gone, forbidden, no file, or over MAX_BYTES."""
    try:
        info = os.stat(file)
        if stat.S_ISDIR(info.st_mode):  # sources lists a folder as if it were a file only where it may not look inside
            raise UnreadableImageError("permission", "a folder that cannot be listed")
        if not stat.S_ISREG(info.st_mode):
            raise UnreadableImageError("unsupported", "not a regular file")
        if info.st_size > MAX_BYTES:
            raise UnreadableImageError("too_large", f"{info.st_size:,} bytes, the limit is {MAX_BYTES:,}")
        with open(file, "rb") as stream:
            return stream.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableImageError("not_found", "no such file") from error
    except PermissionError as error:
        raise UnreadableImageError("permission", "permission denied") from error
    except OSError as error:
        raise UnreadableImageError("unreadable", error.strerror or "cannot be read") from error


def decode(data: bytes, suffix_type: str | None = None, side: int | None = None) -> GrayImage:
    """The upright gray image in `data`.

    `suffix_type` is what the file's name says it is: believed only where the bytes themselves say nothing.
    With `side` (pixels), a JPEG much larger than that is decoded at reduced scale.
    Raises UnreadableImageError, whatever the decoder met.
    """
    if not data:
        raise UnreadableImageError("truncated", "the file is empty")
    kind = type_of_bytes(data[:SIGNATURE_BYTES])
    if kind is None and suffix_type and IMAGE_TYPES[suffix_type].signature is None:
        kind = suffix_type
    if kind is None:
        raise UnreadableImageError("unreadable", "not an image of a known type")
    if not IMAGE_TYPES[kind].decoded:
        raise UnreadableImageError("unsupported", f"{kind} images are not supported; convert to JPEG or PNG")
    try:
        return _decode(data, kind, side)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders throw anything at all; nothing else is called in there
        raise _unreadable(error, kind) from error


def _decode(data: bytes, kind: str, side: int | None) -> GrayImage:
    with Image.open(BytesIO(data), formats=[kind]) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnreadableImageError("too_large", f"{width} x {height} pixels, the limit is {MAX_PIXELS:,}")
        if kind == "JPEG":
            wanted = REDUCED_SIDE * side if side else max(width, height)
            image.draft("L", (wanted, wanted))  # luma straight from the file, reduced where that is enough
        image.load()
        size = image.size
        with suppress(Exception):  # damaged EXIF says nothing about the pixels
            ImageOps.exif_transpose(image, in_place=True)
        if image.size != size:
            width, height = height, width
        gray = _to_gray(image)
    return GrayImage(_not_blank(gray), width, height)


def _unreadable(error: Exception, kind: str) -> UnreadableImageError:
    """What a decoder threw, as one of our kinds; the message keeps its words, on one line."""
    words = " ".join(str(error).split())[:200] or type(error).__name__
    words = "".join(char if char.isprintable() else "?" for char in words)
    if isinstance(error, UnidentifiedImageError):  # its words name a BytesIO object
        return UnreadableImageError("unreadable", f"damaged {kind} header")
    if isinstance(error, NotImplementedError):
        return UnreadableImageError("unsupported", f"{kind}: {words}")
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return UnreadableImageError("too_large", f"{kind}: {words}")
    if isinstance(error, EOFError) or "truncated" in words.lower():
        return UnreadableImageError("truncated", f"{kind}: {words}")
    return UnreadableImageError("unreadable", f"{kind}: {words}")


def _to_gray(image: Image.Image) -> Image.Image:
    """Any Pillow mode as L: transparency over white, more than 8 bits scaled."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("L")
    if image.mode == "LAB":
        return image.getchannel("L")
    return image if image.mode == "L" else image.convert("RGB").convert("L")


def _scaled(image: Image.Image) -> Image.Image:
    """Gray of more than 8 bits as L, from the smallest customary range that holds its values."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = min(0.0, float(values.min())), float(values.max())
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
        high = 2.0**bits - 1
    elif low == 0.0:
        high = next((ceiling for ceiling in (1.0, 255.0, 65535.0) if high <= ceiling), high)
    scaled = (values - low).clip(0, high - low) * (255 / max(high - low, 1e-300))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled.round().astype(np.uint8))


def from_memory(image: Image.Image | NDArray[np.uint8]) -> GrayImage:
    """An image that is in memory already, as `decode` would give it.

    Arrays are (H, W), (H, W, 3) or (H, W, 4), uint8. Raises TypeError or ValueError for anything else,
    UnreadableImageError for an image of one value.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"an array of {image.dtype}; uint8 (0..255) is expected")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"a PIL image or a uint8 array is expected, not {type(image).__name__}")
    gray = _to_gray(ImageOps.exif_transpose(image))
    return GrayImage(_not_blank(gray), gray.width, gray.height)


def _not_blank(gray: Image.Image) -> Image.Image:
    low, high = gray.getextrema()
    if low == high:
        raise UnreadableImageError("blank", "every pixel has the same value")
    return gray


def model_input(gray: Image.Image, size: int) -> NDArray[np.uint8]:
    """The pixels the network sees, (size, size) uint8: PREPROCESSING in code, for train, label and evaluate."""
    if gray.size != (size, size):
        gray = gray.resize((size, size), Image.Resampling.BILINEAR)  # Pillow's filters antialias when shrinking
    return np.array(gray)
