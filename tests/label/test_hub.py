"""Images and data sets in repositories of the Hugging Face Hub, by a server that answers as the Hub does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub
import pytest
from data_sets import laid_out
from hub import Hub, serving
from support import Ferbatch, face_file, rows_of

pytest.importorskip("huggingface_hub", reason="huggingface_hub is installed with ferbatch[hf]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

TOKEN = "hf_verysecret"
LABELS = ("happy", "sad")
FACES = {f"{LABELS[at % 2]}/{at:03} ü.jpg": face_file(at) for at in range(12)}
LOOSE = FACES | {"README.md": b"# Faces", ".gitattributes": b"", "sad/noname": face_file(99), "sad/notes.txt": b"none"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with two data sets: images in folders, and tables of images."""
    folder = laid_out(tmp_path / "ds")
    tables = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serving(Hub({"org/loose": LOOSE, "org/ds": tables}, TOKEN)) as one:
        yield one


@pytest.fixture
def run(server: Hub, ferbatch_in: Ferbatch, model: Path, tmp_path: Path) -> Callable[..., Any]:
    """A command that finds the Hub there -> CompletedProcess."""

    def call(*args: str, token: str = TOKEN, **options: Any) -> Any:
        (tmp_path / "home").mkdir(exist_ok=True)
        there = {"HF_ENDPOINT": server.address, "HF_TOKEN": token, "HF_HOME": str(tmp_path / "home")}
        faults = {"store": {"address": "http://127.0.0.1:9", **there}}
        return ferbatch_in(*args, "--model", model, faults=faults, **options)

    return call


def content(path: Path, source: str) -> list[dict[str, str]]:
    return [{**row, "path": row["path"].removeprefix(source)} for row in rows_of(path)]


@pytest.mark.parametrize("way", [(), ("--isolate", "--workers", "2"), ("--workers", "0")])
def test_images_in_a_repository_are_labelled_as_in_a_folder(
    way: tuple[str, ...], run: Any, server: Hub, tmp_path: Path
) -> None:
    for name, data in LOOSE.items():
        (tmp_path / "loose" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "loose" / name).write_bytes(data)
    assert run("label", "loose", "-o", "folder.csv").returncode == 0
    done = run("label", "hf://datasets/org/loose", "-o", "labels.csv", *way)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "labels.csv", "hf://datasets/org/loose") == content(tmp_path / "folder.csv", "loose")
    assert b"1 hidden file, 2 other files left aside" in done.stderr
    assert {n for one, n in server.asked.items() if one.endswith(".jpg")} == {1}


def test_a_data_set_is_labelled_and_judged_as_its_folder_is(run: Any, server: Hub, tmp_path: Path) -> None:
    there = "hf://datasets/org/ds"
    sources = ["ds", there, f"{there}@main", f"{there}@refs/convert/parquet", f"{there}@refs%2Fconvert%2Fparquet"]
    for name, source in zip(["folder", *"1234"], sources, strict=True):
        done = run("label", source, "-o", f"{name}.csv")
        assert done.returncode == 0, done.stderr
        assert content(tmp_path / f"{name}.csv", source) == content(tmp_path / "folder.csv", "ds")
    said = []
    for source in ("ds", "hf://datasets/org/ds"):
        done = run("evaluate", "--truth", source, "--split", "train", "--format", "json")
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout)["results"][0]["accuracy"])
    assert said[0] == said[1]
    done = run("label", "hf://datasets/org/ds", "--list", "--exclude", "train-*", "-q")
    assert done.stdout.count(b"taken ") == 4


def test_a_table_or_a_file_may_be_named_alone_and_in_a_list(run: Any, tmp_path: Path) -> None:
    named = ["hf://datasets/org/ds/data/test-00000-of-00001.parquet", f"hf://datasets/org/loose/{next(iter(FACES))}"]
    done = run("label", *named, "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "labels.csv")) == 5
    listed = "".join(f"hf://datasets/org/loose/{name}\n" for name in FACES) + "hf://datasets/org/loose/gone.jpg\n"
    done = run("label", "-", "-o", "list.csv", input=listed.encode())
    assert done.returncode == 3, done.stderr
    assert [row["error_kind"] for row in rows_of(tmp_path / "list.csv")] == [""] * 12 + ["not_found"]


def test_what_changed_in_a_repository_is_labelled_again(run: Any, server: Hub, tmp_path: Path) -> None:
    assert run("label", "hf://datasets/org/loose", "-o", "labels.csv").returncode == 0
    name = [*FACES][3]
    server.repos["org/loose"] = LOOSE | {name: face_file(500), "sad/new.jpg": face_file(501)}
    server.asked.clear()
    done = run("label", "hf://datasets/org/loose", "-o", "labels.csv", "--incremental", "--verbose")
    assert b"14 images, 2 to label" in done.stderr
    fetched = [one.rpartition("/")[2] for one in server.asked if "/resolve/" in one and one.endswith(".jpg")]
    assert sorted(fetched) == sorted([name.rpartition("/")[2], "new.jpg"])


def test_only_the_parts_that_are_needed_come(run: Any, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repos["org/ds"] = {**server.repos["org/ds"], "data/large.txt": bytes(6 * 2**20)}
    sent: list[int] = []
    say = hub._Handler.say

    def counting(self: Any, status: int, data: bytes = b"", *more: Any, **named: Any) -> None:
        sent.append(len(data))
        say(self, status, data, *more, **named)

    monkeypatch.setattr(hub._Handler, "say", counting)
    assert run("label", "hf://datasets/org/ds", "--list", "-q").returncode == 0
    assert sum(sent) < 2**20


def test_the_token_is_written_nowhere_and_what_it_does_not_open_is_said(run: Any, server: Hub, tmp_path: Path) -> None:
    server.failing["/datasets/org/loose/resolve/main/sad/notes.txt"] = [403]
    for more in (("-o", "labels.csv"), ("-o", "labels.csv", "--incremental", "--log-format", "json", "-v")):
        done = run("label", "hf://datasets/org/loose", "hf://datasets/org/ds", *more, "--log-file", "log")
        assert done.returncode == 0, done.stderr
        assert TOKEN.encode() not in done.stdout + done.stderr
    for source, said in {
        "hf://datasets/org/none": b"hf://datasets/org/none cannot be listed: there is no such repository or folder, or",
        "hf://datasets/org/loose": b"(credentials come from HF_TOKEN or hf's login)",
    }.items():
        done = run("label", source, "-o", "none.csv", token="hf_wrongsecret")
        assert done.returncode == 2
        assert said in done.stderr
        assert b"secret" not in done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 8
    for path in written:
        assert b"verysecret" not in path.read_bytes(), path


def test_a_hub_that_fails_for_now_is_asked_again(run: Any, server: Hub, tmp_path: Path) -> None:
    server.failing = {f"/datasets/org/loose/resolve/main/{name}": [503] for name in [*FACES][:3]}
    server.failing["/api/datasets/org/loose/tree/main"] = [502]
    done = run("label", "hf://datasets/org/loose", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert not any(server.failing.values())
