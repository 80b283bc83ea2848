"""Runs the command line in forks of a process that has imported everything: quick, and killed at a chosen moment.

As a program it is that process: requests come as lines of JSON, answers go back the same way.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """How a run ended: the exit code, negative for a signal; the events it came to; what it said on stderr."""

    code: int
    events: int
    stderr: str


class Forks:
    """Starts the process, and asks it for runs."""

    def __init__(self, **environment: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environment}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, env=env, text=True)

    def __call__(self, folder: Path, *argv: str | Path, **how: Any) -> Ended:
        """Run `ferbatch *argv` in a folder.

        kill_at: SIGKILL at this event (a step of writing); kill_after: at this many seconds; touch: {event: shell
        command}; full_at: the disk is full for every write of the journal from this event on.
        """
        assert self.process.stdin
        assert self.process.stdout
        request = {"cwd": str(folder), "argv": [str(arg) for arg in argv], **how}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.communicate()


class Events:
    """The steps of writing: before, in and after each batch of the journal, and around fsync and rename."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.kill_at, self.full_at = request.get("kill_at"), request.get("full_at")
        self.touch = {int(at): command for at, command in request.get("touch", {}).items()}
        self.count, self.whole = 0, False

    def step(self) -> None:
        self.count += 1
        if self.count in self.touch:
            subprocess.run(self.touch[self.count], shell=True, check=True)
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        from ferbatch import journal

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


def _run(request: dict[str, Any], report: int, stderr: int) -> None:
    """In the fork: never returns."""
    os.dup2(stderr, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.chdir(request["cwd"])
    events = Events(request)
    events.watch()
    code = 1
    try:
        sys.argv = ["ferbatch", *request["argv"]]
        from ferbatch.cli import main

        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os.write(report, str(events.count).encode())
        os._exit(code)


def serve() -> None:
    import ferbatch.label_console
    import ferbatch.labelling
    import ferbatch.pages
    import ferbatch.report  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        theirs, ours = os.pipe()
        stderr = os.memfd_create("stderr") if hasattr(os, "memfd_create") else os.open("stderr", os.O_RDWR | os.O_CREAT)
        child = os.fork()
        if not child:
            os.close(theirs)
            _run(request, ours, stderr)
        os.close(ours)
        if "kill_after" in request:
            time.sleep(request["kill_after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with open(theirs) as pipe, open(stderr, errors="replace") as said:
            count = pipe.read()
            said.seek(0)
            ended = Ended(os.waitstatus_to_exitcode(status), int(count or 0), said.read())
        print(json.dumps(vars(ended)), flush=True)


if __name__ == "__main__":
    serve()
