"""Truth in the forms people have it, and tables joined with images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ferbatch.core.errors import NoImagesError, UsageError
from ferbatch.sources.matching import match, stripped
from ferbatch.sources.metadata import read_slices, read_votes
from ferbatch.sources.truth import Truth, parse_classes, read_truth

LABELS = ("happy", "sad", "neutral", "surprise")


def touch(*paths: str | Path) -> None:
    """Files that are named like images; what they hold does not matter here."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def by_name(truth: Truth) -> dict[str, str | None]:
    """File name -> class, for every image."""
    names = [truth.names[code] if code >= 0 else None for code in truth.codes.tolist()]
    return {os.path.basename(ref.path): name for ref, name in zip(truth.images, names, strict=True)}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_folders_are_understood_by_their_common_spellings() -> None:
    spellings = {"happy": ("Happy", "HAPPINESS", "joy", "happys"), "sad": ("sad", "Sadness")}
    spellings |= {"neutral": ("Neutral", "neutrals"), "surprise": ("surprise", "Surprised", "surprises")}
    wanted = {}
    for label, folders in spellings.items():
        for folder in folders:
            touch(f"test/{folder}/{folder}.jpg")
            wanted[f"{folder}.jpg"] = label
    touch("test/angry/a.jpg", "test/angry/b.jpg", "test/fear/c.jpg", "test/stray.jpg")
    truth = read_truth("test", LABELS, {})
    assert by_name(truth) == wanted | {"a.jpg": "angry", "b.jpg": "angry", "c.jpg": "fear", "stray.jpg": None}
    assert truth.others() == {"angry": 2, "fear": 1}
    assert int(truth.has_label.sum()) == len(wanted)
    chosen = truth.where(truth.has_label)
    assert {ref.truth for ref in chosen.images} == set(LABELS)
    assert set(chosen.below) == {f"{name[:-4]}/{name}".encode() for name in wanted}


def test_a_choice_of_a_choice_still_knows_what_was_met_besides() -> None:
    touch("test/happy/1.jpg", "test/sad/2.jpg", "test/angry/3.jpg", "test/notes.txt")
    truth = read_truth("test", LABELS, parse_classes("grin=happy", LABELS))
    chosen = truth.where(truth.has_label).where(np.array([False, True]))
    assert [ref.path for ref in chosen.images] == ["test/sad/2.jpg"]
    assert list(chosen.below) == [b"sad/2.jpg"]
    assert (chosen.aside, chosen.unused) == ("1 other file left aside", ("grin",))


def test_numbers_need_a_map_and_the_map_may_say_more() -> None:
    touch("raf/1/a.jpg", "raf/4/b.jpg", "raf/5/c.jpg", "raf/7/d.jpg", "raf/6/e.jpg", "raf/Grin/f.jpg")
    with pytest.raises(UsageError, match="--classes 1=LABEL,4=LABEL,5=LABEL,6=LABEL,7=LABEL"):
        read_truth("raf", LABELS, {})
    truth = read_truth("raf", LABELS, parse_classes("1=surprise, 4=Happiness,5=sad,7=neutral,grin=happy", LABELS))
    named = {"a.jpg": "surprise", "b.jpg": "happy", "c.jpg": "sad", "d.jpg": "neutral", "f.jpg": "happy"}
    assert by_name(truth) == named | {"e.jpg": "6"}
    assert truth.unused == ()
    assert read_truth("raf", LABELS, parse_classes("4=happy,9=sad", LABELS)).unused == ("9",)
    for wrong in ("1", "=happy", "1=cheerful", "1=happy,2"):
        with pytest.raises(UsageError, match="NAME=LABEL"):
            parse_classes(wrong, LABELS)
    with pytest.raises(UsageError, match="says two things of 1"):
        parse_classes("1=happy,1=sad", LABELS)


def test_what_has_no_truth_is_refused() -> None:
    touch("faces/alice/a.jpg", "faces/bob/b.jpg")
    with pytest.raises(UsageError, match=r"named like a label.*found: alice, bob"):
        read_truth("faces", LABELS, {})
    Path("empty").mkdir()
    with pytest.raises(NoImagesError):
        read_truth("empty", LABELS, {})
    with pytest.raises(UsageError, match="no such file or folder"):
        read_truth("nowhere", LABELS, {})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_table_gives_path_and_label(suffix: str) -> None:
    touch("data/img/1.jpg", "data/img/2.jpg", "data/img/3.jpg", "data/img/NA")
    frame = pd.DataFrame(
        {
            "File": ["img/1.jpg", "img/2.jpg", "img/3.jpg", "img/2.jpg", "img/NA", "img/1.jpg"],
            "Emotion": ["happy", "joy", "angry", "sad", "", "Happiness"],
        }
    )
    path = f"data/truth.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False, encoding="utf-8-sig")  # as Excel saves it
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    truth = read_truth(path, LABELS, {})
    assert by_name(truth) == {"1.jpg": "happy", "3.jpg": "angry", "NA": None}
    assert truth.conflicts == 1  # 2.jpg is happy and sad
    assert [ref.path for ref in truth.images] == ["data/img/1.jpg", "data/img/3.jpg", "data/img/NA"]
    assert list(truth.below) == [b"img/1.jpg", b"img/3.jpg", b"img/NA"]


