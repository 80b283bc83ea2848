"""The Python API: the same engine, in a few calls."""

from __future__ import annotations

import csv
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import LABELS, Ferbatch, draw_face

import ferbatch
from ferbatch.core.records import columns
from ferbatch.model.weights import shipped
from ferbatch.stream.classifier import Classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return ferbatch.load_model(device="cpu")


def test_label_yields_what_the_command_writes(
    faces: Callable[..., Path], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    folder = faces("images", 70)
    (folder / "0010.jpg").write_bytes(b"no image")
    ferbatch_in("label", str(folder))
    with (tmp_path / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    predictions = list(ferbatch.label(folder, device="cpu"))
    assert [p.path for p in predictions] == [row["path"] for row in rows]
    for prediction, row in zip(predictions, rows, strict=True):
        assert (prediction.label or "", prediction.status) == (row["label"], row["status"])
        assert [f"{p:.4f}" for p in prediction.probabilities.values()] == [
            row[label] for label in prediction.probabilities
        ]
    assert predictions[10].error_kind == "unreadable"
    assert [p.path for p in ferbatch.label([folder / "0001.jpg", str(folder)], device="cpu")][:2] == [
        f"{folder}/0001.jpg",
        f"{folder}/0000.jpg",
    ]


def test_label_is_lazy_and_stops_when_its_reader_does(faces: Callable[..., Path]) -> None:
    predictions = ferbatch.label(faces("images", 130), device="cpu", workers=2)
    assert next(predictions).status == "ok"
    predictions.close()  # type: ignore[attr-defined]


def test_a_model_labels_images_and_arrays_one_or_many(classifier: Classifier) -> None:
    face = draw_face(0, 96)
    one = classifier(face)
    assert one.label == max(one.probabilities, key=one.probabilities.__getitem__)
    assert one.confidence == one.probabilities[one.label]
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=2.1e-4)
    colour = np.asarray(face.convert("RGB"))
    for same in (np.asarray(face), colour, face.convert("RGBA"), colour[:, ::-1][:, ::-1]):
        assert classifier(same).probabilities == pytest.approx(one.probabilities, abs=2e-3)
    many = classifier([draw_face(seed) for seed in range(130)])
    assert len(many) == 130
    assert classifier([]) == []
    for at in (0, 63, 64, 129):
        assert many[at].probabilities == pytest.approx(classifier(draw_face(at)).probabilities, abs=1.1e-4)


def test_what_cannot_be_labelled_is_said(classifier: Classifier) -> None:
    assert classifier(Image.new("L", (48, 48), 7)).error_kind == "blank"
    with pytest.raises(TypeError, match="uint8"):
        classifier(np.zeros((48, 48)))
    with pytest.raises(TypeError):
        classifier("images/one.jpg")
    with pytest.raises(ferbatch.FerbatchError, match="no model called"):
        ferbatch.load_model("smal")
    with pytest.raises(ferbatch.FerbatchError, match="no such file"):
        ferbatch.label("nowhere")
    with pytest.raises(ValueError, match="without pixels"):
        classifier(np.zeros((0, 5), np.uint8))
    for out_of_range in (
        {"min_confidence": 60},
        {"min_score": -1},
        {"max_turn": 200},
        {"batch_size": 0},
        {"workers": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(out_of_range))):
            ferbatch.label(".", **out_of_range)  # type: ignore[arg-type]


def test_labels_of_schema_1_are_read_with_the_columns_of_today(tmp_path: Path) -> None:
    old = [name for name in columns(LABELS) if name not in ("face_turn", "face_blur", "face_cut")]
    (tmp_path / "old.csv").write_text(",".join(old) + "\na.jpg,,happy,0.9,0.9,0.1,0,0,ok,,,0,1,2,3,4,0.95\n")
    frame = ferbatch.read_labels(tmp_path / "old.csv")
    assert list(frame.columns) == list(columns(LABELS))
    assert frame["face_turn"].isna().all()
    assert frame["face_score"].tolist() == [0.95]


def test_read_labels_refuses_what_is_no_labels_file(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ferbatch.FerbatchError, match="no column"):
        ferbatch.read_labels(tmp_path / "other.csv")
    with pytest.raises(ferbatch.FerbatchError, match="no format called"):
        ferbatch.read_labels(os.fspath(tmp_path / "labels.xls"))


def test_a_models_name_without_its_version_is_the_newest() -> None:
    names = [name for name in shipped() if name.startswith("cnn-v")]
    assert ferbatch.load_model("cnn").card.name == f"cnn-v{max(int(name.removeprefix('cnn-v')) for name in names)}"
    assert ferbatch.load_model("cnn").card.architecture == "cnn"
    assert ferbatch.load_model("cnn-lite").card.architecture == "cnn-lite"
    with pytest.raises(ferbatch.FerbatchError):
        ferbatch.load_model("cnn-v")


def test_where_a_face_is_can_be_read_off_its_prediction() -> None:
    box = {"x": 1, "y": 2, "width": 3, "height": 4, "face_score": 0.5, "face_turn": -90, "face_blur": 0.4}
    face = ferbatch.Prediction("a.jpg", None, "ok", "happy", 0.9, {"happy": 0.9}, face=0, **box)
    assert (face.x, face.y, face.width, face.height, face.face_score) == (1, 2, 3, 4, 0.5)
    assert pickle.loads(pickle.dumps(face)) == face
    whole = ferbatch.Prediction("a.jpg", None, "ok", "happy", 0.9, {"happy": 0.9})
    assert (whole.x, whole.y, whole.width, whole.height, whole.face_score) == (None,) * 5
    assert (face.face_turn, face.face_blur, face.face_cut) == (-90, 0.4, None)
    assert whole != face
