"""Processes to measure: whole commands with their memory, and work that is spread over all cores."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferbatch.commands.bench import looks
from ferbatch.core.batch import References
from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.process import ONE_CORE
from ferbatch.core.records import WHOLE, Decoding, Search
from ferbatch.images import faces
from ferbatch.images.decode import read_bytes
from ferbatch.stream.read import MOST_TOGETHER, batches, read

EVERY = 0.02  # seconds between two looks at a command's memory
MEGABYTE = 10**6
MOST_SHARED = 256  # files given to a process at once


@dataclass(frozen=True, slots=True)
class Command:
    """What a command that ended came to."""

    seconds: float
    exit_code: int
    stdout: str
    stderr: str
    peak: float | None  # megabytes of all its processes together; None where the system does not tell, or not watched


def command(
    argv: Sequence[str], *, stdin: bytes = b"", environment: Mapping[str, str] | None = None, watched: bool = False
) -> Command:
    """Run a command to its end, `watched` for its memory, which costs it some speed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    peaks = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peaks), daemon=True)
    if watched:
        watcher.start()
    try:
        stdout, stderr = process.communicate(stdin)
    finally:
        process.kill()
        process.wait()
    seconds = time.perf_counter() - start
    if watched:
        watcher.join()
    return Command(seconds, process.returncode, stdout.decode(), stderr.decode(), max(peaks) or None)


def _watch(process: subprocess.Popen[bytes], peaks: list[float]) -> None:
    """What it holds, and what the processes that it started hold for themselves alone."""
    while process.poll() is None:
        first, *others = _tree(process.pid)
        held = _memory(first, "Rss") + sum(_memory(one, "Private_Clean", "Private_Dirty") for one in others)
        peaks.append(held)
        time.sleep(EVERY)


def _tree(pid: int) -> list[int]:
    """The process and those it started; itself alone where the system does not tell."""
    found = [pid]
    for one in found:  # the list grows meanwhile
        with suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def _memory(pid: int, *kinds: str) -> float:
    """Megabytes of these kinds of a process's memory; 0 where the system does not tell."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: float(size.split()[0]) for name, size in (line.split(":", 1) for line in lines)}
        return sum(sizes.get(kind, 0.0) for kind in kinds) * 1024 / MEGABYTE
    return 0.0


class Cores:
    """A process for each core, ready to work."""

    def __init__(self, n: int) -> None:
        self.n = n
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        self.processes = ProcessPoolExecutor(n, context, initializer=_alone)
        list(self.processes.map(time.sleep, [0.2] * n))  # so that every process has started

    def rate(self, what: str, files: Sequence[bytes], size: int, search: Search = WHOLE) -> float:
        """Images per second that are read, or made into model inputs of this size, on all cores."""
        list(self.processes.map(faces.prepare, [search] * self.n))  # for the first time it takes long: each has one
        share = max(1, min(MOST_SHARED, len(files) // (4 * self.n)))  # so few that all processes end together
        shares = [list(files[start : start + share]) for start in range(0, len(files), share)]
        spans = list(
            self.processes.map(_work, [what] * len(shares), shares, [size] * len(shares), [search] * len(shares))
        )
        return len(files) / (max(end for _, end in spans) - min(start for start, _ in spans))

    def looks(self, files: Sequence[bytes], search: Search) -> float:
        """Images per second whose every picture the detector looks at, in all processes, once they are decoded."""
        some = [list(files[:MOST_TOGETHER])] * self.n
        return sum(self.processes.map(looks.rate, some, [search] * self.n))

    def close(self) -> None:
        self.processes.shutdown()


def _alone() -> None:
    os.environ[ONE_CORE] = "1"


def _work(what: str, files: Sequence[bytes], size: int, search: Search) -> tuple[float, float]:
    """When this share of the work began and ended, by a clock that all processes share."""
    decoding = Decoding(size, search=search)
    start = time.monotonic()
    if what == "decode" and search.device:
        for _ in batches(0, References([""] * len(files), files, ()), decoding):
            pass
        return start, time.monotonic()
    for file in files:
        with suppress(UnreadableImageError):
            read("", file, decoding) if what == "decode" else read_bytes(file)
    return start, time.monotonic()


def machine() -> dict[str, Any]:
    """What this machine is, as far as it says."""
    cpu = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": cpu or "unknown", "system": sys.platform, "python": ".".join(map(str, sys.version_info[:3]))}
