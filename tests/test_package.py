"""What is installed works from an empty folder, and the examples of the README and of the guide run."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks
from option_tables import GUIDE
from support import ROOT, Depth

from ferbatch.core.options import EXAMPLE
from ferbatch.model.weights import SHIPPED, shipped

README = (ROOT / "README.md").read_text(encoding="utf-8")


def install(folder: Path, *what: str) -> Path:
    """A virtual environment with ferbatch installed, and everything else taken from ours; its ferbatch command."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    own = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(own) / "borrowed.pth").write_text("\n".join({*site.getsitepackages(), sysconfig.get_path("purelib")}))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*command, "--force-reinstall", *what], check=True, capture_output=True)
    return folder / "bin" / "ferbatch"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_the_weights_the_example_and_the_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"ferbatch/_weights/{name}.{suffix}" for name in shipped() for suffix in ("json", "safetensors")}
    assert (
        wanted | {"ferbatch/example/astronaut.jpg", "ferbatch/py.typed", "ferbatch/report/report.schema.json"} <= names
    )
    assert {f"ferbatch/report/templates/report.{kind}" for kind in ("css", "js", "html.jinja", "md.jinja")} <= names
    assert {f"ferbatch/guide/{file.name}" for file in GUIDE.glob("*.md")} <= names
    assert not [name for name in names if name.startswith(("tests/", "weights/"))]


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_the_example_is_happy_from_an_empty_folder(kind: str, wheel: Path, tmp_path: Path) -> None:
    command = install(tmp_path / "environment", *([str(wheel)] if kind == "wheel" else ["-e", str(ROOT)]))
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    bare = {"PATH": os.defpath}
    done = subprocess.run(
        [command, "label", "--example", "-o", "-"], cwd=empty, env=bare, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert row["label"] == "happy"
    home = tmp_path / "environment" if kind == "wheel" else ROOT
    assert row["path"].startswith(str(home.resolve()))
    assert os.listdir(empty) == []


def page(name: str) -> str:
    """A page of the guide."""
    return (GUIDE / name).read_text(encoding="utf-8")


def block(text: str, language: str) -> str:
    """The first code block of a language in a page."""
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def scene(faces: Callable[..., Path], commands: Forks | None, tmp_path: Path) -> dict[str, str]:
    """The folders the guide speaks of, and an environment in which `ferbatch` is this one.

    It runs in forks; where there are none, and in a thorough run, Python is started for each command.
    """
    faces("images", 3)
    shutil.copy(tmp_path / "images/0000.jpg", tmp_path / "images/one.jpg")
    shutil.copy(tmp_path / "images/0000.jpg", tmp_path / "images/two.png")
    faces("more", 1)
    shutil.copy(tmp_path / "images/0000.jpg", tmp_path / "more/one.jpg")
    (tmp_path / "photos").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "photos/one.jpg")
    for name in ("happy", "sad"):
        faces(f"test/{name}", 2)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    if commands and not Depth.thorough:
        commands.script(scripts / "ferbatch")
    else:
        (scripts / "ferbatch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ferbatch "$@"\n')
        (scripts / "ferbatch").chmod(0o755)
    return {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_the_guides_examples_of_label_run(scene: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("".join(f"{path}\n" for path in ["path", *tmp_path.rglob("*.jpg")]))
    lines = [line for line in block(page("label.md"), "sh").splitlines() if line]
    assert len(lines) >= 5
    for line in lines:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=tmp_path, env=scene, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stderr)
    outputs = {"labels.csv", "out.jsonl", "list.csv", "sure.csv", "labels.csv.report.html"}
    assert outputs <= set(os.listdir(tmp_path))


def test_the_guides_databases_are_filled(scene: dict[str, str], tmp_path: Path) -> None:
    for line in filter(None, block(page("databases.md"), "sh").splitlines()):
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=scene, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
    assert {"labels.db", "all.db"} <= set(os.listdir(tmp_path))


def test_the_guides_evaluations_run(scene: dict[str, str], tmp_path: Path) -> None:
    for name in ("surprise", "neutral"):
        shutil.copytree(tmp_path / "test/sad", tmp_path / "test" / name)
    for suffix in ("safetensors", "json"):
        shutil.copy(SHIPPED / f"cnn-v1.{suffix}", tmp_path / f"my.{suffix}")
    paths = sorted((tmp_path / "test").rglob("*.jpg"))
    (tmp_path / "truth.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    subprocess.run([tmp_path / "scripts/ferbatch", "label", "test", "-q"], cwd=tmp_path, env=scene, check=True)
    lines = [line for line in block(page("evaluate.md"), "sh").splitlines() if line]
    assert len(lines) >= 7
    for line in lines:
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=scene, capture_output=True, text=True)
        assert done.returncode == (5 if "--fail-under" in line else 0), (line, done.stderr)  # these are drawn faces
    assert {"report.html", "report.md", "report.json", "labels.csv"} <= set(os.listdir(tmp_path / "report"))


def test_the_guides_training_runs(scene: dict[str, str], faces: Callable[..., Path], tmp_path: Path) -> None:
    rows = ["path,label,votes_happy,votes_sad,votes_neutral,votes_surprise,split"]
    for at, label in enumerate(("happy", "sad", "neutral", "surprise")):
        for split, n in (("train", 4), ("validation", 2)):
            for file in faces(f"faces/{split}/{label}", n, first=100 * at + n).iterdir():
                rows.append(f"{file.relative_to(tmp_path)},{label},4,2,2,2,{split}")
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    for at, label in enumerate(("yes", "no", "maybe")):
        faces(f"mine/{label}", 4, first=20 * at)
    lines = [line for line in block(page("train.md"), "sh").splitlines() if line]
    assert len(lines) >= 4
    for line in lines:
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=scene, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
    assert {"my.safetensors", "my.json", "my.history.csv", "my.loss.png", "my.accuracy.png"} <= set(
        os.listdir(tmp_path)
    )


def as_installed(command: str, tmp_path: Path) -> str:
    """A command of the guide's with its places made this test's; nothing comes from the environment."""
    (tmp_path / "scripts/ferbatch").write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m ferbatch "$@"\n'
    )
    return command.replace("/srv/faces", str(tmp_path)).replace(
        "/opt/ferbatch/bin/ferbatch", f"{tmp_path}/scripts/ferbatch"
    )


@pytest.mark.usefixtures("scene")
def test_the_guides_cron_line_labels_what_is_new_and_is_silent_three_times(
    faces: Callable[..., Path], tmp_path: Path
) -> None:
    line = as_installed(block(page("unattended.md"), "crontab").split(maxsplit=5)[5], tmp_path)
    for night, (rows, labelled) in enumerate([(5, 5), (7, 2), (7, 0)]):
        if night == 1:
            faces("images", 2, first=40)
        done = subprocess.run(["sh", "-c", line], env={"PATH": "/usr/bin:/bin"}, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert (tmp_path / "labels.csv").read_text().count("\n") == rows + 1
        assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == labelled


@pytest.mark.usefixtures("scene")
def test_the_guides_systemd_units_are_what_systemd_reads_and_the_service_runs(tmp_path: Path) -> None:
    units = re.findall(
        r"^```systemd\n# /etc/systemd/system/(\S+)\n(.*?)^```$", page("unattended.md"), re.DOTALL | re.MULTILINE
    )
    assert [name for name, _ in units] == ["ferbatch.service", "ferbatch.timer"]
    for name, text in units:
        (tmp_path / name).write_text(as_installed(text, tmp_path))
    command = re.search(r"^ExecStart=(.*)$", (tmp_path / "ferbatch.service").read_text(), re.MULTILINE)
    assert command
    done = subprocess.run(["env", "-i", *command[1].split()], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "labels.csv").read_text().count("\n") == 6
    if shutil.which("systemd-analyze"):
        paths = [tmp_path / name for name, _ in units]
        checked = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True)
        assert (checked.returncode, [line for line in checked.stderr.splitlines() if "ferbatch" in line]) == (0, [])


def test_the_readmes_python_runs(scene: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", block(README, "python")]
    done = subprocess.run(command, cwd=tmp_path, env=scene, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_the_readme_and_ci_share_the_test_command() -> None:
    assert len(re.findall(r"/pytest$", README, re.MULTILINE)) >= 1
    first = next(line for line in README.splitlines() if line.endswith("/pytest"))
    assert first.startswith("python3 -m venv .venv && .venv/bin/pip install '.[test]'")
