"""On a Ray cluster the labels are those of a plain run, to the byte, whatever dies there.

The clusters are real ones: on this machine, two nodes of one CPU each, or the one that ferbatch starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import ENVIRONMENT, ROOT, TESTS, face_file, of_session, rows_of

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("ray") or sys.platform != "linux",
    reason="ray is installed with ferbatch[ray], and processes are looked up as Linux has them",
)

IMAGES = 360
SECONDS = 240  # that whatever is waited for may take, at the most
NODE = ("--block", "--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 * 2**20}", "--node-ip-address=127.0.0.1")
FEW = ("--batch-size", "2")  # images: then few are read before the first have their rows
QUICK = {"health_check_initial_delay_ms": 1_000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
PLAIN = {**ENVIRONMENT, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
OF_NODES = {**PLAIN, "PYTHONPATH": os.pathsep.join([str(TESTS / "stream" / "nodes"), str(ROOT)])}


def wait_for(true: Callable[[], Any], what: str) -> Any:
    """What it gives, as soon as that is something."""
    end = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(0.05)
    return found


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


@dataclass
class Nodes:
    address: str
    sessions: list[subprocess.Popen[bytes]]
    gates: Path

    def open(self, folder: str) -> None:
        """Have the images in folders of this name read from now on."""
        (self.gates / folder).touch()

    def actors(self) -> list[int]:
        """The processes of the actors."""
        found = []
        for pid in [pid for session in self.sessions for pid in of_session(session.pid)]:
            with suppress(OSError):
                if b"Labeller" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def kill(self, number: int) -> None:
        """Power off."""
        for pid in of_session(self.sessions[number].pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.sessions[number].wait(SECONDS)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of two nodes, whose decoder has holes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="fb", ignore_cleanup_errors=True) as folder:
        started: list[subprocess.Popen[bytes]] = []
        there = Nodes(address, started, Path(folder, "gates"))
        there.gates.mkdir()
        environment = {**OF_NODES, "FERBATCH_GATES": str(there.gates)}

        def start(*options: str) -> None:
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *NODE]
            with open(f"{folder}/{len(started)}.txt", "wb") as said:
                started.append(
                    subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
                )

        def is_up(number: int) -> bool:
            text = Path(f"{folder}/{number}.txt").read_text()
            assert started[number].poll() is None, text
            return "Ray runtime started" in text

        try:
            head = ("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false")
            start(*head, f"--temp-dir={folder}", f"--system-config={json.dumps(QUICK)}")
            wait_for(lambda: answers(address), "what the second node asks")
            start(f"--address={address}")
            wait_for(lambda: is_up(0) and is_up(1), "both nodes")
            yield there
        finally:
            for number in reversed(range(len(started))):
                there.kill(number)
            wait_for(lambda: not any(of_session(one.pid) for one in started), "the end of all processes")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with class folders of faces, a broken one and one that a decoder with holes dies of; plain labels."""
    place = tmp_path_factory.mktemp("ray")
    for seed in range(IMAGES):
        folder = place / "in" / ("happy", "sad", "more")[seed % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed:04}.jpg").write_bytes(face_file(seed))
    (place / "in/more/0101.jpg").write_bytes(b"no image")
    (place / "in/more/segv.jpg").write_bytes(face_file(1))
    os.symlink(model.parent, place / "model")
    assert label(place, "-o", "plain.csv") == 3
    return place


@contextmanager
def begun(place: Path, *options: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A run that goes on; it is killed where it still does at the end."""
    argv = ["label", "in", "--no-truth", "--model", "model/tiny.safetensors", *options]
    with subprocess.Popen([sys.executable, "-m", "ferbatch", *argv], cwd=place, env=PLAIN, **how) as run:
        try:
            yield run
        finally:
            run.kill()


def label(place: Path, *options: str) -> int:
    """Its exit code."""
    with begun(place, *options, "-q", stderr=subprocess.DEVNULL) as run:
        return run.wait(SECONDS)


def done(journal: Path) -> int:
    """How many images an unfinished run has the rows of."""
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    return sum(len(json.loads(line)["batch"]["paths"]) for line in lines)


def test_neither_a_signal_nor_the_death_of_an_actor_and_a_node_costs_a_row_or_doubles_one(
    nodes: Nodes, place: Path
) -> None:
    options = ("--engine", "ray", "--ray-address", nodes.address, "--max-errors", "1", "-q", "-o", "parts/", *FEW)
    journal = place / "parts.journal"
    nodes.open("happy")
    with begun(place, *options, stderr=subprocess.PIPE) as run:
        wait_for(lambda: done(journal), "the first rows")
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=SECONDS)
    assert (run.returncode, said) == (130, b"ferbatch: interrupted; --resume goes on with what is done\n")
    assert not (place / "parts").exists()
    before = done(journal)
    wait_for(lambda: not nodes.actors(), "the end of its actors")
    with begun(place, *options, "--resume", stderr=subprocess.PIPE) as run:
        wait_for(lambda: len(nodes.actors()) == 2, "both actors")
        nodes.open("more")
        wait_for(lambda: done(journal) > before, "more rows")
        os.kill(nodes.actors()[0], signal.SIGKILL)
        nodes.kill(1)
        assert done(journal) < IMAGES - 50  # in the midst of it
        nodes.open("sad")
        _, said = run.communicate(timeout=SECONDS)
    assert run.returncode == 5, said  # two failed, one is allowed
    failed = "(unreadable 1, crashed 1); each has its row, in/more/0101.jpg for one"
    assert said.decode().splitlines() == [
        f"going on with an unfinished run of parts/: {before} images done",
        f"2 of {IMAGES + 1} images could not be labelled {failed}",
        "ferbatch: --max-errors: 2 images failed, over 1",
    ]
    merge = [sys.executable, "-m", "ferbatch", "merge", "parts", "-o", "merged.csv", "-q"]
    assert subprocess.run(merge, cwd=place, env=PLAIN, stderr=subprocess.DEVNULL, timeout=SECONDS).returncode == 3
    lines, wanted = ((place / name).read_bytes().splitlines(keepends=True) for name in ("merged.csv", "plain.csv"))
    assert [line for line in lines if b"segv" not in line] == [line for line in wanted if b"segv" not in line]
    (row,) = [row for row in rows_of(place / "merged.csv") if "segv" in row["path"]]
    assert (row["error_kind"], row["error"]) == ("crashed", "the decoder crashed (SIGSEGV)")
    sidecar = json.loads((place / "parts.run.json").read_text())
    assert (sidecar["this_run"]["processed"], sidecar["options"]["engine"]) == (IMAGES + 1 - before, "ray")


def test_a_cluster_of_its_own_is_there_for_the_run_alone_and_says_nothing(place: Path, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tempfile.mkdtemp(prefix="fb")
    home.mkdir()
    environment = {**PLAIN, "HOME": str(home), "TMPDIR": temporary}
    options = [
        "label",
        "in/happy",
        "--no-truth",
        "--model",
        "model/tiny.safetensors",
        "--engine",
        "ray",
        "-o",
        "-",
        "-q",
    ]
    command = [sys.executable, "-m", "ferbatch", *options]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, cwd=place, env=environment, **piped) as run:
        rows, said = run.communicate(timeout=SECONDS)
    assert (run.returncode, said) == (0, b"")
    lines = (place / "plain.csv").read_bytes().splitlines()
    assert rows.splitlines() == [line for line in lines if line.startswith((b"path,", b'"in/happy/'))]
    wait_for(lambda: not of_session(run.pid), "the end of its processes")
    assert os.listdir(temporary) == []
    os.rmdir(temporary)
