"""HEIC and HEIF, as iPhones write them, by pillow-heif where that is installed (the extra `heif`)."""

from __future__ import annotations

from io import BytesIO
from typing import cast

from PIL import Image

from ferbatch.core.errors import UnreadableImageError

NEEDED = "HEIC and HEIF images need an extra (pip install 'ferbatch[heif]'), or convert them to JPEG or PNG"


def opened(stream: BytesIO) -> Image.Image:
    """The primary image, upright by what the file itself says; its EXIF orientation, which repeats that, is reset.

    Without a line in Pillow's table of plugins, which belongs to whoever imports us. Raises UnreadableImageError where
    the extra is missing, SyntaxError for what is no such image.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UnreadableImageError("unsupported", NEEDED) from error
    return cast("Image.Image", HeifImageFile(stream))  # type: ignore[no-untyped-call]
