"""Whatever a batch holds and wherever a journal is cut or damaged: whole batches come back, each image with its own."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batches import BATCHES, Crop, Image, batch_of, images_of, noted
from hypothesis import given
from hypothesis import strategies as st
from support import LABELS

from ferbatch.core.batch import OF_CROPS, OF_IMAGES, References
from ferbatch.core.errors import OutputError
from ferbatch.core.records import Box, Failure, Version
from ferbatch.core.writers import WRITERS
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.stream import journal as journals
from ferbatch.stream.journal import FORMAT, Done, Journal, line_of
from ferbatch.stream.recorder import Recorder

HEAD = {"PATHS": ["images"]}
HISTORIES = st.lists(BATCHES, max_size=5)  # what a journal is told, some paths more than once
History = Sequence[Sequence[Image]]


@contextmanager
def journal_of(history: History) -> Iterator[tuple[Path, list[int]]]:
    """The file of a journal that was told this, and its size before the first batch and after each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv.journal"
        with Journal(str(path), None, HEAD) as journal:
            sizes = [path.stat().st_size]
            for images in history:
                journal.add(batch_of(images))
                sizes.append(path.stat().st_size)
        yield path, sizes


def newest(history: History) -> dict[str, Image]:
    return {image.path: image for images in history for image in noted(images)}


def references_of(images: Sequence[Image]) -> References:
    return References([one.path for one in images], [one.file for one in images], [one.truth for one in images])


def held(done: Done, told: History) -> list[Image]:
    """What a journal holds of the images that one was ever told about."""
    wanted = list(newest(told).values())
    known = {
        place: number
        for places, numbers, batch in done.find([image.path for image in wanted])
        for place, number, version in zip(places.tolist(), numbers.tolist(), batch.versions.tolist(), strict=True)
        if wanted[place].version == tuple(version)
    }
    of = [wanted[place] for place in sorted(known)]
    numbers = np.array([known[place] for place in sorted(known)], np.int64)
    return images_of(done.read(numbers).of(references_of(of))) if of else []


def check(path: Path, history: History, told: History) -> None:
    """That the journal holds this history, of all that was ever told, and nothing else."""
    done, wanted = Done(str(path)), newest(history)
    assert done.head == {**HEAD, "journal": FORMAT}
    assert len(done) == len(wanted)
    assert sorted(done.gone()) == sorted(wanted)  # nothing was asked for
    asked = [*told, *history]  # of what was told of a path, the version that is held last
    assert {(image.path, image.crops) for image in held(done, asked)} == {
        (path, image.crops) for path, image in wanted.items()
    }
    assert not list(done.gone())


@given(BATCHES.filter(bool))
def test_a_line_and_a_batch_are_each_others(images: list[Image]) -> None:
    batch = batch_of(images)
    line = line_of(batch)
    back = journals.batch_of(line)
    assert back
    assert images_of(back.of(batch.references)) == noted(images)
    assert line_of(back) == line
    for name in (*OF_IMAGES, *OF_CROPS):
        wanted, found = getattr(batch, name), getattr(back, name)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name


@given(BATCHES.filter(bool))
def test_a_line_is_json_that_a_person_can_read(images: list[Image]) -> None:
    line = line_of(batch_of(images)).decode()
    assert [char for char in line if char < " "] == ["\n"]
    said = json.loads(line)["batch"]
    assert said["paths"] == [image.path for image in images]
    assert [Version(*one) for one in said["versions"]] == [image.version for image in images]
    for place, image in enumerate(noted(images)):
        failure = image.failure
        assert said["failures"].get(str(place)) == ([failure.kind, failure.message] if failure else None)


@given(before=HISTORIES, cut=st.floats(0, 1), after=HISTORIES)
def test_a_journal_cut_anywhere_holds_its_whole_batches_and_goes_on(
    before: History, cut: float, after: History
) -> None:
    with journal_of(before) as (path, sizes):
        kept = sizes[0] + round(cut * (sizes[-1] - sizes[0]))
        path.write_bytes(path.read_bytes()[:kept])
        whole = before[: sum(size <= kept for size in sizes[1:])]
        check(path, whole, [*before, *after])
        done = Done(str(path))
        assert done.end == max(size for size in sizes if size <= kept)
        with Journal(str(path), done.end, {"PATHS": ["others"]}) as journal:
            for images in after:
                journal.add(batch_of(images))
        check(path, [*whole, *after], [*before, *after])


