"""How often stores are asked for what they do not give at once, and how many things they are asked for together."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ferbatch.core.stores.answers import StoreError

AT_FIRST = 3  # times that a store is asked for a listing before the run ends
WIDEST = 4  # times as many objects at once as at first, at the most
SLOWER, SLOW = 1.5, 3.0  # times what objects took at their quickest: more of them at once is no help; is too many

T = TypeVar("T")


@dataclass
class Patience:
    """How often and how soon what fails for now is asked for again."""

    attempts: int = 6
    first: float = 0.25  # seconds before the second; twice as long before each further one, more or less by chance
    longest: float = 8.0  # seconds


patience = Patience()


class Width:
    """How many objects of a store are on their way at once.

    More than at first while whoever wants them waits, and they come as soon for it: then it is the way to the store
    that takes the time. Where more at once come later, it is something else, or the store has them wait.
    """

    def __init__(self, least: int) -> None:
        """`least`: at first, and at the least; WIDEST times as many at the most."""
        self.now, self.least, self.most = least, least, WIDEST * least
        self.quickest = float("inf")  # seconds that an object took, the mean of as many as there were at once
        self.number, self.seconds, self.wanted = 0, 0.0, False  # since the last look

    def took(self, seconds: float, wanted: bool) -> None:
        """Take in how long an object took, from asking to its end; `wanted`: whether more at once might be of use."""
        self.number, self.seconds, self.wanted = self.number + 1, self.seconds + seconds, self.wanted or wanted
        if self.number < self.now:
            return
        mean = self.seconds / self.number
        self.quickest = min(self.quickest, mean)
        if self.wanted and mean <= SLOWER * self.quickest:
            self.now = min(self.most, self.now + max(1, self.now // 2))
        elif mean > SLOW * self.quickest:
            self.now = max(self.least, self.now // 2)
        self.number, self.seconds, self.wanted = 0, 0.0, False


async def in_turn(do: Callable[[bytes], Awaitable[T]], files: Sequence[bytes], at_once: int) -> list[T]:
    """What comes of each, so many at once."""
    results: dict[int, T] = {}
    left = iter(enumerate(files))

    async def one_after_the_other() -> None:
        for at, file in left:
            results[at] = await do(file)

    await asyncio.gather(*(one_after_the_other() for _ in range(min(at_once, len(files)))))
    return [results[at] for at in range(len(files))]


async def tried(do: Callable[[], Awaitable[T]], attempts: Callable[[], int] = lambda: AT_FIRST) -> T:
    """What comes of it, tried so often where it fails for now; StoreError where it does not come."""
    for attempt in itertools.count(1):
        try:
            return await do()
        except StoreError as error:
            if not error.passing or attempt >= attempts():
                raise
            pause = min(patience.longest, patience.first * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
            await asyncio.sleep(max(pause, min(error.after, patience.longest)))
    raise AssertionError
