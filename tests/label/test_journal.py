"""Whatever the names and wherever a run is killed: as many rows as images, each once, each its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LABELS, NAMES, TEXTS, depth, face_file

import ferbatch
from ferbatch.commands.label.journal import ENCODER, LINES_AT_ONCE, Done, Journal, line_of
from ferbatch.core.names import encode_path
from ferbatch.core.records import ERROR_KINDS, Box, ImageRef, Prediction, Version
from ferbatch.images.formats import type_of_name

PATHS = NAMES.map(encode_path)
VERSIONS = st.none() | st.builds(Version, st.integers(0, 2**63), st.integers(-(2**63), 2**63))
PROBABILITIES = st.lists(st.integers(0, 10_000), min_size=4, max_size=4).map(
    lambda parts: {label: part / 10_000 for label, part in zip(LABELS, parts, strict=True)}
)


@st.composite
def predictions(draw: st.DrawFn, path: str) -> list[Prediction]:
    """The rows of one image."""
    way = draw(st.sampled_from(["error", "no_face", "whole", "faces"]))
    if way == "error":
        return [Prediction(path, None, "error", error_kind=draw(st.sampled_from(ERROR_KINDS)), error=draw(TEXTS))]
    if way == "no_face":
        return [Prediction(path, None, "no_face")]
    rows = []
    for number in range(1 if way == "whole" else draw(st.integers(1, 4))):
        found = draw(PROBABILITIES)
        label = max(found, key=lambda name: found[name])
        box = [draw(st.integers(0, 10_000)) for _ in range(4)]
        face = () if way == "whole" else (None, None, number, Box(*box, draw(st.integers(0, 10_000)) / 10_000))
        rows.append(
            Prediction(path, None, draw(st.sampled_from(["ok", "uncertain"])), label, found[label], found, *face)
        )
    return rows


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Version | None, bool, list[Prediction]]]:
    """What a journal is told, some paths more than once."""
    paths = draw(st.lists(PATHS, min_size=1, max_size=12, unique=True))
    order = draw(st.lists(st.sampled_from(paths), max_size=40))
    return [(draw(VERSIONS), draw(st.booleans()), draw(predictions(path))) for path in order]


def newest(
    history: list[tuple[Version | None, bool, list[Prediction]]],
) -> dict[str, tuple[Version | None, bool, list[Prediction]]]:
    return {one[2][0].path: one for one in history}


def held(done: Done, paths: set[str]) -> dict[str, tuple[Version | None, bool, list[Prediction]]]:
    found = {path: done.find(path) for path in paths}
    return {
        path: (one[1].version, one[1].whole_picture, one[1].predictions(ImageRef(path, b"")))
        for path, one in found.items()
        if one
    }


@given(histories(), st.floats(0, 1), histories())
def test_a_journal_cut_anywhere_holds_its_whole_lines_and_goes_on(
    before: list[tuple[Version | None, bool, list[Prediction]]],
    cut: float,
    after: list[tuple[Version | None, bool, list[Prediction]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "labels.csv.journal")
        with Journal(path, None, {"PATHS": ["images"]}) as journal:
            begun = os.path.getsize(path)
            for version, whole, rows in before:
                journal.add(line_of(rows[0].path, version, whole, rows))
        content = Path(path).read_bytes()
        assert content.count(b"\n") == 1 + len(before)
        kept = content[: begun + round(cut * (len(content) - begun))]
        Path(path).write_bytes(kept)
        lines = kept.count(b"\n") - 1
        done = Done(path, LABELS)
        assert done.head == {"PATHS": ["images"]}
        paths = {one[2][0].path for one in before + after}
        assert held(done, paths) == newest(before[:lines])
        assert len(done) == len(newest(before[:lines]))
        assert not list(done.gone())
        with Journal(path, done.end, {"PATHS": ["others"]}) as journal:
            for version, whole, rows in after:
                journal.add(line_of(rows[0].path, version, whole, rows))
        done = Done(path, LABELS)
        assert done.head == {"PATHS": ["images"]}
        assert sorted(done.gone()) == sorted(newest(before[:lines] + after))
        assert held(done, paths) == newest(before[:lines] + after)


@given(histories())
def test_a_line_is_what_the_json_encoder_makes_of_it(
    history: list[tuple[Version | None, bool, list[Prediction]]],
) -> None:
    for version, whole, rows in history:
        line = line_of(rows[0].path, version, whole, rows)
        assert line == ENCODER.encode(json.loads(line)).encode() + b"\n"


def test_two_paths_with_one_hash_are_not_taken_for_each_other(tmp_path: Path, fault: Callable[..., None]) -> None:
    fault("one_hash_for_all")
    with Journal(str(tmp_path / "labels.csv.journal"), None, {}) as journal:
        for path in ("a", "b"):
            rows = [Prediction(path, None, "error", error_kind="blank", error="!")]
            journal.add(line_of(path, None, False, rows))
    done = Done(str(tmp_path / "labels.csv.journal"), LABELS)
    assert done.find("a") is None
    found = done.find("b")
    assert found
    assert found[1].path == "b"


STEPS = st.sampled_from(["change", "remove", "add", "overwrite", "nothing"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@given(
    names=st.lists(NAMES.filter(lambda name: name != b"always"), min_size=1, max_size=10, unique=True),
    kills=st.lists(st.tuples(st.integers(1, 26), STEPS), max_size=4),
    name=st.sampled_from(["csv", "json", "jsonl", "parquet"]),
)
@settings(max_examples=depth(6, 25))
def test_any_names_and_any_interleaving_of_kill_change_and_resume_end_as_if_nothing_had_happened(
    commands: Forks | None, names: list[bytes], kills: list[tuple[int, str]], name: str
) -> None:
    if not commands:
        pytest.skip("this system cannot fork")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "images/always").mkdir(parents=True)
        (folder / "images/always/one.png").write_bytes(face_file(0, "PNG"))

        def put(at: int, seed: int) -> None:
            with open(os.path.join(os.fsencode(folder), b"images", names[at % len(names)]), "wb") as stream:
                if seed % 5:
                    stream.write(face_file(seed % 8, "PNG"))

        for at in range(len(names)):
            put(at, at)
        label = ["label", "images", "-q", "-o", f"labels.{name}"]
        for count, (step, what) in enumerate(kills):
            mode = "--overwrite" if what == "overwrite" else "--incremental" if count % 2 else "--resume"
            ended = commands(folder, *label, mode, kill_at=step)
            assert ended.code in (-9, 0, 3), ended.stderr
            if what in ("change", "add"):
                put(step, step + count)
            elif what == "remove":
                for gone in [one for one in os.listdir(os.fsencode(folder / "images")) if one in names][:1]:
                    os.unlink(os.path.join(os.fsencode(folder), b"images", gone))
        ended = commands(folder, *label, "--incremental")
        assert ended.code in (0, 3), ended.stderr
        assert commands(folder, "label", "images", "-q", "-o", f"whole.{name}").code in (0, 3)
        labels = folder / f"labels.{name}"
        assert labels.read_bytes() == (folder / f"whole.{name}").read_bytes()
        rows = [ferbatch.decode_path(path) for path in ferbatch.read_labels(labels)["path"]]
        images = [one for one in os.listdir(os.fsencode(folder / "images")) if one in names and is_listed(folder, one)]
        assert rows == sorted([b"images/always/one.png", *(b"images/" + one for one in images)])


def is_listed(folder: Path, name: bytes) -> bool:
    """An empty file without an image's name is no image."""
    path = os.path.join(os.fsencode(folder), b"images", name)
    return os.path.getsize(path) > 0 or type_of_name(name) is not None


def test_the_journal_is_written_batch_by_batch(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    with Journal(path, None, {}) as journal:
        sizes = []
        for number in range(3 * LINES_AT_ONCE):
            journal.add(b"%d\n" % number)
            sizes.append(os.path.getsize(path))
    assert len(set(sizes)) == 4
