"""`ferbatch evaluate` on tables as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Ferbatch, draw_face, linked

LABELS = ("happy", "sad")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with semicolons and Windows paths, and the images that it means."""
    rows = []
    for n, label in enumerate(LABELS * 2):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True, exist_ok=True)
        draw_face(n).save(folder / f"{n}.png")
        rows.append(f"C:\\all\\{n}.PNG;{label};{'test' if n else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(["picture;shows;split", *rows]) + "\n", encoding="utf-8-sig")
    return tmp_path / "t.csv"


def test_options_say_what_a_table_cannot(ferbatch_here: Ferbatch, table: Path, model: Path, tmp_path: Path) -> None:
    command = ("evaluate", "--truth", "t.csv", "--model", model, "--label-column", "shows", "--images", "images")
    done = ferbatch_here(*command, "--slices", "t.csv", "--format", "json")
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode().splitlines()
    assert said[:2] == [
        "t.csv: semicolons separate the values",
        r"4 images of t.csv found, though written otherwise: C:\x5call\x5c0.PNG is images/happy/0.png",
    ]
    assert sum("semicolons" in line for line in said) == 2  # of the truth and of the slices
    report = json.loads(done.stdout)
    assert report["subject"]["per_label"] == {"happy": 2, "sad": 2, "neutral": 0, "surprise": 0}
    assert report["subject"]["slices"]["notes"] == ["t.csv: semicolons separate the values"]
    part = ferbatch_here(*command, "--split", "test", "--format", "json", "-q")
    assert (part.returncode, part.stderr) == (0, b"")
    assert json.loads(part.stdout)["subject"]["images"] == 3


def test_some_that_are_not_there_are_counted_and_none_is_refused(
    ferbatch_here: Ferbatch, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("file,label\n" + "".join(f"{n:03}.png,{LABELS[n % 2]}\n" for n in range(150)))
    none = ferbatch_here("evaluate", "--truth", "t.csv", "--model", model)
    assert none.returncode == 2
    assert none.stderr.startswith(
        b"ferbatch: none of the 150 images of t.csv is there: looked for 000.png, there is no"
    )
    draw_face(0).save(tmp_path / "007.png")
    done = ferbatch_here("evaluate", "--truth", "t.csv", "--model", model)
    assert done.returncode == 3
    said = done.stderr.decode()
    assert "1 of the 150 images of t.csv is there: looked for 000.png, there is 007.png (--images DIR" in said


def test_fer2013_is_judged_as_it_is_handed_out(ferbatch_here: Ferbatch, model: Path, tmp_path: Path) -> None:
    rows, folder = [], tmp_path / "faces"
    for n, (emotion, label, usage) in enumerate(
        [(3, "happy", "Training"), (3, "happy", "PrivateTest"), (4, "sad", "PrivateTest"), (0, "angry", "PrivateTest")]
    ):
        face = draw_face(n)
        rows.append(f"{emotion},{' '.join(map(str, face.tobytes()))},{usage}")
        if usage == "PrivateTest":
            (folder / label).mkdir(parents=True)
            face.save(folder / label / f"fer{n:07}.png")
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    reports = []
    for truth in ("fer2013.csv", "faces"):
        out = f"report-{truth}"
        done = ferbatch_here(
            "evaluate", "--truth", truth, "--model", model, "--report", out, "--thumbnails", "--others"
        )
        assert done.returncode == 0, done.stderr.decode()
        reports.append(json.loads((tmp_path / out / "report.json").read_text()))
    table, files = (report["results"][0] for report in reports)
    assert reports[0]["subject"]["others"] == {"angry": 1}
    assert table["confusion_matrix"] == files["confusion_matrix"]
    assert table["nll"] == files["nll"]
    labels = (tmp_path / "report-fer2013.csv" / "labels.csv").read_text()
    assert '"fer2013.csv/PrivateTest/fer0000001.png",happy' in labels
    again = ferbatch_here(
        "evaluate", "--truth", "fer2013.csv", "--predictions", "report-fer2013.csv/labels.csv", "--format", "json"
    )
    assert json.loads(again.stdout)["results"][0]["confusion_matrix"] == table["confusion_matrix"]


def test_a_nul_in_a_labels_file_is_one_sentence(ferbatch_here: Ferbatch, model: Path, tmp_path: Path) -> None:
    linked(tmp_path / "happy", 2)
    assert ferbatch_here("label", "happy", "--model", model).returncode == 0
    labels = tmp_path / "labels.csv"
    labels.write_text(labels.read_text().replace('"happy/', '"hap\\x00py/', 1))
    done = ferbatch_here("evaluate", "--predictions", "labels.csv")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"holds a NUL, which no name of a file can" in done.stderr


def test_a_label_that_is_given_alone_is_named_once(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    header = "path,truth,label,confidence,happy,sad,status,error_kind,error\n"
    rows = [f"{n}.png,{truth},happy,0.9000,0.9000,0.1000,ok,,\n" for n, truth in enumerate(["happy", "happy", "sad"])]
    (tmp_path / "labels.csv").write_text(header + "".join(rows))
    said = ferbatch_here("evaluate", "--predictions", "labels.csv").stdout.decode()
    assert "its label happy is right in 66.7 % of the cases, and it gives no other." in said
    assert said.count("its label") == 1
