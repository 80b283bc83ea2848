"""A signal ends a run in order at every step of the processes that decode for it: nothing hangs, is left or is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from faults import IMAGES, MOMENTS
from forks import Forks, Running
from support import ENVIRONMENT, crossed, face_file, made_once, of_session, some

from ferbatch.core import process
from ferbatch.shell.exits import exits

SAID = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGHUP: "hung up"}
WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {  # options, and faults
    "isolated, labelling as well": (("--isolate",), {}),
    "not isolated": (("--no-isolate",), {}),
    "started afresh": (("--isolate",), {"no_network_to_share": {}}),
}
SECONDS = 20  # that processes of a run may take to be gone after it; those of two signals look once a second


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        for seed in range(IMAGES):
            (folder / f"{seed:04}.jpg").write_bytes(face_file(seed))

    return made_once(tmp_path_factory, "stopped", make)


@pytest.fixture(scope="module")
def unbroken(folder: Path, model: Path, commands: Forks | None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The labels of a run that no one stops."""
    if not commands:
        pytest.skip("this system cannot fork")
    there = tmp_path_factory.mktemp("unbroken")
    done = commands(there, "label", folder, "--model", model, "-q")
    assert done.code == 0, done.stderr
    return (there / "labels.csv").read_bytes()


Stop = Callable[..., Running]


@pytest.fixture
def stop(folder: Path, model: Path, forks: Forks, tmp_path: Path) -> Stop:
    """Begin `ferbatch label` this way, in a session of its own, have it signalled, and wait for its end."""

    def stopped(way: str, *sent: tuple[str, int], **more: Any) -> Running:
        options, faults = WAYS[way]
        command = ("label", folder, "--model", model, "-q", "--workers", "2", "--batch-size", "4", *options)
        faults = {**faults, "signals": {"sent": sent}, **more}
        return forks.start(tmp_path, *command, session=True, faults=faults)

    return stopped


def assert_none_is_left(session: int) -> None:
    deadline = time.monotonic() + SECONDS
    while of_session(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not of_session(session)


def assert_resumed(way: str, folder: Path, model: Path, forks: Forks, tmp_path: Path, unbroken: bytes) -> None:
    """Nothing that was done is lost, and the run goes on to what it would have been."""
    assert (tmp_path / "labels.csv.journal").exists()
    done = forks(tmp_path, "label", folder, "--model", model, "-q", "--resume", *WAYS[way][0])
    assert done.code == 0, done.stderr
    assert (tmp_path / "labels.csv").read_bytes() == unbroken


@pytest.mark.parametrize(("moment", "way", "number"), crossed(MOMENTS, WAYS, SAID))
def test_a_signal_at_any_moment_ends_the_run_in_order_and_resume_goes_on(
    moment: str,
    way: str,
    number: int,
    stop: Stop,
    folder: Path,
    model: Path,
    forks: Forks,
    tmp_path: Path,
    unbroken: bytes,
) -> None:
    running = stop(way, (moment, number))
    _, errors = running.communicate(timeout=60)
    said = f"ferbatch: {SAID[signal.Signals(number)]}; --resume goes on with what is done\n"
    assert (running.returncode, errors.decode()) == (128 + number, said)
    assert_none_is_left(running.pid)
    assert_resumed(way, folder, model, forks, tmp_path, unbroken)


PAIRS = [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)]


@pytest.mark.parametrize(("moment", "way", "pair"), crossed(MOMENTS, WAYS, PAIRS))
def test_two_signals_at_any_moment_end_the_run_at_once(
    moment: str,
    way: str,
    pair: tuple[int, int],
    stop: Stop,
    folder: Path,
    model: Path,
    forks: Forks,
    tmp_path: Path,
    unbroken: bytes,
) -> None:
    running = stop(way, *((moment, number) for number in pair))
    running.communicate(timeout=60)
    assert running.returncode in [128 + number for number in pair]
    assert_none_is_left(running.pid)
    assert_resumed(way, folder, model, forks, tmp_path, unbroken)


LINES = range(1, 2_500, 20)  # that a run executes from the journal's beginning on; it has some more


