"""Copies of photos with boxes and labels drawn, for the eye."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from PIL import Image, ImageDraw, ImageFont

from ferbatch import images
from ferbatch.errors import UnreadableImageError
from ferbatch.facefiles import copy_file, remove_copy, write_picture
from ferbatch.filetypes import type_of_name
from ferbatch.isolation import default_workers
from ferbatch.reading import Decoded
from ferbatch.records import Prediction

LONGEST_SIDE = 1_600  # pixels of a copy
MOST_THREADS = 8  # each holds a photo in colour
# In the order of the labels, round and round.
COLOURS = ("#ffd54a", "#6fb7ff", "#d0d0d0", "#ff8f6b", "#9be37d", "#d7a1ff")

Labelled = Generator[tuple[Decoded, list[Prediction]], None, None]


def annotated(labelled: Labelled, folder: str, labels: Sequence[str]) -> Labelled:
    """The images as they come, each when its copy is in the folder; a few are drawn at a time.

    Raises OutputError where a copy cannot be written.
    """
    threads = min(default_workers(), MOST_THREADS)
    begun: deque[tuple[Decoded, list[Prediction], Future[None]]] = deque()
    with closing(labelled), ThreadPoolExecutor(threads) as pool:
        for decoded, rows in labelled:
            begun.append((decoded, rows, pool.submit(write_copy, folder, decoded.ref.file, rows, labels)))
            while len(begun) > 2 * threads or (begun and begun[0][2].done()):
                yield _written(*begun.popleft())
        while begun:
            yield _written(*begun.popleft())


def _written(decoded: Decoded, rows: list[Prediction], copy: Future[None]) -> tuple[Decoded, list[Prediction]]:
    copy.result()
    return decoded, rows


def write_copy(folder: str, file: bytes, rows: Sequence[Prediction], labels: Sequence[str]) -> None:
    """A copy of an image in which its rows can be seen; none of one that cannot be read. Raises OutputError."""
    if rows[0].error_kind:
        remove_copy(folder, rows[0].path)
        return
    try:
        image = images.decode(images.read_bytes(file), type_of_name(file), LONGEST_SIDE, colour=True)
    except (UnreadableImageError, MemoryError):  # it has changed, or leaves no room beside what is at work
        remove_copy(folder, rows[0].path)
        return
    write_picture(folder, copy_file(folder, rows[0].path), drawn(image, rows, labels), "JPEG")


def drawn(image: images.GrayImage, rows: Sequence[Prediction], labels: Sequence[str]) -> Image.Image:
    """The picture, made smaller where it is large, with a box and a label for each row."""
    picture = image.pixels
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BILINEAR)
    across, down = picture.width / image.width, picture.height / image.height
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(11, max(picture.size) // 60))
    line = max(1, max(picture.size) // 400)
    for row in rows:
        colour = COLOURS[labels.index(row.label) % len(COLOURS)] if row.label else "white"
        text = f"{row.label} {row.confidence:.2f}" if row.label else "no face"
        left, top = 0.0, 0.0
        if row.x is not None and row.y is not None and row.width and row.height:
            left, top = row.x * across, row.y * down
            right, bottom = left + row.width * across, top + row.height * down
            pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        _write(pen, text, (left, top), colour, font, picture)
    return picture


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    picture: Image.Image,
) -> None:
    """Text on a ground of its own above a corner, or as near to that as the picture's borders let it."""
    x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=font)
    width, height = x1 - x0 + 4, y1 - y0 + 4
    left = min(max(0.0, corner[0]), max(0.0, picture.width - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((left, top, left + width, top + height), fill=colour)
    pen.text((left + 2 - x0, top + 2 - y0), text, fill="black", font=font)
