"""Nothing lost, nothing doubled: killed at any moment, a run goes on to the bytes of one that was never broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Ended, Forks
from support import Ferbatch, depth, draw_face, linked, rows_of, some

from ferbatch.commands.label.run import _room
from ferbatch.images import jpeg
from ferbatch.model.devices import DTYPES, choose_device, choose_precision
from ferbatch.sources.listing import list_images
from ferbatch.stream import classifier
from ferbatch.stream.journal import FORMAT
from ferbatch.stream.pool import Pool

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

AUTO = choose_precision("auto", choose_device("auto"))
(OTHER_PRECISION,) = set(DTYPES) - {AUTO}
BATCH = 12  # images of a batch in these runs, for which so few are enough:
N = 40  # three whole batches and a part
TINY = "model/tiny.safetensors"


@pytest.fixture
def images(faces: Callable[..., Path]) -> Path:
    folder = faces("images", N)
    (folder / "0014.jpg").write_bytes(b"broken")
    return folder


Run = Callable[..., Ended]


@pytest.fixture
def run(forks: Forks, ferbatch_here: Ferbatch, model: Path, tmp_path: Path) -> Run:
    """`ferbatch label images -q` with these options, in batches of BATCH: run("--resume", kill_at=9) -> Ended.

    In a process of its own if anything is to happen to it, or its steps are to be counted (kill_at=None); else here.
    """
    shutil.copytree(model.parent, tmp_path / "model")

    def call(*options: str, **how: Any) -> Ended:
        command = ("label", "images", "-q", "--model", TINY, "--batch-size", str(BATCH), *options)
        if how:
            return forks(tmp_path, *command, **how)
        done = ferbatch_here(*command)
        return Ended(done.returncode, 0, done.stdout, done.stderr.decode())

    return call


def whole(run: Run, tmp_path: Path, *options: str, name: str = "whole.csv") -> bytes:
    """The labels of a run that is not broken, on the images as they are."""
    ended = run("-o", name, "--overwrite", *options)
    assert ended.code in (0, 3), ended.stderr
    return (tmp_path / name).read_bytes()


def beside(tmp_path: Path) -> list[str]:
    return sorted(name for name in os.listdir(tmp_path) if name.startswith("labels."))


FINISHED = ["labels.csv", "labels.csv.run.json", "labels.csv.run.jsonl"]


def test_killed_at_any_step_of_writing_a_run_goes_on_to_the_same_bytes(images: Path, run: Run, tmp_path: Path) -> None:
    wanted = whole(run, tmp_path)
    steps = run(kill_at=None).events
    assert steps > 20
    counts = json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"]
    for step in some(range(1, steps + 1), 8):
        for name in beside(tmp_path):
            (tmp_path / name).unlink()
        assert run(kill_at=step).code == -9
        if (tmp_path / "labels.csv").exists():
            assert (tmp_path / "labels.csv").read_bytes() == wanted
        refused = run()
        assert (refused.code, refused.stderr.count("\n")) == (2, 1), step
        ended = run("--resume")
        assert ended.code in (0, 3), (step, ended.stderr)  # 0: it was killed when all was done
        assert (tmp_path / "labels.csv").read_bytes() == wanted, step
        assert beside(tmp_path) == FINISHED
        assert json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"] == counts


def test_killed_at_random_moments_a_run_goes_on_to_the_same_bytes(images: Path, run: Run, tmp_path: Path) -> None:
    wanted = whole(run, tmp_path)
    chance = random.Random(5)
    kills = runs = 0
    while kills < depth(12, 100):
        ended = run("--resume", kill_after=chance.uniform(0.02, 0.25))
        assert ended.code in (-9, 0, 3), ended.stderr
        kills += ended.code == -9
        if (tmp_path / "labels.csv").exists():
            assert (tmp_path / "labels.csv").read_bytes() == wanted
        if ended.code != -9:
            assert run("--resume").code in (0, 3)
            assert (tmp_path / "labels.csv").read_bytes() == wanted
            assert beside(tmp_path) == FINISHED
            runs += 1
            for name in beside(tmp_path):
                (tmp_path / name).unlink()
    print(f"{kills} kills, {runs} runs brought to their end")
    assert run("--resume").code == 3
    assert (tmp_path / "labels.csv").read_bytes() == wanted


def test_failures_that_are_tried_again_are_gone_on_with_as_well(images: Path, run: Run, tmp_path: Path) -> None:
    wanted = whole(run, tmp_path, name="labels.csv")
    assert run("--resume", "--retry-failed", kill_at=8).code == -9
    assert run("--resume").code in (0, 3)
    assert (tmp_path / "labels.csv").read_bytes() == wanted
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] <= 1


def test_an_old_output_is_there_until_the_new_one_is_complete(images: Path, run: Run, tmp_path: Path) -> None:
    old = whole(run, tmp_path, name="labels.csv")
    (images / "0003.jpg").unlink()
    draw_face(900).save(images / "0004.jpg")
    draw_face(901).save(images / "0020a.jpg")
    wanted = whole(run, tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in beside(tmp_path)}
    for mode in ("--overwrite", "--incremental"):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        steps = run(mode, kill_at=None).events
        assert (tmp_path / "labels.csv").read_bytes() == wanted
        for step in some(range(1, steps + 1), 6):
            for name, content in files.items():
                (tmp_path / name).write_bytes(content)
            assert run(mode, kill_at=step).code == -9
            assert (tmp_path / "labels.csv").read_bytes() in (old, wanted)
            begun = (tmp_path / "labels.csv.journal").exists()  # not yet at the first step, and not after the last
            again = run(mode, *(("--resume",) if begun else ()))
            assert again.code in (0, 3), (mode, step, again.stderr)
            assert (tmp_path / "labels.csv").read_bytes() == wanted, (mode, step)
            assert beside(tmp_path) == FINISHED


DAMAGES = {  # what is done to a journal of two batches, and how many of them that costs
    **{"nothing": 2, "header": 2, "torn": 1, "zeros": 1, "garbage": 1, "a digit": 1, "another's checksum": 1},
    **{"a line end": 2, "in another order": 0, "twice": 0},
}


@pytest.mark.parametrize(("damage", "lost"), DAMAGES.items())
def test_a_damaged_journal_costs_work_but_no_row(
    damage: str, lost: int, images: Path, run: Run, tmp_path: Path
) -> None:
    wanted = whole(run, tmp_path)
    run(kill_at=11)
    journal = tmp_path / "labels.csv.journal"
    head, one, two = journal.read_bytes().splitlines(keepends=True)
    junk = b"\xff\xfe\n[]\n{}\nnull\n"
    content: dict[str, bytes] = {
        "nothing": b"",
        "header": head[:25],
        "torn": head + one + two[:300],
        "zeros": head + one + two[:300] + bytes(4096),
        "garbage": head + junk + one + junk + two[40:],
        "a digit": head + one[:-300] + one[-300:].replace(b"1", b"2", 1) + two,
        "another's checksum": head + one[:20] + two[20:] + two,
        "a line end": head + one[:-1] + two,
        "in another order": head + two + one,
        "twice": head + one + one + two + one,
    }
    journal.write_bytes(content[damage])
    ended = run("--resume")
    assert ended.code == 3
    assert (tmp_path / "labels.csv").read_bytes() == wanted
    labelled = json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"]
    assert labelled == N - (2 - lost) * BATCH


def test_a_resumed_run_labels_only_what_is_left_and_says_so(images: Path, run: Run, tmp_path: Path) -> None:
    run(kill_at=9)
    ended = run("--resume")
    done = (tmp_path / "labels.csv.run.jsonl").read_text().count('"images/')
    sidecar = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert done == N == sidecar["this_run"]["images"]
    assert 0 < sidecar["this_run"]["processed"] < N
    assert "died (process " in ended.stderr.splitlines()[0]
    known = N - sidecar["this_run"]["processed"]
    assert ended.stderr.splitlines()[1] == f"going on with an unfinished run of labels.csv: {known} images done"
    assert f"1 of {N} images could not be labelled" in ended.stderr.splitlines()[2]
    assert ended.code == 3


def change(images: Path) -> None:
    """Images go, come, and become others: in content, in size alone, in mtime alone, in kind."""
    for gone in ("0000.jpg", "0038.jpg"):
        (images / gone).unlink()
    shutil.copy(images / "0001.jpg", images / "0002.jpg")
    draw_face(700).save(images / "0002a.jpg")
    (images / "0005.jpg").write_bytes((images / "0005.jpg").read_bytes()[:-30])
    before = (images / "0006.jpg").stat()
    (images / "0006.jpg").write_bytes((images / "0007.jpg").read_bytes())
    os.utime(images / "0006.jpg", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (images / "0008.jpg").unlink()
    os.symlink("nowhere", images / "0008.jpg")
    draw_face(701).save(images / "zzz.jpg")


@pytest.mark.parametrize("how", ["resume", "incremental"])
def test_what_went_came_or_changed_is_as_if_it_had_always_been_so(
    how: str, images: Path, run: Run, tmp_path: Path
) -> None:
    assert run(**({"kill_at": 11} if how == "resume" else {})).code == (-9 if how == "resume" else 3)
    change(images)
    ended = run(f"--{how}", "-v")
    assert ended.code == 3
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)
    sidecar = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert sidecar["this_run"]["gone"] == (1 if how == "resume" else 2)
    if how == "incremental":
        assert sidecar["this_run"]["processed"] == 6
        assert sidecar["this_run"]["errors"] == {"not_found": 1, "truncated": 1}


def test_gone_images_are_said(images: Path, forks: Forks, run: Run, tmp_path: Path) -> None:
    run()
    (images / "0000.jpg").unlink()
    (images / "0038.jpg").unlink()
    said = forks(tmp_path, "label", "images", "--model", TINY, "--incremental").stderr
    assert "2 images labelled before are gone, and their rows with them (images/0000.jpg)" in said
    assert f"0 of {N - 2} images in" in said


def test_what_changes_during_the_run_is_made_good_by_the_next(images: Path, run: Run, tmp_path: Path) -> None:
    touch = "rm images/0038.jpg; cp images/0001.jpg images/0039.jpg; cp images/0002.jpg images/0003.jpg;"
    touch += "cp images/0001.jpg images/later.jpg"
    ended = run("--batch-size", "4", touch={5: touch})
    assert ended.code == 3
    rows = rows_of(tmp_path / "labels.csv")
    assert [row["path"] for row in rows] == [f"images/{n:04}.jpg" for n in range(N)]
    assert rows[38]["error_kind"] == "not_found"
    assert rows[39]["happy"] == rows[1]["happy"]
    assert run("--incremental").code == 0
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)


def test_incremental_labels_only_what_is_new_and_has_exit_code_0_for_old_errors(
    images: Path, run: Run, tmp_path: Path
) -> None:
    assert run("--incremental").code == 3  # the first is a full run
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == N
    before = (tmp_path / "labels.csv").read_bytes()
    again = run("--incremental")
    assert (again.code, again.stderr) == (0, "")
    assert (tmp_path / "labels.csv").read_bytes() == before
    sidecar = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert sidecar["this_run"] == {"images": 0, "processed": 0, "errors": {}, "allowed": {}, "gone": 0}
    assert sidecar["counts"]["errors"] == {"unreadable": 1}
    for at in range(10):
        draw_face(500 + at).save(images / f"00{at}x.jpg")
    again = run("--incremental")
    assert (again.code, again.stderr) == (0, "")
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == 10
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)


def test_old_errors_stay_old_when_an_incremental_run_was_killed(images: Path, run: Run, tmp_path: Path) -> None:
    run()
    draw_face(500).save(images / "zz.jpg")
    assert run("--incremental", kill_at=13).code == -9
    assert "images/0014.jpg" in (tmp_path / "labels.csv.journal").read_text()
    for _ in range(2):
        assert run("--incremental").code == 0
        assert (tmp_path / "labels.csv.run.jsonl").read_text().count("images/") == N + 1
        assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)


@pytest.mark.parametrize("name", ["csv", "json", "jsonl", "parquet"])
def test_every_format_can_be_resumed_and_brought_up_to_date(name: str, images: Path, run: Run, tmp_path: Path) -> None:
    output = ("-o", f"labels.{name}")
    assert run(*output, kill_at=9).code == -9
    assert run(*output, "--resume").code == 3
    assert (tmp_path / f"labels.{name}").read_bytes() == whole(run, tmp_path, name=f"whole.{name}")
    change(images)
    assert run(*output, "--incremental").code == 3
    assert (tmp_path / f"labels.{name}").read_bytes() == whole(run, tmp_path, name=f"whole.{name}")


def test_the_report_of_a_resumed_run_is_that_of_an_unbroken_one(
    faces: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    for at, name in enumerate(("happy", "sad", "neutral")):
        faces(f"images/{name}", 10, first=at * 10)
    assert run(kill_at=9).code == -9
    assert run("--resume").code == 0
    resumed = {path.name: path.read_bytes() for path in tmp_path.glob("labels.csv.report.*")}
    assert len(resumed) == 7
    assert run("--overwrite").code == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("labels.csv.report.*")} == resumed


def test_retry_failed_tries_again_what_failed(images: Path, run: Run, tmp_path: Path) -> None:
    assert run().code == 3
    before = (images / "0014.jpg").stat()
    face = (images / "0015.jpg").read_bytes()
    assert run("--resume", "--retry-failed").code == 3
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == 1
    (images / "0014.jpg").write_bytes(face[:6])  # six bytes, as before
    os.utime(images / "0014.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run("--incremental").code == 0
    assert run("--incremental", "--retry-failed").code == 3
    assert rows_of(tmp_path / "labels.csv")[14]["error_kind"] == "truncated"
    assert run("--retry-failed").code == 2


OTHER = [
    (("--min-confidence", "0.5"), "--min-confidence was 0.0 and is 0.5"),
    (("--tta",), "--tta was False and is True"),
    (("--model", "cnn-v1"), "--model was tiny and is cnn-v1"),
    (("--no-truth",), "--no-truth was False and is True"),
    (("--precision", OTHER_PRECISION), f"--precision was {AUTO} and is {OTHER_PRECISION}"),
]


@pytest.mark.parametrize(("options", "said"), OTHER)
def test_with_other_options_an_unfinished_run_is_not_gone_on_with(
    options: tuple[str, ...], said: str, images: Path, run: Run, tmp_path: Path
) -> None:
    run(kill_at=9)
    journal = (tmp_path / "labels.csv.journal").read_bytes()
    ended = run("--resume", *options)
    assert (ended.code, said in ended.stderr, "--overwrite begins again" in ended.stderr) == (2, True, True)
    assert (tmp_path / "labels.csv.journal").read_bytes() == journal
    assert run("--resume", "--overwrite", *options).code == 3
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path, *options)


@pytest.mark.parametrize(("options", "said"), OTHER)
def test_incremental_with_other_options_labels_all_again_and_says_so(
    options: tuple[str, ...], said: str, images: Path, run: Run, tmp_path: Path
) -> None:
    run()
    refused = run("--resume", *options)
    assert (refused.code, said in refused.stderr) == (2, True)
    ended = run("--incremental", *options)
    assert ended.code == 3
    assert ended.stderr.startswith("every image of labels.csv is labelled again: ")
    assert said in ended.stderr
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path, *options)


def test_other_paths_other_weights_and_other_decoders_are_seen(
    images: Path, faces: Callable[..., Path], forks: Forks, run: Run, tmp_path: Path
) -> None:
    faces("more", 2)
    run()
    for mode in ("--incremental", "--resume"):
        ended = forks(tmp_path, "label", "images", "more", "--model", TINY, mode)
        assert (ended.code, "PATHS was images and is images more" in ended.stderr) == (2, True)
    assert forks(tmp_path, "label", "images/", "--model", TINY, "--incremental").code == 0  # the same, less its slash
    state = tmp_path / "labels.csv.run.jsonl"
    text = state.read_text()
    for name in ("sha256", "preprocessing", "decoder", "torch", "--precision"):
        header = json.loads(text.splitlines()[0])
        header[name] = "another"
        state.write_text("\n".join([json.dumps(header), *text.splitlines()[1:], ""]))
        ended = run("--incremental")
        assert f"labelled again: {name} was another" in ended.stderr
        assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == N


def sidecar_of(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "labels.csv.run.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["resume", "incremental"])
def test_an_output_keeps_the_precision_that_it_was_begun_in(how: str, images: Path, run: Run, tmp_path: Path) -> None:
    other = ("--precision", OTHER_PRECISION)
    begun = run(*other, **({"kill_at": 9} if how == "resume" else {}))
    assert begun.code == (-9 if how == "resume" else 3)
    draw_face(800).save(images / "zz.jpg")
    ended = run(f"--{how}")
    assert "--precision" not in ended.stderr
    sidecar = sidecar_of(tmp_path)
    assert sidecar["options"]["precision"] == OTHER_PRECISION
    assert 0 < sidecar["this_run"]["processed"] < (N if how == "resume" else 2)
    wanted = whole(run, tmp_path, *other)
    assert (tmp_path / "labels.csv").read_bytes() == wanted != whole(run, tmp_path)
    assert run("--resume").code == 0  # there is nothing left to do


def test_an_output_begun_in_the_usual_precision_is_in_it_by_name_as_well(
    images: Path, run: Run, tmp_path: Path
) -> None:
    run()
    assert run("--incremental", "--precision", AUTO).code == 0
    assert sidecar_of(tmp_path)["this_run"]["processed"] == 0


WITHOUT_SIMPLEJPEG = {"no_simplejpeg": {}}


@pytest.mark.skipif(jpeg.simplejpeg is None, reason="no simplejpeg here")
@pytest.mark.parametrize("how", ["resume", "incremental"])
def test_an_output_begun_by_pillow_alone_is_gone_on_with_by_pillow_alone(
    how: str, images: Path, run: Run, forks: Forks, tmp_path: Path
) -> None:
    kill = {"kill_at": 9} if how == "resume" else {}
    begun = forks(tmp_path, "label", "images", "-q", "--model", TINY, faults=WITHOUT_SIMPLEJPEG, **kill)
    assert begun.code == (-9 if how == "resume" else 3), begun.stderr
    draw_face(800).save(images / "zz.jpg")
    ended = run(f"--{how}")
    assert "decoder" not in ended.stderr
    sidecar = sidecar_of(tmp_path)
    assert sidecar["options"]["decoder"] == jpeg.decoders()[-1]
    assert 0 < sidecar["this_run"]["processed"] < (N if how == "resume" else 2)
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)
    assert run("--overwrite").code == 3
    assert sidecar_of(tmp_path)["options"]["decoder"] == jpeg.decoders()[0]


@pytest.mark.skipif(jpeg.simplejpeg is None, reason="no simplejpeg here")
def test_where_the_quick_decoder_is_gone_an_output_that_it_began_is_begun_again(
    images: Path, run: Run, forks: Forks, tmp_path: Path
) -> None:
    run()
    ended = forks(tmp_path, "label", "images", "-q", "--model", TINY, "--incremental", faults=WITHOUT_SIMPLEJPEG)
    assert (ended.code, "labelled again: decoder was simplejpeg" in ended.stderr) == (3, True)
    assert sidecar_of(tmp_path)["this_run"]["processed"] == N


@pytest.mark.parametrize("workers", ["0", "isolated"])
def test_what_pillow_began_the_quick_decoder_is_not_asked_for(
    workers: str, faces: Callable[..., Path], ferbatch_here: Ferbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = faces("images", 3)
    options = ("--isolate",) if workers == "isolated" else ("--workers", "0")
    asked = []
    handed = []
    luma, pool = jpeg.luma, Pool
    monkeypatch.setattr(jpeg, "luma", lambda *args: asked.append(True) or luma(*args))
    monkeypatch.setattr(classifier, "Pool", lambda *args, **how: handed.append(args[0].by_pillow) or pool(*args, **how))
    with monkeypatch.context() as hidden:
        hidden.setattr(jpeg, "simplejpeg", None)
        assert ferbatch_here("label", "images", *options).returncode == 0
    asked.clear()
    handed.clear()
    draw_face(900).save(folder / "more.jpg")
    assert ferbatch_here("label", "images", "--incremental", *options).returncode == 0
    assert not asked
    assert all(handed)
    assert bool(handed) == (workers == "isolated")
    assert ferbatch_here("label", "images", "--overwrite", *options).returncode == 0
    assert handed[-1:] == ([jpeg.simplejpeg is None] if workers == "isolated" else [])
    assert bool(asked) == (workers == "0")  # in this process, that is


STATES = [  # what is there, the option, exit code, what is said
    ("nothing", "", 3, ""),
    ("nothing", "--resume", 3, ""),
    ("nothing", "--incremental", 3, ""),
    ("nothing", "--overwrite", 3, ""),
    ("finished", "", 2, "--overwrite replaces it, --incremental adds what is new, --resume"),
    ("finished", "--resume", 0, ""),
    ("finished", "--incremental", 0, ""),
    ("finished", "--overwrite", 3, ""),
    ("unfinished", "", 2, "--resume goes on with it, --overwrite begins again"),
    ("unfinished", "--resume", 3, "going on with an unfinished run"),
    ("unfinished", "--incremental", 3, "going on with an unfinished run"),
    ("unfinished", "--overwrite", 3, ""),
    ("a part alone", "", 2, "labels.csv.part is left of an unfinished run; --resume goes on with it"),
    ("a part alone", "--resume", 3, ""),
    ("a part alone", "--incremental", 3, ""),
    ("a part alone", "--overwrite", 3, ""),
    ("somebody's", "", 2, "labels.csv exists"),
    ("somebody's", "--resume", 2, "is of another run"),
    ("somebody's", "--incremental", 2, "run.jsonl is not ferbatch's or gone"),
    ("somebody's", "--overwrite", 3, ""),
    ("edited", "--incremental", 2, "not as ferbatch wrote it"),
    ("a foreign journal", "--resume", 2, "is no journal of ferbatch's"),
    ("a foreign journal", "--incremental", 2, "is no journal of ferbatch's"),
]


@pytest.mark.parametrize(("there", "option", "code", "said"), STATES)
def test_what_is_there_and_what_is_asked_decide(
    there: str, option: str, code: int, said: str, images: Path, run: Run, tmp_path: Path
) -> None:
    labels, journal = tmp_path / "labels.csv", tmp_path / "labels.csv.journal"
    if there in ("finished", "edited"):
        run()
    if there == "unfinished":
        run(kill_at=9)
    if there in ("somebody's", "edited"):
        with labels.open("a") as stream:
            stream.write("precious")
    if there == "a part alone":  # as a run leaves it that is killed before its journal is there
        (tmp_path / "labels.csv.part").touch()
    if there == "a foreign journal":
        journal.write_text("Dear diary,\nprecious")
    ended = run(*option.split())
    assert (ended.code, said in ended.stderr) == (code, True), ended.stderr
    if code == 2:
        assert ended.stderr.count("\n") == 1
        if there in ("somebody's", "edited"):
            assert labels.read_text().endswith("precious")
        if there == "a foreign journal":
            assert journal.read_text().endswith("precious")
    else:
        assert labels.read_bytes() == whole(run, tmp_path)
        assert beside(tmp_path) == FINISHED


@pytest.mark.parametrize("mode", ["--incremental", "--resume"])
@pytest.mark.parametrize("journal", ["whole", "empty", "zeros"])
def test_labels_that_somebody_changed_are_not_replaced_by_a_run_that_goes_on(
    mode: str, journal: str, images: Path, run: Run, tmp_path: Path
) -> None:
    run()
    (images / "0001.jpg").unlink()
    assert run("--incremental", kill_at=9).code == -9
    if journal != "whole":
        (tmp_path / "labels.csv.journal").write_bytes(b"" if journal == "empty" else bytes(4096))
    with (tmp_path / "labels.csv").open("a") as stream:
        stream.write("precious")
    ended = run(mode)
    assert (ended.code, "labels.csv is not as ferbatch wrote it" in ended.stderr) == (2, True)
    assert (tmp_path / "labels.csv").read_text().endswith("precious")
    assert run(mode.replace("--incremental", "--resume"), "--overwrite").code in (0, 3)
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)


def test_labels_that_somebody_changed_are_not_replaced_to_retry_what_failed(
    images: Path, run: Run, tmp_path: Path
) -> None:
    run()
    with (tmp_path / "labels.csv").open("a") as stream:
        stream.write("precious")
    ended = run("--resume", "--retry-failed")
    assert (ended.code, "labels.csv is not as ferbatch wrote it" in ended.stderr) == (2, True)
    assert (tmp_path / "labels.csv").read_text().endswith("precious")


@pytest.mark.parametrize("ending", ["run.json", "run.jsonl", "report.html"])
def test_files_of_somebodys_beside_no_output_are_left_alone(
    ending: str, images: Path, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / f"labels.csv.{ending}"
    file.write_text("precious")
    for mode in ("--incremental", "--resume"):
        ended = run(mode)
        assert (ended.code, ended.stderr) == (2, f"ferbatch: {file.name} exists; --overwrite replaces it\n")
    assert file.read_text() == "precious"


def test_an_output_that_was_taken_away_is_made_anew(images: Path, run: Run, tmp_path: Path) -> None:
    wanted = whole(run, tmp_path, name="labels.csv")
    (tmp_path / "labels.csv").unlink()
    assert run("--incremental").code == 3
    assert (tmp_path / "labels.csv").read_bytes() == wanted


def test_a_journal_that_a_power_cut_made_zeros_of_hinders_nobody(images: Path, run: Run, tmp_path: Path) -> None:
    wanted = whole(run, tmp_path, name="labels.csv")
    (tmp_path / "labels.csv.journal").write_bytes(bytes(4096))
    assert run("--incremental").code == 0
    assert (tmp_path / "labels.csv").read_bytes() == wanted
    assert beside(tmp_path) == FINISHED


def test_a_device_that_is_gone_is_replaced_which_is_said(images: Path, run: Run, tmp_path: Path) -> None:
    run()
    state = tmp_path / "labels.csv.run.jsonl"
    state.write_text(state.read_text().replace('"--device": "cpu"', '"--device": "cuda:63"', 1))
    ended = run("--incremental")
    assert (ended.code, "--device was cuda:63 and is cpu" in ended.stderr) == (3, True)
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == N


HOSTILE_LINES = [
    "[" * 200_000,
    "null",
    '{"ferbatch_journal": 1, "PATHS": [1, 2]}',
    '{"ferbatch_journal": 3, "PATHS": ["images"], "--device": ["cpu"]}',
    '{"crc32":"00000000","batch":{}}',
    "x" * 2**21,
]
MADE_UP: list[dict[str, Any]] = [  # of a batch of one image: with the right checksum
    {"units": [[10_001], [0], [0], [0]]},
    {"best": [1]},
    {"best": [4]},
    {"image": [1]},
    {"boxes": [["x"] * 4]},
    {"failures": {"0": ["un\nread", "x"]}},
    {"failures": {"0": ["blank", 7]}},
    {"versions": []},
    {"paths": [7]},
]


def made_up(image: Path, change: dict[str, Any]) -> str:
    """A line of a journal about an image as it is, in which something is wrong."""
    info = image.stat()
    said: dict[str, Any] = {"paths": [f"images/{image.name}"], "versions": [[info.st_size, info.st_mtime_ns]]}
    said |= {"failures": {}, "searched": [False], "large": [False], "image": [0], "boxes": [[0] * 4], "scores": [0.0]}
    said |= {"units": [[10_000], [0], [0], [0]], "best": [0], "uncertain": [False]}
    data = json.dumps(said | change)
    return f'{{"crc32":"{zlib.crc32(data.encode()):08x}","batch":{data}}}'


@pytest.mark.parametrize("what", [*HOSTILE_LINES, *MADE_UP], ids=lambda what: str(what)[:40])
def test_a_hostile_journal_makes_no_row_and_no_traceback(
    what: str | dict[str, Any], images: Path, run: Run, tmp_path: Path
) -> None:
    wanted = whole(run, tmp_path, name="labels.csv")
    line = (what if isinstance(what, str) else made_up(images / "0000.jpg", what)) + "\n"
    state = tmp_path / "labels.csv.run.jsonl"
    header, first, *rest = state.read_text().splitlines(keepends=True)
    state.write_text("".join([header, *rest, line]))
    assert run("--incremental").code == 0
    assert (tmp_path / "labels.csv").read_bytes() == wanted
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == BATCH
    for text in (line, line + first):
        state.write_text(text)
        ended = run("--incremental")
        assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    (tmp_path / "labels.csv.run.json").write_text("[" * 100_000)
    assert run("--incremental").code == 2
    assert run("--overwrite").code == 3


def test_a_batch_without_a_label_is_gone_on_from_as_well(images: Path, run: Run, tmp_path: Path) -> None:
    for at in range(BATCH):
        (images / f"{at:04}.jpg").write_bytes(b"broken")
    assert run(kill_at=11).code == -9
    assert run("--resume").code == 3
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)
    draw_face(500).save(images / "0003x.jpg")
    assert run("--incremental").code == 0
    assert (tmp_path / "labels.csv").read_bytes() == whole(run, tmp_path)


# What format 2 was: a line an image, and no checksums.
FORMAT_2 = (
    '["images/{:04}.jpg",{},{},0,["ok","happy",{{"happy":1.0,"sad":0.0,"neutral":0.0,"surprise":0.0}},null,null]]\n'
)


def make_older(path: Path, images: Path) -> None:
    """A journal as it was in format 2."""
    head = {**json.loads(path.read_text().partition("\n")[0]), "ferbatch_journal": 2, "journal": 2}
    stats = [(at, (images / f"{at:04}.jpg").stat()) for at in range(N)]
    lines = [FORMAT_2.format(at, info.st_size, info.st_mtime_ns) for at, info in stats]
    path.write_text("".join([json.dumps(head) + "\n", *lines]))


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("option", ["--resume", "--incremental", "--overwrite"])
def test_a_journal_of_another_format_is_a_difference_that_is_said(
    option: str, finished: bool, images: Path, run: Run, tmp_path: Path
) -> None:
    wanted = whole(run, tmp_path)
    assert run(**({} if finished else {"kill_at": 11})).code == (3 if finished else -9)
    make_older(tmp_path / ("labels.csv.run.jsonl" if finished else "labels.csv.journal"), images)
    ended = run(option)
    if option == "--resume":
        (said,) = [line for line in ended.stderr.splitlines() if not line.startswith("the last run")]
        assert (ended.code, f"(journal was 2 and is {FORMAT})" in said, "--overwrite" in said) == (2, True, True)
        ended = run("--resume", "--overwrite")
    elif option == "--incremental":
        again = "every image of labels.csv is labelled again" if finished else "labels.csv is begun again"
        assert f"{again}: journal was 2 and is {FORMAT}\n" in ended.stderr
    assert ended.code == 3
    assert (tmp_path / "labels.csv").read_bytes() == wanted
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == N
    assert run("--resume").code == 0


@pytest.mark.parametrize(
    "options",
    [("--incremental", "--overwrite"), ("--resume", "-o", "-"), ("--incremental", "-o", "-"), ("--retry-failed",)],
)
def test_options_that_contradict_each_other_are_refused(options: tuple[str, ...], images: Path, run: Run) -> None:
    ended = run(*options)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)


def test_a_list_on_stdin_can_be_brought_up_to_date(images: Path, forks: Forks, tmp_path: Path) -> None:
    def label(listed: list[str], *options: str) -> int:
        return forks(tmp_path, "label", "-", "-q", *options, stdin="\n".join(listed).encode()).code

    listed = [f"images/{n:04}.jpg" for n in (5, 3, 9, 1)]
    assert label(listed) == 0
    assert label([*reversed(listed), "images/0011.jpg"], "--incremental") == 0
    paths = [row["path"] for row in rows_of(tmp_path / "labels.csv")]
    assert paths == [*reversed(listed), "images/0011.jpg"]
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["this_run"]["processed"] == 1


def test_a_full_disk_is_one_sentence_and_the_journal_goes_on(images: Path, run: Run, tmp_path: Path) -> None:
    wanted = whole(run, tmp_path)
    for step in some(range(1, 14), 5):
        for name in beside(tmp_path):
            (tmp_path / name).unlink()
        ended = run(full_at=step)
        if ended.code == 3:  # nothing was written after so many steps
            break
        assert (ended.code, ended.stderr.count("\n")) == (74, 1), step
        assert "No space left on device; --resume goes on with what is done" in ended.stderr
        assert not (tmp_path / "labels.csv").exists()
        assert run("--resume").code == 3, step
        assert (tmp_path / "labels.csv").read_bytes() == wanted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own, of so many bytes; skips where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True)
        if done.returncode:
            pytest.skip("no file system may be mounted here")
        return disk

    yield mount
    subprocess.run(["umount", "-l", disk], capture_output=True)


def test_a_disk_that_fills_up_really_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    small_disk: Callable[[str], Path], images: Path, run: Run, tmp_path: Path
) -> None:
    wanted = whole(run, tmp_path)
    disk = small_disk("size=64k")
    output = ("-o", "disk/labels.csv")
    codes = set()
    for ballast in some(range(4_000, 64_000, 4_000), 5):
        touch = f"head -c {ballast} /dev/zero > disk/ballast || true"
        ended = run(*output, "--resume", "--overwrite", touch={1: touch})
        (disk / "ballast").unlink()
        codes.add(ended.code)
        if ended.code != 3:
            assert (ended.code, ended.stderr.splitlines()[-1].count("could not be written: No space left")) == (74, 1)
            assert not (disk / "labels.csv").exists()
        ended = run(*output, "--resume")
        assert ended.code in (0, 3), ended.stderr
        assert (disk / "labels.csv").read_bytes() == wanted
        for file in disk.iterdir():
            file.unlink()
    assert codes == {3, 74}  # some had room enough


def test_room_is_looked_for_before_the_first_image(small_disk: Callable[[str], Path], images: Path, run: Run) -> None:
    disk = small_disk("size=4k")
    ended = run("-o", "disk/labels.csv")
    assert (ended.code, ended.stderr.count("\n")) == (74, 1)
    assert "at least 0.0 MB are needed in its folder, 0.0 MB are free" in ended.stderr
    assert not list(disk.iterdir())


def test_a_read_only_target_is_one_sentence(small_disk: Callable[[str], Path], images: Path, run: Run) -> None:
    small_disk("size=1m,ro")
    ended = run("-o", "disk/labels.csv")
    assert (ended.code, ended.stderr.count("\n")) == (74, 1)
    assert "disk/labels.csv could not be written" in ended.stderr


def test_the_target_may_lie_on_another_file_system(
    small_disk: Callable[[str], Path], images: Path, run: Run, tmp_path: Path
) -> None:
    wanted = whole(run, tmp_path)
    disk = small_disk("size=2m")
    os.symlink("disk/labels.csv", tmp_path / "link.csv")
    assert run("-o", "link.csv", kill_at=9).code == -9
    assert run("-o", "link.csv", "--resume").code == 3
    assert (disk / "labels.csv").read_bytes() == wanted
    assert (tmp_path / "link.csv").is_symlink()


def test_a_killed_run_leaves_room_for_the_one_that_goes_on(
    small_disk: Callable[[str], Path], images: Path, run: Run, tmp_path: Path
) -> None:
    """As much as an unbroken run needs is enough, though journal and part of the dead one are there."""
    linked(images, 200, first=N)
    wanted = whole(run, tmp_path)
    small_disk("size=64k")
    assert run("-o", "disk/labels.csv", kill_at=39).code == -9  # when all but a part of the last batch is done
    assert run("-o", "disk/labels.csv", "--incremental").code == 3
    assert (tmp_path / "disk/labels.csv").read_bytes() == wanted


def test_the_room_that_is_asked_for_is_about_what_a_run_takes(
    images: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    monkeypatch.chdir(tmp_path)
    taken = sum((tmp_path / name).stat().st_size for name in ("labels.csv", "labels.csv.run.jsonl"))
    listing = list_images(["images"], ())
    assert 0.6 * taken < _room(listing) < 1.1 * taken


def test_private_labels_have_a_private_journal(images: Path, run: Run, tmp_path: Path) -> None:
    run()
    (tmp_path / "labels.csv").chmod(0o600)
    draw_face(900).save(images / "new.jpg")
    assert run("--incremental").code == 0
    for name in ("labels.csv", "labels.csv.run.jsonl"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("gone", "said"), [(2, False), (6, True)])
def test_many_images_gone_are_said_even_quietly(gone: int, said: bool, images: Path, run: Run) -> None:
    run()
    for at in range(20, 20 + gone):
        (images / f"{at:04}.jpg").unlink()
    ended = run("--incremental")
    line = f"{gone} images labelled before are gone, and their rows with them (images/0020.jpg)\n"
    assert (ended.code, ended.stderr) == (0, line if said else "")
