"""What counts as an image: IMAGE_TYPES, the table of file types, by extension and by first bytes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

SIGNATURE_BYTES = 64  # enough of a file's beginning to know it by


@dataclass(frozen=True, slots=True)
class ImageType:
    """A file type: the extensions it goes by and the bytes it begins with."""

    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes] | None = None  # None: nothing reliable, the extension alone tells
    decoded: bool = True  # False: known as an image, but not read


def _type(suffixes: str, signature: bytes | None = None, *, decoded: bool = True) -> ImageType:
    pattern = re.compile(signature, re.DOTALL) if signature else None
    return ImageType(tuple(suffixes.split()), pattern, decoded)


# Keys are Pillow's names. No other plugin of Pillow's is tried: some start programs (EPS), the rest hold no faces.
IMAGE_TYPES: dict[str, ImageType] = {
    "JPEG": _type(".jpg .jpeg .jpe .jfif .mpo", rb"\xff\xd8\xff"),
    "PNG": _type(".png .apng", rb"\x89PNG\r\n\x1a\n"),
    "WEBP": _type(".webp", rb"RIFF....WEBP"),
    "GIF": _type(".gif", rb"GIF8[79]a"),
    "BMP": _type(".bmp .dib", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    "TIFF": _type(".tif .tiff", rb"II[*+]\0|MM\0[*+]"),
    "AVIF": _type(".avif .avifs", rb"....ftyp(avi[fs]|(mif1|msf1)....(....)*?avi[fs])"),
    "JPEG2000": _type(".jp2 .j2k .j2c .jpc .jpf .jpx", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51\0"),
    "PPM": _type(".ppm .pgm .pbm .pnm .pfm", rb"P[1-6Ff]\s+(#|\d)"),
    "QOI": _type(".qoi", rb"qoif"),
    "DDS": _type(".dds", rb"DDS \x7c\0\0\0"),
    "SGI": _type(".sgi .rgb .rgba .bw", rb"\x01\xda[\0\x01][\x01\x02]"),
    "ICNS": _type(".icns", rb"icns"),
    "ICO": _type(".ico"),
    "TGA": _type(".tga .icb .vda .vst"),
    "PCX": _type(".pcx"),
    "HEIF": _type(".heic .heif .hif", rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", decoded=False),
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
