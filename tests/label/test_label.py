"""`ferbatch label`, as a user runs it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from forks import Forks
from PIL import Image
from sklearn.metrics import classification_report
from support import ENVIRONMENT, HOSTILE, LABELS, PYTHON, ROOT, SHARED, Ferbatch, draw_face, face_file, linked, rows_of

import ferbatch
from ferbatch.core.records import ERROR_KINDS, REPORT_SUFFIXES, columns
from ferbatch.core.writers import WRITERS
from ferbatch.stream.classifier import Classifier

COLUMNS = (
    "path,truth,label,confidence,happy,sad,neutral,surprise,status,error_kind,error,face,x,y,width,height,face_score"
    ",face_turn,face_blur,face_cut"
)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """The model that labels by default."""
    return ferbatch.load_model(device="cpu")


def truth_folders(faces: Callable[..., Path], n: int = 6) -> None:
    for at, name in enumerate(("happy", "Sadness", "neutral", "surprised")):
        faces(f"test/{name}", n, first=at * n)


def test_a_folder_becomes_a_labels_file(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, classifier: Classifier, tmp_path: Path
) -> None:
    faces("images", 70)
    done = ferbatch_in("label", "images")
    assert done.returncode == 0
    assert done.stdout == b""
    assert b"70 images in" in done.stderr
    assert b"images/s" in done.stderr
    text = (tmp_path / "labels.csv").read_bytes()
    assert text.splitlines()[0].decode() == COLUMNS == ",".join(columns(LABELS))
    assert b"\r" not in text
    rows = rows_of(tmp_path / "labels.csv")
    assert [row["path"] for row in rows] == [f"images/{n:04}.jpg" for n in range(70)]
    for row in rows:
        numbers = [float(row[label]) for label in LABELS]
        assert all(len(row[label]) == 6 for label in LABELS)
        assert sum(numbers) == pytest.approx(1, abs=2.1e-4)
        assert row["status"] == "ok"
        assert float(row["confidence"]) == max(numbers) == float(row[row["label"]])
    counted = {label: sum(row["label"] == label for row in rows) for label in LABELS}
    sidecar = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert sidecar["counts"]["labels"] == counted
    assert sidecar["exit_code"] == 0
    assert sidecar["model"] == {"name": classifier.card.name, "sha256": classifier.card.sha256}
    assert sidecar["sha256"] == hashlib.sha256((tmp_path / "labels.csv").read_bytes()).hexdigest()
    assert sorted(os.listdir(tmp_path)) == ["images", "labels.csv", "labels.csv.run.json", "labels.csv.run.jsonl"]


def test_every_row_is_its_images_own(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, classifier: Classifier, tmp_path: Path
) -> None:
    folder = faces("images", 150)
    ferbatch_here("label", "images", "--batch-size", "7")
    for row in rows_of(tmp_path / "labels.csv"):
        alone = classifier(Image.open(tmp_path / row["path"]))
        assert row["label"] == alone.label
        assert [float(row[label]) for label in LABELS] == pytest.approx(list(alone.probabilities.values()), abs=1.1e-4)
    assert len(list(folder.iterdir())) == 150


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_image_changes_only_its_own_row(
    workers: str, faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 140)
    assert ferbatch_in("label", "images", "--workers", workers).returncode == 0
    whole = rows_of(tmp_path / "labels.csv")
    broken = {"images/0000.jpg": "truncated", "images/0063.jpg": "truncated", "images/0064.jpg": "unreadable"}
    broken |= {"images/0100.jpg": "blank", "images/0139.jpg": "unreadable"}
    for path, kind in broken.items():
        file = tmp_path / path
        if kind == "blank":
            Image.new("L", (48, 48), 9).save(file)
        else:
            file.write_bytes(file.read_bytes()[:700] if kind == "truncated" else b"no image")
    done = ferbatch_in("label", "images", "--workers", workers, "--overwrite")
    assert done.returncode == 3
    assert b"5 of 140 images could not be labelled" in done.stderr
    for before, after in zip(whole, rows_of(tmp_path / "labels.csv"), strict=True):
        if after["path"] in broken:
            assert (after["status"], after["error_kind"]) == ("error", broken[after["path"]])
            assert after["error"]
            assert not any(after[name] for name in ("label", "confidence", *LABELS))
        else:
            assert after == before


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_holds_the_same_rows(
    name: str, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 5)
    (folder / "broken.jpg").write_bytes(b"no, nothing")
    (folder / 'quo"te,\nNA.jpg').write_bytes((folder / "0000.jpg").read_bytes())
    (folder / "NA").write_bytes((folder / "0000.jpg").read_bytes())
    assert ferbatch_here("label", "images", "-o", f"out.{name}").returncode == 3
    ferbatch_here("label", "images")
    wanted = rows_of(tmp_path / "labels.csv")
    assert wanted[5]["path"] == "images/NA"
    out = tmp_path / f"out.{name}"
    raw: list[dict[str, object]]
    if name == "csv":
        raw = list(rows_of(out))  # type: ignore[arg-type]
        frame = pd.read_csv(out, keep_default_na=False)
        assert frame.astype(str).to_dict("records")[0]["path"] == wanted[0]["path"]
    elif name == "parquet":
        raw = pq.read_table(out).to_pylist()
    else:
        text = out.read_text(encoding="utf-8")
        raw = json.loads(text) if name == "json" else [json.loads(line) for line in text.splitlines()]
    assert [list(row) for row in raw] == [COLUMNS.split(",")] * len(wanted)
    for row, want in zip(raw, wanted, strict=True):
        as_text = {k: "" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for k, v in row.items()}
        assert as_text == want
    frame = ferbatch.read_labels(out)
    pd.testing.assert_frame_equal(frame, ferbatch.read_labels(tmp_path / "labels.csv"), check_exact=True)
    assert frame["path"].tolist() == [row["path"] for row in wanted]
    assert frame["label"].tolist() == [row["label"] for row in wanted]
    assert frame["happy"].isna().tolist() == [row["happy"] == "" for row in wanted]


def test_hostile_names_survive_in_every_format(tmp_path: Path, ferbatch_here: Ferbatch) -> None:
    os.mkdir(tmp_path / "in")
    for name in HOSTILE:
        with open(os.path.join(os.fsencode(tmp_path / "in"), name), "wb") as stream:
            stream.write(face_file(1, "PNG"))
    for name in WRITERS:
        done = ferbatch_here("label", "in", "-o", f"out.{name}", "-v")
        assert done.returncode == 0
        assert b"\x1b" not in done.stderr
        frame = ferbatch.read_labels(tmp_path / f"out.{name}")
        names = [ferbatch.decode_path(path) for path in frame["path"]]
        assert names == sorted(b"in/" + name for name in HOSTILE)


def test_names_that_look_like_formulas_are_defused(tmp_path: Path, ferbatch_in: Ferbatch) -> None:
    for name in ("=1+1.png", "-minus.png", "+p.png", "@a.png"):
        draw_face(0).save(tmp_path / name)
    done = ferbatch_in("label", "-o", "-", "--", "=1+1.png", "-minus.png", "+p.png", "@a.png")
    assert [line.split(b",")[0] for line in done.stdout.splitlines()[1:]] == [
        b'"./=1+1.png"',
        b'"./-minus.png"',
        b'"./+p.png"',
        b'"./@a.png"',
    ]


def test_stdout_carries_rows_and_nothing_else(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 3)
    ferbatch_in("label", "images")
    for name in ("csv", "jsonl", "parquet"):
        done = ferbatch_in("label", "images", "-o", "-", "--format", name)
        ferbatch_in("label", "images", "-o", f"file.{name}")
        assert done.stdout == (tmp_path / f"file.{name}").read_bytes()
    assert not (tmp_path / "-").exists()


def test_a_list_on_stdin_is_labelled_in_its_order(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 4)
    order = ["images/0002.jpg", "images/gone.jpg", "images/0000.jpg"]
    for separator, option in (("\n", []), ("\0", ["-0"])):
        done = ferbatch_in("label", "-", *option, "-o", "-", input=separator.join(order).encode())
        assert done.returncode == 3
        rows = list(csv.DictReader(done.stdout.decode().splitlines()))
        assert [row["path"] for row in rows] == order
        assert [row["error_kind"] for row in rows] == ["", "not_found", ""]


def test_low_confidence_is_marked_and_keeps_its_label(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 40)
    ferbatch_here("label", "images")
    middle = sorted(float(row["confidence"]) for row in rows_of(tmp_path / "labels.csv"))[20]  # which is enough itself
    done = ferbatch_here("label", "images", "--min-confidence", f"{middle}", "-o", "sure.csv")
    assert done.returncode == 0
    assert b"uncertain" in done.stderr
    for before, after in zip(rows_of(tmp_path / "labels.csv"), rows_of(tmp_path / "sure.csv"), strict=True):
        assert after["status"] == ("ok" if float(before["confidence"]) >= middle else "uncertain")
        assert {**after, "status": "ok"} == before


def test_truth_folders_bring_the_studys_report(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    truth_folders(faces)
    faces("test/angry", 2)
    (tmp_path / "test/happy/broken.jpg").write_bytes(b"no")
    done = ferbatch_here("label", "test")
    assert done.returncode == 3
    rows = rows_of(tmp_path / "labels.csv")
    scored = [row for row in rows if row["truth"] and row["label"]]
    assert len(scored) == 24
    assert {row["truth"] for row in rows if "/angry/" in row["path"]} == {""}
    report = (tmp_path / "labels.csv.report.md").read_text()
    truths, predicted = [r["truth"] for r in scored], [r["label"] for r in scored]
    table = classification_report(truths, predicted, labels=LABELS, digits=2, zero_division=0)
    assert table.strip("\n") in report
    correct = sum(t == p for t, p in zip(truths, predicted, strict=True))
    assert f"{100 * correct / 24:.1f} % of 24 images are labelled right" in report
    assert f"1 more could not be labelled; counting them as wrong, it is {100 * correct / 25:.1f} %" in report
    (result,) = json.loads((tmp_path / "labels.csv.report.json").read_text())["results"]
    assert result["accuracy"]["value"] == correct / 24
    assert result["accuracy_with_failed"]["value"] == correct / 25
    assert "<script>" in (tmp_path / "labels.csv.report.html").read_text()
    assert b"2 images without truth" in done.stderr
    assert "\n".join(result["words"]).encode() in done.stderr


def test_one_label_or_no_truth_brings_no_report(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    truth_folders(faces, 2)
    ferbatch_here("label", "test/happy")
    assert {row["truth"] for row in rows_of(tmp_path / "labels.csv")} == {"happy"}
    ferbatch_here("label", "test", "--no-truth", "-o", "plain.csv")
    assert {row["truth"] for row in rows_of(tmp_path / "plain.csv")} == {""}
    assert not list(tmp_path.glob("*.report.*"))


def test_an_overwritten_output_leaves_no_stale_report(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    truth_folders(faces, 2)
    ferbatch_here("label", "test")
    assert {path.name.partition(".report.")[2] for path in tmp_path.glob("*.report.*")} == set(REPORT_SUFFIXES)
    assert ferbatch_here("label", "test", "--no-truth", "--overwrite").returncode == 0
    assert not list(tmp_path.glob("*.report.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["label"], 2, "PATHS"),
        (["label", "nowhere"], 2, "no such file or folder: nowhere"),
        (["label", "images", "--nonsense"], 2, "No such option"),
        (["label", "images", "-o", "x.txt"], 2, "no known suffix"),
        (["label", "images", "-o", "x.csv", "--format", "json"], 2, "disagree"),
        (["label", "images", "--format", "xml"], 2, "no format called 'xml' (known: csv, json, jsonl, parquet)"),
        (["label", "images", "-o", "nowhere/x.csv"], 2, "no folder nowhere"),
        (["label", "images", "-o", "images"], 2, "images"),
        (["label", "images", "-o", "/dev/null", "--format", "csv"], 2, "not a regular file"),
        (["label", "images", "--device", "abacus"], 2, "no device called 'abacus'"),
        (["label", "images", "--device", "cuda:99"], 2, "device cuda:99 is not available"),
        (["label", "images", "--device", "cpu:1"], 2, "no device called"),
        (["label", "images", "--device", "cpu:"], 2, "no device called"),
        (["label", "images", "--precision", "fp16"], 2, "no precision called 'fp16' (known: auto, fp32, bf16)"),
        (["label", "images", "-o", ""], 2, "--output is empty"),
        (["label", "images", "--min-confidence", "2"], 2, "'--min-confidence'"),
        (["label", "images", "-0"], 2, "--null needs -"),
        (["label", "images", "--example"], 2, "--example takes no PATHS"),
        (["label", "empty"], 4, "no images found under empty (1 other file left aside)"),
        (["label", "images", "--model", "smal"], 6, "no model called 'smal' (known: cnn-large-v1, cnn-lite-v1, "),
        (["label", "images", "--model", "gone.safetensors"], 6, "no file gone.safetensors"),
        (["label", "images", "--model", "images/0000.json"], 6, "no file images/0000.safetensors"),
        (["label", "images", "-o", f"{'x' * 243}.csv"], 74, "File name too long"),
        (["label", "-"], 4, "no images found under the list on stdin"),
        (["models", "--format", "xml"], 2, "json"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, words: str, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    done = ferbatch_here(*arguments)
    assert done.returncode == code, done.stderr.decode()
    assert words in " ".join((done.stderr + done.stdout).decode().split())
    assert b"Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["empty", "images"]


def test_existing_outputs_are_left_alone_unless_told(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 2)
    begun = "is left of an unfinished run; --resume goes on with it, --overwrite begins again"
    names = dict.fromkeys(("run.json", "run.jsonl", "report.html"), "exists; --overwrite replaces it")
    names = {f"labels.csv.{ending}": said for ending, said in {**names, "part": begun, "journal": begun}.items()}
    adds = "--incremental adds what is new, --resume ends an unfinished run"
    for name, said in {**names, "labels.csv": f"exists; --overwrite replaces it, {adds}"}.items():
        (tmp_path / name).write_text("precious")
        done = ferbatch_here("label", "images")
        assert done.returncode == 2
        assert done.stderr.decode() == f"ferbatch: {name} {said}\n"
        assert (tmp_path / name).read_text() == "precious"
        (tmp_path / name).unlink()
    (tmp_path / "labels.csv").write_text("precious")
    assert ferbatch_here("label", "images", "--overwrite").returncode == 0
    assert len(rows_of(tmp_path / "labels.csv")) == 2


def test_the_part_is_no_way_to_another_file_and_permissions_stay(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    (tmp_path / "labels.csv").write_text("old")
    (tmp_path / "labels.csv").chmod(0o640)
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", tmp_path / "labels.csv.part")
    os.symlink("victim", tmp_path / "labels.csv.journal")
    assert ferbatch_here("label", "images", "--overwrite").returncode == 0
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "labels.csv").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "labels.csv").is_symlink()
    assert len(rows_of(tmp_path / "labels.csv")) == 1


def test_an_output_link_is_written_through(faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    faces("images", 1)
    (tmp_path / "real").mkdir()
    os.symlink("real/out.csv", tmp_path / "labels.csv")
    assert ferbatch_here("label", "images").returncode == 0
    assert (tmp_path / "labels.csv").is_symlink()
    assert len(rows_of(tmp_path / "real/out.csv")) == 1


@pytest.mark.parametrize(
    "change",
    [
        "tensors",
        "card",
        {"arguments": {"labels": 5}},
        {"labels": ["happy", "sad"]},
        {"labels": ["happy", "sad", "neutral", "=1+1"]},
        {"mean": "x"},
        {"temperature": 0},
        {"std": float("nan")},
        {"size": 20},
        {"architecture": "\x1b[31m"},
    ],
)
def test_damaged_models_are_refused(
    change: str | dict[str, object], faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 1)
    for suffix in ("safetensors", "json"):
        shutil.copy(ROOT / f"weights/cnn-v1.{suffix}", tmp_path / f"mine.{suffix}")
    assert ferbatch_here("label", "images", "--model", "mine.safetensors").returncode == 0
    card = json.loads((tmp_path / "mine.json").read_text())
    if change == "tensors":
        with (tmp_path / "mine.safetensors").open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"?")
    elif change == "card":
        (tmp_path / "mine.json").write_text("{")
    else:
        (tmp_path / "mine.json").write_text(json.dumps({**card, **change}))  # type: ignore[dict-item]
    done = ferbatch_here("label", "images", "--model", "mine.safetensors", "--overwrite")
    assert done.returncode == 6
    assert done.stderr.decode().count("\n") == 1
    assert b"\x1b" not in done.stderr


def test_a_second_run_on_one_output_is_turned_away(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    from filelock import FileLock

    faces("images", 1)
    with FileLock(tmp_path / "labels.csv.lock"):
        done = ferbatch_here("label", "images")
    assert done.returncode == 75
    assert b"another run is writing labels.csv" in done.stderr
    assert ferbatch_here("label", "images").returncode == 0


def test_an_output_that_cannot_be_written_is_74(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 90)

    done = ferbatch_in("label", "images", faults={"small_files": {"most": 4000}})
    assert done.returncode == 74
    assert done.stderr.decode().count("\n") == 1
    assert b" could not be written: File too large; --resume goes on with what is done" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["images", "labels.csv.journal"]
    assert ferbatch_in("label", "images", "-o", "whole.csv").returncode == 0
    assert ferbatch_in("label", "images", "--resume").returncode == 0
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    if os.path.exists("/dev/full"):
        command = f"{PYTHON} -m ferbatch label images -o - > /dev/full"
        full = subprocess.run(command, shell=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True)
        assert full.returncode == 74
        assert full.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.usefixtures("in_turn")
def test_a_stopped_run_leaves_nothing_half(number: int, code: int, workers: str, forks: Forks, tmp_path: Path) -> None:
    linked(tmp_path / "images", 1_500)
    (tmp_path / "labels.csv").write_text("old and whole")
    command = ("label", "images", "--overwrite", "--workers", workers)
    running = forks.start(tmp_path, *command, faults={"slow_network": {"seconds": 0.2}})
    journal = tmp_path / "labels.csv.journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 10_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    begun = time.monotonic()
    _, errors = running.communicate(timeout=60)
    assert time.monotonic() - begun < 15
    assert running.returncode == code, errors.decode()
    said = {130: "interrupted", 143: "terminated"}[code]
    assert errors.decode() == f"ferbatch: {said}; --resume goes on with what is done\n"
    assert (tmp_path / "labels.csv").read_text() == "old and whole"
    assert sorted(os.listdir(tmp_path)) == ["images", "labels.csv", "labels.csv.journal"]


def test_a_reader_that_goes_away_is_141(forks: Forks, tmp_path: Path) -> None:
    linked(tmp_path / "images", 3_000)
    running = forks.start(tmp_path, "label", "images", "-o", "-")
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(120) == 141


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_standard_streams_do_not_matter(closed: str, faces: Callable[..., Path], tmp_path: Path) -> None:
    faces("images", 2)
    command = f"{PYTHON} -m ferbatch label images -o - {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 3


def test_a_lost_reader_of_stderr_costs_no_labels(faces: Callable[..., Path], tmp_path: Path) -> None:
    folder = faces("images", 1)
    for number in range(200):
        (folder / f"broken{number}.jpg").write_bytes(b"no")
    command = f"{PYTHON} -m ferbatch label images -v 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert done.returncode == 3
    assert len(rows_of(tmp_path / "labels.csv")) == 201


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stderr_costs_no_labels(unbuffered: str, faces: Callable[..., Path], tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        return
    faces("images", 2)
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "ferbatch", "label", "images"]
        environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=full)
    assert done.returncode == 0
    assert len(rows_of(tmp_path / "labels.csv")) == 2


def test_the_models_table_obeys_its_pipe(tmp_path: Path) -> None:
    for target, code in (("| true; exit ${PIPESTATUS[0]}", 141), ("> /dev/full", 74)):
        if "full" in target and not os.path.exists("/dev/full"):
            continue
        command = f"(sleep 0.5; exec {PYTHON} -m ferbatch models) {target}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE)
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False)


def test_quiet_is_silent_when_clean_and_one_line_when_not(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    truth_folders(faces, 2)
    done = ferbatch_here("label", "test", "-q", "--workers", "70")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "labels.csv.report.html").exists()
    (tmp_path / "test/happy/broken.jpg").write_bytes(b"no")
    done = ferbatch_here("label", "test", "-q", "--overwrite")
    assert done.returncode == 3
    assert done.stderr.decode().count("\n") == 1


@pytest.mark.parametrize(
    ("size", "warned"), [((600, 600), True), ((300, 180), True), ((200, 300), False), ((48, 48), False)]
)
def test_whole_pictures_bring_one_warning(
    size: tuple[int, int], warned: bool, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 17)
    for name in ("a.png", "b.png"):
        draw_face(0).resize(size).save(folder / name)
    done = ferbatch_here("label", "images", "--faces", "whole")
    assert done.returncode == 0
    assert (b"--faces whole takes each for one face" in done.stderr) == warned
    assert json.loads((tmp_path / "labels.csv.run.json").read_text())["counts"]["large_or_wide"] == (2 if warned else 0)


def test_odd_images_are_labelled_as_they_are_seen(
    ferbatch_here: Ferbatch, classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    face = draw_face(8, 96)
    face.save(tmp_path / "in/plain.png")
    Image.fromarray(np.asarray(face).astype(np.uint16) * 257).save(tmp_path / "in/sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    face.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in/turned.png", exif=exif)
    face.convert("RGBA").save(tmp_path / "in/alpha.png")
    face.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(tmp_path / "in/palette.png")
    face.save(tmp_path / "in/animated.png", save_all=True, append_images=[draw_face(9, 96)])
    ferbatch_here("label", "in")
    rows = rows_of(tmp_path / "labels.csv")
    assert len(rows) == 6
    wanted = classifier(face)
    for row in rows:
        assert row["label"] == wanted.label, row["path"]
        assert float(row["confidence"]) == pytest.approx(wanted.confidence, abs=0.02), row["path"]


@pytest.mark.skipif(
    not (SHARED / "bad_images").exists(), reason="the collected malformed images are not beside this checkout"
)
def test_a_folder_with_malformed_images_in_it(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    faces("images", 100)
    ferbatch_in("label", "images", "-o", "clean.csv")
    bad = sorted((SHARED / "bad_images/files").iterdir())
    for file in bad:
        shutil.copy(file, tmp_path / "images" / file.name)
    every = sorted(os.fsencode(f"images/{name}") for name in os.listdir(tmp_path / "images"))
    done = ferbatch_in("label", "-", "-o", "mixed.csv", input=b"\n".join(every))
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    rows = {row["path"]: row for row in rows_of(tmp_path / "mixed.csv")}
    assert len(rows) == 100 + len(bad)
    assert all(row["error_kind"] in ERROR_KINDS for row in rows.values() if row["status"] == "error")
    for row in rows_of(tmp_path / "clean.csv"):
        assert rows[row["path"]]["label"] == row["label"]
        assert float(rows[row["path"]]["happy"]) == pytest.approx(float(row["happy"]), abs=1.1e-4)
