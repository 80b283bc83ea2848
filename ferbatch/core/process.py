"""What a command line sets for its whole process. The Python API leaves its host alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT_BLOCK = 2**30  # bytes of a block of memory that is kept when it is freed, at the most
MOST_WORKERS = 32  # processes, where their number is not given
ONE_CORE = "FERBATCH_ONE_CORE"  # in the environment of a process that is one of many, each on a core of its own
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

T = TypeVar("T")


def be_quick() -> None:
    """What labelling wants of its process: cores that are shared, memory that is kept. Before torch is imported.

    OpenMP's threads sleep while they wait, unless the environment says otherwise: where other work keeps the cores
    busy, spinning threads made labelling up to twenty times slower; on an idle machine sleeping ones cost 5 %.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_memory()


def keep_memory() -> None:
    """Have glibc keep large blocks that are freed: else a network's activations come as new pages at every step.

    Where the C library is another, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # here, for it takes time that --help does not have

    libc = ctypes.CDLL(None)
    glibc = hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version")
    if glibc and libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK):  # older ones refuse so much, and are then best left alone
        libc.mallopt(M_TRIM_THRESHOLD, 2 * KEPT_BLOCK - 1)  # as much as an int holds


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP came; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Signals:
    """What has come, and whether it may end what runs just now."""

    came: int | None = None
    deferred = False
    importing = False
    farewell: Callable[[int], object] = staticmethod(lambda _: None)  # said where the process ends without a Stopped


@contextmanager
def stopping_in_order(farewell: Callable[[int], object]) -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP raise Stopped, but where they are deferred; a second one ends it all at once.

    One that is ignored, as nohup has it, stays so.
    """
    _Signals.came, _Signals.deferred, _Signals.farewell = None, False, staticmethod(farewell)
    numbers = [one for one in STOPPING if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _on_signal) for number in numbers}
    try:
        yield
    finally:
        _Signals.deferred = True  # what comes now comes too late
        for number, handler in before.items():
            signal.signal(number, handler)
        _Signals.came, _Signals.deferred = None, False


def _on_signal(number: int, _: FrameType | None) -> None:
    if _Signals.came is not None:
        os._exit(128 + number)
    _Signals.came = number
    if _Signals.importing:
        _Signals.farewell(number)
        os._exit(128 + number)
    if not _Signals.deferred:
        raise Stopped(number)


@contextmanager
def importing() -> Iterator[None]:
    """Have a signal end the process, after its farewell: a raise in the midst of torch's import could abort it."""
    _Signals.importing = True
    try:
        yield
    finally:
        _Signals.importing = False


@contextmanager
def signals_deferred(*, in_forks: bool = False) -> Iterator[None]:
    """Let a signal wait for the end of this block, where Stopped is raised for it; `until_stopped` ends early.

    `in_forks`: a process that is forked in it hears of none either.
    """
    before, _Signals.deferred = _Signals.deferred, True
    blocks = in_forks and hasattr(signal, "pthread_sigmask")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING) if blocks else None
    try:
        yield
    finally:
        _Signals.deferred = before
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if _Signals.came is not None and not before:
        raise Stopped(_Signals.came)


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """The items, until a deferred signal comes: it may cut short the waiting for the next, not what is done with it."""
    waiting = iter(items)
    deferred = _Signals.deferred
    while True:
        try:
            _Signals.deferred = False
            if deferred and _Signals.came is not None:  # looked at when no other can be missed any more
                return
            item = next(waiting)
        except StopIteration:
            return
        except Stopped:
            if deferred:
                return
            raise
        finally:
            _Signals.deferred = deferred
        yield item


def stopped() -> bool:
    """Whether a signal waits for the end of `signals_deferred`."""
    return _Signals.came is not None


@contextmanager
def native_code_hushed() -> Iterator[None]:
    """Send what native libraries write to file descriptor 2 nowhere; sys.stderr goes on to where that led."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        stderr = -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # even if it was closed: else a file of ours may come to lie there
    if nowhere != 2:
        os.close(nowhere)
    before = sys.stderr
    try:
        if before is None or stderr < 0:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # nobody wants to hear
        elif _writes_to_2(before):
            sys.stderr = open(  # noqa: SIM115
                stderr, "w", buffering=1, encoding=before.encoding, errors="backslashreplace", closefd=False
            )
        yield
    finally:
        sys.stderr = before
        if stderr >= 0:
            os.dup2(stderr, 2)
            os.close(stderr)


def _writes_to_2(stream: object) -> bool:
    with suppress(AttributeError, OSError, ValueError):
        return stream.fileno() == 2  # type: ignore[attr-defined,no-any-return]
    return False


def default_workers() -> int:
    """As many as there are cores for this process, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MOST_WORKERS, cores or 1)
