"""Runs the command line in forks of a process that has imported everything: quick, and killed at a chosen moment.

Each is a process of its own with its own standard streams, as one that a shell starts; but an environment that Python
itself reads when it starts is that of the process that was forked.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import io
import json
import mmap
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import IO, Any, NoReturn

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 300  # seconds that a run may take
LABELS = ("happy", "sad", "neutral", "surprise")
LATER = ("ferbatch.__main__", "ferbatch.commands.bench.peers", "ferbatch.commands.train")  # not to import beforehand


@dataclass(frozen=True)
class Ended:
    """How a run ended: the exit code, negative for a signal; how many steps of writing it came to; what it wrote."""

    code: int
    events: int
    stdout: bytes
    stderr: str


@dataclass
class Running:
    """A command that was started and goes on: as subprocess.Popen has it."""

    forks: Forks
    pid: int
    stdout: IO[bytes]
    stderr: IO[bytes]
    returncode: int | None = field(default=None)

    def __post_init__(self) -> None:
        for stream in (self.stdout, self.stderr):
            weakref.finalize(self, stream.close)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.forks.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = LONGEST) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = LONGEST) -> tuple[bytes, bytes]:
        """What it writes until it ends."""
        with ThreadPoolExecutor(2) as readers:
            said = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.wait(timeout)
            return said[0].result(), said[1].result()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts the process, and asks it for runs."""

    def __init__(self, *, sync: bool = True, **environment: str) -> None:
        """With `sync`, what is forced to the disk goes there: it takes its time, and SIGKILL takes nothing of it away.

        The others are variables of the environment.
        """
        env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "OMP_NUM_THREADS": "1", **environment}
        self.pipe, theirs = Pipe()
        command = [sys.executable, __file__, str(theirs.fileno()), *(["sync"] if sync else [])]
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def ask(self, request: dict[str, Any]) -> Any:
        self.pipe.send(request)
        return self._answer(request)

    def _answer(self, request: dict[str, Any]) -> Any:
        if not self.pipe.poll(2 * LONGEST):  # or the process that forks hangs itself
            self.process.kill()
            raise TimeoutError(f"no answer to {request}")
        return self.pipe.recv()

    def __call__(self, folder: Path, *argv: str | bytes | Path, **how: Any) -> Ended:
        """Run `ferbatch *argv` in a folder.

        stdin: bytes.
        kill_at: SIGKILL at this event (a step of writing).
        kill_after: SIGKILL at this many seconds.
        touch: {event: shell command}.
        full_at: the disk is full for every write of the journal from this event on.
        faults: {name: settings} of faults.py.
        """
        return Ended(**self.ask({"cwd": str(folder), "argv": [os.fsdecode(arg) for arg in argv], **how}))

    def start(self, folder: Path, *argv: str | bytes | Path, **how: Any) -> Running:
        """Begin `ferbatch *argv` in a folder and leave it to run; `how` is as above, less kill_after.

        session: True makes it the first process of a session of its own.
        """
        request = {"cwd": str(folder), "argv": [os.fsdecode(arg) for arg in argv], "start": True, **how}
        self.pipe.send(request)
        ours = []
        for _ in range(2):
            reading, writing = os.pipe()
            send_handle(self.pipe, writing, self.process.pid)
            os.close(writing)
            ours.append(os.fdopen(reading, "rb"))
        return Running(self, self._answer(request), *ours)

    def script(self, path: Path) -> None:
        """Write a script that is `ferbatch` for a shell: it has this process run the command in a fork."""
        door = Path(tempfile.mkdtemp(prefix="ferbatch-")) / "door"  # the name of a socket must be short
        self.ask({"listen": str(door)})
        path.write_text(f"#!{sys.executable} -IS\n{CLIENT.format(door=str(door))}")
        path.chmod(0o755)

    def close(self) -> None:
        self.pipe.close()
        self.process.wait()


CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({door!r})
    request = json.dumps(dict(cwd=os.getcwd(), argv=sys.argv[1:])).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    sys.exit(int(server.recv(16)))
