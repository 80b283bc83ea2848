"""One run at a time: a lock beside each output, held by the kernel, with a file that says whose it is."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from filelock import FileLock, Timeout

from ferbatch.errors import LockedError, OutputError
from ferbatch.paths import encode_path, escape

LOCK_BYTES = 4096  # of a lock file, to read


@contextmanager
def locked(path: str) -> Iterator[str | None]:
    """Hold the lock beside `path`; yields who held it and died without letting go, if so.

    LockedError if another run has it. The lock is the kernel's and ends with its process; its file says whose it is.
    """
    shown = encode_path(os.fsencode(path))
    lock = FileLock(f"{path}.lock", timeout=0)
    before = _holder(lock.lock_file)
    try:
        lock.acquire()
    except Timeout as error:
        holder = _holder(lock.lock_file)
        raise LockedError(f"another run is writing {shown}" + (f": {holder}" if holder else "")) from error
    except OSError as error:
        raise OutputError(f"{shown} could not be written: {error.strerror}") from error
    try:
        _sign(lock.lock_file)
        yield before
    finally:
        with suppress(OSError):  # before the release: filelock takes no lock on a file that is gone
            os.unlink(lock.lock_file)
        lock.release()


def _holder(path: str) -> str | None:
    """Whose lock file this is, where it says so."""
    with suppress(OSError, ValueError, TypeError, KeyError), open(path, encoding="utf-8") as stream:
        holder = json.loads(stream.read(LOCK_BYTES))
        return escape(f"process {holder['pid']} on {holder['host']}, since {holder['since']}")
    return None


def _sign(path: str) -> None:
    """Write who holds the lock into its file, unless filelock did, which it does for want of a kernel's lock."""
    with suppress(OSError), open(path, "r+", encoding="utf-8") as stream:
        if not stream.read(1) or _holder(path):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            stream.seek(0)
            stream.truncate()
            stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
