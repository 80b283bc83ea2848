"""Small objects that are put while other work goes on: many at once, from memory, and so much of it at the most."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from ferbatch.core.stores import objects, puts, remote
from ferbatch.core.stores.ahead import Ahead
from ferbatch.core.stores.answers import StoreError
from ferbatch.core.stores.patience import patience, tried

HELD = 2**25  # bytes that may be on their way when something more is made

_sender: Sender | None = None  # of this process
_making = threading.Lock()


class Sender:
    """What one process sends. Any thread may hand it something."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead = ahead
        self.free = asyncio.Semaphore(ahead.connections)
        self.coming: dict[Future[None], None] = {}  # what is not done, or has failed, the oldest first
        self.size = 0  # bytes of it
        self.lock = threading.Lock()

    def begin(self, path: str, do: Callable[[], Awaitable[object]], size: int = 0) -> None:
        """Have something done with an object, again where it fails for now."""

        async def work() -> None:
            async with self.free:
                try:
                    await tried(do, lambda: patience.attempts)
                except StoreError as error:
                    raise objects.refused(path, error) from None

        with self.lock:
            self.size += size
            future = self.ahead.begin(work())
            self.coming[future] = None
        future.add_done_callback(lambda done: self._end(done, size))

    def _end(self, future: Future[None], size: int) -> None:
        with self.lock:
            self.size -= size
            if not future.cancelled() and future.exception() is None:
                self.coming.pop(future, None)

    def wait(self, most: int) -> None:
        """Wait until so many bytes are on their way, or nothing at all where that is -1; OutputError as `settle`."""
        while (oldest := self._oldest()) is not None and self.size > most:
            try:
                self.ahead.waited_for(oldest)
            except BaseException:
                with self.lock:
                    self.coming.clear()
                raise
            with self.lock:
                self.coming.pop(oldest, None)

    def _oldest(self) -> Future[None] | None:
        with self.lock:
            return next(iter(self.coming), None)


def _of_this_process() -> Sender:
    global _sender
    with _making:
        if _sender is None or _sender.ahead is not remote.ahead():
            _sender = Sender(remote.ahead())
        return _sender


def put(path: str, data: bytes) -> None:
    """Begin to put an object, in place of what is there."""
    sender = _of_this_process()
    sender.begin(path, lambda: puts.write(sender.ahead.stores, os.fsencode(path), data), len(data))


def remove(path: str) -> None:
    """Begin to take an object away, if it is there."""
    sender = _of_this_process()
    sender.begin(path, lambda: puts.remove(sender.ahead.stores, os.fsencode(path)))


def remove_numbered(path_of: Callable[[int], str], first: int) -> None:
    """Begin to take away the objects of which each has a number, from this one on to the last that is there."""
    sender = _of_this_process()

    async def do() -> None:
        end = first
        while await puts.is_there(sender.ahead.stores, os.fsencode(path_of(end))):
            end += 1
        for number in reversed(range(first, end)):  # so that they end at the first gap, wherever this is cut short
            await puts.remove(sender.ahead.stores, os.fsencode(path_of(number)))

    sender.begin(path_of(first), do)


def make_room() -> None:
    """Wait while much is on its way; OutputError as `settle`."""
    _of_this_process().wait(HELD)


def settle() -> None:
    """Wait until all that was begun is done; OutputError, of the first, where some of it cannot be."""
    _of_this_process().wait(-1)
