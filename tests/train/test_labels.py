"""Labels of one's own: what the data is sorted into is what is learned, labelled, judged and written."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image, ImageDraw
from support import ROOT, Ferbatch, rows_of

import ferbatch
from ferbatch.commands.train.data import list_splits
from ferbatch.core.errors import UsageError
from ferbatch.core.options import TrainOptions
from ferbatch.core.records import Rules
from ferbatch.model.weights import MOST_LABELS, read_card, unfit
from ferbatch.sources.labels import LABELS, in_order, label_of, split_labels

ODD = ('50 % "größe"', "NO", "Yes, really")  # in alphabetical order
QUICK = """
model = "cnn-lite"
epochs = 8
batch_size = 8
learning_rate = 0.01
ema = 0
arguments = {stem = 8, channels = [8, 16], blocks = [1, 1], strides = [2, 2]}
"""


def draw_shape(number: int, seed: int) -> Image.Image:
    """Something that even a small network can tell in seconds: a disc, a bar that lies, one that stands, and others."""
    rng = np.random.default_rng([number, seed])
    picture = Image.new("L", (48, 48), int(rng.integers(20, 90)))
    x, y = (int(v) for v in rng.integers(-4, 5, 2))
    box = ((14, 14, 34, 34), (6, 20, 42, 28), (20, 6, 28, 42))[number % 3]
    moved = (box[0] + x, box[1] + y, box[2] + x, box[3] + y)
    pen = ImageDraw.Draw(picture)
    (pen.rectangle if number % 3 else pen.ellipse)(moved, fill=int(rng.integers(150, 230)))
    return Image.fromarray((np.asarray(picture) + rng.normal(0, 8, (48, 48))).clip(0, 255).astype(np.uint8))


def draw(folder: Path, labels: tuple[str, ...], n: int, first: int = 0) -> Path:
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + n):
            draw_shape(number, seed).save(folder / label / f"{seed}.png")
    return folder


def labels_of(data: Path, **options: Any) -> tuple[str, ...]:
    return list_splits(TrainOptions(data, Path(), **options), 0.1, 0).labels


def train(ferbatch_here: Ferbatch, *arguments: str | Path, code: int = 0) -> str:
    done = ferbatch_here("train", *arguments, "--device", "cpu")
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return str(done.stderr.decode())


def test_three_made_up_classes_are_learned_labelled_judged_and_gated(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    draw(tmp_path / "mine", ODD, 40)
    draw(tmp_path / "test", ODD, 10, first=100)
    (tmp_path / "quick.toml").write_text(QUICK)
    said = train(ferbatch_here, "mine", "-o", "mine.safetensors", "--recipe", "quick.toml")
    assert f"3 labels: {', '.join(ODD)}\n108 images to train on, 12 to validate with" in said
    assert "teachers" not in said  # of the shipped weights, which know other labels
    card = read_card(str(tmp_path / "mine.safetensors"))
    assert card.labels == ODD
    assert card.data["validation"] == dict.fromkeys(ODD, 4)

    reports = []
    for format_ in ("csv", "jsonl", "json"):
        name = f"labels.{format_}"
        done = ferbatch_here("label", "test", "--model", "mine.safetensors", "-o", name)
        assert done.returncode == 0, done.stderr
        frame = ferbatch.read_labels(tmp_path / name)
        assert list(frame.columns[4:7]) == list(ODD)
        assert set(frame["truth"]) == set(ODD)
        assert (frame["truth"] == frame["label"]).mean() > 0.9
        assert np.allclose(frame[list(ODD)].sum(axis=1), 1, atol=2e-4)
        judged = ferbatch_here("evaluate", "--predictions", name, "--format", "json")
        reports.append(json.loads(judged.stdout)["results"][0])
    assert reports[0]["confusion_matrix"] == reports[1]["confusion_matrix"] == reports[2]["confusion_matrix"]
    rows = rows_of(tmp_path / "labels.csv")
    assert {row["label"] for row in rows} == set(ODD)

    gates = ("--fail-under", "accuracy=0.9", "--fail-under", "NO.f1=0.8", "--fail-under", f"{ODD[0]}.recall=0.8")
    judged = ferbatch_here("evaluate", "--truth", "test", "--model", "mine.safetensors", "--report", "report", *gates)
    assert judged.returncode == 0, judged.stderr
    report = json.loads((tmp_path / "report/report.json").read_text())
    jsonschema.validate(report, json.loads((ROOT / "ferbatch/report/report.schema.json").read_text()))
    assert report["subject"]["per_label"] == dict.fromkeys(ODD, 10)
    assert report["results"][0]["confusion_matrix"] == reports[0]["confusion_matrix"]
    page = (tmp_path / "report/report.html").read_text()
    assert all(name in page for name in ("50 % &#34;größe&#34;", "as NO", "Yes, really"))
    gate = ferbatch_here("evaluate", "--truth", "test", "--model", "mine.safetensors", "--fail-under", "f1.NO=0.5")
    assert (gate.returncode, b"no figure 'f1.NO' (it has: " in gate.stderr) == (2, True)


def test_labels_are_those_of_the_data_the_studys_first(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        draw(tmp_path / "data" / name, ("Zebra", "surprised", "ärger", "JOY", "anger"), 2)
    (tmp_path / "data/train/Zebra").rename(tmp_path / "data/train/zebra")
    (tmp_path / "data/validation/.cache").mkdir()
    shutil.copy(tmp_path / "data/validation/JOY/0.png", tmp_path / "data/validation/.cache/0.png")
    draw(tmp_path / "data/test", ("unseen",), 2)
    assert labels_of(tmp_path / "data") == ("happy", "surprise", "anger", "Zebra", "ärger")
    notes = list_splits(TrainOptions(tmp_path / "data", Path()), 0.1, 0).notes
    assert notes == ["1 hidden folder left aside", "2 images in neither split left out"]
    asked = list_splits(TrainOptions(tmp_path / "data", Path(), labels=("zebra", "joy")), 0.1, 0)
    assert asked.labels == ("zebra", "joy")
    assert [len(images.codes) for images, _ in asked.parts] == [4, 4]
    assert "left out, for they are no labels: anger (4)" in asked.notes[1]


def test_what_the_study_does_not_know_is_learned_unless_labels_says_otherwise(tmp_path: Path) -> None:
    draw(tmp_path / "faces", (*LABELS, "angry"), 10)
    every = list_splits(TrainOptions(tmp_path / "faces", Path()), 0.1, 0)
    assert every.labels == (*LABELS, "angry")
    assert every.notes[0] == (
        "labels as well, being classes of the data: angry (--labels happy,sad,neutral,surprise leaves them out)"
    )
    four = list_splits(TrainOptions(tmp_path / "faces", Path(), labels=LABELS), 0.1, 0)
    assert (four.labels, len(four)) == (LABELS, 40)


def test_a_table_of_ones_own_has_values_for_labels_and_votes_for_them(tmp_path: Path) -> None:
    draw(tmp_path / "images", ("a",), 30)
    rows = [
        {"path": f"images/a/{n}.png", "label": ("Maybe", "no", "yes")[n % 3], "votes_maybe": 1, "votes_no": 2 * (n % 2)}
        for n in range(30)
    ]
    for row in rows:
        row |= {"votes_yes": 3, "votes_who knows": 9 * (row is rows[5])}
    with (tmp_path / "mine.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    splits = list_splits(TrainOptions(tmp_path / "mine.csv", Path()), 0.2, 0)
    assert splits.labels == ("Maybe", "no", "yes")
    cast = [votes for _, votes in splits.parts if votes]
    assert {votes.answers for votes in cast} == {("Maybe", "no", "yes", "who knows")}
    assert sorted(votes.counts[:, 2].sum() for votes in cast) == [18, 72]


def test_every_label_is_validated_however_rare(tmp_path: Path) -> None:
    draw(tmp_path / "mine", ("often",), 60)
    draw(tmp_path / "mine", ("often", "rare"), 2)
    draw(tmp_path / "few", ("a", "b", "c"), 4)
    for folder, held in (("mine", 2), ("few", 1)):
        train, validation = (images for images, _ in list_splits(TrainOptions(tmp_path / folder, Path()), 0.1, 0).parts)
        assert np.bincount(validation.codes).min() == 1, folder
        assert np.bincount(train.codes).min() >= held - 1
        assert not {*train.below} & {*validation.below}


def test_what_cannot_be_trained_on_is_said(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    def fails(words: str, *arguments: str | Path) -> None:
        assert words in train(ferbatch_here, *arguments, code=2)

    draw(tmp_path / "one", ("yes",), 3)
    fails("one: 1 label (yes), where a model has 2 to 1,000", "one")
    fails("one: fewer than 2 images of no; none can be held out for validation", "one", "--labels", "yes,no")
    draw(tmp_path / "one", ("no",), 1)
    fails("fewer than 2 images of no; none can be held out for validation (--labels can leave a label out)", "one")
    draw(tmp_path / "flat", (".",), 3)
    fails("flat: no image has a label: it takes a folder for each label, or a table: path, label", "flat")
    draw(tmp_path / "columns", ("Status", "other"), 3)
    fails("columns: 'Status' can be no label: a column of the output", "columns")
    many = "path,label\n" + "".join(f"{n}.png,person {n}\n" for n in range(1_001))
    (tmp_path / "many.csv").write_text(many)
    fails("many.csv: 1,001 labels, where a model has 2 to 1,000", "many.csv")
    fails("--labels: two labels are called the same: yes and Yes", "one", "--labels", "yes,Yes")
    fails("--labels: 0 labels, where a model has 2 to 1,000", "one", "--labels", "")
    draw(tmp_path / "two", ("yes", "no"), 10)
    said = "cnn-v1 cannot teach: its labels are happy, sad, neutral, surprise, and those of the data no, yes"
    fails(said, "two", "--distill", "cnn-v1")


def test_a_run_goes_on_with_the_same_labels_alone(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    draw(tmp_path / "mine", ("a", "b", "c"), 10)
    (tmp_path / "quick.toml").write_text(QUICK.replace("epochs = 8", "epochs = 1"))
    same = ("mine", "--recipe", "quick.toml", "-o", "m.safetensors", "--resume")
    train(ferbatch_here, *same, "--labels", "c,a")
    assert read_card(str(tmp_path / "m.safetensors")).labels == ("c", "a")
    assert "is finished: there is nothing to resume" in train(ferbatch_here, *same, "--labels", "c,a")
    other = train(ferbatch_here, *same, "--labels", "a,c", code=2)
    assert "m.safetensors is of a run with the labels c, a, and now they are a, c; --overwrite begins anew" in other
    shutil.copy(tmp_path / "m.json", tmp_path / "teacher.json")
    shutil.copy(tmp_path / "m.safetensors", tmp_path / "teacher.safetensors")
    taught = ("mine", "--recipe", "quick.toml", "-o", "p.safetensors", "--distill", "teacher.safetensors")
    assert "(--labels can say the same)" in train(ferbatch_here, *taught, code=2)
    train(ferbatch_here, *taught, "--labels", "c,a")


@pytest.mark.parametrize(
    ("folder", "labels", "label"),
    [
        ("joy", ("joy", "calm"), "joy"),
        ("joy", ("happy", "joy"), "joy"),
        ("Joy", LABELS, "happy"),
        ("happiness", ("joy", "calm"), None),
        ("YES", ("Yes", "no"), "Yes"),
        ("yes", ("Yes", "no"), "Yes"),
        ("news", ("new", "news"), "news"),
        ("cats", ("Cat", "dog"), "Cat"),
        ("a\u0308rger", ("\u00e4rger", "x"), "\u00e4rger"),
        ("anger", ("angry", "calm"), "angry"),
        ("anger", LABELS, None),
    ],
)
def test_a_folder_is_named_like_a_label_of_the_models_own(
    folder: str, labels: tuple[str, ...], label: str | None
) -> None:
    assert label_of(folder, labels) == label


def test_labels_are_split_at_commas_and_kept_together_by_quotes() -> None:
    assert split_labels('yes, no ,"well, ""maybe"""') == ("yes", "no", 'well, "maybe"')
    assert in_order(["b", "sad", "A", "happy"]) == ("happy", "sad", "A", "b")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["a"], "1 label (a)"),
        ([f"p{n}" for n in range(MOST_LABELS + 1)], "1,001 labels"),
        (["a", "A"], "called the same"),
        (["a", "a"], "called the same"),
        (["path", "b"], "a column of the output"),
        (["Face_Score", "b"], "a column of the output"),
        (["macro_avg", "b"], "a figure of the report"),
        (["=1+1", "b"], "formula"),
        (["a\nb", "b"], "not seen"),
        (["a\\b", "b"], "backslash"),
        (["a\ud800", "b"], "not seen"),
        ([" a", "b"], "space"),
        (["", "b"], "no text"),
        ([7, "b"], "no text"),
        (["a" * 256, "b"], "longer than 255"),
    ],
)
def test_what_can_be_no_label_is_said(labels: list[Any], why: str) -> None:
    assert why in unfit(labels)


