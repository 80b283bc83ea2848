"""Fetches objects before they are asked for: many at once, in a thread of its own, with patience for failing stores."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.records import MAX_BYTES, NO_VERSION, Version
from ferbatch.core.stores import known
from ferbatch.core.stores.answers import Entry, Fetched, StoreError
from ferbatch.core.stores.members import beside
from ferbatch.core.stores.opening import S3
from ferbatch.core.stores.packages import Stores
from ferbatch.core.stores.patience import Width, in_turn, patience, tried
from ferbatch.core.stores.urls import host_of, scheme_of

HELD = 2**26  # bytes of objects that wait to be asked for, and of those on their way, in each process
MOST_TOGETHER = 500  # members of an archive
SILENT = 3  # objects in a row that a host does not answer for, after which it is taken to be gone
TYPICAL = 2**14  # bytes of an object whose size is not known, until some have come

T = TypeVar("T")


@dataclass(slots=True)
class Coming:
    """An object that is expected."""

    size: int  # bytes, as far as anybody knows
    begun: bool = False  # whether it is on its way, or here
    future: Future[Fetched] = field(default_factory=Future)


class Ahead:
    """What one process fetches. Its thread, its connections and what it knows of stores are not shared with others."""

    def __init__(self, connections: int, before: Ahead | None = None) -> None:
        """Nothing is fetched yet.

        connections: at the most; to S3 as many more as `Width` finds of use.
        before: of the process that this one was forked from, which is never used. It is kept: were it let go, its end
            would reach the sockets that are the other process's.
        """
        self.process, self.before, self.connections, self.waited = os.getpid(), before, connections, 0.0
        self.stores: Stores = Stores(connections, before.stores if before else None)
        self.loop = asyncio.SelectorEventLoop()
        self.loop.set_exception_handler(lambda loop, context: None)  # of connections that servers close
        self.waiting: deque[bytes] = deque()  # what is to be fetched and is not begun
        self.coming: dict[bytes, Coming] = {}
        self.running, self.width = 0, Width(connections)  # objects on their way, and how many may be
        self.starving = False  # whether what is on its way is waited for
        # Bytes of them and of those that are here, and of those that were asked for: each is counted by one thread.
        self.begun = self.taken = 0
        self.typical = TYPICAL
        self.silent: Counter[bytes] = Counter()  # host -> objects in a row that it did not answer for
        self.full = False  # whether what waits could be begun but for HELD
        weakref.finalize(self, int)  # what packages do so at the end comes after `close` by that
        atexit.register(self.close)
        threading.Thread(target=self.loop.run_forever, daemon=True, name="ahead").start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it, in the thread of the connections."""
        coming = self.begin(work)
        try:
            return self.waited_for(coming)
        finally:
            coming.cancel()  # a signal may have come first

    def waited_for(self, future: Future[T]) -> T:
        """What comes of what was begun in that thread."""
        start = time.monotonic()
        try:
            return future.result()
        finally:
            self.waited += time.monotonic() - start

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have it done, in that thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def ask(self, do: Callable[[], Awaitable[T]], attempts: int | None = None) -> T:
        """What a store says, asked again where it fails for now; StoreError where it does not say it."""
        return self.wait(tried(do, lambda: attempts or patience.attempts))

    def close(self) -> None:
        """Let the connections go, at the end of the process."""
        if os.getpid() == self.process and self.loop.is_running():
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self.stores.close(), self.loop).result(1)
            self.loop.call_soon_threadsafe(self.loop.stop)

    def expect(self, files: Iterable[bytes]) -> None:
        """Fetch these, after what is expected already."""
        new = [file for file in files if file not in self.coming]
        coming = {file: Coming(size) for file in new if (size := self._size(file)) <= MAX_BYTES}
        self.coming.update(coming)
        self.waiting.extend(coming)
        self.loop.call_soon_threadsafe(self._go_on)

    def wait_for(self, file: bytes) -> None:
        """Wait until an object is there, if it is expected."""
        if (coming := self.coming.get(file)) is not None and not coming.future.done():
            start = time.monotonic()
            if not coming.begun:
                self.loop.call_soon_threadsafe(self._hurry, file)
            self.starving = True
            coming.future.exception()
            self.starving = False
            self.waited += time.monotonic() - start

    def take(self, file: bytes) -> bytes:
        """The content of an object; UnreadableImageError where it cannot be had."""
        if file not in self.coming:
            self.expect([file])
        if file not in self.coming:
            raise UnreadableImageError("too_large", f"{self._size(file):,} bytes, the limit is {MAX_BYTES:,}")
        self.wait_for(file)
        return self._let_go(file).result().data

    def version(self, file: bytes) -> Version:
        """What an object that nobody listed is, by what comes of fetching it if that was begun, else by a look."""
        if file not in self.coming:
            return self.versions([file])[0]
        self.wait_for(file)
        future = self.coming[file].future
        return NO_VERSION if future.exception() else future.result().version

    async def patiently(self, do: Callable[[bytes], Awaitable[T]], file: bytes) -> T:
        """What comes of asking a store, again where it fails for now; UnreadableImageError where it does not come.

        A host that has been silent to several objects in a row is asked once for each of the others, until it answers.
        """
        host = host_of(file)
        try:
            found = await tried(lambda: do(file), lambda: 1 if self.silent[host] >= SILENT else patience.attempts)
        except StoreError as error:
            self.silent[host] = self.silent[host] + 1 if error.silent else 0
            raise UnreadableImageError(error.kind, str(error)) from None
        self.silent.pop(host, None)
        return found

    def versions(self, files: Sequence[bytes]) -> list[Version]:
        """What these objects are, many looked at at once; NO_VERSION of those that cannot be had."""

        async def look(file: bytes) -> Version:
            try:
                return await self.patiently(self.stores.look, file)
            except UnreadableImageError:
                return NO_VERSION

        return self.wait(in_turn(look, files, self.connections))

    def looked_at(self, file: bytes) -> Version:
        """What an object is; UnreadableImageError where it cannot be had."""
        return self.wait(self.patiently(self.stores.look, file))

    def begins(self, files: Sequence[bytes], n: int) -> list[bytes]:
        """The first `n` bytes of these objects, many at once; nothing of those that cannot be had."""

        async def begin(file: bytes) -> bytes:
            try:
                return await self.patiently(lambda one: self.stores.begins(one, n), file)
            except UnreadableImageError:
                return b""

        return self.wait(in_turn(begin, files, self.connections))

    def span(self, file: bytes, start: int, end: int, version: Version) -> Future[bytes]:
        """Begin to fetch the bytes from `start` to `end` of an object that is of this version."""
        work = self.patiently(lambda one: self.stores.span(one, start, end, version), file)
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def pages(self, path: bytes, deep: bool) -> Iterator[list[Entry]]:
        """What `stores.flat` says, page by page; StoreError where it cannot be had."""
        pages = self.stores.flat(path, deep)

        async def following() -> list[Entry] | None:
            return await anext(pages, None)

        while (page := self.wait(following())) is not None:
            yield page

    def probe(self, path: bytes) -> None:
        """StoreError where the store of a path does not answer soon."""
        self.wait(tried(lambda: self.stores.probe(path)))

    def folder(self, path: bytes) -> list[Entry]:
        """What is directly in a folder; StoreError where it cannot be had."""
        return self.wait(tried(lambda: self.stores.folder(path)))

    def is_page(self, url: str) -> bool:
        """Whether a page of the web is there; StoreError where nothing can be had."""
        return self.wait(tried(lambda: self.stores.is_page(url)))

    def forget(self, files: Iterable[bytes]) -> None:
        """Let go of those that were not asked for."""
        for file in files:
            if file in self.coming:
                self._let_go(file)

    def _let_go(self, file: bytes) -> Future[Fetched]:
        future = self.coming.pop(file).future
        future.add_done_callback(self._let_go_of)
        return future

    def _let_go_of(self, done: Future[Fetched]) -> None:
        self.taken += 0 if done.exception() else len(done.result().data)
        if self.full:
            self.loop.call_soon_threadsafe(self._go_on)

    def _size(self, file: bytes) -> int:
        version = known.version_of(file)
        return self.typical if version is None or version.size < 0 else version.size

    def _hurry(self, file: bytes) -> None:
        """Begin what is waited for, whatever else is held."""
        if self.waiting and self.waiting[0] == file:
            self._begin(self.waiting.popleft())
        elif file in self.waiting:
            self.waiting.remove(file)
            self._begin(file)

    def _go_on(self) -> None:
        """Begin what there is room for."""
        while self.waiting and self.running < self._most(self.waiting[0]):
            self.full = self.begun - self.taken >= HELD
            if self.full:
                return
            self._begin(self.waiting.popleft())

    def _most(self, file: bytes) -> int:
        """How many objects may be on their way for this one to be begun: a host of the web is spared."""
        return self.width.now if scheme_of(file) in S3 else self.connections

    def _begin(self, file: bytes) -> None:
        if file not in self.coming:  # forgotten
            return
        files = [file, *itertools.islice(beside(file, self.waiting), MOST_TOGETHER)]
        for _ in files[1:]:
            self.waiting.popleft()
        coming = {one: self.coming[one] for one in files if one in self.coming}
        size = sum(one.size for one in coming.values())
        self.running += 1
        self.begun += size
        for one in coming.values():
            one.begun = True
        self.loop.create_task(self._fetch({file: one.future for file, one in coming.items()}, size))

    async def _fetch(self, futures: Mapping[bytes, Future[Fetched]], size: int) -> None:
        """Fetch one object, or members that lie beside each other in an archive."""
        came, (file, *others), start = 0, futures, time.monotonic()
        try:
            if others:
                found = await self.patiently(lambda _: self.stores.fetch_together([*futures]), file)
            else:
                one = await self.patiently(self.stores.fetch, file)
                self.typical += (len(one.data) - self.typical) // 8
                found = [one]
            for future, fetched in zip(futures.values(), found, strict=True):
                if isinstance(fetched, StoreError):
                    future.set_exception(UnreadableImageError(fetched.kind, str(fetched)))
                else:
                    came += len(fetched.data)
                    future.set_result(fetched)
        except BaseException as error:  # whoever asks for the objects gets it
            for future in futures.values():
                future.set_exception(error)
        finally:
            self.width.took(time.monotonic() - start, self.starving and bool(self.waiting) and not self.full)
            self.running -= 1
            self.begun += came - size
            self._go_on()
