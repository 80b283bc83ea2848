"""The pixels of a split's images, read once, in files that are gone when nothing uses them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.records import Decoding, Search
from ferbatch.sources.listing import Listing
from ferbatch.stream.source import read_apart

SIZE = 48  # pixels on a side, the study's
AT_ONCE = 256  # images to read, or to ask a teacher about, at a time
LEVELLED = Search("detect", largest=True, min_face=1, reframe=True)  # the face that an image is of, however small

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Read:
    """What became of N images' files."""

    pixels: Pixels  # (M, size, size) of the images that gave some
    found: NDArray[np.int64]  # (M,) which of the N images those are
    failures: Sequence[tuple[str, str]]  # path and reason of each image that could not be read


def read_images(images: Listing, decoding: Decoding, tick: Callable[[int], None]) -> Read:
    """The model input of each image; an image in which a face is looked for in vain gives none."""
    found: list[int] = []
    failures: list[tuple[str, str]] = []
    with tempfile.TemporaryFile() as file:
        with read_apart(images, decoding, AT_ONCE) as batches:
            for batch in batches:
                for place, failure in sorted(batch.failures.items()):
                    failures.append((batch.references.paths[place], failure.message))
                file.write(batch.inputs.tobytes())
                found += (batch.first + batch.image).tolist()
                tick(len(batch))
        file.flush()
        shape = (len(found), decoding.size, decoding.size)
        # The mapping outlives the file that it is of.
        pixels = np.memmap(file, np.uint8, "r", shape=shape) if found else np.empty(shape, np.uint8)
    return Read(pixels, np.array(found, np.int64), failures)


def framed(images: Listing, framing: str, tick: Callable[[int], None]) -> tuple[Read, Pixels, int]:
    """The images whole; the views (V, M, size, size) of them that a recipe's `framing` asks for; faces not found.

    Where no face is found, the levelled view is the whole image.
    """
    whole = read_images(images, Decoding(SIZE), tick)
    if framing == "whole":
        return whole, whole.pixels[np.newaxis], 0
    faces = read_images(images.where(whole.found), Decoding(SIZE, search=LEVELLED), tick)
    views = _scratch((2, *whole.pixels.shape))
    for view in views:
        view[:] = whole.pixels
    views[1, faces.found] = faces.pixels
    return whole, views if framing == "both" else views[1:], len(whole.found) - len(faces.found)


def _scratch(shape: tuple[int, ...]) -> Pixels:
    """Room for pixels, in a file."""
    if 0 in shape:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