def test_anything_that_can_be_read_can_be_a_label() -> None:
    assert unfit([*ODD, "_x", "0", "NA", "日本", "😀", "a/b", "<b>", "100%", "a:b", "it's"]) == ""
    assert unfit([f"p{n}" for n in range(MOST_LABELS)]) == ""


def test_a_label_without_an_image_in_a_split_ends_the_run(tmp_path: Path) -> None:
    from ferbatch.commands.train import data as train_data

    draw(tmp_path / "d/train", ("a", "b"), 2)
    draw(tmp_path / "d/validation", ("a",), 2)
    splits = list_splits(TrainOptions(tmp_path / "d", Path()), 0.1, 0)
    with pytest.raises(UsageError, match="no validation image of b"):
        train_data.read(tmp_path / "d", splits)


def test_class_folders_that_are_links_are_classes_where_links_are_followed(tmp_path: Path) -> None:
    draw(tmp_path / "store", ("sad",), 3)
    draw(tmp_path / "data", ("happy",), 3)
    shutil.copytree(tmp_path / "data/happy", tmp_path / "data/happy/@eaDir")
    (tmp_path / "data/sad").symlink_to("../store/sad")
    with pytest.raises(UsageError, match=r"1 link to folders not followed \(--follow-links\)"):
        list_splits(TrainOptions(tmp_path / "data", Path()), 0.1, 0)
    rules = Rules(follow_links=True, exclude=("happy/2.png",))
    splits = list_splits(TrainOptions(tmp_path / "data", Path(), rules=rules), 0.1, 0)
    assert (splits.labels, len(splits)) == (("happy", "sad"), 5)
    assert splits.notes[0] == "1 folder of other programs (@eaDir), 1 excluded left aside"


def test_rules_of_folders_are_options_of_train(ferbatch_here: Ferbatch, tmp_path: Path) -> None:
    draw(tmp_path / "data", ("happy", "sad"), 20)
    (tmp_path / "data/sad/._0.png").write_bytes(b"no picture")
    (tmp_path / "quick.toml").write_text(QUICK)
    said = train(ferbatch_here, "data", "--recipe", "quick.toml", "--exclude", "happy/1*", "--follow-links")
    assert "1 hidden file, 11 excluded left aside" in said
    with_twins = train(ferbatch_here, "data", "--recipe", "quick.toml", "--hidden", "-o", "b.safetensors")
    assert "data/sad/._0.png" in with_twins
