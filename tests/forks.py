"""Runs the command line in forks of a process that has imported everything: quick, and killed at a chosen moment.

Each is a process of its own with its own standard streams, as one that a shell starts; but an environment that Python
itself reads when it starts is that of the process that was forked.
"""

from __future__ import annotations

import io
import mmap
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 300  # seconds that a run may take


@dataclass(frozen=True)
class Ended:
    """How a run ended: the exit code, negative for a signal; how many steps of writing it came to; what it wrote."""

    code: int
    events: int
    stdout: bytes
    stderr: str


class Forks:
    """Starts the process, and asks it for runs."""

    def __init__(self, **environment: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **environment}
        self.pipe, theirs = Pipe()
        command = [sys.executable, __file__, str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def __call__(self, folder: Path, *argv: str | bytes | Path, **how: Any) -> Ended:
        """Run `ferbatch *argv` in a folder.

        stdin: bytes; kill_at: SIGKILL at this event (a step of writing); kill_after: at this many seconds; touch:
        {event: shell command}; full_at: the disk is full for every write of the journal from this event on.
        """
        self.pipe.send({"cwd": str(folder), "argv": [os.fsdecode(arg) for arg in argv], **how})
        if not self.pipe.poll(LONGEST):
            self.process.kill()
            raise TimeoutError(f"ferbatch {argv} did not end within {LONGEST} s")
        return Ended(**self.pipe.recv())

    def close(self) -> None:
        self.pipe.close()
        self.process.wait()


class Events:
    """The steps of writing: before, in and after each batch of the journal, and around fsync and rename."""

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, 8)  # with the process that forks
        self.kill_at, self.full_at, self.touch, self.whole = None, None, {}, False

    @property
    def count(self) -> int:
        return int.from_bytes(self.shared[:], "little")

    def step(self) -> None:
        self.shared[:] = (self.count + 1).to_bytes(8, "little")
        if self.count in self.touch:
            subprocess.run(self.touch[self.count], shell=True, check=True)
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, request: dict[str, Any]) -> None:
        from ferbatch.commands.label import journal

        self.kill_at, self.full_at = request.get("kill_at"), request.get("full_at")
        self.touch = request.get("touch", {})
        events = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                events.step()
                half = len(data) // 2
                if events.full_at is not None and events.count >= events.full_at:
                    if half > 1:
                        return super().write(data[:half])
                    raise OSError(28, "No space left on device")
                if events.whole or half < 1:
                    events.whole = False
                    return super().write(data)
                events.whole = True  # the second half
                return super().write(data[:half])

        journal.io = type("io", (), {"FileIO": File})  # type: ignore[attr-defined]
        for name in ("replace", "fsync"):
            setattr(os, name, self._around(getattr(os, name)))

    def _around(self, call: Any) -> Any:
        def stepping(*args: Any) -> Any:
            self.step()
            result = call(*args)
            self.step()
            return result

        return stepping


def _become(request: dict[str, Any], streams: list[int], events: Events) -> NoReturn:
    """In the fork: what `python -m ferbatch` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(request["cwd"])
    events.watch(request)
    sys.argv = ["ferbatch", *request["argv"]]
    code = 1
    try:
        runpy.run_module("ferbatch", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # to take a fork down would copy all that it shares, which takes seconds


def _answer(request: dict[str, Any], pipe: Connection) -> Ended:
    """How the run ended."""
    with ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3)]
        streams[0].write(request.get("stdin", b""))
        streams[0].seek(0)
        events = Events()
        child = os.fork()
        if not child:
            pipe.close()
            _become(request, [one.fileno() for one in streams], events)
        if "kill_after" in request:
            time.sleep(request["kill_after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        for one in streams:
            one.seek(0)
        _, out, err = [one.read() for one in streams]
    return Ended(os.waitstatus_to_exitcode(status), events.count, out, err.decode(errors="surrogateescape"))


def serve(pipe: Connection) -> None:
    import ferbatch.commands.label.console
    import ferbatch.commands.label.run
    import ferbatch.report.build
    import ferbatch.report.pages  # noqa: F401

    with suppress(EOFError):
        while True:
            pipe.send(vars(_answer(pipe.recv(), pipe)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
