"""One run at a time: a lock beside each output, held by the kernel, with a file that says whose it is."""

from __future__ import annotations

import json
import os
import socket
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from filelock import FileLock, Timeout

from ferbatch.core.errors import LockedError
from ferbatch.core.files import unwritten
from ferbatch.core.names import escape, shown

LOCK_BYTES = 4096  # of a lock file, to read


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that a lock file names."""

    pid: int
    host: str
    since: str = ""

    def __str__(self) -> str:
        return escape(f"process {self.pid} on {self.host}" + (f", since {self.since}" if self.since else ""))

    @property
    def is_dead(self) -> bool:
        """Whether it is known to run no more."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except (OSError, OverflowError) as error:
            return isinstance(error, ProcessLookupError)
        return False


@contextmanager
def locked(path: str, name: str | None = None) -> Iterator[Holder | None]:
    """Hold the lock beside `path`; yields who held it and died without letting go, if so.

    LockedError if another run has it. The lock is the kernel's and ends with its process; its file says whose it is.
    `name`: what messages call what is locked, where that is not `path`.
    """
    file = f"{path}.lock"
    lock = FileLock(file, timeout=0)
    _acquire(lock, name or shown(path))
    before = _holder(file)
    signed = _sign(file, before)
    try:
        yield before if signed else None
    finally:
        if signed:
            with suppress(OSError):  # before the release: filelock takes no lock on a file that is gone
                os.unlink(file)
        lock.release()


def check_free(path: str, name: str | None = None) -> None:
    """LockedError if another run holds `path`, which messages call `name`, if that is said."""
    if os.path.lexists(f"{path}.lock"):
        lock = FileLock(f"{path}.lock", timeout=0)
        _acquire(lock, name or shown(path))
        lock.release()


def _acquire(lock: FileLock, name: str, *, again: bool = True) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file system without locks gets filelock's own, which is enough
            lock.acquire()
    except (Timeout, PermissionError) as error:
        holder = _holder(lock.lock_file)
        if isinstance(error, PermissionError):  # it may be another user's
            if holder and holder.is_dead and again:
                with suppress(OSError):
                    os.unlink(lock.lock_file)
                return _acquire(lock, name, again=False)
            if not holder:
                raise unwritten(f"{name}.lock", error.strerror) from error
        raise LockedError(f"another run is writing {name}" + (f": {holder}" if holder else "")) from error
    except OSError as error:
        raise unwritten(name, error.strerror) from error


def _holder(path: str) -> Holder | None:
    """Whose lock file this is, where it says so in our way or filelock's."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, encoding="utf-8") as stream:
            text = stream.read(LOCK_BYTES)
        if text.startswith("{"):
            holder = json.loads(text)
            return Holder(int(holder["pid"]), str(holder["host"]), str(holder["since"]))
        pid, host, *_ = text.split("\n")
        return Holder(int(pid), host)
    return None


def _sign(path: str, before: Holder | None) -> bool:
    """Write who holds the lock into its file; False for one that is filelock's own, or nobody's we know."""
    with suppress(OSError, ValueError), open(path, "r+", encoding="utf-8") as stream:
        if not stream.read(1) or (before and before.since):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            stream.seek(0)
            stream.truncate()
            stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
            return True
    return False
