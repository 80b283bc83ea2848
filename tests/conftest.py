"""Fixtures of every room. Pictures are drawn; real faces are used only where they lie beside the checkout."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many processes run the tests as there are cores

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from forks import Forks
from hypothesis import HealthCheck, settings
from store_proxy import Proxy, standing_before
from support import ROOT, SHARED, Depth, Ferbatch, face_file, made_once
from typer.testing import CliRunner


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="try every point of what is sampled otherwise")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected, for parameters are sampled as well."""
    Depth.thorough = config.getoption("thorough")
    usual = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("usual", max_examples=40, **usual)
    settings.register_profile("thorough", max_examples=400, **usual)
    settings.load_profile("thorough" if Depth.thorough else "usual")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts things in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # as nohup starts them
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Nothing is forced to the disk but in a thorough run: it takes its time, and no test takes the power away."""
    with pytest.MonkeyPatch.context() as patch:
        if not Depth.thorough:
            patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def faces(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of drawn faces: faces("name", n) -> its path, files 0000.jpg, 0001.jpg, ..."""

    def make(name: str, n: int, *, first: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + n):
            (folder / f"{seed:04}.jpg").write_bytes(face_file(seed))
        return folder

    return make


@pytest.fixture(scope="session")
def commands() -> Iterator[Forks | None]:
    """What runs the command in processes that need not import it all again; None where a process cannot be forked."""
    forks = Forks(sync=Depth.thorough) if sys.platform == "linux" else None
    yield forks
    if forks:
        forks.close()


@pytest.fixture
def forks(commands: Forks | None) -> Forks:
    """The same, for what needs it: commands that are killed at a step, or go on while the test does something."""
    if not commands:
        pytest.skip("this system cannot fork")
    return commands


@pytest.fixture
def ferbatch_in(tmp_path: Path, commands: Forks | None) -> Ferbatch:
    """Run the command in a process of its own, in tmp_path: ferbatch_in("label", "images") -> CompletedProcess.

    input: what is on its stdin.
    cwd: another folder to run it in.
    faults: {name: settings} of faults.py.
    With other options of subprocess.run, it is one that Python is started in afresh.
    """

    def call(
        *args: str | bytes | Path, input: bytes = b"", cwd: Path = tmp_path, faults: Any = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        if commands and not options:
            ended = commands(cwd, *args, stdin=input, faults=faults or {})
            stderr = ended.stderr.encode(errors="surrogateescape")
            return subprocess.CompletedProcess(args, ended.code, ended.stdout, stderr)
        if faults:
            pytest.skip("faults of a command's own need a system that can fork")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **options.pop("env", {})}
        command = [sys.executable, "-m", "ferbatch", *args]
        return subprocess.run(
            command, cwd=cwd, env=environment, input=input, capture_output=True, timeout=300, **options
        )

    return call


@pytest.fixture
def ferbatch_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None]) -> Ferbatch:
    """The same in this very process, which costs least: for what does not hang on a process of its own.

    Its reports have no real charts but in a thorough run.
    """
    if not Depth.thorough:
        fault("plain_charts")

    def call(*args: str | Path) -> subprocess.CompletedProcess[bytes]:
        from ferbatch.cli import app

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "120")
        done = CliRunner().invoke(app, [os.fsdecode(arg) for arg in args])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(args, done.exit_code, done.stdout_bytes, done.stderr_bytes)

    return call


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Switch on a fault of faults.py for this test: fault("full_disk", ending=".png")."""
    import faults

    return partial(faults.switch_on, monkeypatch)


@pytest.fixture
def in_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No other test that is bound in time or memory runs beside this one, in whatever process."""
    base = tmp_path_factory.getbasetemp()
    with FileLock((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "in_turn.lock"):
        yield


@pytest.fixture(scope="session")
def real_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real faces as class folders (fer2013 protocol); skips where they are absent."""
    unpack = SHARED / "data" / "unpack.py"
    if not unpack.exists():
        pytest.skip("the real faces are not beside this checkout (they may not be redistributed)")

    def make(folder: Path) -> None:
        subprocess.run([sys.executable, unpack, "--protocol", "fer2013", folder], check=True, capture_output=True)

    return made_once(tmp_path_factory, "real_faces", make)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, weights and card: for what does not hang on what the labels are."""
    from tiny import make

    folder = made_once(tmp_path_factory, "tiny", lambda part: make(part / "tiny.safetensors", name="tiny"))
    return folder / "tiny.safetensors"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's server, which is what most people test against that use S3."""
    server = pytest.importorskip("moto.server", reason="moto is installed with ferbatch[test]")
    one = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    one.start()
    host, port = one.get_host_and_port()
    yield f"http://{host}:{port}"
    one.stop()


@pytest.fixture
def bucket(moto: str) -> Iterator[Any]:
    """A bucket of moto's, empty."""
    import boto3

    resource = boto3.resource(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )
    one = resource.create_bucket(Bucket="bucket")
    yield one
    one.objects.all().delete()
    one.delete()


@pytest.fixture
def proxy(moto: str, bucket: Any) -> Iterator[Proxy]:
    """What stands before it."""
    with standing_before(moto) as one:
        yield one
