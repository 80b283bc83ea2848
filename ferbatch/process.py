"""What a command line sets for its whole process before the heavy imports. The Python API leaves its host alone."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGE = 2**30  # bytes


def share_cores() -> None:
    """Have OpenMP's threads sleep while they wait, not spin, unless the environment says otherwise.

    Where other work keeps the cores busy, spinning threads made labelling up to twenty times slower; on an idle machine
    sleeping ones cost 5 %. Must come before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_memory() -> None:
    """Have glibc keep large blocks that are freed: else a network's activations come as new pages at every step.

    Where the C library is another, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    glibc = hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version")
    if glibc and libc.mallopt(M_MMAP_THRESHOLD, LARGE):  # older ones refuse so much, and are then best left alone
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGE - 1)  # an int
