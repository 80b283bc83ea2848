"""Bytes -> upright gray image: the one door around the decoder.

What a person sees is what counts: EXIF orientation is applied, transparency is laid over white, 16-bit values are
scaled, the first frame of an animation is taken. ICC profiles are not applied.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ferbatch.core import archives
from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.files import stat_of
from ferbatch.core.records import MAX_BYTES, UNLISTABLE
from ferbatch.core.stores import remote
from ferbatch.core.stores.urls import is_remote
from ferbatch.images import damage, heif, jpeg, jpeg_damage
from ferbatch.images.formats import IMAGE_TYPES, SIGNATURE_BYTES, type_of_bytes
from ferbatch.images.gray import to_colour, to_gray
from ferbatch.images.limits import MAX_EXIF_BYTES, MAX_READS, Reader, check_file, check_image
from ferbatch.images.pixel_rows import read_row

RUN_OUT = re.compile(
    "not enough image data|not large enough|cannot load|incomplete|expected to read|reached eof|end of file|too small",
    re.IGNORECASE,
)
BLANK = "every pixel has the same value"
SEARCHED_SIDE = 1_280  # pixels; where faces are looked for, a large JPEG is reduced while both sides stay this long


@dataclass(frozen=True, slots=True)
class GrayImage:
    """A decoded image: upright, mode L, or RGB if it was asked for.

    Large JPEGs come reduced; `width` and `height` are the file's own.
    """

    pixels: Image.Image
    width: int  # pixels, upright, before any reduction
    height: int  # pixels, upright, before any reduction


def read_bytes(file: bytes, info: os.stat_result | None = None) -> bytes:
    """A file's content, or a table's row of pixels; UnreadableImageError where it is gone, forbidden or over MAX_BYTES.

    `info` is what os.stat said of it, where it was asked already.
    """
    if is_remote(file):
        return remote.read(file)
    try:
        info = info or stat_of(file) or os.stat(file)
        if stat.S_ISDIR(info.st_mode):  # listing names a folder as if it were a file only where it may not look inside
            raise UnreadableImageError("permission", UNLISTABLE)
        if not stat.S_ISREG(info.st_mode):
            raise UnreadableImageError("unsupported", "not a regular file")
        _check_size(info.st_size)
        if info.st_nlink == archives.IN_ONE:
            member = archives.read(file)
            _check_size(len(member))
            return member
        with open(file, "rb", buffering=0) as stream:
            data = stream.read(info.st_size) or b""
            while len(data) < info.st_size and (more := stream.read(info.st_size - len(data))):  # from a network
                data += more
            return data
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, NotADirectoryError) and (data := read_row(file)) is not None:
            return data
        raise UnreadableImageError("not_found", "no such file") from error
    except PermissionError as error:
        raise UnreadableImageError("permission", "permission denied") from error
    except OSError as error:
        raise UnreadableImageError("unreadable", error.strerror or "cannot be read") from error


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadableImageError("too_large", f"{size:,} bytes, the limit is {MAX_BYTES:,}")


def decode(
    data: bytes,
    suffix_type: str | None = None,
    side: int | None = None,
    *,
    colour: bool = False,
    by_pillow: bool = False,
) -> GrayImage:
    """The upright gray image in `data`; in RGB if it is to be in `colour`, for people to look at.

    `suffix_type` is what the file's name says it is: believed only where the bytes themselves say nothing.
    With `side` (pixels), a JPEG twice as large or more is decoded at reduced scale: both sides stay that long.
    `by_pillow` has Pillow alone make the pixels of JPEGs.
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
    whole = jpeg_damage.closed(data) if kind == "JPEG" else data
    # Each read takes a byte or more, so that a small file needs no counting, which would slow it down.
    stream = Reader(whole) if len(data) > MAX_READS else BytesIO(whole)
    try:
        check_file(data, kind)
        return _decode(data, stream, kind, side, colour, by_pillow)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders throw anything at all; nothing else is called in there
        raise _unreadable(error, kind, _ends_early(error, data, stream, kind)) from error


def _decode(data: bytes, stream: BytesIO, kind: str, side: int | None, colour: bool, by_pillow: bool) -> GrayImage:
    """The upright image; raises whatever the decoder does.

    data: the file's content.
    stream: over the same content.
    kind: the file's type.
    side: pixels that both sides of a reduced JPEG stay long; None: it is not reduced.
    colour: RGB, not gray.
    by_pillow: a JPEG's pixels, as all others.
    """
    with heif.opened(stream) if kind == "HEIF" else Image.open(stream, formats=[kind]) as image:
        check_image(image, data, kind)
        width, height = image.size
        if image.info.get("default_image"):
            image.seek(1)  # of an animated PNG, what people see first
        converted = _converted(image, data, kind, side, colour, by_pillow)
        upright = _upright(converted, image)
    if upright.size != converted.size:
        width, height = height, width
    return GrayImage(upright if colour else not_blank(upright), width, height)


def _converted(
    image: Image.Image, data: bytes, kind: str, side: int | None, colour: bool, by_pillow: bool
) -> Image.Image:
    """The opened image in gray or colour, as it lies in the file. The arguments are those of `_decode`."""
    if kind == "JPEG":
        # Luma straight from the file, reduced where that is enough.
        wanted = side or max(image.size)
        image.draft("RGB" if colour else "L", (wanted, wanted))
        whole = jpeg_damage.closed(data)
        quick = whole is data and not colour and not by_pillow
        if quick and (luma := jpeg.gray(data, *image.size)) is not None:
            return Image.fromarray(luma)
        jpeg_damage.check(whole, ended=whole is data)
    converted = to_colour(image, side) if colour else to_gray(image)
    damage.check(image, data, kind)
    return converted


def _upright(gray: Image.Image, image: Image.Image) -> Image.Image:
    """`gray` turned as the EXIF data of the image it was made from says."""
    if len(image.info.get("exif") or b"") > MAX_EXIF_BYTES:
        return gray
    with suppress(Exception):  # damaged EXIF says nothing about the pixels
        if gray is not image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if orientation == 1:
                return gray
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
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
    if kind in ("PNG", "AVIF", "HEIF") and data.endswith(damage.ZEROS):
        return True
    if kind == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind == "JPEG2000":  # no end mark after the start of the last tile
        return data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\x90\0\x0a")
    if "truncated" in str(error).lower():
        return not str(error).endswith("chunk")  # what Pillow calls so is whole, but too short
    if kind == "HEIF":
        return bool(RUN_OUT.search(str(error)))
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


def from_memory(image: Image.Image | NDArray[np.uint8]) -> GrayImage:
    """An image that is in memory already, made gray as `decode` makes it.

    A JPEG in colour comes out a little different, for `decode` takes its luma as it stands in the file.

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
    gray = _upright(to_gray(image), image)
    return GrayImage(not_blank(gray), gray.width, gray.height)


def not_blank(gray: Image.Image) -> Image.Image:
    """The image itself; UnreadableImageError where all its pixels have one value."""
    row = gray.crop((0, gray.height // 2, gray.width, gray.height // 2 + 1))
    for part in (row, gray):  # of almost every image the one row says it
        low, high = part.getextrema()
        if low != high:
            return gray
    raise UnreadableImageError("blank", BLANK)
