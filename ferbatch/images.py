"""Bytes -> upright gray image -> model input. The one door around the decoder, and the one preprocessing.

What a person sees is what counts: EXIF orientation is applied, transparency is laid over white, 16-bit values are
scaled, the first frame of an animation is taken. ICC profiles are not applied.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ferbatch import jpeg
from ferbatch.errors import UnreadableImageError
from ferbatch.filetypes import IMAGE_TYPES, SIGNATURE_BYTES, type_of_bytes
from ferbatch.limits import MAX_BYTES, MAX_EXIF_BYTES, MAX_READS, Reader, check_file, check_image
from ferbatch.records import UNLISTABLE

PREPROCESSING_VERSION = 1  # raised whenever an image's pixels at the network change: its labels are then made again

# What `model_input` does, for the card: change both together.
PREPROCESSING = {
    "gray": "ITU-R 601-2 luma, over white where transparent",
    "aspect": "kept, centred on a black square",
    "filter": "bilinear",
    "antialias": True,
}
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags
OVERSHOOT = 1.1  # how far resampling may push a value over its range
PNG_SCALES = {"L;2": 85, "L;4": 17}  # by Pillow's name for the file's own depth
LARGE, LARGE_PIXELS = threading.Lock(), 2**24  # decoded in colour, one at a time
STRIP_PIXELS = 2**20  # converted to gray at a time
RUN_OUT = re.compile(
    "not enough image data|not large enough|cannot load|incomplete|expected to read|reached eof", re.IGNORECASE
)
BLANK = "every pixel has the same value"
REDUCED_SIDE = 4  # a large JPEG is decoded at 1/2, 1/4 or 1/8 while both sides stay this many times the model's


@dataclass(frozen=True, slots=True)
class GrayImage:
    """A decoded image: upright, mode L, or RGB if it was asked for.

    Large JPEGs come reduced; `width` and `height` are the file's own.
    """

    pixels: Image.Image
    width: int  # pixels, upright, before any reduction
    height: int


def read_bytes(file: bytes, info: os.stat_result | None = None) -> bytes:
    """A regular file's content; UnreadableImageError where it is gone, forbidden, no file, or over MAX_BYTES.

    `info` is what os.stat said of it, where it was asked already.
    """
    try:
        info = info or os.stat(file)
        if stat.S_ISDIR(info.st_mode):  # sources lists a folder as if it were a file only where it may not look inside
            raise UnreadableImageError("permission", UNLISTABLE)
        if not stat.S_ISREG(info.st_mode):
            raise UnreadableImageError("unsupported", "not a regular file")
        if info.st_size > MAX_BYTES:
            raise UnreadableImageError("too_large", f"{info.st_size:,} bytes, the limit is {MAX_BYTES:,}")
        with open(file, "rb", buffering=0) as stream:
            data = stream.read(info.st_size) or b""
            while len(data) < info.st_size and (more := stream.read(info.st_size - len(data))):  # from a network
                data += more
            return data
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableImageError("not_found", "no such file") from error
    except PermissionError as error:
        raise UnreadableImageError("permission", "permission denied") from error
    except OSError as error:
        raise UnreadableImageError("unreadable", error.strerror or "cannot be read") from error


def input_of(
    data: bytes, suffix_type: str | None, size: int, luma: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], int, int]:
    """The model input (size, size) of the image in `data`, and the image's own upright width and height.

    `luma` is what `luma_of` gave of the data; it makes the very same pixels, sooner. Raises UnreadableImageError,
    whatever the decoder met.
    """
    if luma is not None:
        height, width = luma.shape
        return luma if luma.shape == (size, size) else model_input(Image.fromarray(luma), size), width, height
    image = decode(data, suffix_type, REDUCED_SIDE * size)
    return model_input(image.pixels, size), image.width, image.height


def luma_of(data: bytes, size: int) -> NDArray[np.uint8] | None:
    """(H, W) uint8, by the quicker decoder; None for what is no plain JPEG of a face. Raises UnreadableImageError."""
    luma = jpeg.luma(data, 2 * REDUCED_SIDE * size)  # from there on Pillow reduces
    if luma is not None:
        pixels = luma.tobytes()
        if pixels.count(pixels[0]) == len(pixels):
            raise UnreadableImageError("blank", BLANK)
    return luma


def decode(data: bytes, suffix_type: str | None = None, side: int | None = None, *, colour: bool = False) -> GrayImage:
    """The upright gray image in `data`; in RGB if it is to be in `colour`, for people to look at.

    `suffix_type` is what the file's name says it is: believed only where the bytes themselves say nothing.
    With `side` (pixels), a JPEG twice as large or more is decoded at reduced scale: both sides stay that long.
    Raises UnreadableImageError, whatever the decoder met.
    """
    if not data:
        raise UnreadableImageError("truncated", "the file is empty")
    kind = type_of_bytes(data[:SIGNATURE_BYTES])
    if suffix_type and IMAGE_TYPES[suffix_type].signature is None and kind in (None, "TIFF"):
        kind = suffix_type  # camera raw files begin like a TIFF
    if kind is None:
        raise UnreadableImageError("unreadable", "not an image of a known type")
    if not IMAGE_TYPES[kind].decoded:
        raise UnreadableImageError("unsupported", f"{kind} images are not supported; convert to JPEG or PNG")
    # Each read takes a byte or more, so that a small file needs no counting, which would slow it down.
    stream = Reader(data) if len(data) > MAX_READS else BytesIO(data)
    try:
        check_file(data, kind)
        return _decode(data, stream, kind, side, colour)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders throw anything at all; nothing else is called in there
        raise _unreadable(error, kind, _ends_early(error, data, stream, kind)) from error


def _decode(data: bytes, stream: BytesIO, kind: str, side: int | None, colour: bool) -> GrayImage:
    with Image.open(stream, formats=[kind]) as image:
        check_image(image, data, kind)
        width, height = image.size
        if image.info.get("default_image"):
            image.seek(1)  # of an animated PNG, what people see first
        if kind == "JPEG":
            wanted = side or max(width, height)
            # Luma straight from the file, reduced where that is enough.
            image.draft("RGB" if colour else "L", (wanted, wanted))
        converted = _to_colour(image, side) if colour else _to_gray(image)
        upright = _upright(converted, image)
    if upright.size != converted.size:
        width, height = height, width
    return GrayImage(upright if colour else _not_blank(upright), width, height)


def _transparent(image: Image.Image) -> Any:
    """What is transparent, as values of the decoded image: Pillow brings a PNG's pixels to 8 bits, but not this."""
    transparent = image.info.get("transparency")
    rawmode = image.tile[0].args if isinstance(image, PngImageFile) and len(image.tile) == 1 else None
    if rawmode in PNG_SCALES and isinstance(transparent, int):
        return transparent * PNG_SCALES[str(rawmode)]
    if rawmode == "RGB;16B" and isinstance(transparent, tuple):
        return tuple(value >> 8 for value in transparent)
    return transparent