@given(history=HISTORIES.filter(any), data=st.data())
def test_a_changed_byte_costs_the_batch_that_it_is_in(history: History, data: st.DataObject) -> None:
    with journal_of(history) as (path, sizes):
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(sizes[0], sizes[-1] - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        number = sum(size <= at for size in sizes[1:])
        after = history[number + 1 :]
        if at + 1 in sizes:  # its line goes on into the next one
            after = [images for images in after if images][1:]
        check(path, [*history[:number], *after], history)


def test_two_paths_with_one_hash_are_not_taken_for_each_other(tmp_path: Path, fault: Callable[..., None]) -> None:
    fault("one_hash_for_all")
    path = str(tmp_path / "labels.csv.journal")
    failed = [Image(name, failure=Failure("blank", "!")) for name in (b"a", b"b")]
    with Journal(path, None, {}) as journal:
        journal.add(batch_of(failed))
    done = Done(path)
    assert not any(len(places) for places, *_ in done.find(["a"]))
    assert held(done, [failed[1:]]) == failed[1:]


def test_a_journal_of_another_format_says_so_and_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.journal"
    line = '["a.jpg",1,1,0,["ok","happy",{"happy":1.0,"sad":0.0,"neutral":0.0,"surprise":0.0},null,null]]'
    path.write_text('{"ferbatch_journal": 2, "PATHS": ["images"]}\n' + line + "\n")
    done = Done(str(path))
    assert (done.head, done.foreign, len(done)) == ({**HEAD, "journal": 2}, False, 0)


MADE_UP: list[Any] = [  # none of ours, though their checksum is right
    None,
    7,
    [],
    {},
    *({"paths": value} for value in (None, [], "a", [7, 8], [[], []], ["a", "b", "c"])),
    *(
        {"failures": value}
        for value in (None, [], {"7": ["blank", "!"]}, {"x": ["blank", "!"]}, {"-1": ["blank", "!"]})
    ),
    *(
        {"failures": {"1": value}}
        for value in (None, "ab", ["blank"], ["un\nread", "!"], ["blank", 7], [["blank"], "!"])
    ),
    *({"versions": value} for value in ([], [[1, 1]], [1, 1, 1, 1, 1], [["x", 1], [1, 1]], [[2**70, 1], [1, 1]], {})),
    *({"image": value} for value in ([], [0, 0, 0], [-1, 0], [1, 0], [0, 7], [0, "x"], None)),
    *({"searched": value} for value in ([], [True], None)),
    *(
        {"boxes": value}
        for value in ([], [[1, 2, 3]], [[1, 2, 3, "x"], [1, 2, 3, 4]], [[2**40, 1, 1, 1], [1, 2, 3, 4]])
    ),
    *({"scores": value} for value in ([], [0.5], [0.5, 7.5], [0.5, None], [0.5, -0.1])),
    *({"units": value} for value in ([], [[]] * 4, [[1, 2]] * 3 + [[1]], [[10_001, 0], [0, 1], [0, 0], [0, 0]])),
    *({"units": value} for value in ([[-1, 0], [0, 1], [0, 0], [0, 0]], [["x", 0], [0, 1], [0, 0], [0, 0]])),
    *({"best": value} for value in ([], [0, 9], [0, -1], [1, 1], [0, "x"])),
    *({"uncertain": value} for value in ([], [False], None)),
]


@pytest.mark.parametrize("change", MADE_UP, ids=lambda change: str(change)[:60])
def test_a_batch_that_somebody_made_up_is_as_good_as_absent(change: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.journal"
    box, units = Box(1, 2, 3, 4, 0.5), (9_000, 1_000, 0, 0)
    crops = tuple(Crop(0, units, False, box) for _ in range(2))
    images = [Image(b"a", searched=True, crops=crops), Image(b"b", failure=Failure("blank", "!"))]
    said = json.loads(line_of(batch_of(images)))["batch"]
    with Journal(str(path), None, HEAD) as journal:
        journal.add(batch_of([Image(b"c", failure=Failure("blank", "!"))]))
    for made_up in (said | change if isinstance(change, dict) and change else change, said):
        data = json.dumps(made_up).encode()
        with path.open("ab") as stream:
            stream.write(b'{"crc32":"%08x","batch":%b}\n' % (zlib.crc32(data), data))
        done = Done(str(path))
        assert any(len(places) for places, *_ in done.find(["c"]))
        assert len(done) == (3 if made_up is said else 1)
    assert held(done, [images]) == images


ODD: list[dict[str, Any]] = [  # of a run neither, but each column has a sense
    {"failures": {"0": ["blank", "!"]}},
    {"failures": {}},
    {"image": [0, 1]},
    {"searched": [False, False]},
    {"searched": [True, True]},
]


@pytest.mark.parametrize("change", ODD, ids=str)
@pytest.mark.parametrize("name", WRITERS)
def test_what_somebody_made_up_well_is_labels_like_others(change: dict[str, Any], name: str) -> None:
    crops = tuple(Crop(0, (9_000, 1_000, 0, 0), False, Box(1, 2, 3, 4, 0.5)) for _ in range(2))
    images = [Image(b"a", searched=True, crops=crops), Image(b"b", failure=Failure("blank", "!"))]
    said = json.loads(line_of(batch_of(images)))["batch"] | change
    data = json.dumps(said).encode()
    batch = journals.batch_of(b'{"crc32":"%08x","batch":%b}\n' % (zlib.crc32(data), data))
    assert batch
    outcomes = Outcomes.unpredicted(LABELS, np.zeros(2, np.int16))
    recorder = Recorder(WRITERS[name](BytesIO(), LABELS), None, outcomes)
    recorder.add(batch, np.zeros(2, np.bool_), np.zeros(2, np.bool_))
    recorder.writer.close()
    assert recorder.tally.images == 2


def test_a_journal_that_changes_while_it_is_read_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.journal"
    images = [Image(b"a.jpg", searched=True), Image(b"b.jpg", failure=Failure("blank", "all of one value"))]
    with Journal(str(path), None, HEAD) as journal:
        journal.add(batch_of(images))
    done = Done(str(path))
    os.truncate(path, path.stat().st_size - 6)
    done.stream.seek(0, os.SEEK_END)  # so that it reads the file again
    with pytest.raises(OutputError, match=r"labels\.csv\.journal was changed by somebody else"):
        done.read(np.arange(2))
    with pytest.raises(OutputError, match=r"labels\.csv\.journal was changed by somebody else"):
        list(done.find(["b.jpg"]))


def test_a_batch_is_written_at_once_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.journal"
    with Journal(str(path), None, HEAD) as journal:
        for number in range(3):
            journal.add(batch_of([Image(b"%d-%d.jpg" % (number, at), searched=True) for at in range(100)]))
            journal.add(batch_of([]))
            lines = path.read_bytes().splitlines(keepends=True)
            assert len(lines) == number + 2
            assert lines[-1].endswith(b"\n")


def test_images_come_back_from_several_batches_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.journal"
    crop = Crop(0, (9_000, 1_000, 0, 0), False)
    images = [Image(b"%d.jpg" % at, crops=(replace(crop, units=(9_000, at, 0, 0)),)) for at in range(20)]
    with Journal(str(path), None, HEAD) as journal:
        for at in range(0, 20, 3):
            journal.add(batch_of(images[at : at + 3]))
    chosen = [images[at] for at in (17, 0, 4, 16, 5, 3, 19)]
    assert held(Done(str(path)), [chosen]) == chosen


def test_however_paths_lie_among_batches_each_batch_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.csv.journal"
    images = [Image(b"%d.jpg" % at, searched=True) for at in range(60)]
    with Journal(str(path), None, HEAD) as journal:
        for at in range(0, 60, 6):
            journal.add(batch_of(images[at : at + 6]))
    done, read, whole = Done(str(path)), [], journals.batch_of
    monkeypatch.setattr(journals, "batch_of", lambda line: read.append(line) or whole(line))
    shuffled = [images[at * 7 % 60] for at in range(60)]
    found = list(done.find([image.path for image in shuffled]))
    assert len(read) == 10
    places, numbers = (np.concatenate(column) for column in list(zip(*found, strict=True))[:2])
    wanted = [shuffled[place] for place in places]
    assert images_of(done.read(numbers).of(references_of(wanted))) == wanted
    assert len(read) <= 20
