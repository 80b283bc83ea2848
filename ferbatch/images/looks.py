"""Looks at pictures: what a search for faces asks of a detector, apart from who answers it, and with what others.

A search is a generator. It yields pictures of one size, (N, H, W) uint8, and is sent, of each, every box that may be of
a face. So one search can be answered alone, or many together by a device that is quicker at many pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ferbatch.images.yunet import SAME, Rows, surest

T = TypeVar("T")
Pictures = NDArray[np.uint8]
Looking = Generator[Pictures, list[Rows], T]


class Detector(Protocol):
    """Finds faces in gray pictures, of each picture alone: whatever comes with it, they are the same."""

    def candidates(self, grays: Pictures) -> list[Rows]:
        """Of each picture, every box that may be of a face, however many there are of each."""
        ...

    def candidates_of(self, asked: Sequence[Pictures]) -> list[list[Rows]]:
        """The same of pictures of several sizes."""
        ...


def faces_in(pictures: Pictures) -> Looking[list[Rows]]:
    """The faces in each picture: the surest first, each once."""
    candidates = yield pictures
    return [surest(rows, SAME) for rows in candidates]


def answered(search: Looking[T], detector: Detector) -> T:
    """What a search finds, answered alone."""
    try:
        pictures = next(search)
        while True:
            pictures = search.send(detector.candidates(pictures))
    except StopIteration as end:
        found: T = end.value
        return found


def answered_together(searches: Sequence[Looking[T]], detector: Detector) -> list[T]:
    """What searches find, answered together: the first look of all, then the second of those that take one."""
    found, asked = dict[int, T](), dict[int, Pictures]()

    def go_on(number: int, go: Callable[[], Pictures]) -> None:
        try:
            asked[number] = go()
        except StopIteration as end:
            found[number] = end.value

    for number, search in enumerate(searches):
        go_on(number, partial(next, search))
    while asked:
        answers = [*zip(asked, detector.candidates_of([*asked.values()]), strict=True)]
        asked.clear()
        for number, rows in answers:
            go_on(number, partial(searches[number].send, rows))
    return [found[number] for number in range(len(searches))]