def _upright(gray: Image.Image, image: Image.Image) -> Image.Image:
    """`gray` turned as the EXIF data of the image it was made from says."""
    if len(image.info.get("exif", b"")) > MAX_EXIF_BYTES:
        return gray
    with suppress(Exception):  # damaged EXIF says nothing about the pixels
        if gray is not image:
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
            gray.info["exif"] = exif.tobytes()
        return ImageOps.exif_transpose(gray)
    return gray


def _ends_early(error: Exception, data: bytes, stream: BytesIO, kind: str) -> bool:
    """Whether a file that cannot be decoded ends before its image does, as far as that shows."""
    if isinstance(error, UnidentifiedImageError):  # which does not say why: watch it once more
        reader = Reader(data)
        with suppress(Exception):
            Image.open(reader, formats=[kind])
        return reader.starved
    if kind == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind == "JPEG2000":  # no end mark after the start of the last tile
        return data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\x90\0\x0a")
    if "truncated" in str(error).lower():
        return not str(error).endswith("chunk")  # what Pillow calls so is whole, but too short
    ran_out = isinstance(error, EOFError) or bool(RUN_OUT.search(str(error)))
    return ran_out and stream.tell() >= len(data) and kind != "BMP"  # whose run lengths have an end of their own


def _unreadable(error: Exception, kind: str, ends_early: bool) -> UnreadableImageError:
    """What a decoder threw, as one of our kinds; the message keeps its words, on one line."""
    words = " ".join(str(error).split())[:200] or type(error).__name__
    words = "".join(char if char.isprintable() else "?" for char in words)
    if isinstance(error, UnidentifiedImageError):  # its words name a BytesIO object
        words = "the header is cut off" if ends_early else "damaged header"
    if isinstance(error, NotImplementedError):
        return UnreadableImageError("unsupported", f"{kind}: {words}")
    if isinstance(error, Image.DecompressionBombError | MemoryError) or "MAX_TEXT" in words:
        return UnreadableImageError("too_large", f"{kind}: {words}")
    return UnreadableImageError("truncated" if ends_early else "unreadable", f"{kind}: {words}")


