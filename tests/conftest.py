"""Pictures are drawn here; nothing is fetched. The real faces are used only where they lie beside the checkout."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forks import Forks
from PIL import Image, ImageDraw, ImageFilter
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
PYTHON = shlex.quote(sys.executable)  # for a shell's command
SHARED = Path(os.environ.get("FERBATCH_SHARED", ROOT.parent / "shared"))


def draw_face(seed: int, side: int = 48) -> Image.Image:
    """A gray face-like drawing: head, eyes, mouth, and some noise, different for every seed."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (192, 192), int(rng.integers(20, 120)))
    pen = ImageDraw.Draw(picture)
    dx, dy = rng.integers(-12, 12, 2)
    pen.ellipse((30 + dx, 10 + dy, 162 + dx, 182 + dy), fill=int(rng.integers(140, 230)))
    for x in (70, 122):
        pen.ellipse((x - 10 + dx, 70 + dy, x + 10 + dx, 70 + dy + rng.integers(4, 24)), fill=30)
    curve = rng.integers(-25, 25)
    points = [(x + dx, 135 + dy + curve * ((x - 96) / 40) ** 2 - curve) for x in range(60, 133, 6)]
    pen.line(points, fill=40, width=int(rng.integers(3, 14)))
    noise = rng.normal(0, 6, (192, 192))
    noisy = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    return noisy.filter(ImageFilter.GaussianBlur(1.5)).resize((side, side))


@pytest.fixture
def faces(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of drawn faces: faces("name", n) -> its path, files 0000.jpg, 0001.jpg, ..."""

    def make(name: str, n: int, *, first: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + n):
            draw_face(seed).save(folder / f"{seed:04}.jpg", quality=90)
        return folder

    return make


Ferbatch = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def commands() -> Iterator[Forks | None]:
    """What runs the command in processes that need not import it all again; None where a process cannot be forked."""
    forks = Forks() if sys.platform == "linux" else None
    yield forks
    if forks:
        forks.close()


@pytest.fixture
def ferbatch_in(tmp_path: Path, commands: Forks | None) -> Ferbatch:
    """Run the command in a process of its own, in tmp_path: ferbatch_in("label", "images") -> CompletedProcess.

    With options of subprocess.run but `input`, it is one that Python is started in afresh.
    """

    def call(*args: str | bytes | Path, input: bytes = b"", **options: object) -> subprocess.CompletedProcess[bytes]:
        if commands and not options:
            ended = commands(tmp_path, *args, stdin=input)
            stderr = ended.stderr.encode(errors="surrogateescape")
            return subprocess.CompletedProcess(args, ended.code, ended.stdout, stderr)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **options.pop("env", {})}  # type: ignore[dict-item]
        command = [sys.executable, "-m", "ferbatch", *args]
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            command, cwd=tmp_path, env=environment, input=input, capture_output=True, timeout=300, **options
        )

    return call


@pytest.fixture
def ferbatch_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ferbatch:
    """The same in this very process, which spares the imports: for what does not hang on a process of its own."""

    def call(*args: str | Path) -> subprocess.CompletedProcess[bytes]:
        from ferbatch.cli import app

        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(app, [str(arg) for arg in args])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(args, done.exit_code, done.stdout_bytes, done.stderr_bytes)

    return call


@pytest.fixture(scope="session")
def real_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real faces as class folders (fer2013 protocol); skips where they are absent."""
    unpack = SHARED / "data" / "unpack.py"
    if not unpack.exists():
        pytest.skip("the real faces are not beside this checkout (they may not be redistributed)")
    folder = tmp_path_factory.mktemp("faces")
    subprocess.run([sys.executable, unpack, "--protocol", "fer2013", folder], check=True, capture_output=True)
    return folder
