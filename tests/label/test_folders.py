"""What counts in folders, as a user of `ferbatch label` meets it: in a run, and in the next one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Ferbatch, rows_of

import ferbatch

Label = Callable[..., Any]


def sidecar(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "labels.csv.run.json").read_text())  # type: ignore[no-any-return]


def paths(tmp_path: Path) -> list[str]:
    return [row["path"] for row in rows_of(tmp_path / "labels.csv")]


def forget_the_rules(tmp_path: Path, *, ending: str = ".run.jsonl") -> None:
    """Make the journal one of a version that took hidden files and did not say so."""
    journal = tmp_path / f"labels.csv{ending}"
    first, *rest = journal.read_text().splitlines(keepends=True)
    head = {name: value for name, value in json.loads(first).items() if name not in RULES}
    assert len(head) == len(json.loads(first)) - len(RULES)
    journal.write_text("".join([json.dumps(head) + "\n", *rest]))


RULES = ("--hidden", "--exclude", "--follow-links")
PHOTOS = [f"photos/000{n}.jpg" for n in range(4)]


def test_what_is_left_aside_fails_no_run_and_is_said_and_kept(photos: Path, label: Label, tmp_path: Path) -> None:
    done = label("--exclude", "0003*")
    assert done.returncode == 0
    said = "4 hidden files, 1 folder of other programs (@eaDir), 1 excluded left aside"
    assert f"{said}, 1 link to folders not followed (--follow-links)" in done.stderr
    assert paths(tmp_path) == PHOTOS[:3]
    kept = {"hidden_files": 4, "program_folders": 1, "excluded": 1, "links": 1}
    assert sidecar(tmp_path)["counts"]["aside"] == kept
    rules = {"hidden": False, "exclude": ["0003*"], "follow_links": False}
    assert sidecar(tmp_path)["options"]["rules"] == rules
    assert label("--hidden", "--follow-links", "--overwrite").returncode == 3  # the twins are no pictures
    assert len(paths(tmp_path)) == 11


def test_where_all_is_left_aside_there_are_no_images_which_says_what_helps(photos: Path, label: Label) -> None:
    done = label("--exclude", "/*.jpg", "-q")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert done.stderr.startswith("ferbatch: no images found under photos (4 hidden files, ")
    assert "--hidden takes in what is hidden" in done.stderr
    assert "(--follow-links)" in done.stderr


@pytest.mark.parametrize("command", ["label", "evaluate", "train"])
def test_a_bad_pattern_is_one_sentence(command: str, photos: Path, ferbatch_here: Ferbatch) -> None:
    given = ("--truth", "photos") if command == "evaluate" else ("photos",)
    done = ferbatch_here(command, *given, "--exclude", "#recycle")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"is a comment by gitignore's rules" in done.stderr


def test_the_api_takes_the_same_options(photos: Path, model: Path) -> None:
    def found(**options: Any) -> int:
        return len(list(ferbatch.label(photos, model=str(model), device="cpu", **options)))

    assert found() == 4
    assert found(hidden=True) == 10
    assert found(follow_links=True) == 5
    assert found(exclude="0001.jpg") == found(exclude=["0001.jpg"]) == 3
    with pytest.raises(ferbatch.FerbatchError, match="comment"):
        ferbatch.label(photos, exclude="#a")
    with pytest.raises(ferbatch.FerbatchError, match="no file or folder can be called"):
        ferbatch.label("photos\0")


CHANGES = [
    (("--hidden",), (), "--hidden was True and is False", 6),
    ((), ("--hidden",), "--hidden was False and is True", 0),
    ((), ("--exclude", "0001*", "--exclude", "0002*"), "--exclude was none and is 0001* 0002*", 2),
    (("--follow-links",), (), "--follow-links was True and is False", 1),
]


@pytest.mark.parametrize(("before", "now", "said", "gone"), CHANGES, ids=lambda value: str(value))
def test_incremental_with_other_rules_labels_nothing_again_and_says_so_once(
    before: tuple[str, ...], now: tuple[str, ...], said: str, gone: int, photos: Path, label: Label, tmp_path: Path
) -> None:
    label(*before)
    there = len(paths(tmp_path))
    changed = label("--incremental", *now)
    note = f"what counts in folders has changed ({said})"
    assert changed.stderr.count(note) == 1
    assert sidecar(tmp_path)["this_run"]["gone"] == gone
    assert sidecar(tmp_path)["this_run"]["processed"] == len(paths(tmp_path)) - there + gone
    assert ("left aside now" in changed.stderr) == bool(gone)
    again = label("--incremental", *now, "-q")
    assert (again.returncode, again.stderr) == (0, "")
    incremental = (tmp_path / "labels.csv").read_bytes()
    label("--overwrite", *now)
    assert (tmp_path / "labels.csv").read_bytes() == incremental


def test_resume_goes_on_where_other_images_count_and_the_next_run_knows(
    photos: Path, label: Label, tmp_path: Path
) -> None:
    options = ("--on-error", "stop", "--batch-size", "1")
    (photos / "0002.jpg").write_bytes(b"broken")
    assert label(*options).returncode == 3
    done = label("--resume", "--exclude", "0000*", "--exclude", "0002*")
    assert done.returncode == 0
    assert "--exclude was none and is 0000* 0002*" in done.stderr
    assert paths(tmp_path) == [PHOTOS[1], PHOTOS[3]]
    assert sidecar(tmp_path)["this_run"]["processed"] == 1
    assert "what counts" not in label("--incremental", "--exclude", "0000*", "--exclude", "0002*").stderr


def test_resume_of_a_finished_run_with_other_rules_is_refused(photos: Path, label: Label, tmp_path: Path) -> None:
    label()
    assert label("--resume", "-q").stderr == ""
    refused = label("--resume", "--exclude", "0001*")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--exclude was none and is 0001*" in refused.stderr
    assert "--incremental brings it up to date" in refused.stderr
    assert paths(tmp_path) == PHOTOS


def test_a_journal_that_names_no_rules_is_of_a_run_that_took_what_is_hidden(
    photos: Path, label: Label, tmp_path: Path
) -> None:
    label("--hidden")
    forget_the_rules(tmp_path)
    finished = label("--resume", "-q")  # as it was begun, it is finished
    assert (finished.returncode, finished.stderr) == (0, "")
    done = label("--incremental")
    assert "--hidden was True and is False" in done.stderr
    assert (paths(tmp_path), sidecar(tmp_path)["this_run"]["processed"]) == (PHOTOS, 0)


def test_nothing_is_said_of_todays_rules_where_nothing_is_hidden(label: Label, faces: Any, tmp_path: Path) -> None:
    faces("photos", 3)
    label()
    forget_the_rules(tmp_path)
    done = label("--incremental", "-q")
    assert (done.returncode, done.stderr) == (0, "")