def _to_gray(image: Image.Image) -> Image.Image:
    """Any Pillow mode as L: transparency over white, more than 8 bits scaled. Strip by strip, to spare memory.

    The image itself is left as it is, but for being loaded.
    """
    transparent = _transparent(image)  # loading forgets how the values were stored
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


def _to_colour(image: Image.Image, side: int | None) -> Image.Image:
    """Any Pillow mode as RGB, by way of gray where it has more than 8 bits; reduced while it stays `side` pixels long.

    Of large images one at a time, whatever the number of threads: it is their pixels that memory goes into.
    """
    with LARGE if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
        if image.mode[0] in "IF":
            return _to_gray(image).convert("RGB")
        transparent = _transparent(image)
        image.load()
        by = max(1, min(max(image.size) // side, *image.size)) if side else 1
        picture = Image.new("RGB", (-(-image.width // by), -(-image.height // by)))
        rows = max(1, STRIP_PIXELS // image.width // by) * by
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            if transparent is not None:
                strip.info["transparency"] = transparent
            picture.paste(_strip_to_colour(strip).reduce(by), (0, top // by))
        return picture


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in strips of whole rows, each with the row that it begins at."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_to_colour(strip: Image.Image) -> Image.Image:
    if strip.has_transparency_data:
        colours = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return strip.getchannel("L").convert("RGB") if strip.mode == "LAB" else strip.convert("RGB")


def _strip_to_gray(strip: Image.Image) -> Image.Image:
    if strip.has_transparency_data:
        colours = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("L")
    if strip.mode == "LAB":
        return strip.getchannel("L")
    return strip.convert("RGB").convert("L")


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


def from_memory(image: Image.Image | NDArray[np.uint8]) -> GrayImage:
    """An image that is in memory already, as `decode` would give it.

    Arrays are (H, W), (H, W, 3) or (H, W, 4), uint8. Of an animation, the frame it stands at counts. Raises TypeError
    or ValueError for anything else, UnreadableImageError for an image of one value.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"an array of {image.dtype}; uint8 (0..255) is expected")
        if not image.size:
            raise ValueError("an image without pixels")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"a PIL image or a uint8 array is expected, not {type(image).__name__}")
    if not image.width or not image.height:
        raise ValueError("an image without pixels")
    gray = _upright(_to_gray(image), image)
    return GrayImage(_not_blank(gray), gray.width, gray.height)


def _not_blank(gray: Image.Image) -> Image.Image:
    low, high = gray.getextrema()
    if low == high:
        raise UnreadableImageError("blank", BLANK)
    return gray


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