def test_a_tables_paths_may_start_from_the_working_folder() -> None:
    touch("img/1.jpg")
    Path("lists").mkdir()
    Path("lists/truth.csv").write_text("path,label\nimg/1.jpg,happy\n")
    assert [ref.path for ref in read_truth("lists/truth.csv", LABELS, {}).images] == ["img/1.jpg"]


def test_one_image_spelled_in_two_ways_is_one_image() -> None:
    touch("img/1.jpg", "img/2.jpg", "img/3.jpg")
    Path("truth.csv").write_text(
        "path,label\nimg/1.jpg,happy\n./img/../img/1.jpg,happy\nimg/2.jpg,sad\nimg//2.jpg,happy\nimg/3.jpg,sad\n"
    )
    truth = read_truth("truth.csv", LABELS, {})
    assert (by_name(truth), truth.conflicts) == ({"1.jpg": "happy", "3.jpg": "sad"}, 1)
    Path("truth.csv").write_text("path,label\nimg/1.jpg,happy\n,sad\n")
    with pytest.raises(UsageError, match=r"row 2 of truth\.csv names no image"):
        read_truth("truth.csv", LABELS, {})


def test_tables_are_read_as_people_write_them() -> None:
    touch("1.jpg", "2.jpg", "3.jpg")
    Path("commas.csv").write_text("path,label\n1.jpg,happy,\n2.jpg,sad,\n")  # a comma at the end of every row
    assert by_name(read_truth("commas.csv", LABELS, {})) == {"1.jpg": "happy", "2.jpg": "sad"}
    Path("nulls.jsonl").write_text(
        '{"path":"1.jpg","label":1}\n{"path":"2.jpg","label":null}\n{"path":"3.jpg","label":2}\n'
    )
    truth = read_truth("nulls.jsonl", LABELS, {"1": "happy", "2": "sad"})
    assert by_name(truth) == {"1.jpg": "happy", "2.jpg": None, "3.jpg": "sad"}
    Path("latin.csv").write_bytes(b"path,label\n1.jpg,happy\n2.jpg,f\xe2ch\xe9\n")
    assert read_truth("latin.csv", LABELS, {}).others() == {"f\\xe2ch\\xe9": 1}
    Path("twice.csv").write_text("path,label,label \n1.jpg,happy,sad\n")
    with pytest.raises(UsageError, match="two columns called label"):
        read_truth("twice.csv", LABELS, {})


def test_other_classes_are_named_by_their_class_not_by_a_folder_in_it() -> None:
    touch("test/happy/a.jpg", "test/angry/2020/b.jpg", "test/part1/Disgust/c.jpg", "test/grumpy/x/d.jpg")
    assert read_truth("test", LABELS, {}).others() == {"angry": 1, "Disgust": 1, "grumpy": 1}


def test_a_great_many_other_classes_are_no_trouble() -> None:
    touch("0.jpg")
    rows = "".join(f"{at}.jpg,person {at}\n" for at in range(1, 40_000))
    Path("people.csv").write_text(f"path,label\n0.jpg,happy\n{rows}")
    truth = read_truth("people.csv", LABELS, {})
    assert (int(truth.has_label.sum()), len(truth.others())) == (1, 39_999)