@pytest.mark.parametrize(("line", "way"), crossed(some(LINES, 7), WAYS))
@pytest.mark.parametrize("sent", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_a_signal_before_any_line_ends_the_run_as_well(
    line: int,
    way: str,
    sent: tuple[int, ...],
    stop: Stop,
    folder: Path,
    model: Path,
    forks: Forks,
    tmp_path: Path,
    unbroken: bytes,
) -> None:
    running = stop(way, signals_at_a_line={"line": line, "sent": sent})
    running.communicate(timeout=60)
    assert running.returncode in [128 + number for number in sent]
    assert_none_is_left(running.pid)
    done = forks(tmp_path, "label", folder, "--model", model, "-q", "--resume", *WAYS[way][0])
    assert done.code == 0, done.stderr
    assert (tmp_path / "labels.csv").read_bytes() == unbroken


@pytest.mark.parametrize("module", ["colorsys", "tqdm"])  # of rich's, and of ferbatch's console
def test_a_signal_while_the_consoles_are_imported_ends_the_run_as_well(module: str, tmp_path: Path) -> None:
    code = f"""
        import os, signal, sys
        class Finder:
            def find_spec(name, *_):
                if name == "{module}":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Finder)
        sys.argv = ["ferbatch", "label", "."]
        from ferbatch.cli import main
        main()
    """
    face = tmp_path / "one.jpg"
    face.write_bytes(face_file(0))
    done = subprocess.run([sys.executable, "-c", dedent(code)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"ferbatch: interrupted\n")
    assert [*tmp_path.iterdir()] == [face]


@pytest.mark.parametrize("way", ["isolated, labelling as well", "not isolated"])
def test_a_process_that_begins_when_its_parent_is_gone_ends(way: str, stop: Stop) -> None:
    at = "right after the second fork"
    running = stop(way, (at, signal.SIGINT), (at, signal.SIGTERM), late_workers={"seconds": 1.5})
    assert running.wait(60) in (130, 143)
    assert len(of_session(running.pid)) == 2
    assert_none_is_left(running.pid)


HANGS = """
import multiprocessing, os, signal, sys, time
from ferbatch.core.records import Decoding, Workers
from ferbatch.sources.listing import list_images
from ferbatch.stream.pool import Pool

class Hanging(Decoding):
    def __getattribute__(self, name):
        if name == "search" and multiprocessing.parent_process():
            print("at it", flush=True)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1_000)
        return super().__getattribute__(name)

if __name__ == "__main__":
    with Pool(Hanging(48), Workers(2, True), 1) as pool:
        next(pool.batches(list_images(sys.argv[1:], ())))
"""


def test_processes_that_hang_when_their_parent_is_killed_end_however_they_were_started(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    command = [sys.executable, "hangs.py", folder]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, start_new_session=True
    ) as running:
        assert running.stdout
        assert [running.stdout.readline() for _ in range(2)] == [b"at it\n"] * 2
        assert len(of_session(running.pid)) > 2
        running.kill()
        assert_none_is_left(running.pid)


def test_a_signal_between_two_batches_is_not_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes just before the waiting for the next batch may be cut short."""
    state = process._Signals

    class AtTheTurn(type):
        """Sends the signal where `deferred` is about to become false."""

        def __setattr__(cls, name: str, value: Any) -> None:
            if name == "deferred" and value is False and state.came is None:
                state.deferred = True
                os.kill(os.getpid(), signal.SIGTERM)
            setattr(state, name, value)

        def __getattr__(cls, name: str) -> Any:
            return getattr(state, name)

    def items() -> Iterator[int]:
        raise AssertionError("waited for, though a signal had come")
        yield 1

    def stopped() -> None:
        with process.stopping_in_order(lambda _: None), process.signals_deferred(), monkeypatch.context() as patch:
            patch.setattr(process, "_Signals", AtTheTurn("_Signals", (), {}))
            assert list(process.until_stopped(items())) == []

    with pytest.raises(process.Stopped):
        stopped()


EVALUATIONS: dict[str, dict[str, Any]] = {  # faults
    "isolated, labelling as well": {"few_pay_for_processes": {}},
    "not isolated": {},
    "started afresh": {"few_pay_for_processes": {}, "no_network_to_share": {}},
}


@pytest.mark.parametrize("second", [None, signal.SIGTERM])
@pytest.mark.parametrize(("moment", "way"), crossed(MOMENTS, EVALUATIONS))
def test_an_evaluation_ends_at_any_moment_and_reports_nothing(
    moment: str, way: str, second: int | None, folder: Path, model: Path, forks: Forks, tmp_path: Path
) -> None:
    """Signals are not deferred in it: the first is raised wherever it comes."""
    rows = [f"{path},{'sad' if at % 2 else 'happy'}" for at, path in enumerate(sorted(folder.iterdir()))]
    (tmp_path / "truth.csv").write_text("\n".join(["path,label", *rows, ""]))
    command = ("evaluate", "--truth", "truth.csv", "--model", model, "--report", "report", "-q", "--workers", "2")
    sent = [(moment, signal.SIGINT), *([(moment, second)] if second else [])]
    faults = {**EVALUATIONS[way], "signals": {"sent": sent}}
    running = forks.start(tmp_path, *command, "--batch-size", "4", session=True, faults=faults)
    out, errors = running.communicate(timeout=60)
    if second:
        assert running.returncode in (130, 143)
    else:
        assert (running.returncode, errors) == (130, b"ferbatch: interrupted\n")
    assert out == b""
    assert not (tmp_path / "report/report.html").exists()
    assert_none_is_left(running.pid)


def test_a_signal_when_all_is_done_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes as signals are about to be what they were before the command."""
    handlers = {number: signal.getsignal(number) for number in process.STOPPING}
    calls = []
    give_back = signal.signal

    def watched(number: int, handler: Any) -> Any:
        calls.append(number)
        if len(calls) == len(process.STOPPING) + 1:
            os.kill(os.getpid(), signal.SIGHUP)
        return give_back(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", watched)
        exits(lambda: None)()
    assert len(calls) == 2 * len(process.STOPPING)
    assert {number: signal.getsignal(number) for number in process.STOPPING} == handlers
    with process.signals_deferred(in_forks=True):  # nothing of it is left for what comes later in this process
        pass
