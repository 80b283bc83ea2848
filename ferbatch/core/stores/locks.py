"""One run at a time on an output in a store: a lock object beside it, made by a conditional put where there is such.

No kernel takes it away when its run dies, so it ends by itself: a run that goes on says every half minute that it does.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from ferbatch.core.errors import LockedError, UsageError
from ferbatch.core.locks import LOCK_BYTES, Holder
from ferbatch.core.names import escape, shown
from ferbatch.core.process import signals_deferred
from ferbatch.core.stores import objects, puts, remote
from ferbatch.core.stores.answers import StoreError

LASTS, RENEWED = 300.0, 30.0  # seconds that a lock lasts, and after which it is renewed
SETTLES = 2.0  # seconds within which two runs that take one lock note each other
LETS_GO = 5.0  # seconds that a store may take, each time that it is asked, to take a lock away
TRIES = 4  # at a lock that comes and goes


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lock object says."""

    holder: Holder
    until: float  # seconds since 1970
    run: str  # a name that no other run has
    space: str  # of the numbers of processes on that host

    @property
    def is_over(self) -> bool:
        """Whether its run is known to be dead, or has not said for long that it goes on."""
        here = (self.holder.host, self.space) == (socket.gethostname(), _space())
        return time.time() > self.until or (here and (self.holder.is_dead or self.holder.pid == os.getpid()))


class StoreLock:
    """The lock object of one output."""

    def __init__(self, path: str, name: str) -> None:
        """`path`: of the object; `name`: of the output, safe to print."""
        self.path, self.name, self.run = path, name, secrets.token_hex(8)
        self.since = datetime.now().astimezone().isoformat(timespec="seconds")
        self.is_sure = True  # whether the store gives it to one run alone, and not only nearly always

    @contextmanager
    def held(self) -> Iterator[Holder | None]:
        """Hold it; yields whose it was, of a run that died. LockedError if another run has it."""
        renewing = None
        try:
            dead = self._take()
            renewing = remote.ahead().begin(self._renew())
            yield dead
        finally:
            if renewing:
                renewing.cancel()
            with suppress(StoreError, TimeoutError), signals_deferred():  # it ends by itself
                remote.ahead().ask(lambda: asyncio.wait_for(self._let_go(), LETS_GO))

    def check(self) -> None:
        """LockedError if it was lost, as to a run that came while this one slept for long."""
        claim = self._claim()
        if claim is None and objects.create(self.path, self._said()) is not False:
            return
        if not self._is_mine(claim):
            by = f": {claim.holder}" if claim else ""
            raise LockedError(f"another run writes {self.name} by now{by}")

    def _take(self) -> Holder | None:
        """Whose it was, of a run that died."""
        dead: Holder | None = None
        created: bool | None
        for _ in range(TRIES):
            claim, created = self._claim(), True
            if self._is_mine(claim):  # the store did so and could not say it
                break
            if claim is not None:
                self._check_over(claim)
                dead = claim.holder
                objects.remove(self.path)
            with signals_deferred():  # or it may come to be there when nobody looks any more
                created = objects.create(self.path, self._said())
                if created is None:
                    objects.write(self.path, self._said())
            if created is not False:
                break
        else:
            raise LockedError(f"another run is writing {self.name}")
        # A store that makes the same object twice has not looked at the condition.
        self.is_sure = created is not None and objects.create(self.path, self._said()) is False
        if dead or not self.is_sure:
            time.sleep(SETTLES)
            self.check()
        return dead

    def _check_over(self, claim: Claim) -> None:
        """LockedError where the run of a claim may go on."""
        if not claim.is_over:
            until = datetime.fromtimestamp(claim.until).astimezone().isoformat(timespec="seconds")
            raise LockedError(
                f"another run is writing {self.name}: {claim.holder}; if it died, its lock ends at {until},"
                f" or when {shown(self.path)} is taken away"
            )

    def _claim(self) -> Claim | None:
        """What the lock says; None where there is none. UsageError where that is none of ours."""
        data = objects.begins(self.path, LOCK_BYTES)
        claim = None if data is None else _claim_in(data)
        if data is not None and claim is None:
            raise UsageError(f"{shown(self.path)} is no lock of ferbatch's: take it away first")
        return claim

    def _is_mine(self, claim: Claim | None) -> bool:
        return claim is not None and claim.run == self.run

    def _said(self) -> bytes:
        """What the lock says from now on."""
        until = datetime.fromtimestamp(time.time() + LASTS, UTC).isoformat(timespec="seconds")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "space": _space(), "since": self.since}
        return json.dumps({"ferbatch_lock": 1, **who, "until": until, "run": self.run}).encode() + b"\n"

    async def _renew(self) -> None:
        """Say, for as long as the run goes on, that it does."""
        while True:
            await asyncio.sleep(RENEWED)
            with suppress(StoreError):  # it is tried again, and looked at before anything is put
                if await self._is_held():
                    await puts.write(remote.ahead().stores, os.fsencode(self.path), self._said())

    async def _let_go(self) -> None:
        """Take it away, if it is still this run's."""
        if await self._is_held():
            await puts.remove(remote.ahead().stores, os.fsencode(self.path))

    async def _is_held(self) -> bool:
        """Whether it is still this run's."""
        return self._is_mine(_claim_in(await remote.ahead().stores.begins(os.fsencode(self.path), LOCK_BYTES)))


def _claim_in(data: bytes) -> Claim | None:
    """What a lock object says; None where it is none of ours."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        said = json.loads(data)
        holder = Holder(int(said["pid"]), str(said["host"]), str(said["since"]))
        return Claim(holder, datetime.fromisoformat(said["until"]).timestamp(), str(said["run"]), str(said["space"]))
    return None


def _space() -> str:
    """Where the numbers of processes are those of this process: containers may have the name of one host."""
    with suppress(OSError):
        return escape(os.readlink("/proc/self/ns/pid"))
    return ""