def test_a_table_without_the_columns_is_refused() -> None:
    Path("other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"none of the columns path, file.*it has: a, b"):
        read_truth("other.csv", LABELS, {})
    Path("half.csv").write_text("path,b\n1,2\n")
    with pytest.raises(UsageError, match="none of the columns truth, label"):
        read_truth("half.csv", LABELS, {})
    Path("broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_truth("broken.parquet", LABELS, {})


def test_paths_join_by_what_they_really_are() -> None:
    touch("real/happy/1.jpg", "real/sad/2.jpg")
    Path("link").symlink_to("real")
    Path("flat").mkdir()
    Path("flat/renamed.jpg").symlink_to(Path("real/sad/2.jpg").resolve())
    images, below = [b"real/happy/1.jpg", b"real/sad/2.jpg"], [b"happy/1.jpg", b"sad/2.jpg"]
    found = match(images, below, [b"flat/renamed.jpg", b"./link/happy/../happy/1.jpg", b"elsewhere/3.jpg"])
    assert found.rows.tolist() == [1, 0]
    assert (found.by_real_path, found.by_tail, found.surplus.tolist()) == (2, 0, [2])


def test_paths_join_by_their_end_where_only_one_fits() -> None:
    images = [b"test/happy/1.jpg", b"test/sad/1.jpg", b"test/sad/2.jpg", b"test/sad/3.jpg"]
    below = [image[5:] for image in images]
    rows = [b"/mnt/a/happy/1.jpg", b"/mnt/a/sad/1.jpg", b"/mnt/b/sad/1.jpg", b"sad/2.jpg", b"3.jpg", b"xsad/9.jpg"]
    found = match(images, below, rows)
    assert found.rows.tolist() == [0, -1, 3, 4]  # sad/1.jpg could be of a or b
    assert found.missing.tolist() == [1]
    assert found.surplus.tolist() == [1, 2, 5]
    assert (found.by_real_path, found.by_tail, found.ambiguous) == (0, 3, 1)
    one = match(images, below, [stripped(row, b"/mnt/a/") for row in rows])
    assert one.rows.tolist() == [0, 1, -1, -1]
    assert match([b"x/ad/1.jpg"], [b"ad/1.jpg"], [b"mad/1.jpg"]).rows.tolist() == [-1]  # whole parts only


def test_a_bare_name_that_two_images_have_joins_neither() -> None:
    found = match([b"t/happy/1.jpg", b"t/sad/1.jpg"], [b"happy/1.jpg", b"sad/1.jpg"], [b"1.jpg"])
    assert (found.rows.tolist(), found.ambiguous) == ([-1, -1], 2)
    many = [b"t/%d/face.jpg" % at for at in range(3_000)]
    crowd = match(many, [path[2:] for path in many], [b"face.jpg"] * 3_000)  # nine million pairs, if each were made
    assert (crowd.by_tail, crowd.ambiguous) == (0, 3_000)


@pytest.fixture
def truth() -> Truth:
    touch("test/happy/1.jpg", "test/sad/2.jpg", "test/sad/3.jpg")
    return read_truth("test", LABELS, {})


def test_votes_are_read_by_file_name_and_added_up_by_label(truth: Truth) -> None:
    Path("votes.csv").write_text(
        "file,row,votes_neutral,votes_happiness,votes_joy,votes_surprise,votes_sadness,votes_nf\n"
        "3.jpg,7,1,2,,0,7,0\n9.jpg,8,9,9,9,9,9,9\n1.jpg,9,0,5,3,0,0,2\n"
    )
    votes, joined = read_votes("votes.csv", truth)
    assert votes.answers == (*LABELS, "nf")
    np.testing.assert_array_equal(votes.counts, [[8, 0, 0, 0, 2], [0, 0, 0, 0, 0], [2, 7, 1, 0, 0]])
    assert (joined.missing, joined.missing_example, joined.surplus) == (1, "test/sad/2.jpg", 1)


def test_votes_may_have_the_plain_names_of_fer_plus(truth: Truth) -> None:
    Path("fer.csv").write_text(
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,NF\nTraining,1.jpg,1,8,0,0,1,0\n"
    )
    votes, _ = read_votes("fer.csv", truth)
    assert votes.answers == (*LABELS, "anger", "NF")
    np.testing.assert_array_equal(votes.counts[0], [8, 0, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,votes_happy,votes_sad\n1.jpg,1,2\n", "no column of votes for neutral, surprise"),
        ("file,happy,sad,neutral,surprise\n1.jpg,1,2,x,0\n", "'x' is no number of votes"),
        ("file,happy,sad,neutral,surprise\n1.jpg,1,-2,0,0\n", "'-2' is no number of votes"),
        ("file,happy,sad,neutral,surprise\n1.jpg,1,inf,0,0\n", "'inf' is no number of votes"),
        ("file,happy,sad,neutral,surprise\nother.jpg,1,2,0,0\n", r"speaks of none of the images.*other\.jpg"),
    ],
)
def test_bad_votes_are_one_sentence(text: str, said: str, truth: Truth) -> None:
    Path("votes.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_votes("votes.csv", truth)


def test_metadata_divides_the_images_and_ids_are_left_out(truth: Truth) -> None:
    many = "".join(f"m{at}.jpg,x,{at}\n" for at in range(60))
    Path("meta.csv").write_text("path,camera,id\ntest/happy/1.jpg,A,1\n2.jpg,,2\n" + many)
    slices, joined = read_slices("meta.csv", truth)
    values, codes = slices.columns["camera"]
    assert [values[code] for code in codes] == ["A", "(empty)", "(no row)"]
    assert joined.missing == 1
    assert "id" in slices.columns
    Path("same.csv").write_text("path,camera\n1.jpg,A\n2.jpg,A\n3.jpg,A\n")
    assert read_slices("same.csv", truth)[0].left_out == ("camera",)
    for at in range(60):
        touch(f"test/sad/m{at}.jpg")
    slices, _ = read_slices("meta.csv", read_truth("test", LABELS, {}))
    assert slices.left_out == ("id",)
    assert list(slices.columns) == ["camera"]
