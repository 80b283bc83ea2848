"""What counts as an image: IMAGE_TYPES, the table of file types: by what they are known, and how large they may be."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

SIGNATURE_BYTES = 64  # enough of a file's beginning to know it by
MAX_BYTES = 256 * 2**20  # of one file
MAX_PIXELS = 2 * 89_478_485  # of one image; where Pillow itself begins to refuse
HEAVY_PIXELS = 2**26  # of one image where a decoder holds many copies of it at once


@dataclass(frozen=True, slots=True)
class ImageType:
    """A file type: the extensions it goes by, the bytes it begins with, and what a file of it may take."""

    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes] | None = None  # None: nothing reliable, the extension alone tells
    decoded: bool = True  # False: known as an image, but not read
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES


def _type(
    suffixes: str,
    signature: bytes | None = None,
    *,
    decoded: bool = True,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> ImageType:
    """An ImageType.

    suffixes: the extensions, with spaces between them.
    signature: a regular expression for the bytes it begins with; None: nothing reliable.
    decoded: whether it is read.
    max_pixels, max_bytes: of one image, of one file.
    """
    pattern = re.compile(signature, re.DOTALL) if signature else None
    return ImageType(tuple(suffixes.split()), pattern, decoded, max_pixels, max_bytes)


# Keys are Pillow's names. No other plugin of Pillow's is tried: some start programs (EPS), the rest hold no faces.
# What is no pixels in an AVIF, HEIF or ICNS costs its decoder thirty times its size; hence their limit of bytes.
IMAGE_TYPES: dict[str, ImageType] = {
    "JPEG": _type(".jpg .jpeg .jpe .jfif .mpo", rb"\xff\xd8\xff"),
    "PNG": _type(".png .apng", rb"\x89PNG\r\n\x1a\n"),
    "WEBP": _type(".webp", rb"RIFF....WEBP", max_pixels=HEAVY_PIXELS),
    "GIF": _type(".gif", rb"GIF8[79]a"),
    "BMP": _type(".bmp .dib", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    "TIFF": _type(".tif .tiff", rb"II[*+]\0|MM\0[*+]"),
    "AVIF": _type(
        ".avif .avifs",
        rb"....ftyp(avi[fs]|(mif1|msf1)....(....)*?avi[fs])",
        max_pixels=HEAVY_PIXELS,
        max_bytes=2**25,
    ),
    "JPEG2000": _type(
        ".jp2 .j2k .j2c .jpc .jpf .jpx",
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51\0",
        max_pixels=HEAVY_PIXELS,
    ),
    "PPM": _type(".ppm .pgm .pbm .pnm .pfm", rb"P[1-6Ff]\s+(#|\d)"),
    "QOI": _type(".qoi", rb"qoif"),
    "DDS": _type(".dds", rb"DDS \x7c\0\0\0"),
    "SGI": _type(".sgi .rgb .rgba .bw", rb"\x01\xda[\0\x01][\x01\x02]"),
    "ICNS": _type(".icns", rb"icns", max_pixels=2**20, max_bytes=2**24),
    "ICO": _type(".ico"),
    "TGA": _type(".tga .icb .vda .vst"),
    "PCX": _type(".pcx"),
    "HEIF": _type(
        ".heic .heif .hif",
        rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        max_pixels=HEAVY_PIXELS,
        max_bytes=2**26,
    ),
    "JPEG XL": _type(".jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", decoded=False),
    "Photoshop": _type(".psd .psb", rb"8BPS\0", decoded=False),
    "camera raw": _type(".dng .cr2 .cr3 .nef .nrw .arw .orf .rw2 .raf .pef .srw", decoded=False),
}
BY_SUFFIX = {suffix: name for name, kind in IMAGE_TYPES.items() for suffix in kind.suffixes}


def type_of_name(name: bytes) -> str | None:
    """The image type a file's extension stands for, if any."""
    return BY_SUFFIX.get(os.path.splitext(name)[1].decode("ascii", "replace").lower())


def type_of_bytes(head: bytes) -> str | None:
    """The image type whose signature these first bytes are, if any."""
    for name, kind in IMAGE_TYPES.items():
        if kind.signature and kind.signature.match(head):
            return name
    return None
