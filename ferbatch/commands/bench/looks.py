"""How fast the detector looks at pictures, apart from all that is done to images before and after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.records import Decoding, Search
from ferbatch.images import faces
from ferbatch.images.looks import Detector, Pictures, answered
from ferbatch.images.yunet import Rows
from ferbatch.stream.read import opened

LOOKING = 2.0  # seconds, about, that it looks
SIZE = 48  # pixels of a model input: none is made


class _Remembering:
    """A detector, and the pictures that it was shown."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.asked = detector, list[Pictures]()

    def candidates(self, grays: Pictures) -> list[Rows]:
        self.asked.append(grays)
        return self.detector.candidates(grays)

    def candidates_of(self, asked: Sequence[Pictures]) -> list[list[Rows]]:
        return [self.candidates(grays) for grays in asked]


def rate(files: Sequence[bytes], search: Search) -> float:
    """Images/s of which the detector looks at every picture, those of all of them at once, again and again."""
    detector = faces.detector(search)
    remembering, n = _Remembering(detector), 0
    for file in files:
        with suppress(UnreadableImageError):
            if image := opened(file, Decoding(SIZE, search=search)).image:
                answered(faces.search_in(image, search), remembering)
                n += 1
    detector.candidates_of(remembering.asked)
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < LOOKING:
        detector.candidates_of(remembering.asked)
        rounds += 1
    return n * rounds / (time.perf_counter() - start)
