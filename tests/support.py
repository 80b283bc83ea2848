"""What the tests of several rooms share: places, drawn faces, hostile names, drawn scores, and how much is sampled."""

from __future__ import annotations

import csv
import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from ferbatch.core.batch import Batch
from ferbatch.core.records import UNIT
from ferbatch.scoring.outcomes import Outcomes

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PYTHON = shlex.quote(sys.executable)  # for a shell's command
SHARED = Path(os.environ.get("FERBATCH_SHARED", ROOT.parent / "shared"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}  # of a Python that is started afresh
LABELS = ("happy", "sad", "neutral", "surprise")

Ferbatch = Callable[..., "subprocess.CompletedProcess[bytes]"]
T = TypeVar("T")


# How much of what could be tried is tried: see README.md.


class Depth:
    """Whether this run tries every point (pytest --thorough); conftest.py sets it before any test is collected."""

    thorough = False


def some(items: Iterable[T], n: int) -> list[T]:
    """All of them in a thorough run, else `n`: the first, the last, and as many between, evenly spread."""
    whole = list(items)
    if Depth.thorough or n >= len(whole):
        return whole
    return [whole[round(at * (len(whole) - 1) / (n - 1))] for at in range(n)] if n > 1 else whole[:n]


def crossed(*columns: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Every combination in a thorough run, else so few that each value of each column is in one."""
    known = [list(column) for column in columns]
    if Depth.thorough:
        return list(itertools.product(*known))
    return [tuple(column[at % len(column)] for column in known) for at in range(max(map(len, known)))]


def depth(usual: int, thorough: int) -> int:
    """How many of something that is not listed: repetitions, examples, images."""
    return thorough if Depth.thorough else usual


def parquet_tools() -> tuple[Any, Any]:
    """pyarrow and its module of Parquet; skips where they are not installed."""
    why = "pyarrow is installed with ferbatch[parquet]"
    return pytest.importorskip("pyarrow", reason=why), pytest.importorskip("pyarrow.parquet", reason=why)


# Places that are made once, however many processes run the tests.


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, the same for all processes of this test run; none of them may change it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = folder.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)  # left by one that failed
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder


# Pictures. Nothing is fetched.


@cache
def _drawn_face(seed: int, side: int) -> Image.Image:
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


def draw_face(seed: int, side: int = 48) -> Image.Image:
    """A gray face-like drawing: head, eyes, mouth, and some noise, different for every seed."""
    return _drawn_face(seed, side).copy()


def drawn(n: int) -> np.ndarray:
    """(n, 48, 48) uint8: the faces of the first `n` seeds."""
    return np.stack([np.asarray(_drawn_face(seed, 48)) for seed in range(n)])


@cache
def face_file(seed: int, kind: str = "JPEG") -> bytes:
    """The file that a drawn face is."""
    return saved(_drawn_face(seed, 48), kind, **({"quality": 90} if kind == "JPEG" else {}))


FACE = draw_face(3, 96)
ORIENTATIONS = {  # EXIF value -> how the pixels were laid down
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file that a picture is."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tinted(face: Image.Image = FACE) -> Image.Image:
    """A face in colours."""
    return ImageOps.colorize(face, (20, 0, 60), (255, 240, 220))


def linked(folder: Path, n: int, *, first: int = 1) -> Path:
    """The folder with images `first` to n - 1 that are all its 0000.jpg, which is made if need be."""
    folder.mkdir(exist_ok=True)
    image = folder / "0000.jpg"
    if not image.exists():
        image.write_bytes(face_file(0))
    for number in range(first, n):
        os.link(image, folder / f"{number:04}.jpg")
    return folder


# Batches, rows and figures.


def images_of(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    """What batches hold of each image, one after the other, in plain values; batches that do not meet are none."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        assert batch.first == len(found)
        ends = batch.crops_of.cumsum().tolist()
        for place, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            paths, files, truths = batch.references
            image = {"path": paths[place], "file": files[place], "truth": truths[place]}
            image |= {
                name: getattr(batch, name)[place].tolist() for name in ("versions", "searched", "large", "missed")
            }
            crops = ("boxes", "scores", "turns", "blurs", "cuts", "inputs", "units", "best", "uncertain")
            image |= {name: getattr(batch, name)[start:end].tolist() for name in crops}
            found.append({**image, "failure": batch.failures.get(place)})
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a labels file in CSV."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def draw_scores(n: int, seed: int = 0, weights: Sequence[float] = (0.4, 0.3, 0.2, 0.1), hits: float = 0.4) -> Outcomes:
    """Random truths and rounded probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, n, p=weights).astype(np.int16)
    p = rng.dirichlet([0.2] * 4, n)
    p[np.arange(n), truth] += hits * rng.integers(0, 2, n)
    p /= p.sum(1, keepdims=True)
    return Outcomes(LABELS, truth, p.argmax(1).astype(np.int16), np.round(p * UNIT).astype(np.uint16))


def of_session(number: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == number and state != "Z":
                found.append(int(stat.parent.name))
    return found


HOSTILE = [  # names of files, which are bytes
    b"plain.jpg",
    "größe-日本-😀.jpg".encode(),
    b"new\nline.jpg",
    b"carriage\rreturn.jpg",
    b"tab\there.jpg",
    b'quo"te,comma.jpg',
    b"escape\x1b[31mred.jpg",
    "c1\x9bcontrol.jpg".encode(),
    b"latin-\xe4\xff.jpg",
    b"back\\slash.jpg",
    b"looks\\x41escaped.jpg",
    "right\u202eto-left.jpg".encode(),
    "line\u2028separator.jpg".encode(),
    b"=1+1.jpg",
    b"+plus.jpg",
    b"-minus.jpg",
    b"@at.jpg",
    b"\ttab-first.jpg",
    b"NA.jpg",
    b"<script>alert(1)</script>.jpg".replace(b"/", b"_"),
    b"a" * 251 + b".jpg",
    b" spaces .jpg",
]

ACTING = [
    "\r",
    "\n",
    "\r\n",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "\u061c",
    "\x1b[31m",
    "\x9b",
    "\x7f",
    "\t",
]
PLAIN = [
    "\ufeff",
    "\u200b",
    "\u200d",
    "NA",
    "nan",
    "null",
    "1e5",
    "\\",
    "\\x41",
    '"',
    "'",
    ",",
    ";",
    "é",
    "e\u0301",
    "日",
]
MARKUP = [*"=+-@<>&`| ~#", "\U0001f600"]
NO_UTF8 = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xed\xb2\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xe2\x80"]
# File names and texts that have it in them to break something.
PIECES = st.sampled_from([*map(str.encode, [*ACTING, *PLAIN, *MARKUP]), *NO_UTF8]) | st.binary(max_size=8)
NAMES = (
    st.lists(PIECES, min_size=1, max_size=60)
    .map(lambda pieces: b"".join(pieces).replace(b"\0", b"").replace(b"/", b"")[:255])
    .filter(lambda name: name not in (b"", b".", b".."))
)
TEXTS = st.lists(st.sampled_from([*ACTING, *PLAIN, *MARKUP, "\0", "\ud800", "\udcff"]) | st.text(max_size=8)).map(
    "".join
)
