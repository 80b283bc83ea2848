"""Images to measure speed with, where there are none at hand: drawn from the example, much like real ones."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.core.options import EXAMPLE

FACE = (166, 62, 118)  # where the example has one: left, top, side of a square around it
DISTINCT = 500  # different faces; further files are copies
PHOTO = (4000, 3000)  # pixels
PORTRAIT = (350, 350)  # pixels; the face in it is a fifth as wide
FRAME = (720, 576)  # pixels, of a film; the face in it is a sixth as wide
DISTINCT_PHOTOS = 6  # different photos; further files are copies
FACE_QUALITY, PHOTO_QUALITY = 90, 85  # JPEG's: files of 1.2 kB as in FER2013, and of 3 MB as from cameras


def _face(rng: np.random.Generator) -> bytes:
    """A JPEG of 48 x 48 gray pixels."""
    with Image.open(EXAMPLE) as image:
        left, top, side = FACE
        shorter, (right, down) = side - side // 8, rng.integers(0, side // 8, 2)
        corner = left + right, top + down
        crop = image.convert("L").crop((*corner, corner[0] + shorter, corner[1] + shorter)).resize((48, 48))
    return _jpeg(_noisy(np.asarray(crop), rng, 4), FACE_QUALITY)


def _photo(rng: np.random.Generator) -> Image.Image:
    """A colour picture of 12 megapixels with a grain like a camera's."""
    with Image.open(EXAMPLE) as image:
        large = image.convert("RGB").resize(PHOTO, Image.Resampling.BICUBIC)
    return Image.fromarray(_noisy(np.asarray(large), rng, 5))


def _noisy(pixels: NDArray[np.uint8], rng: np.random.Generator, sigma: float) -> NDArray[np.uint8]:
    noise = rng.normal(rng.integers(-20, 20), sigma, pixels.shape).astype(np.float32)
    return np.asarray((pixels + noise).clip(0, 255).astype(np.uint8))


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _faces(folder: Path, n: int, rng: np.random.Generator) -> None:
    some = [_face(rng) for _ in range(min(n, DISTINCT))]
    for index in range(n):
        inner = folder / f"{index // 10_000:03}"
        inner.mkdir(exist_ok=True)
        (inner / f"{index:07}.jpg").write_bytes(some[index % len(some)])


def _photos(folder: Path, n: int, rng: np.random.Generator) -> None:
    some = [_jpeg(np.asarray(_photo(rng)), PHOTO_QUALITY) for _ in range(min(n, DISTINCT_PHOTOS))]
    for index in range(n):
        (folder / f"{index:05}.jpg").write_bytes(some[index % len(some)])


def _portraits(folder: Path, n: int, rng: np.random.Generator) -> None:
    with Image.open(EXAMPLE) as image:
        small = np.asarray(image.convert("RGB").resize(PORTRAIT))
    _grainy(small, folder, n, rng)


def _frames(folder: Path, n: int, rng: np.random.Generator) -> None:
    width, height = FRAME
    with Image.open(EXAMPLE) as image:
        wide = image.convert("RGB").resize((width, width), Image.Resampling.BICUBIC).crop((0, 0, width, height))
    _grainy(np.asarray(wide), folder, n, rng)


def _grainy(picture: NDArray[np.uint8], folder: Path, n: int, rng: np.random.Generator) -> None:
    """The picture as JPEGs, each with a grain of its own."""
    some = [_jpeg(_noisy(picture, rng, 4), PHOTO_QUALITY) for _ in range(min(n, DISTINCT))]
    for index in range(n):
        (folder / f"{index:06}.jpg").write_bytes(some[index % len(some)])


def _mixed(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Of twenty files one is a photo, of two hundred one a PNG of 12 megapixels, the others are faces."""
    faces = [_face(rng) for _ in range(min(n, DISTINCT))]
    photos = [_jpeg(np.asarray(_photo(rng)), PHOTO_QUALITY) for _ in range(DISTINCT_PHOTOS)]
    png = _png(_photo(rng))
    for index in range(n):
        data, suffix = faces[index % len(faces)], "jpg"
        if index % 200 == 100:
            data, suffix = png, "png"
        elif index % 20 == 0:
            data = photos[index // 20 % len(photos)]
        (folder / f"{index:06}.{suffix}").write_bytes(data)


KINDS: dict[
    str, tuple[Callable[[Path, int, np.random.Generator], None], int]
] = {  # kind -> what draws it, how many by default
    "faces": (_faces, 50_000),
    "portraits": (_portraits, 1_000),
    "frames": (_frames, 400),
    "photos": (_photos, 60),
    "mixed": (_mixed, 600),
}


def make(kind: str, folder: str | os.PathLike[str], n: int | None = None) -> None:
    """Write `n` images of a kind into the folder, always the same ones."""
    draw, usual = KINDS[kind]
    draw(Path(folder), usual if n is None else n, np.random.default_rng(0))
