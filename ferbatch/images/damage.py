"""What is missing or damaged of an image that its decoder would not say: CHECKS, by type.

Decoders fill in what is missing and go over what is damaged, and a label of that would be made up. A type that has no
checksum, and whose decoder says nothing, cannot be checked.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images import jpeg_damage

PNG = re.compile(rb"\x89PNG\r\n\x1a\n")
PIXEL_CHUNKS = (b"IDAT", b"fdAT")  # of a PNG; Pillow looks at the checksums of the others
ZEROS = bytes(16)  # at the end of what is compressed, so many are data that were never written
COMPRESSION, JPEG_TABLES = 259, 347  # TIFF tags
PLACES = ((273, 279), (324, 325))  # TIFF tags of where strips, and tiles, begin and how long they are
JPEG, DEFLATE = 7, (8, 32946)  # compressions of TIFFs that have means to tell damage, which libtiff does not use
PIECE = 2**20  # bytes that are decompressed at a time


def check(image: Image.Image, data: bytes, kind: str) -> None:
    """UnreadableImageError where the file that the image was loaded from is damaged, as far as CHECKS can tell."""
    if kind in CHECKS:
        CHECKS[kind](image, data)


def _check_png(image: Image.Image, data: bytes) -> None:
    """The checksums of the pixels; a PNG may lie in an icon."""
    view = memoryview(data)
    for start in PNG.finditer(data):
        at, name = start.end(), b""
        while at + 12 <= len(data) and name != b"IEND":
            end = at + 8 + int.from_bytes(view[at : at + 4])
            name, checksum = bytes(view[at + 4 : at + 8]), bytes(view[end : end + 4])
            if (
                name in PIXEL_CHUNKS
                and len(checksum) == 4
                and zlib.crc32(view[at + 4 : end]) != int.from_bytes(checksum)
            ):
                kind = "truncated" if data.endswith(ZEROS) else "unreadable"
                raise UnreadableImageError(kind, f"PNG: wrong checksum of chunk {name.decode()}")
            at = end + 4


def _check_tiff(image: Image.Image, data: bytes) -> None:
    """The strips or tiles, where their compression has means to tell damage."""
    if not isinstance(image, TiffImageFile):
        return
    compression, tables = image.tag_v2.get(COMPRESSION), image.tag_v2.get(JPEG_TABLES, b"")
    for strip in _strips(image, data):
        if compression == JPEG:
            jpeg_damage.check(tables[: -len(jpeg_damage.END)] + strip[len(tables) and 2 :])
        elif compression in DEFLATE:
            _check_deflated(strip, 8 * image.width * image.height * len(image.getbands()))


def _strips(image: TiffImageFile, data: bytes) -> Iterator[bytes]:
    for starts, lengths in PLACES:
        for start, length in zip(image.tag_v2.get(starts, ()), image.tag_v2.get(lengths, ()), strict=False):
            yield data[start : start + length]


def _check_deflated(strip: bytes, limit: int) -> None:
    """The checksum of a strip, which stands behind as many bytes as it says that it holds, up to `limit`."""
    stream, held = zlib.decompressobj(), 0
    try:
        while not stream.eof and held <= limit:
            piece = stream.decompress(strip, PIECE)
            strip, held = stream.unconsumed_tail, held + len(piece)
            if not piece and not stream.eof:
                raise UnreadableImageError("truncated", "TIFF: a strip ends early")
    except zlib.error as error:
        raise UnreadableImageError("unreadable", f"TIFF: {error}") from error


def _check_end(image: Image.Image, data: bytes) -> None:
    if data.endswith(ZEROS):
        raise UnreadableImageError("truncated", f"{image.format}: zeros in place of its end")


def _check_webp(image: Image.Image, data: bytes) -> None:
    """A file that ends in more zeros than a flat image's: those have up to 0.023 for each block of 16 x 16 pixels."""
    whole = data[: 8 + int.from_bytes(data[4:8], "little")]
    flat = len(ZEROS) + image.width * image.height // 256 // 10
    if len(whole) - len(whole.rstrip(b"\0")) > flat and not getattr(image, "is_animated", False):
        raise UnreadableImageError("truncated", "WEBP: zeros in place of its end")


CHECKS: dict[str, Callable[[Image.Image, bytes], None]] = {
    "PNG": _check_png,
    "ICO": _check_png,
    "ICNS": _check_png,
    "TIFF": _check_tiff,
    "QOI": _check_end,
    "AVIF": _check_end,
    "HEIF": _check_end,
    "WEBP": _check_webp,
}