"""


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
        from ferbatch.stream import journal

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
        os.replace = self._around(os.replace)
        os.fsync = self._around(os.fsync if "sync" in sys.argv else lambda _: None)

    def _around(self, call: Any) -> Any:
        def stepping(*args: Any) -> Any:
            self.step()
            result = call(*args)
            self.step()
            return result

        return stepping


def _become(request: dict[str, Any], streams: list[int], events: Events) -> NoReturn:
    """In the fork: what `python -m ferbatch` does."""
    if request.get("session"):
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # as Python opens them when it starts
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    code = 1
    faulthandler.enable(2)  # on the stderr of the fork
    tqdm.set_lock(threading.RLock())  # its own is shared by all forks: one that is killed may have it
    try:
        events.watch(request)
        _switch_on(request.get("faults", {}))
        sys.argv = ["ferbatch", *request["argv"]]
        runpy.run_module("ferbatch", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # to take a fork down would copy all that it shares, which takes seconds


def _switch_on(faults: dict[str, dict[str, Any]]) -> None:
    import faults as known
    import pytest

    for name, settings in faults.items():
        known.switch_on(pytest.MonkeyPatch(), name, **settings)


def _end_of(child: int) -> int:
    """How a child ended, which it has to within LONGEST; it is aborted then, and says where it was."""
    with open(os.pidfd_open(child)) as ended:
        if not wait([ended], LONGEST):
            os.kill(child, signal.SIGABRT)
    return os.waitpid(child, 0)[1]


class Server:
    """The process that forks."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.running: set[int] = set()
        self.doors: list[socket.socket] = []
        self.guests: dict[int, socket.socket] = {}  # who waits for a process to end

    def serve(self) -> None:
        with suppress(EOFError):
            while True:
                ready = wait([self.pipe, *self.doors], 0.01 if self.guests else None)
                for door in self.doors:
                    if door in ready:
                        self._let_in(door.accept()[0])
                for pid in list(self.guests):
                    self._see_off(pid)
                if self.pipe not in ready:
                    continue
                request = self.pipe.recv()
                if "listen" in request:
                    self.doors.append(socket.socket(socket.AF_UNIX))
                    self.doors[-1].bind(request["listen"])
                    self.doors[-1].listen()
                    self.pipe.send(True)
                elif "poll" in request:
                    self.pipe.send(self._poll(request["poll"]))
                elif "start" in request:
                    self.pipe.send(self._start(request))
                else:
                    self.pipe.send(vars(self._run(request)))
        for pid in self.running:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _fork(self, request: dict[str, Any], streams: list[int], events: Events) -> int:
        if "train" in request["argv"][:1]:
            importlib.import_module("ferbatch.commands.train.run")
        child = os.fork()
        if not child:
            for one in (self.pipe, *self.doors, *self.guests.values()):
                one.close()
            _become(request, streams, events)
        return child

    def _start(self, request: dict[str, Any]) -> int:
        streams = [os.open(os.devnull, os.O_RDONLY), recv_handle(self.pipe), recv_handle(self.pipe)]
        child = self._fork(request, streams, Events())
        for stream in streams:
            os.close(stream)
        self.running.add(child)
        return child

    def _let_in(self, guest: socket.socket) -> None:
        """Run what a script asks for, with its streams."""
        request, streams, *_ = socket.recv_fds(guest, 2**16, 3)
        child = self._fork(json.loads(request), streams, Events())
        for stream in streams:
            os.close(stream)
        self.guests[child] = guest

    def _see_off(self, pid: int) -> None:
        code = self._poll(pid)
        if code is not None:
            with suppress(OSError), self.guests.pop(pid) as guest:
                guest.send(str(code if code >= 0 else 128 - code).encode())

    def _poll(self, pid: int) -> int | None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return None
        self.running.discard(pid)
        return os.waitstatus_to_exitcode(status)

    def _run(self, request: dict[str, Any]) -> Ended:
        with ExitStack() as stack:
            streams = [stack.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3)]
            streams[0].write(request.get("stdin", b""))
            streams[0].seek(0)
            events = Events()
            child = self._fork(request, [one.fileno() for one in streams], events)
            if "kill_after" in request:
                time.sleep(request["kill_after"])
                os.kill(child, signal.SIGKILL)
            status = _end_of(child)
            for one in streams:
                one.seek(0)
            _, out, err = [one.read() for one in streams]
        return Ended(os.waitstatus_to_exitcode(status), events.count, out, err.decode(errors="surrogateescape"))


def warm_up() -> None:
    """Import now what every command would import in its fork.

    No thread is left: a fork would have the locks that one holds, and wait for them for ever.
    """
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow's memory
    import faults  # noqa: F401
    import rich.table  # noqa: F401
    from typer.testing import CliRunner

    import ferbatch
    from ferbatch.cli import app

    with suppress(ImportError):  # stores take as long to import as all else that a command needs
        import s3fs  # noqa: F401
    for module in pkgutil.walk_packages(ferbatch.__path__, "ferbatch."):
        if not module.name.startswith(LATER):
            importlib.import_module(module.name)
    monitor_interval, tqdm.monitor_interval = tqdm.monitor_interval, 0
    columns = f"path,truth,label,confidence,{','.join(LABELS)},status,error_kind,error"
    rows = [f"{at}.jpg,{label},{label},0.7,0.7,0.1,0.1,0.1,ok,," for at, label in enumerate(LABELS)]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("labels.csv").write_text("\n".join([columns, *rows, ""]))
        for argv in (
            ["evaluate", "--predictions", "labels.csv", "--report", "report"],  # fonts are looked for, templates read
            ["models"],
        ):
            done = CliRunner().invoke(app, argv)
            assert done.exit_code == 0, done.output
    tqdm.monitor_interval = monitor_interval  # in the forks
    assert len(os.listdir("/proc/self/task")) == 1
    gc.collect()
    gc.freeze()  # what is there already need not be copied to be looked through


if __name__ == "__main__":
    warm_up()
    Server(Connection(int(sys.argv[1]))).serve()
