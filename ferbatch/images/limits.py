"""What a file may ask for, checked from its first bytes and its header before memory or time is taken.

So that no file takes more than about 1.5 GB or ten seconds, whatever it was made to do.
"""

from __future__ import annotations

import re
import struct
from io import BytesIO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images.formats import HEAVY_PIXELS, IMAGE_TYPES, MAX_PIXELS

MAX_SIDE = 2**24  # pixels; scaling down takes 16 bytes for each
SLOW_PIXELS = 2**22  # where a decoder is written in Python: a microsecond each
SLOW_DECODERS = {"bmp_rle", "dds_rgb", "ppm", "ppm_plain", "qoi"}
MAX_READS = 10_000_000  # of one file, where it is read piece by piece: a microsecond and 100 bytes each
MAX_SCANNED = 2**31  # scans times pixels of a JPEG: an empty scan is ten bytes long and goes over them all
MAX_EXIF_PARTS = 256  # of a JPEG: Pillow copies all that it has for every further one
MAX_EXIF_BYTES = 2**24  # of EXIF data; where there is more, the orientation is not looked for
MAX_COMMENTS = 2**16  # of a PPM in plain text: Pillow copies a megabyte for every one
MAX_TAGS, MAX_TAG_VALUES = 2**16, 2**19  # of a TIFF
TAG_NUMBERS = {3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 16}  # types of TIFF tags whose values become objects, 200 bytes each
TAG_FOLDERS = {34665, 34853, 40965}  # TIFF tags that hold further tags that are read: EXIF, GPS, interoperability
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags
# The beginning of a PNG or JPEG 2000 and its width and height.
INNER_IMAGE = re.compile(rb"(?:\x89PNG\r\n\x1a\n.{4}IHDR|\xff\x4f\xff\x51.{4})(.{4})(.{4})", re.DOTALL)


class Reader(BytesIO):
    """A file that gives up after MAX_READS, and knows whether more was asked of it than it holds."""

    reads = 0
    starved = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise UnreadableImageError("too_large", f"more than {MAX_READS:,} pieces of data")
        found = super().read(size)
        self.starved |= len(found) < (size or 0)
        return found


def check_file(data: bytes, kind: str) -> None:
    """Raise where opening alone would take too much."""
    if len(data) > (limit := IMAGE_TYPES[kind].max_bytes):
        raise UnreadableImageError("too_large", f"{len(data):,} bytes, the limit for {kind} is {limit:,}")
    if kind == "TIFF" and _tag_values(data) > MAX_TAG_VALUES:
        raise UnreadableImageError("too_large", f"more than {MAX_TAG_VALUES:,} values in its tags")
    if kind == "JPEG" and data.count(b"Exif\0\0") > MAX_EXIF_PARTS:
        raise UnreadableImageError("too_large", f"more than {MAX_EXIF_PARTS} segments of EXIF data")
    if kind in ("ICNS", "ICO"):  # say nothing of the images that they hold
        for size in INNER_IMAGE.finditer(data):
            _check_pixels(int.from_bytes(size[1]), int.from_bytes(size[2]), IMAGE_TYPES[kind].max_pixels)
    if kind == "ICO":
        _check_bitmaps(data)


def _check_bitmaps(data: bytes) -> None:
    """Raise where a bitmap in an icon is too large; compressed ones are decoded in Python."""
    for entry in range(18, min(len(data), 18 + 16 * int.from_bytes(data[4:6], "little")), 16):
        start = int.from_bytes(data[entry : entry + 4], "little")
        header, width, height, compression = struct.unpack("<IIi4xI", data[start : start + 20].ljust(20, b"\0"))
        if 40 <= header <= 124:
            _check_pixels(width, abs(height) // 2, SLOW_PIXELS if compression else MAX_PIXELS)


def _check_pixels(width: int, height: int, limit: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise UnreadableImageError("too_large", f"{width} x {height} pixels, the limit for a side is {MAX_SIDE:,}")
    if width * height > limit:
        raise UnreadableImageError("too_large", f"{width} x {height} pixels, the limit is {limit:,}")


def check_image(image: Image.Image, data: bytes, kind: str) -> None:
    """Raise where decoding would take too much, or where the file does not hold all of the image."""
    width, height = image.size
    tiles = getattr(image, "tile", [])
    codec = tiles[0][0] if tiles else ""
    limit = SLOW_PIXELS if codec in SLOW_DECODERS else IMAGE_TYPES[kind].max_pixels
    _check_pixels(width, height, HEAVY_PIXELS if image.info.get("default_image") else limit)
    if kind == "JPEG" and (scans := data.count(b"\xff\xda\0")) * width * height > MAX_SCANNED:
        raise UnreadableImageError("too_large", f"{scans:,} scans of {width} x {height} pixels")
    if codec == "ppm_plain" and data.count(b"#") > MAX_COMMENTS:
        raise UnreadableImageError("too_large", f"more than {MAX_COMMENTS:,} comments")
    if isinstance(image, TiffImageFile):
        across, down = (image.tag_v2.get(tag) for tag in (TILE_WIDTH, TILE_LENGTH))
        if isinstance(across, int) and isinstance(down, int):
            _check_pixels(across, down, MAX_PIXELS)
        if codec == "raw" and sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in tiles) < width * height:
            raise UnreadableImageError("truncated", "TIFF: the image is larger than its strips")


def _tag_values(data: bytes) -> int:
    """How many numbers the tags of a TIFF's first image hold; of too many tags, too many."""
    order, big = "<" if data[:1] == b"I" else ">", data[2] == 43  # BigTIFF
    number, entry = struct.Struct(order + "HQ"[big]), struct.Struct(order + ("HHQQ" if big else "HHLL"))
    folders = [struct.unpack_from(order + "LQ"[big], data.ljust(16, b"\0"), 8 if big else 4)[0]]
    values = 0
    for offset in folders:  # which grows
        if offset + number.size > len(data):
            continue
        count = number.unpack_from(data, offset)[0]
        if count > MAX_TAGS or len(folders) > 2 * len(TAG_FOLDERS):
            return MAX_TAG_VALUES + 1
        entries = data[offset + number.size : offset + number.size + count * entry.size]
        for tag, kind, amount, value in entry.iter_unpack(entries[: len(entries) // entry.size * entry.size]):
            if kind in TAG_NUMBERS and amount <= len(data):  # Pillow leaves out what is not there
                values += amount
            if tag in TAG_FOLDERS and value not in folders:
                folders.append(value)
    return values
