"""`ferbatch label --list`: what would be labelled, and why the rest would not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Ferbatch, rows_of

import ferbatch

PHOTOS = [f"photos/000{n}.jpg" for n in range(4)]


Label = Callable[..., Any]


def paths(tmp_path: Path) -> list[str]:
    return [row["path"] for row in rows_of(tmp_path / "labels.csv")]


def test_list_says_of_each_path_whether_it_counts_and_touches_nothing(
    photos: Path, label: Label, tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path))
    done = label("--list", "--exclude", "0001*", "--incremental", "-o", "labels.csv", "--no-truth")
    lines = [line.split(maxsplit=1) for line in done.stdout.decode().replace("  ", " ").splitlines()]
    assert (done.returncode, len(lines)) == (0, 10)
    assert [path for rule, path in lines if rule == "taken"] == [PHOTOS[0], *PHOTOS[2:]]
    for rule, path in {
        "excluded by 0001*": PHOTOS[1],
        "hidden": "photos/._0000.jpg",
        "folder of a program: @eaDir": "photos/@eaDir/",
        "link not followed": "photos/link/",
    }.items():
        assert f"{rule:<30} {path}\n" in done.stdout.decode()
    assert done.stderr.splitlines()[0].startswith("4 hidden, 3 taken, ")
    assert "not which of them an earlier run has labelled" in done.stderr
    assert sorted(os.listdir(tmp_path)) == before
    label()
    assert label("--list").returncode == 0  # an output that is there is no hindrance
    assert label("--list", "-q", "--model", "nobody").stderr == ""


def test_list_as_json_is_one_object_with_the_counts(photos: Path, label: Label, tmp_path: Path) -> None:
    (photos / os.fsdecode(b"odd \xff\x1b[31m.jpg")).write_bytes(b"\xff\xd8\xff")
    done = label("--list", "--format", "json", "--follow-links")
    found = json.loads(done.stdout)
    taken = [one["path"] for one in found["paths"] if one["taken"]]
    assert [*map(ferbatch.decode_path, taken)] == [
        *map(os.fsencode, PHOTOS),
        b"photos/link/0000.jpg",
        b"photos/odd \xff\x1b[31m.jpg",
    ]
    assert found["counts"] == {"taken": 6, "hidden": 4, "folder of a program: @eaDir": 1}
    assert {one["kind"] for one in found["paths"]} == {"taken", "hidden_files", "program_folders"}
    assert "\x1b" not in label("--list").stdout.decode()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--exclude", "*"), 4, "no image would be labelled"),
        (("--format", "csv"), 2, "--list comes as lines or, with --format json, as JSON, not as 'csv'"),
        (("--exclude", "!"), 2, "--exclude '!' is no pattern"),
        (("nowhere",), 2, "no such file or folder: nowhere"),
    ],
)
def test_list_ends_as_labelling_would(
    options: tuple[str, ...], code: int, said: str, photos: Path, label: Label
) -> None:
    done = label("--list", *options)
    assert (done.returncode, said in done.stderr.splitlines()[-1]) == (code, True)
    assert code == 4 or not done.stdout
    empty = label("--list", "--format", "json", "--exclude", "*", "--hidden")
    assert all(not one["taken"] for one in json.loads(empty.stdout)["paths"])


def test_list_reads_a_list_and_names_what_it_would_label(photos: Path, ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    listed = b"photos/._0000.jpg\nphotos\nphotos/0001.jpg\ngone.jpg\n"
    done = ferbatch_in("label", "-", "--list", "--no-recursive", input=listed)
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["taken", "photos/._0000.jpg"]
    assert lines[-2].startswith("already listed ")
    assert lines[-1].split() == ["taken", "gone.jpg"]
    nul = ferbatch_in("label", "-", "--list", input=b"a\0b\n")
    assert (nul.returncode, nul.stderr.count(b"\n"), b"NUL" in nul.stderr) == (2, 1, True)


def test_list_with_a_share_tells_its_images_from_those_of_the_others(
    photos: Path, label: Label, tmp_path: Path
) -> None:
    told = [label("--list", "--shard", f"{number}/2").stdout.decode().splitlines() for number in (1, 2)]
    taken = [[line.split()[1] for line in lines if line.startswith("taken ")] for lines in told]
    assert sorted([*taken[0], *taken[1]]) == PHOTOS
    assert sum(line.startswith("of another share ") for line in told[0]) == len(taken[1])
    label("--shard", "1/2", "-o", "labels.csv")
    assert paths(tmp_path) == taken[0]
    assert label("--list", "--shard", "1/99").returncode == 0


def test_list_loads_no_torch(photos: Path, ferbatch_in: Ferbatch) -> None:
    code = (
        "import sys; sys.argv = ['ferbatch', 'label', 'photos', '--list']\nfrom ferbatch.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint({'torch', 'pandas', 'cv2', 'pathspec'} & {*sys.modules})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ferbatch.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=photos.parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
