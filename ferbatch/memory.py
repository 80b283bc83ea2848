"""The C library's allocator, told to keep memory between steps. For command lines only: it is the whole process's."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGE = 2**30  # bytes


def keep() -> None:
    """Have glibc keep large blocks that are freed: else a network's activations come as new pages at every step.

    Where the C library is another, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGE - 1)  # an int
