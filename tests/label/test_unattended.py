"""What may be left alone for a month: signals, locks, logs, gates, a bare environment, native chatter."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, Running
from PIL import Image
from support import ENVIRONMENT, ROOT, SHARED, Ferbatch, draw_face, linked, of_session, rows_of

from ferbatch.core.errors import LockedError
from ferbatch.core.locks import locked
from ferbatch.shell import log

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")


MANY = 1_500  # images, at which processes are started
SLOW = {"slow_network": {"seconds": 0.2}}  # a block: there is time to stop the run
Begin = Callable[..., Running]


@pytest.fixture
def begin(forks: Forks, tmp_path: Path) -> Iterator[Begin]:
    """Begin `ferbatch label images` with these options, in a session of its own."""
    begun = []

    def start(*options: str, **how: Any) -> Running:
        begun.append(forks.start(tmp_path, "label", "images", *options, session=True, **{"faults": SLOW, **how}))
        return begun[-1]

    yield start
    for one in begun:
        one.kill()


def wait_for_rows(running: Running, tmp_path: Path) -> None:
    """Until some images are done."""
    journal = tmp_path / "labels.csv.journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 5_000) and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return linked(tmp_path / "images", MANY)


@posix
@pytest.mark.parametrize("options", [(), ("--workers", "0"), ("--no-isolate", "--workers", "2")], ids=" ".join)
@pytest.mark.usefixtures("in_turn")
def test_a_signal_to_the_whole_group_ends_the_run_in_order_and_resume_goes_on(
    options: tuple[str, ...], many: Path, begin: Begin, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    running = begin(*options)
    wait_for_rows(running, tmp_path)
    begun = time.monotonic()
    os.killpg(running.pid, signal.SIGTERM)  # as systemd does
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (143, b"ferbatch: terminated; --resume goes on with what is done\n")
    assert time.monotonic() - begun < 15
    assert not (tmp_path / "labels.csv.lock").exists()
    assert not (tmp_path / "labels.csv.part").exists()
    done = ferbatch_in("label", "images", "--resume")
    assert done.returncode == 0
    sidecar = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert sidecar["counts"]["images"] == MANY > sidecar["this_run"]["processed"]
    assert len(rows_of(tmp_path / "labels.csv")) == MANY


@posix
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=" ".join)
def test_a_stopped_evaluation_reports_nothing(
    options: tuple[str, ...], many: Path, forks: Forks, tmp_path: Path
) -> None:
    rows = [f"images/{path.name},{'sad' if at % 2 else 'happy'}" for at, path in enumerate(many.iterdir())]
    (tmp_path / "truth.csv").write_text("\n".join(["path,label", *rows, ""]))
    command = ("evaluate", "--truth", "truth.csv", "--report", "report", "-v", *options)
    running = forks.start(tmp_path, *command, faults=SLOW)
    while b"1,500 images" not in running.stderr.readline():
        assert running.poll() is None
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    out, errors = running.communicate(timeout=60)
    assert (running.returncode, out, errors) == (130, b"", b"ferbatch: interrupted\n")
    assert not (tmp_path / "report/report.html").exists()


@posix
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
@pytest.mark.parametrize("options", [(), ("--no-isolate",)], ids=" ".join)
@pytest.mark.usefixtures("many")
@pytest.mark.usefixtures("in_turn")
def test_no_decode_process_outlives_a_run_that_is_killed(
    options: tuple[str, ...], begin: Begin, tmp_path: Path
) -> None:
    running = begin("--workers", "2", *options)
    wait_for_rows(running, tmp_path)
    assert len(of_session(running.pid)) > 2
    running.kill()
    running.wait()
    deadline = time.monotonic() + 15
    while of_session(running.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not of_session(running.pid)


@posix
def test_a_signal_while_things_are_loaded_ends_the_run_in_order(faces: Callable[..., Path], tmp_path: Path) -> None:
    faces("images", 3)
    code = (  # a signal in the midst of torch's import
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': os.kill(os.getpid(), {number})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from ferbatch import cli; sys.argv = ['ferbatch', 'label', 'images']; cli.main()"
    )
    for number, said in ((signal.SIGINT, b"interrupted"), (signal.SIGTERM, b"terminated"), (signal.SIGHUP, b"hung up")):
        command = [sys.executable, "-c", code.replace("{number}", str(int(number)))]
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
        assert (done.returncode, done.stderr) == (128 + number, b"ferbatch: " + said + b"\n")
        assert os.listdir(tmp_path) == ["images"]


@posix
def test_a_second_signal_ends_the_run_at_once_and_the_dead_runs_lock_is_no_hindrance(
    begin: Begin, ferbatch_in: Ferbatch, faces: Callable[..., Path], tmp_path: Path
) -> None:
    faces("images", 3)
    running = begin(faults={"network_without_end": {}})
    assert running.stdout.readline() == b"at it\n"
    running.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert running.poll() is None  # the block in flight is finished first
    running.send_signal(signal.SIGTERM)
    assert running.wait(5) == 143
    done = ferbatch_in("label", "images", "--resume", "-q")
    assert done.returncode == 0
    died = rf"the last run on labels.csv died \(process {running.pid} on {re.escape(socket.gethostname())}, since .*\)"
    assert re.fullmatch(died, done.stderr.decode().splitlines()[0])


@posix
def test_a_decode_process_that_dies_without_isolation_ends_the_run_with_a_sentence(
    many: Path, begin: Begin, ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    running = begin("--no-isolate", "--workers", "1")
    wait_for_rows(running, tmp_path)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not children.exists():
        pytest.skip("no /proc here")
    os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors.count(b"\n")) == (71, 1), errors.decode()
    assert b"--isolate goes on where one does; --resume goes on with what is done" in errors
    assert ferbatch_in("label", "images", "--resume", "-q").returncode == 0


@posix
@pytest.mark.usefixtures("in_turn")
def test_large_pictures_do_not_keep_a_signal_waiting(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    draw_face(0).resize((5_000, 4_000)).convert("RGB").save(tmp_path / "images/0.png", compress_level=1)
    for copy in range(1, 300):
        os.link(tmp_path / "images/0.png", tmp_path / f"images/{copy}.png")
    for options in ((), ("--workers", "2"), ("--isolate",)):
        running = begin("--overwrite", *options)
        deadline = time.monotonic() + 60
        while not (tmp_path / "labels.csv.journal").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1)
        begun = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
        assert (running.returncode, time.monotonic() - begun < 15) == (130, True), (options, errors)


HOLDS = """
import sys
from ferbatch.core.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    input()
"""


def test_who_holds_an_output_is_said(faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    faces("images", 2)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDS, tmp_path / "labels.csv"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        done = ferbatch_in("label", "images")
        assert done.returncode == 75
        said = rf"ferbatch: another run is writing labels.csv: process {holder.pid} on \S+, since \d{{4}}-\S+\n"
        assert re.fullmatch(said, done.stderr.decode())
        with pytest.raises(LockedError, match=f"process {holder.pid}"), locked(str(tmp_path / "labels.csv")):
            pass
        holder.communicate(b"\n")
    done = ferbatch_in("label", "images", "-q")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.usefixtures("many")
def test_two_runs_at_once_give_one_output(begin: Begin, ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    first = begin("-q")
    wait_for_rows(first, tmp_path)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it is not over before the others have tried
    for option in ((), ("--overwrite",), ("--resume",), ("--incremental",)):
        second = ferbatch_in("label", "images", *option)
        assert (second.returncode, second.stderr.count(b"\n")) == (75, 1)
        assert f"another run is writing labels.csv: process {first.pid} on".encode() in second.stderr
    os.killpg(first.pid, signal.SIGCONT)
    assert first.wait(120) == 0
    assert len(rows_of(tmp_path / "labels.csv")) == MANY


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        ("", True),
        ('{"pid": 99999999, "host": "a\\u001b", "since": 1}', True),
        ("12345", False),
        ("[" * 4096, False),
        ('{"pid": 1}', False),
        ("mine\nprecious", False),
    ],
)
def test_a_lock_file_is_no_lock_and_one_that_is_not_ours_stays(
    content: str, ours: bool, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    lock = tmp_path / "labels.csv.lock"
    lock.write_text(content)
    done = ferbatch_here("label", "images", "-q")
    assert done.returncode == 0
    assert done.stderr.count(b"\n") == ("since" in content)
    assert b"\x1b" not in done.stderr
    assert lock.exists() != ours
    assert ours or lock.read_text() == content


def test_on_error_stop_ends_at_the_first_failure_and_resume_goes_on_there(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 100)
    face = (folder / "0070.jpg").read_bytes()
    (folder / "0070.jpg").write_bytes(b"broken")
    for _ in range(2):
        done = ferbatch_in("label", "images", "--on-error", "stop", "--resume", "-q")
        assert done.returncode == 3
        said = "ferbatch: stopped at images/0070.jpg: unreadable: not an image of a known type"
        assert done.stderr.decode().splitlines()[-1].startswith(f"{said} (--resume tries it again, ")
        assert not (tmp_path / "labels.csv").exists()
    assert (tmp_path / "labels.csv.journal").read_text().count('"images/') == 70
    (folder / "0070.jpg").write_bytes(face)
    assert ferbatch_in("label", "images", "--on-error", "stop", "--resume", "-q").returncode == 0
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == 30
    assert len(rows_of(tmp_path / "labels.csv")) == 100


@pytest.mark.parametrize(
    ("allowed", "code"), [("0", 5), ("2", 5), ("3", 3), ("0%", 5), ("14.9%", 5), ("15%", 3), ("100%", 3)]
)
def test_more_errors_than_allowed_are_a_missed_gate(
    allowed: str, code: int, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 17)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(b"broken")
    done = ferbatch_here("label", "images", "-q", "--max-errors", allowed)
    assert done.returncode == code
    assert (f"--max-errors: 3 images failed, over {allowed}" in done.stderr.decode()) == (code == 5)
    assert len(rows_of(tmp_path / "labels.csv")) == 20
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["exit_code"] == code


def test_what_libraries_warn_of_is_in_the_log_file_and_not_on_a_quiet_clean_run(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    for label in ("happy", "sad"):
        faces(f"images/{label}", 3)
    nowhere = {"env": {**ENVIRONMENT, "MPLCONFIGDIR": "/proc/nowhere"}}  # for Matplotlib's cache of fonts
    label = ("label", "images", "--faces", "whole", "--log-file", "log")
    done = ferbatch_in(*label, "-q", **nowhere)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert re.search(r"warning matplotlib: .*/proc/nowhere", (tmp_path / "log").read_text())
    done = ferbatch_in(*label, "--overwrite", **nowhere)
    assert (done.returncode, b"matplotlib" in done.stderr) == (0, False)


def test_a_warning_of_python_is_a_line_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    before, handlers = warnings.showwarning, logging.getLogger().handlers[:]
    for quiet in (True, False):
        log.hear_libraries(shown=not quiet)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("an old\nname", FutureWarning, stacklevel=1)
            logging.getLogger("some.library").warning("a %s", "word")
        log.end()
        assert capsys.readouterr().err == ("" if quiet else "FutureWarning: an old name\nsome.library: a word\n")
    assert (warnings.showwarning, logging.getLogger().handlers) == (before, handlers)


def test_kinds_of_errors_that_are_allowed_are_rows_that_do_not_fail_the_run(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 5)
    for name in ("a.png", "b.png"):
        Image.new("L", (60, 60)).save(folder / name)
    assert ferbatch_here("label", "images", "-q").returncode == 3
    failing = (tmp_path / "labels.csv").read_bytes()
    done = ferbatch_here("label", "images", "-q", "--overwrite", "--allow", "blank", "--max-errors", "0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "labels.csv").read_bytes() == failing
    counts = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert (counts["counts"]["errors"], counts["counts"]["allowed"], counts["counts"]["whole"]) == ({}, {"blank": 2}, 5)
    assert counts["this_run"]["allowed"] == {"blank": 2}

    done = ferbatch_here("label", "images", "--overwrite", "--allow", "blank,truncated", "--on-error", "stop")
    assert done.returncode == 0
    assert re.search(r"blank \(allowed\) +2 ", done.stderr.decode())
    (folder / "c.jpg").write_bytes(b"broken")
    done = ferbatch_here("label", "images", "--incremental", "--allow", "blank", "--max-errors", "1")
    assert (done.returncode, "1 of 8 images in" in done.stderr.decode()) == (3, True)
    assert "1 of 1 image could not be labelled (unreadable 1)" in done.stderr.decode()
    assert (
        ferbatch_here("label", "images", "-q", "--incremental", "--max-errors", "0").returncode == 0
    )  # this run's alone
    done = ferbatch_here("label", "images", "-q", "--overwrite", "--allow", "blank,unreadable", "--max-errors", "0")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("kinds", ["blnk", "", "blank,", "no_face", "x" * 900])
def test_allowing_what_is_no_kind_of_error_lists_those_that_are(
    kinds: str, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    done = ferbatch_here("label", "images", "--allow", kinds)
    assert (done.returncode, done.stderr.count(b"\n"), len(done.stderr) < 300) == (2, 1, True)
    assert b"(unreadable, truncated, blank, too_large," in done.stderr
    assert os.listdir(tmp_path) == ["images"]


@pytest.mark.parametrize(
    "options",
    [
        *(("--max-errors", value) for value in ("-1", "x", "101%", "nan%", "1.5", "")),
        ("--on-error", "explode"),
        ("--log-format", "xml\x1b"),
    ],
)
def test_odd_limits_are_refused_before_any_work(
    options: tuple[str, str], faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    done = ferbatch_here("label", "images", *options)
    assert (done.returncode, done.stderr.count(b"\n"), b"\x1b" in done.stderr) == (2, 1, False), done.stderr
    assert os.listdir(tmp_path) == ["images"]


def test_the_log_is_json_for_machines_and_holds_each_failure(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 5)
    (folder / "odd\x1b[31m\n\\.jpg").write_bytes(b"broken")
    options = ("--log-format", "json", "--log-file", "ferbatch.log")
    done = ferbatch_in("label", "images", "-v", *options)
    assert done.returncode == 3
    shown = [json.loads(line) for line in done.stderr.decode().splitlines()]
    logged = [json.loads(line) for line in (tmp_path / "ferbatch.log").read_text().splitlines()]
    assert shown == logged
    assert [one.get("event") for one in logged] == ["started", "image_failed", "finished", "failed"]
    for one in logged:
        assert datetime.fromisoformat(one["time"]).tzinfo
        assert one["level"] in ("info", "warning")
    assert logged[1]["path"] == "images/odd\\x1b[31m\\x0a\\x5c.jpg"
    assert (logged[1]["error_kind"], logged[1]["level"]) == ("unreadable", "warning")
    assert (logged[2]["images"], logged[2]["errors"], logged[2]["exit_code"]) == (6, {"unreadable": 1}, 3)
    refused = ferbatch_in("label", "images", *options)
    last = json.loads((tmp_path / "ferbatch.log").read_text().splitlines()[-1])
    assert json.loads(refused.stderr) == last
    assert (last["level"], last["exit_code"], last["message"][:17]) == ("error", 2, "labels.csv exists")


def test_the_log_file_is_appended_to_and_has_no_control_characters(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 5)
    (folder / "odd\x1b[31m\n.jpg").write_bytes(b"broken")
    for _ in range(2):
        done = ferbatch_in("label", "images", "-q", "--overwrite", "--log-file", "ferbatch.log")
        assert (done.returncode, done.stderr.count(b"\n")) == (3, 1)
    lines = (tmp_path / "ferbatch.log").read_text().splitlines()
    assert len(lines) == 8
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+ (info|warning) +\S", line) for line in lines)
    assert not any(ord(char) < 32 for line in lines for char in line)
    assert "images/odd\\x1b[31m\\x0a.jpg: unreadable" in lines[1]
    assert "6 images in" in lines[2]


@pytest.mark.parametrize("name", ["labels.csv", "labels.csv.journal", "./labels.csv.lock", "labels.csv.run.json"])
def test_a_log_file_among_the_outputs_is_refused(
    name: str, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    done = ferbatch_here("label", "images", "--log-file", name)
    assert (done.returncode, b"--log-file is the output or one of the files beside it" in done.stderr) == (2, True)
    assert os.listdir(tmp_path) == ["images"]


def test_a_log_file_whose_folder_goes_costs_no_labels(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path, fault: Callable[..., None]
) -> None:
    (faces("images", 2) / "broken.jpg").write_bytes(b"no")
    (tmp_path / "logs").mkdir()
    fault("folder_lost_while_the_model_loads", folder=tmp_path / "logs")
    done = ferbatch_here("label", "images", "-q", "--log-file", "logs/ferbatch.log")
    assert done.returncode == 3
    assert done.stderr.count(b"ferbatch.log could not be written") == 1
    assert len(rows_of(tmp_path / "labels.csv")) == 3


def test_a_log_file_that_cannot_be_written_is_said_at_once(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    done = ferbatch_here("label", "images", "--log-file", "nowhere/ferbatch.log")
    assert (done.returncode, done.stderr.count(b"\n")) == (74, 1)
    assert os.listdir(tmp_path) == ["images"]


def test_a_full_log_costs_no_labels(faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    faces("images", 2)
    done = ferbatch_in("label", "images", "-q", "--log-file", "/dev/full")
    said = b"/dev/full could not be written: [Errno 28] No space left on device\n"
    assert (done.returncode, done.stderr) == (0, said)
    assert len(rows_of(tmp_path / "labels.csv")) == 2


@posix
@pytest.mark.parametrize("truth", [False, True])
def test_a_bare_environment_is_enough(truth: bool, faces: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        faces(f"images/{name}", 3)
    command = ["env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={ROOT}", sys.executable, "-m", "ferbatch", "label"]
    done = subprocess.run(
        [*command, "images", "-q", *(() if truth else ("--no-truth",))], cwd=tmp_path, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "labels.csv.report.html").exists() == truth


def chattering_tiff() -> bytes:
    """A TIFF that libtiff says something about on stderr: its strip is compressed data that is none."""
    stream = BytesIO()
    draw_face(3).save(stream, "TIFF", compression="tiff_lzw")
    data = bytearray(stream.getvalue())
    with Image.open(BytesIO(data)) as image:
        offset = image.tag_v2[273][0]
    data[offset : offset + 40] = bytes(range(40))
    return bytes(data)


SPEAKS = "import sys; from PIL import Image; im = Image.open(sys.argv[1])\ntry: im.load()\nexcept OSError: pass"


@posix
def test_what_native_libraries_say_does_not_reach_the_user(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 2)
    (folder / "loud.tif").write_bytes(chattering_tiff())
    alone = subprocess.run([sys.executable, "-c", SPEAKS, folder / "loud.tif"], capture_output=True)
    assert alone.stderr  # or this test shows nothing
    for options in ((), ("--workers", "2"), ("--isolate",)):
        done = ferbatch_in("label", "images", "-q", "--overwrite", *options)
        assert (done.returncode, done.stderr.count(b"\n")) == (3, 1), done.stderr
        assert b"1 of 3 images could not be labelled" in done.stderr
    (folder / "loud.tif").unlink()
    for name in ("happy", "sad"):
        faces(f"test/{name}", 2)
    (tmp_path / "test/sad/loud.tif").write_bytes(chattering_tiff())
    assert b"libtiff" not in (done := ferbatch_in("evaluate", "--truth", "test", "-q")).stderr.lower()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(
    not (SHARED / "bad_images").exists(), reason="the collected malformed images are not beside this checkout"
)
def test_the_malformed_images_say_nothing_and_are_the_same_isolated(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    files = SHARED / "bad_images/files"
    for name, options in {"plain": (), "apart": ("--isolate", "--timeout", "60")}.items():
        listed = b"\n".join(bytes(path) for path in sorted(files.iterdir()))
        done = ferbatch_in("label", "-", "-q", "-o", f"{name}.csv", *options, input=listed)
        assert (done.returncode, done.stderr.count(b"\n")) == (3, 1), done.stderr
    assert len(rows_of(tmp_path / "plain.csv")) == len(list(files.iterdir()))
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "apart.csv").read_bytes()
