"""`ferbatch evaluate`, as a user runs it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from batches import row_of
from filelock import FileLock
from forks import Forks
from safetensors.torch import load_file, save_file
from sklearn.metrics import classification_report
from support import ENVIRONMENT, HOSTILE, LABELS, PYTHON, ROOT, SHARED, Ferbatch, draw_scores, rows_of

import ferbatch
from ferbatch.core.names import encode_path
from ferbatch.core.options import DEFAULT_MODEL
from ferbatch.core.records import REPORT_SUFFIXES, UNIT, columns
from ferbatch.model.weights import SHIPPED

NAMES = {"happy": "happy", "sad": "Sadness", "neutral": "neutral", "surprise": "surprised"}


def labels_file(
    folder: Path, n: int = 400, seed: int = 0, hits: float = 0.4, failed: int = 0, root: str = "test"
) -> None:
    """`labels.csv` and the images (empty files: nothing reads them) that it speaks of, in class folders."""
    scores = draw_scores(n, seed, hits=hits)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns(LABELS), lineterminator="\n")
        writer.writeheader()
        for at in range(n):
            truth = LABELS[scores.truth[at]]
            path = f"{root}/{NAMES[truth]}/{at:04}.jpg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
            if at < failed:
                prediction = ferbatch.Prediction(path, truth, "error", error_kind="truncated", error="short")
            else:
                p = dict(zip(LABELS, (scores.probabilities[at] / UNIT).tolist(), strict=True))
                label = LABELS[scores.predicted[at]]
                prediction = ferbatch.Prediction(path, truth, "ok", label, p[label], p)
            writer.writerow(row_of(prediction, LABELS))


SCHEMA = json.loads((ROOT / "ferbatch" / "report" / "report.schema.json").read_text())


def report_of(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """The report on stdout, which must be as the schema says."""
    assert done.returncode in (0, 3, 5), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    return found


def faces_with_truth(faces: Callable[..., Path], n: int = 6) -> None:
    for at, name in enumerate(NAMES.values()):
        faces(f"test/{name}", n, first=at * n)


def test_a_model_is_held_against_class_folders(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces)
    faces("test/angry", 3)
    done = ferbatch_here("evaluate", "--truth", "test")
    assert done.returncode == 0
    text = done.stdout.decode()
    ferbatch_here("label", "test")
    rows = [r for r in rows_of(tmp_path / "labels.csv") if r["truth"]]
    correct = sum(r["truth"] == r["label"] for r in rows)
    lines = text.splitlines()
    assert lines[0].startswith(f"{100 * correct / 24:.1f} % of 24 images are labelled right")
    assert all(line.endswith((".", ").")) for line in lines[:5])
    assert not lines[5]
    for line in classification_report(
        [r["truth"] for r in rows], [r["label"] for r in rows], zero_division=0
    ).splitlines():
        parts = line.split()
        if parts and parts[0] in LABELS:
            mine = next(one for one in lines[6:] if one.startswith(parts[0]))
            assert re.sub(r"\(.*?\)", "", mine).split() == parts
    assert "truth \\ labelled" in text
    assert b"left out, for they are no labels: angry (3)" in done.stderr


def test_a_run_its_labels_file_and_labels_own_report_agree_to_the_bit(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces)
    (tmp_path / "test/happy/broken.jpg").write_bytes(b"no")
    direct = ferbatch_here(
        "evaluate", "--truth", "test", "--format", "json", "--report", "out", "--min-confidence", "0.5"
    )
    assert direct.returncode == 3
    assert (tmp_path / "out/report.json").read_bytes() == direct.stdout
    assert ferbatch_here("label", "test", "--min-confidence", "0.5").returncode == 3
    shutil.copy(tmp_path / "labels.csv", tmp_path / "moved.csv")
    reports = [report_of(direct), json.loads((tmp_path / "labels.csv.report.json").read_text())]
    for arguments in (["--truth", "test", "--predictions", "out/labels.csv"], ["--predictions", "moved.csv"]):
        done = ferbatch_here("evaluate", *arguments, "--format", "json", "--min-confidence", "0.5")
        assert done.returncode == 0
        reports.append(report_of(done))
    results = [report["results"][0] for report in reports]
    for result in results:
        for key in ("name", "model", "predictions"):
            result.pop(key)
    assert results[0] == results[1] == results[2] == results[3]
    assert (results[0]["images"], results[0]["failed"]) == (24, 1)
    assert [*rows_of(tmp_path / "out/labels.csv")] == [*rows_of(tmp_path / "labels.csv")]
    gated = ferbatch_here("evaluate", "--truth", "test", "-q", "--fail-under", "accuracy=1")
    assert gated.returncode == 5  # though an image failed, too
    assert b"1 image could not be labelled (unreadable 1), test/happy/broken.jpg for one" in gated.stderr


def test_every_figure_in_the_report_follows_from_the_labels_file(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 500, failed=10)
    done = ferbatch_here("evaluate", "--truth", "test", "--predictions", "labels.csv", "--format", "json")
    (result,) = report_of(done)["results"]
    rows = [r for r in rows_of(tmp_path / "labels.csv") if r["label"]]
    wanted = classification_report(
        [r["truth"] for r in rows], [r["label"] for r in rows], labels=LABELS, output_dict=True
    )
    text = classification_report([r["truth"] for r in rows], [r["label"] for r in rows], labels=LABELS)
    assert result["table"] == text.strip("\n")
    assert result["accuracy"]["value"] == wanted["accuracy"]
    assert result["accuracy_with_failed"]["value"] == pytest.approx(wanted["accuracy"] * 490 / 500)
    assert result["macro_avg"]["f1"]["value"] == pytest.approx(wanted["macro avg"]["f1-score"])
    for one in result["confusions"]:
        assert one["count"] == sum(r["truth"] == one["truth"] and r["label"] == one["label"] for r in rows)
    first = result["confusions"][0]
    assert f"{first['truth']} taken for {first['label']}: {first['count']} of {first['of']}" in " ".join(
        result["words"]
    )
    wrong = [r for r in rows if r["truth"] != r["label"]]
    most = [float(r["confidence"]) for r in sorted(wrong, key=lambda r: -float(r["confidence"]))[:24]]
    assert [one["confidence"] for one in result["mistakes"]] == most
    for one in result["mistakes"]:
        (r,) = [r for r in rows if r["path"] == one["path"]]
        assert (r["truth"], r["label"], float(r[r["truth"]])) == (
            one["truth"],
            one["label"],
            one["probability_of_truth"],
        )


def test_missing_and_surplus_rows_are_said_and_too_few_are_refused(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 100)
    command = ("evaluate", "--truth", "test", "--predictions", "labels.csv", "--format", "json")
    whole = report_of(ferbatch_here(*command))["results"][0]["predictions"]
    assert (whole["by_real_path"], whole["missing"], whole["surplus"]) == (100, 0, 0)
    moved = sorted((tmp_path / "test").rglob("*.jpg"))
    for path in moved[:5]:
        path.rename(path.with_name(f"other-{path.name}"))
    done = ferbatch_here(*command)
    assert report_of(done)["results"][0]["images"] == 95
    assert b"no row for 5 images, test/Sadness/other-" in done.stderr
    assert b"no image for 5 rows, test/Sadness/" in done.stderr
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace("test/", "/mnt/disk/test/"))
    elsewhere = report_of(ferbatch_here(*command))["results"][0]["predictions"]
    assert (elsewhere["by_real_path"], elsewhere["by_tail"]) == (0, 95)
    for path in moved[5:60]:
        path.unlink()
    surplus_only = ferbatch_here(*command)
    assert report_of(surplus_only)["results"][0]["images"] == 40
    (tmp_path / "labels.csv").write_text(text.replace("test/", "a/x"))
    done = ferbatch_here(*command)
    assert done.returncode == 2
    assert b"has a row for only 0 of 45 images of the truth" in done.stderr
    assert b"an image without: test/" in done.stderr
    assert b"a row without: a/x" in done.stderr
    assert done.stdout == b""


def test_strip_prefix_says_where_the_rows_paths_begin(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    text = (tmp_path / "labels.csv").read_text().splitlines(keepends=True)
    twice = [line.replace("test/", f"/runs/{run}/") for run in ("a", "b") for line in text[1:]]
    (tmp_path / "labels.csv").write_text(text[0] + "".join(twice))
    command = ("evaluate", "--truth", "test", "--predictions", "labels.csv", "--format", "json")
    done = ferbatch_here(*command)
    assert done.returncode == 2  # every image could be of a or of b
    assert b"could be more than one" in done.stderr
    for prefix in ("/runs/b", "/runs/b/", "/runs//b"):
        joined = report_of(ferbatch_here(*command, "--strip-prefix", prefix))["results"][0]["predictions"]
        assert (joined["by_tail"], joined["missing"], joined["surplus"]) == (60, 0, 60)
    moved = "".join(line.replace("test/", "/old/place/test/") for line in text[1:])
    (tmp_path / "labels.csv").write_text(text[0] + moved)
    joined = report_of(ferbatch_here(*command, "--strip-prefix", "/old/place"))["results"][0]["predictions"]
    assert joined["by_real_path"] == 60  # what is left of a path is a path from here on


def test_others_are_named_or_shown_but_never_scored(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces)
    faces("test/angry", 5, first=100)
    (tmp_path / "test/angry/broken.jpg").write_bytes(b"no")
    without = ferbatch_here("evaluate", "--truth", "test", "--format", "json")
    done = ferbatch_here("evaluate", "--truth", "test", "--format", "json", "--others", "--report", "out")
    assert (without.returncode, done.returncode) == (0, 3)
    plain, report = report_of(without)["results"][0], report_of(done)
    (result,) = report["results"]
    assert plain["others"] is None
    angry = result["others"]["angry"]
    assert (angry["images"], angry["failed"]) == (5, 1)
    said = [r for r in rows_of(tmp_path / "out/labels.csv") if "/angry/" in r["path"] and r["label"]]
    assert {r["truth"] for r in said} == {""}
    for label in LABELS:
        assert angry["labelled"][label]["value"] == sum(r["label"] == label for r in said) / 5
    assert angry["mean_confidence"]["value"] == pytest.approx(sum(float(r["confidence"]) for r in said) / 5)
    assert result["accuracy"] == plain["accuracy"]
    assert report["subject"]["others"] == {"angry": 6}
    again = ferbatch_here(
        "evaluate", "--truth", "test", "--predictions", "out/labels.csv", "--format", "json", "--others"
    )
    assert report_of(again)["results"][0]["others"] == result["others"]


def test_numbered_folders_and_tables_are_truths(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    command = ("evaluate", "--predictions", "labels.csv", "--format", "json", "--truth")
    wanted = report_of(ferbatch_here(*command, "test"))["results"][0]["accuracy"]
    for at, name in enumerate(NAMES.values()):
        (tmp_path / "numbered").mkdir(exist_ok=True)
        shutil.copytree(tmp_path / "test" / name, tmp_path / "numbered" / str(at))
    rows = rows_of(tmp_path / "labels.csv")
    text = (tmp_path / "labels.csv").read_text()
    for at, name in enumerate(NAMES.values()):
        text = text.replace(f"test/{name}/", f"numbered/{at}/")
    (tmp_path / "numbered.csv").write_text(text)
    done = ferbatch_here("evaluate", "--predictions", "numbered.csv", "--truth", "numbered")
    assert done.returncode == 2
    assert b"--classes 0=LABEL,1=LABEL,2=LABEL,3=LABEL" in done.stderr
    classes = ("--classes", "0=happy,1=sad,2=neutral,3=surprise")
    done = ferbatch_here(
        "evaluate", "--predictions", "numbered.csv", "--truth", "numbered", "--format", "json", *classes
    )
    assert report_of(done)["results"][0]["accuracy"] == wanted
    with (tmp_path / "truth.csv").open("w") as stream:
        stream.write("path,label\n" + "".join(f"{r['path']},{r['truth'].upper()}\n" for r in rows))
    assert report_of(ferbatch_here(*command, "truth.csv"))["results"][0]["accuracy"] == wanted


def test_votes_and_slices_are_part_of_the_report(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 300)
    rows = rows_of(tmp_path / "labels.csv")
    with (tmp_path / "votes.csv").open("w") as stream:
        stream.write("file,votes_happiness,votes_sadness,votes_neutral,votes_surprise,votes_anger\n")
        for at, r in enumerate(rows):
            cast = [10 * (label == (r["label"] if at % 3 else r["truth"])) for label in LABELS]
            stream.write(f"{os.path.basename(r['path'])},{','.join(map(str, cast))},0\n")
    with (tmp_path / "meta.csv").open("w") as stream:
        stream.write("path,camera\n" + "".join(f"{r['path']},{'AB'[at % 6 == 0]}\n" for at, r in enumerate(rows)))
    command = (
        "evaluate",
        "--truth",
        "test",
        "--predictions",
        "labels.csv",
        "--votes",
        "votes.csv",
        "--slices",
        "meta.csv",
    )
    command += ("--min-confidence", "0.7")
    (result,) = report_of(ferbatch_here(*command, "--format", "json"))["results"]
    right = [r["truth"] == r["label"] for r in rows]
    agreeing = sum(ok or at % 3 != 0 for at, ok in enumerate(right))
    assert result["votes"]["majority"]["model"]["value"] == agreeing / 300
    assert result["votes"]["majority"]["truth"]["value"] == sum(ok or at % 3 == 0 for at, ok in enumerate(right)) / 300
    assert result["votes"]["blame"]["truth_alone"] == sum(not ok and at % 3 != 0 for at, ok in enumerate(right))
    cameras = result["slices"]["camera"]
    assert (cameras["A"]["images"], cameras["A"]["small"]) == (250, False)
    assert (cameras["B"]["images"], cameras["B"]["small"]) == (50, True)
    assert cameras["B"]["accuracy"]["value"] == sum(right[::6]) / 50
    kept = [r for r in rows[::6] if float(r["confidence"]) >= 0.7]
    assert cameras["B"]["min_confidence"]["accuracy"]["n"] == len(kept)
    assert set(cameras["B"]) >= {"macro_avg", "labels", "confusion_matrix", "nll", "brier", "ece", "roc_auc"}
    text = ferbatch_here(*command).stdout.decode()
    assert "the error looks like the truth's" in text
    assert next(line for line in text.splitlines() if line.startswith("B ")).endswith("small")


def test_groups_of_fewer_than_a_hundred_are_small(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 199)
    rows = rows_of(tmp_path / "labels.csv")
    (tmp_path / "meta.csv").write_text("path,half\n" + "".join(f"{r['path']},{at % 2}\n" for at, r in enumerate(rows)))
    command = ("evaluate", "--predictions", "labels.csv", "--slices", "meta.csv", "--format", "json")
    halves = report_of(ferbatch_here(*command))["results"][0]["slices"]["half"]
    assert [(one["images"], one["small"]) for one in halves.values()] == [(100, False), (99, True)]


def test_slices_may_be_called_like_parts_of_the_report(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    rows = rows_of(tmp_path / "labels.csv")
    lines = (f"{r['path']},{at % 2},{at % 2},{at % 2}\n" for at, r in enumerate(rows))
    (tmp_path / "meta.csv").write_text("path,labels,value,n\n" + "".join(lines))
    gates = [f"--fail-under=slices.{name}.0.accuracy=0.001" for name in ("labels", "value", "n")]
    done = ferbatch_here("evaluate", "--predictions", "labels.csv", "--slices", "meta.csv", "-q", *gates)
    assert (done.returncode, done.stderr) == (0, b"")


def test_models_whose_labels_stand_in_another_order_or_differ(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces, 4)
    content = load_file(SHIPPED / "cnn-v1.safetensors")
    card = json.loads((SHIPPED / "cnn-v1.json").read_text())
    order = [2, 0, 3, 1]
    last = [name for name, tensor in content.items() if tensor.shape[:1] == (4,)]
    turned = {name: tensor[order].contiguous() if name in last else tensor for name, tensor in content.items()}
    save_file(turned, tmp_path / "turned.safetensors")
    sha256 = hashlib.sha256((tmp_path / "turned.safetensors").read_bytes()).hexdigest()
    card |= {"name": "turned", "labels": [card["labels"][at] for at in order], "sha256": sha256}
    (tmp_path / "turned.json").write_text(json.dumps(card))
    command = ("evaluate", "--truth", "test", "--model", "cnn-v1", "--model", "turned.safetensors", "--format", "json")
    first, second = report_of(ferbatch_here(*command))["results"]
    for result in (first, second):
        for key in ("name", "model"):
            result.pop(key)
    assert first == second
    (tmp_path / "turned.json").write_text(json.dumps(card | {"labels": ["happy", "sad", "neutral", "fear"]}))
    done = ferbatch_here(*command)
    assert (done.returncode, b"need the same labels" in done.stderr) == (2, True)


def test_models_stand_side_by_side(faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    faces_with_truth(faces, 12)
    (tmp_path / "mine").mkdir()
    for suffix in ("safetensors", "json"):
        shutil.copy(SHIPPED / f"cnn-v1.{suffix}", tmp_path / "mine" / f"other.{suffix}")
    card = json.loads((tmp_path / "mine/other.json").read_text())
    card |= {"name": "other", "mean": 0.1, "temperature": 2.0}  # the same weights, badly fed
    (tmp_path / "mine/other.json").write_text(json.dumps(card))
    models = ("--model", "cnn-v1", "--model", "mine/other.safetensors")
    done = ferbatch_here("evaluate", "--truth", "test", *models, "--report", "out", "--format", "json")
    report = report_of(done)
    assert [result["name"] for result in report["results"]] == ["cnn-v1", "other"]
    (comparison,) = report["comparisons"]
    first, second = rows_of(tmp_path / "out/labels.csv"), rows_of(tmp_path / "out/labels-2.csv")
    right = [[r["truth"] == r["label"] for r in rows] for rows in (first, second)]
    assert comparison["only_this_right"] == sum(b and not a for a, b in zip(*right, strict=True))
    assert comparison["accuracy"]["value"] == pytest.approx((sum(right[1]) - sum(right[0])) / 48)
    assert report["results"][1]["model"]["parameters"] == 1_677_124
    text = ferbatch_here("evaluate", "--truth", "test", *models).stdout.decode()
    assert "other against cnn-v1: accuracy" in text
    assert "McNemar p" in text
    names = {f"report.{suffix}" for suffix in REPORT_SUFFIXES} | {".ferbatch", "labels.csv", "labels-2.csv"}
    names |= {f"report.{suffix.replace('.svg', '-2.svg')}" for suffix in REPORT_SUFFIXES if suffix.endswith("svg")}
    assert set(os.listdir(tmp_path / "out")) == names


@pytest.mark.parametrize(
    ("gate", "code", "said"),
    [
        ("accuracy=0.2", 0, b""),
        ("accuracy=0.999", 5, b"ferbatch: --fail-under: accuracy is 0."),
        ("ece=0.0001", 5, b" over 0.0001"),
        ("ece=0.9", 0, b""),
        ("sad.recall=0.999", 5, b"sad.recall is 0."),
        ("macro_avg.f1=1", 5, b" short of 1"),
        ("images=401", 5, b"images is 400, 1 short of 401"),
        ("labels.sad.support=1", 0, b""),
        ("nll=0.001", 5, b" over 0.001"),
        ("brier=0.001", 5, b" over 0.001"),
        ("failed=0", 5, b"failed is 3, 3 over 0"),
        ("predictions.missing=0", 0, b""),
        ("acuracy=0.7", 2, b"no figure 'acuracy' (it has: accuracy"),
        ("accuracy", 2, b"say FIGURE=NUMBER"),
        ("accuracy=75", 2, b"this figure lies between 0 and 1"),
        ("accuracy=nan", 2, b"say FIGURE=NUMBER"),
        ("votes.majority.model=0.5", 2, b"votes.majority.model needs --votes"),
        ("min_confidence.accuracy=0.5", 2, b"min_confidence.accuracy needs --min-confidence"),
    ],
)
def test_gates(gate: str, code: int, said: bytes, ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 403, failed=3)
    done = ferbatch_here("evaluate", "--predictions", "labels.csv", "-q", "--fail-under", gate)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count(b"\n") == bool(said)
    assert done.stdout == b""


def test_a_gate_can_stand_on_the_truths_labels_alone(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels = ("angry", "happy", "sad", "surprise", "neutral")
    rows = ["path,truth,label,confidence," + ",".join(labels) + ",status,error_kind,error"]
    for truth in labels[1:]:
        for at in range(25):
            label = "angry" if (truth, at) == ("sad", 0) else truth
            shares = ",".join("0.96" if one == label else "0.01" for one in labels)
            rows.append(f"{truth}/{at}.jpg,{truth},{label},0.96,{shares},ok,,")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    asked = ("evaluate", "--predictions", "labels.csv", "-q", "--fail-under")
    assert ferbatch_here(*asked, "truth_avg.f1=0.99").returncode == 0
    done = ferbatch_here(*asked, "macro_avg.f1=0.99")
    assert done.returncode == 5
    assert b"(1 label that no image has counted as 0; truth_avg.f1 is 0.9949)" in done.stderr
    shown = ferbatch_here("evaluate", "--predictions", "labels.csv", "--report", "report")
    assert re.search(rb"truth avg .*0\.99", shown.stdout)
    assert "Macro F1 over the truth&#39;s labels" in (tmp_path / "report/report.html").read_text()
    assert "| truth's labels: F1 |" in (tmp_path / "report/report.md").read_text()


def test_several_gates_are_one_line_and_an_undefined_figure_passes_none(
    ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    labels_file(tmp_path)
    shutil.rmtree(tmp_path / "test/surprised")
    gates = (
        "--fail-under",
        "accuracy=0.99",
        "--fail-under",
        "surprise.recall=0.1",
        "--fail-under",
        "happy.recall=0.01",
    )
    done = ferbatch_here("evaluate", "--truth", "test", "--predictions", "labels.csv", "-q", *gates)
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1
    assert b"; surprise.recall is undefined: no image is surprise" in done.stderr
    assert b"happy" not in done.stderr


def test_a_report_folder_is_only_ever_ferbatchs_own(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path)
    command = ("evaluate", "--predictions", "labels.csv", "-q", "--report")
    assert ferbatch_here(*command, "out").returncode == 0
    assert set(os.listdir(tmp_path / "out")) == {".ferbatch", *(f"report.{suffix}" for suffix in REPORT_SUFFIXES)}
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out/mine.txt").write_text("keep")
    done = ferbatch_here(*command, "out")
    assert (done.returncode, b"--overwrite replaces it" in done.stderr) == (2, True)
    assert ferbatch_here(*command, "out", "--overwrite").returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first | {"mine.txt": b"keep"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full/report.json").write_text("mine")
    for option in ((), ("--overwrite",)):
        done = ferbatch_here(*command, "full", *option)
        assert (done.returncode, b"is not empty and holds no report" in done.stderr) == (2, True)
    assert (tmp_path / "full/report.json").read_text() == "mine"
    assert ferbatch_here(*command, "labels.csv").returncode == 2
    assert ferbatch_here(*command, "labels.csv/deeper").returncode == 2
    assert ferbatch_here(*command, "a new/place").returncode == 0


def stop_in_the_middle(forks: Forks, tmp_path: Path, *arguments: str) -> int:
    """Send SIGTERM to a run as soon as its rows are on their way; its exit code."""
    slow = {"slow_network": {"seconds": 0.2}}
    command = ("evaluate", "--truth", "test", "--batch-size", "1", *arguments)
    run = forks.start(tmp_path, *command, faults=slow)
    while not (tmp_path / "out/labels.csv.part").exists() and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGTERM)
    run.communicate()
    assert run.returncode is not None
    return run.returncode


def test_a_run_that_ends_early_leaves_the_report_as_it_was(
    forks: Forks, faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces, 120)
    assert stop_in_the_middle(forks, tmp_path, "--report", "out") == 143
    assert not os.listdir(tmp_path / "out")
    assert ferbatch_here("evaluate", "--truth", "test", "--report", "out", "-q").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert stop_in_the_middle(forks, tmp_path, "--report", "out", "--overwrite") == 143
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    for suffix in ("safetensors", "json"):
        shutil.copy(SHIPPED / f"cnn-v1.{suffix}", tmp_path / f"bad.{suffix}")
    (tmp_path / "bad.safetensors").write_bytes(b"damaged")
    models = ("--model", "cnn-v1", "--model", "bad.safetensors")
    done = ferbatch_here("evaluate", "--truth", "test", "--report", "out", "--overwrite", *models)
    assert (done.returncode, b"is damaged" in done.stderr, b"images/s" in done.stderr) == (6, True, False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_second_run_on_one_report_is_turned_away(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 40)
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.ferbatch.lock"):
        done = ferbatch_here("evaluate", "--predictions", "labels.csv", "--report", "out")
    assert (done.returncode, done.stderr.count(b"\n")) == (75, 1)


def test_a_file_of_the_users_own_is_not_written_over(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 40)
    command = ("evaluate", "--predictions", "labels.csv", "-q", "--report", "out", "--overwrite")
    assert ferbatch_here(*command).returncode == 0
    (tmp_path / "out/labels.csv").write_text("mine")
    done = ferbatch_here(*command)
    assert (done.returncode, b"out/labels.csv is not ferbatch's" in done.stderr) == (2, True)
    assert (tmp_path / "out/labels.csv").read_text() == "mine"


def test_a_matplotlib_of_the_users_own_changes_nothing(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 40)
    command = ("evaluate", "--predictions", "labels.csv", "-q", "--report")
    assert ferbatch_in(*command, "plain").returncode == 0
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 9\n")
    assert ferbatch_in(*command, "styled", env={"MPLBACKEND": "bogus"}).returncode == 0
    for name in os.listdir(tmp_path / "plain"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "styled" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: "", "cannot be read as a table"),
        (lambda t: t.splitlines()[0] + "\n", "has no rows"),
        (lambda t: t + '"test/x', "cannot be read as a table"),
        (lambda t: t.replace(",neutral,0.", ",glad,0."), "its label is none of the columns"),
        (lambda t: re.sub(r",0\.\d+,0\.\d+,0", ",,,0", t, count=3), "its probabilities are not between 0 and 1"),
        (lambda t: re.sub(r",0\.\d+,ok", ",7.5,ok", t, count=1), "its probabilities are not between 0 and 1"),
        (lambda t: re.sub(r",0\.\d+,ok", ",much,ok", t, count=1), "its probabilities are not between 0 and 1"),
        (lambda t: t + re.sub(r"0\.\d+,ok", "0.1234,ok", t.splitlines()[-1]) + "\n", "has different rows for"),
        (lambda t: t.replace("confidence,happy,", "confidence,ha\x1bppy,"), "can be no label"),
    ],
)
def test_a_labels_file_that_cannot_be_one_is_refused(
    change: Callable[[str], str], said: str, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    labels_file(tmp_path, 30)
    (tmp_path / "labels.csv").write_text(change((tmp_path / "labels.csv").read_text()))
    done = ferbatch_here("evaluate", "--predictions", "labels.csv")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr
    assert said in done.stderr.decode()
    assert b"\x1b" not in done.stderr


def test_equal_rows_count_once_and_odd_columns_and_paths_do_no_harm(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    extra = [lines[0] + ",camera", *(f"{line},Nikon" for line in (*lines[1:], *lines[1:30]))]
    extra.append(lines[1].replace("test/", "test/\x1b]0;pwn\x07\u202e") + ",x")
    (tmp_path / "extra.csv").write_text("\n".join(extra) + "\n")
    done = ferbatch_here("evaluate", "--truth", "test", "--predictions", "extra.csv")
    assert done.stdout.decode().startswith(
        ferbatch_here("evaluate", "--predictions", "labels.csv").stdout.decode().splitlines()[0]
    )
    assert b"no image for 1 row, test/\\x1b]0;pwn\\x07\\xe2\\x80\\xae" in done.stderr
    assert b"\x1b" not in done.stderr


def test_the_files_own_truth_is_read_as_folders_are(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    wanted = report_of(ferbatch_here("evaluate", "--predictions", "labels.csv", "--format", "json"))
    frame = ferbatch.read_labels(tmp_path / "labels.csv")
    frame["truth"] = frame["truth"].replace({"happy": "Happiness", "sad": "1"})
    frame.loc[:2, "truth"] = "angry"
    frame.to_csv(tmp_path / "spelled.csv", index=False)
    command = ("evaluate", "--predictions", "spelled.csv", "--classes", "1=sad", "--others", "--format", "json")
    found = report_of(ferbatch_here(*command))
    assert found["results"][0]["images"] == wanted["results"][0]["images"] - 3
    assert found["results"][0]["others"]["angry"]["images"] == 3
    assert found["subject"]["classes"] == {"1": "sad"}


def test_joining_by_the_end_of_the_path_is_said_aloud(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 60)
    shutil.copytree(tmp_path / "test", tmp_path / "copy")
    for path in sorted((tmp_path / "copy").rglob("*.jpg"))[:6]:
        path.rename(path.with_suffix(".png"))
    done = ferbatch_here("evaluate", "--truth", "copy", "--predictions", "labels.csv", "--report", "out")
    assert b"54 images joined by the end of the path" in done.stderr
    for kind in ("html", "md"):
        text = (tmp_path / f"out/report.{kind}").read_text()
        assert re.search(r"54 .*joined by the end of their path", text)
        assert "6 have none" in text


def test_closed_streams_are_an_error_of_one_line(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 20)
    for option in ("", "--format json"):
        command = f"{PYTHON} -m ferbatch evaluate --predictions labels.csv {option} >&-"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (74, b"ferbatch: stdout is closed\n")


def test_no_table_is_ever_cut(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path)
    rows = rows_of(tmp_path / "labels.csv")
    (tmp_path / "meta.csv").write_text("path,[/x] :smile:\n" + "".join(f"{r['path']},{r['path'][:9]}\n" for r in rows))
    command = f"{PYTHON} -m ferbatch evaluate --predictions labels.csv --slices meta.csv"
    texts = []
    for width in ("40", "200"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": width, "TERM": "xterm-256color"}
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0
        texts.append(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))
    assert "[/x] :smile:" in texts[0]
    assert sorted(texts[0].split()) == sorted(texts[1].split())


def test_a_report_never_takes_away_what_it_is_made_from(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path)
    assert ferbatch_here("evaluate", "--predictions", "labels.csv", "-q", "--report", "out").returncode == 0
    shutil.move(tmp_path / "labels.csv", tmp_path / "out/labels.csv")
    with (tmp_path / "out/.ferbatch").open("a") as marker:  # as a model's run leaves it
        marker.write("labels.csv\n")
    done = ferbatch_here("evaluate", "--predictions", "out/labels.csv", "-q", "--report", "out", "--overwrite")
    assert (done.returncode, b"choose another --report" in done.stderr) == (2, True)
    assert (tmp_path / "out/labels.csv").exists()


def test_one_label_alone_is_said_to_be_little(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path)
    done = ferbatch_here("evaluate", "--truth", "test/happy", "--predictions", "labels.csv", "--report", "out")
    assert "Every image here is happy" in done.stdout.decode().splitlines()[1]
    assert (tmp_path / "out/report.html").read_text().count("<svg") == 2  # no curve can be drawn for one label


def test_a_report_folder_is_no_source_of_images(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces, 2)
    assert ferbatch_here("evaluate", "--truth", "test", "--report", "test/happy/report", "-q").returncode == 0
    shutil.copy(tmp_path / "test/happy/0000.jpg", tmp_path / "test/happy/report/face.jpg")
    done = ferbatch_here("evaluate", "--truth", "test", "--format", "json")
    assert report_of(done)["subject"]["images"] == 8


def test_faces_are_shown_only_when_asked_for(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    faces_with_truth(faces, 3)
    assert ferbatch_here("evaluate", "--truth", "test", "--report", "out", "-q").returncode == 0
    assert "data:image" not in (tmp_path / "out/report.html").read_text()
    ferbatch_here("evaluate", "--truth", "test", "--report", "out", "-q", "--overwrite", "--thumbnails")
    html = (tmp_path / "out/report.html").read_text()
    mistakes = json.loads((tmp_path / "out/report.json").read_text())["results"][0]["mistakes"]
    assert html.count("data:image/png;base64,") == len(mistakes) > 0


def test_hostile_names_reach_every_file_as_data(
    ferbatch_here: Ferbatch, tmp_path: Path, faces: Callable[..., Path]
) -> None:
    face = faces("one", 1) / "0000.jpg"
    for at, name in enumerate(HOSTILE):
        folder = tmp_path / "test" / ("happy", "sad")[at % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(face, os.fsencode(folder) + b"/" + name)
    done = ferbatch_here("evaluate", "--truth", "test", "--report", "out", "--min-confidence", "0.3", "-v")
    assert done.returncode == 0
    for stream in (done.stdout, done.stderr):
        assert not set(stream) & {*range(0x20)} - {0x0A}
    paths = [encode_path(b"test/" + (b"happy/", b"sad/")[at % 2] + name) for at, name in enumerate(HOSTILE)]
    assert {r["path"] for r in rows_of(tmp_path / "out/labels.csv")} == set(paths)
    html, text = ((tmp_path / f"out/report.{kind}").read_text() for kind in ("html", "md"))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;_script&gt;" in html
    assert "<script" not in text
    for content in (html, text):
        assert not {ord(c) for c in content} & ({*range(0x20)} - {0x0A}) | {0x202E, 0x2028, 0x9B} & set(
            map(ord, content)
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Usage"),
        (("--votes", "v.csv"), "say --truth"),
        (("--truth", "nowhere"), "no such file or folder: nowhere"),
        (("--truth", "test", "--predictions", "nope.csv"), "no such file: nope.csv"),
        (("--truth", "test", "--predictions", "labels.csv", "--model", "cnn-v1"), "say --model or --predictions"),
        (("--truth", "test", "--strip-prefix", "x"), "--strip-prefix needs --truth and --predictions"),
        (("--truth", "test", "--thumbnails"), "--thumbnails needs --report"),
        (("--truth", "test", "--format", "xml"), "comes as tables or as json"),
        (("--truth", "test", "--predictions", "votes.csv"), "is no labels file"),
        (("--truth", "test", "--device", "tpu"), "no device called 'tpu'"),
        (("--truth", "test", "--classes", "0:happy"), "say NAME=LABEL"),
        (("--truth", "truth.csv"), "none of the 2 images of truth.csv is there: looked for gone/1.jpg"),
        (("--truth", "empty.csv"), "the column truth of empty.csv is empty"),
        (("--truth", "face.jpg"), "is no table: tables are csv, json, jsonl, parquet"),
        (("--truth", "semicolons.csv"), "none of the 1 image of semicolons.csv is there"),
        (("--predictions", "report.json"), "report.json cannot be read as a table"),
        (("--predictions", "labels.csv", "--votes", "labels.csv"), "is a labels file, not people's votes"),
        (
            ("--truth", "test", "--predictions", "labels.csv", "--strip-prefix", "x"),
            "no path in labels.csv begins with x;",
        ),
        (("--predictions", "labels.csv", "--report", "."), "holds no report"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: tuple[str, ...], said: str, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    labels_file(tmp_path, 20)
    (tmp_path / "votes.csv").write_text("file,a\n1,2\n")
    (tmp_path / "truth.csv").write_text("path,label\ngone/1.jpg,happy\ngone/2.jpg,sad\n")
    (tmp_path / "face.jpg").touch()
    (tmp_path / "empty.csv").write_text("path,truth,label\nx.jpg,,happy\n")
    (tmp_path / "semicolons.csv").write_text("path;label\nx.jpg;happy\n")
    (tmp_path / "report.json").write_text('{"schema": 1, "results": [1, 2], "comparisons": [1]}')
    done = ferbatch_here("evaluate", *arguments)
    assert done.returncode == 2
    output = (done.stdout + done.stderr).decode()
    assert said in output
    assert "Traceback" not in output
    assert not arguments or output.count("\n") == 1


def test_labels_without_truth_say_so(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 20)
    frame = ferbatch.read_labels(tmp_path / "labels.csv").assign(truth="")
    frame.to_csv(tmp_path / "labels.csv", index=False)
    done = ferbatch_here("evaluate", "--predictions", "labels.csv")
    assert (done.returncode, b"names no truth: say --truth" in done.stderr) == (2, True)


def test_labels_given_earlier_need_no_torch(tmp_path: Path) -> None:
    labels_file(tmp_path, 20)
    argv = ["ferbatch", "evaluate", "--predictions", "labels.csv"]
    code = (
        f"import sys; sys.argv = {argv!r}\nfrom ferbatch.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_a_home_that_cannot_be_written_is_no_news(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    labels_file(tmp_path, 40)
    nowhere = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}
    done = ferbatch_in("evaluate", "--predictions", "labels.csv", "--report", "out", "-q", env=nowhere)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_cards_accuracy_is_reproduced_and_judged_by_people(real_faces: Path, ferbatch_here: Ferbatch) -> None:
    votes = SHARED / "data" / "labels.csv"
    command = ("evaluate", "--truth", real_faces / "validation", "--votes", votes, "--precision", "fp32")
    done = ferbatch_here(*command, "--format", "json")
    (result,) = report_of(done)["results"]
    score = json.loads((SHIPPED / f"{DEFAULT_MODEL}.json").read_text())["scores"][0]
    assert result["accuracy"]["n"] == score["n"]
    assert sum(result["confusion_matrix"][at][at] for at in range(4)) == score["correct"]
    assert [round(end, 4) for end in result["accuracy"]["interval_95"]] == score["interval_95"]
    assert result["votes"]["images"] == 2_501
    assert result["votes"]["majority"]["truth"]["value"] == pytest.approx(0.758, abs=5e-4)
    assert result["confusions"][0]["truth"] == "sad"
    assert result["confusions"][0]["label"] == "neutral"


def test_class_folders_that_are_links_are_followed_where_that_is_asked_for(
    ferbatch_here: Ferbatch, tmp_path: Path, faces: Callable[..., Path], model: Path
) -> None:
    (tmp_path / "test").mkdir()
    for label in ("happy", "sad"):
        folder = faces(f"store/{label}", 2)
        (folder / "._0000.jpg").write_bytes(b"no picture")
        faces(f"store/{label}/@eaDir", 1)
        (tmp_path / "test" / label).symlink_to(f"../store/{label}")
    command = ("evaluate", "--truth", "test", "--model", model, "--device", "cpu", "--format", "json")
    without = ferbatch_here(*command)
    assert (without.returncode, b"2 links to folders not followed (--follow-links)" in without.stderr) == (4, True)
    done = ferbatch_here(*command, "--follow-links")
    assert (done.returncode, json.loads(done.stdout)["subject"]["per_label"]["sad"]) == (0, 2)
    assert b"2 hidden files, 2 folders of other programs (@eaDir) left aside" in done.stderr
    hidden = ferbatch_here(*command, "--follow-links", "--hidden", "--exclude", "0001*")
    assert (hidden.returncode, json.loads(hidden.stdout)["subject"]["per_label"]["sad"]) == (3, 3)
    (tmp_path / "truth.csv").write_text("path,label\nstore/happy/0000.jpg,happy\n")
    table = ferbatch_here("evaluate", "--truth", "truth.csv", "--hidden")
    assert (table.returncode, b"of folders: truth.csv is a table" in table.stderr) == (2, True)
    nothing = ferbatch_here("evaluate", "--predictions", "labels.csv", "--exclude", "a")
    assert (nothing.returncode, b"need --truth: class folders" in nothing.stderr) == (2, True)
