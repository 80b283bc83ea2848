"""Tables as people have them: encodings, separators, headers, names of columns, and images that are not where they say.

Each is read by what `evaluate` and `train` read it with; the commands are tried in tests/evaluate and tests/train.
"""

from __future__ import annotations

import io
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import draw_face, parquet_tools
from test_truth import LABELS, by_name, touch

from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.options import TableOptions
from ferbatch.images.decode import decode, read_bytes
from ferbatch.sources.finding import find
from ferbatch.sources.matching import match
from ferbatch.sources.metadata import read_slices, read_votes
from ferbatch.sources.tables import read_table
from ferbatch.sources.truth import Truth, parse_classes, read_truth

ROWS = {f"img/{n}.jpg": ("happy", "sad")[n % 2] for n in range(6)}
THERE = {os.path.basename(path): label for path, label in ROWS.items()}


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(*ROWS)


def written(name: str, header: str | None, row: str, encoding: str = "utf-8", end: str = "\n") -> str:
    """A table with a row for each image, as `row` says with its places for path and label."""
    lines = [*([header] if header else []), *(row.format(path, label) for path, label in ROWS.items())]
    Path(name).write_bytes((end.join(lines) + end).encode(encoding))
    return name


def read(path: str, **choice: str | None) -> Truth:
    return read_truth(path, LABELS, {}, TableOptions(**choice))


def is_found(truth: Truth) -> bool:
    """Whether every image has its label, and is there."""
    return by_name(truth) == THERE and all(os.path.exists(ref.file) for ref in truth.images) and not truth.absent


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_table_is_read_in_the_encoding_that_it_is_in(encoding: str, suffix: str) -> None:
    if suffix == "csv":
        path = written("t.csv", "path,label", "{},{}", encoding, "\r\n")
    else:
        frame = pd.DataFrame({"path": list(ROWS), "label": list(ROWS.values())})
        text = frame.to_json(orient="records", lines=suffix == "jsonl")
        path = f"t.{suffix}"
        Path(path).write_bytes(text.encode(encoding))
    assert is_found(read(path))


def test_big_endian_with_its_mark_is_read_too() -> None:
    text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in ROWS.items())
    Path("big.csv").write_bytes(b"\xfe\xff" + text.encode("utf-16-be"))
    assert is_found(read("big.csv"))


def test_what_is_no_text_is_said() -> None:
    Path("nul.csv").write_bytes(b"path,label\nimg/0.jpg\0,happy\n")
    with pytest.raises(UsageError, match=r"nul\.csv holds NUL bytes.*save it as UTF-8"):
        read("nul.csv")
    Path("odd.csv").write_bytes(b"\xff\xfe" + "path,label\n".encode("utf-16-le") + b"\x00\xd8\x00\xd8\n\x00")
    with pytest.raises(UsageError, match=r"odd\.csv cannot be read as a table: .*utf-16"):
        read("odd.csv")


def test_a_table_that_windows_saved_without_unicode_finds_its_images() -> None:
    touch("pics/Müller.jpg", "pics/Zoë.jpg")
    Path("t.csv").write_bytes("Datei;Gefühl\r\npics\\Müller.jpg;happy\r\npics\\Zoë.jpg;sad\r\n".encode("cp1252"))
    truth = read("t.csv", path_column="Datei", label_column="gefühl")
    assert by_name(truth) == {"Müller.jpg": "happy", "Zoë.jpg": "sad"}
    assert "2 images of t.csv found, though written otherwise" in truth.notes[-1]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "lst"])
@pytest.mark.parametrize(
    ("separator", "said"), [(",", None), (";", "semicolons"), ("\t", "tabs"), (" ", "spaces")], ids=str
)
def test_what_separates_the_values_is_found_and_said(separator: str, said: str | None, suffix: str) -> None:
    truth = read(written(f"t.{suffix}", f"path{separator}label", f"{{}}{separator}{{}}"))
    assert is_found(truth)
    assert truth.notes == ((f"t.{suffix}: {said} separate the values",) if said else ())


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,label,note", '{},{},"a;b;c; d\te"'),  # the other separators in quotes
        ("path;label;note", '{};{};"a,b,c, d"'),
        ("path\tlabel\tnote", "{}\t{}\ta, b; c d"),  # in a value
        ("note,path,label", "two words,{},{}"),
        ("note;path;confidence;label", "x;{};0,93;{}"),  # a comma in a number
        ('"image";"label"', '"{}";"{}"'),
        ("image  label", "{}    {}"),  # more than one space
        ("id image label", "7 {} {} "),  # one at the end
        ("path,label,comment", "{},{}"),  # rows with nothing in the last column
        (",pth,label", "3,{},{}"),  # a frame's index
        ("a;b,path,label", "1;2,{},{}"),  # another separator in the header
    ],
)
def test_separators_in_values_separate_nothing(header: str, row: str) -> None:
    assert is_found(read(written("t.csv", header, row)))


def test_a_single_column_is_one_column_and_names_with_spaces_stay_whole() -> None:
    touch("img/a b.jpg", "img/c d.jpg")
    Path("one.csv").write_text("image name\nimg/a b.jpg\nimg/c d.jpg\n")
    with pytest.raises(UsageError, match=r"it has: image name\); --label-column NAME says which"):
        read("one.csv")
    Path("names.txt").write_text("img/a b.jpg\nimg/c d.jpg\n")
    with pytest.raises(UsageError, match=r"they go by their numbers; it has: 1\)"):
        read("names.txt")
    Path("t.csv").write_text("image name,label\nimg/a b.jpg,happy\nimg/c d.jpg,sad\n")
    assert by_name(read("t.csv")) == {"a b.jpg": "happy", "c d.jpg": "sad"}


def test_a_list_without_a_header_is_read() -> None:
    truth = read(written("list_patition_label.txt", None, "{} {}"))
    assert is_found(truth)
    assert truth.notes[1] == "list_patition_label.txt: no header; the 2 columns go by number, from 1 on"
    assert is_found(read(written("swapped.csv", None, "{1},{0}")))
    wide = written("label.lst", None, "{} 0 42 160 25.8 {}")
    with pytest.raises(UsageError, match=r"no header, so they go by their numbers; it has: 1, 2, 3, 4, 5, 6\)"):
        read(wide)
    assert is_found(read(wide, label_column="6"))


def test_numbers_without_a_meaning_are_asked_about() -> None:
    Path("raf.txt").write_text("img/0.jpg 4\nimg/1.jpg 5\n")
    with pytest.raises(UsageError, match="are numbers: say what they mean with --classes 4=LABEL,5=LABEL"):
        read("raf.txt")
    assert by_name(read_truth("raf.txt", LABELS, {"4": "happy", "5": "sad"})) == {"0.jpg": "happy", "1.jpg": "sad"}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        *(("pth", "label"), ("subDirectory_filePath", "expression"), ("image", "choice"), ("img", "category")),
        *(("fname", "sentiment"), ("Image ID", "Class Name"), ("file-path", "emotion")),
        ("bild", "label"),  # known by what it holds
    ],
)
def test_columns_are_known_by_what_people_call_them(path: str, label: str) -> None:
    assert is_found(read(written("t.csv", f"id,{path},{label}", "1,{},{}")))


def test_of_two_columns_the_one_with_names_of_images_counts() -> None:
    assert is_found(read(written("t.csv", "image,pth,label", "17,{},{}")))


def test_options_say_which_columns_and_mistakes_in_them_are_sentences() -> None:
    table = written("t.csv", "one,two,said,label", "x.jpg,{},{},angry")
    assert is_found(read(table, path_column="TWO", label_column="said"))
    with pytest.raises(UsageError, match=r"none of the columns path.*it has: one, two, said, label\); --path-column"):
        read(table)
    with pytest.raises(UsageError, match=r"--label-column: t\.csv has no column three \(it has: one, two"):
        read(table, path_column="two", label_column="three")
    with pytest.raises(UsageError, match="--images: no folder gone"):
        read(table, path_column="two", label_column="said", images="gone")
    with pytest.raises(UsageError, match=r"--split: t\.csv has none of the columns split, usage"):
        read(table, path_column="two", label_column="said", split="test")
    for name in ("images", "label_column", "split"):
        option = f"--{name.replace('_', '-')}"
        with pytest.raises(UsageError, match=f"{option} needs a table, and img is a folder"):
            read("img", **{name: "img"})


def test_rows_are_chosen_by_their_split() -> None:
    lines = [f"{path},{label},{('Train', 'test')[n > 2]}\n" for n, (path, label) in enumerate(ROWS.items())]
    Path("t.csv").write_text("path,label,Split\n" + "".join(lines))
    assert sorted(by_name(read("t.csv", split="TEST"))) == ["3.jpg", "4.jpg", "5.jpg"]
    assert len(read("t.csv").images) == 6
    with pytest.raises(UsageError, match=r"no row of t\.csv says dev \(it says: Train, test\)"):
        read("t.csv", split="dev")


@pytest.mark.parametrize(
    "form",
    [
        "C:\\data\\{}\\{}.jpg",
        "{}\\{}.jpg",
        "{}/{}.JPG",
        "{}/{}",
        "IMG/{1}.Jpg",
        "/home/somebody/{}/{}.jpg",
        "https://example.org/{}/{}.jpg",
        "/data/local-files/?d={}%2F{}.jpg",
    ],
)
def test_a_path_that_is_written_otherwise_is_found_where_one_file_fits(form: str) -> None:
    rows = "".join(f"{form.format('img', n)},{label}\n" for n, label in enumerate(ROWS.values()))
    Path("t.csv").write_text("path,label\n" + rows)
    truth = read("t.csv", images="." if "://" in form else None)  # or a URL leads where it says
    assert is_found(truth)
    assert truth.notes[-1].startswith("6 images of t.csv found, though written otherwise: ")
    assert truth.notes[-1].endswith(f"is {'./' * ('://' in form)}img/0.jpg")


def test_a_path_is_not_guessed_where_two_files_would_fit() -> None:
    touch("two/a.jpg", "two/a.JPG", "two/b.jpg", "two/b.png", "two/c.jpg", f"two/{decomposed('é')}.jpg", "two/é.JPG")
    rows = [
        "two/a.Jpg",
        "two/b",
        "elsewhere/img/1.jpg",
        "two/c.jpg",
        "two/C.JPG",
        "/x/two/c.jpg",
        "two/É.jpg",
        "img/0.jpg",
    ]
    Path("t.csv").write_text("path,label\n" + "".join(f"{row},happy\n" for row in rows))
    truth = read("t.csv")
    there = [ref.path for ref in truth.images if os.path.exists(ref.file)]
    assert there == ["two/c.jpg", "img/0.jpg"]
    assert truth.absent.startswith("2 of the 8 images of t.csv are there: looked for two/a.Jpg, there is two/c.jpg")


def test_backslashes_stay_where_such_a_file_exists() -> None:
    touch("img\\0.jpg", "img\\x31.jpg")
    Path("t.csv").write_text("path,label\nimg\\0.jpg,happy\nimg\\x31.jpg,sad\nimg\\1.jpg,sad\n")
    assert [ref.file for ref in read("t.csv").images] == [b"img\\0.jpg", b"img\\x31.jpg", b"img/1.jpg"]


def test_accents_are_joined_however_they_are_coded_where_one_file_fits() -> None:
    names = ["José", "Zoë", "Müller", "한국"]
    touch(*(f"mac/{decomposed('é')}/{decomposed(name)}.jpg" for name in names))
    Path("mac/truth.csv").write_text("file,label\n" + "".join(f"é/{name}.jpg,happy\n" for name in names))
    truth = read("mac/truth.csv")
    assert all(os.path.exists(ref.file) for ref in truth.images)
    assert truth.notes == (f"4 images of mac/truth.csv found, though written otherwise: é/José.jpg is"
                           f" mac/{decomposed('é')}/{decomposed('José')}.jpg",)  # fmt: skip
    votes = "".join(f"{name}.jpg,1,2,3,4\n" for name in names)
    Path("votes.csv").write_text("file,votes_happy,votes_sad,votes_neutral,votes_surprise\n" + votes)
    _, joined = read_votes("votes.csv", truth)
    assert (joined.missing, joined.by_tail, joined.by_spelling) == (0, 4, 4)
    images = [f"{name}.jpg".encode() for name in ("é", decomposed("é"))]
    assert match(images, images, ["É.jpg".encode()]).rows.tolist() == [-1, -1]
    assert match(images, images, ["x/é.jpg".encode()]).rows.tolist() == [0, -1]


def test_images_says_where_they_are_and_never_which_of_two() -> None:
    touch("deep/x/0001.jpg", "deep/y/0002.jpg", "deep/y/0003_aligned.jpg", "deep/x/same.jpg", "deep/y/same.jpg")
    touch("deep/x/p.jpg", "deep/z/0005.png")
    rows = ["0001.jpg", "/data/upload/1/0a1b2c3d-0002.jpg", "0003.jpg", "same.jpg", "other/x/p.jpg", "C:\\z\\0005.PNG"]
    Path("t.csv").write_text("image,choice\n" + "".join(f"{row},happy\n" for row in [*rows, "gone.jpg"]))
    found = [ref.path for ref in read("t.csv", images="deep").images]
    aligned = ["deep/x/0001.jpg", "deep/y/0002.jpg", "deep/y/0003_aligned.jpg"]
    assert found == [*aligned, "deep/same.jpg", "deep/x/p.jpg", "deep/z/0005.png", "deep/gone.jpg"]
    assert read("t.csv", images="deep").absent.startswith("5 of the 7 images of t.csv are there: looked for deep/same")
    Path("below.csv").write_text("image,label\nq/p.jpg,sad\nr/p.jpg,happy\n")  # either could mean it
    assert not any(os.path.exists(ref.file) for ref in read("below.csv", images="deep").images)


def test_what_is_not_there_is_said_by_all_the_rows() -> None:
    Path("t.csv").write_text("path,label\n" + "".join(f"new/{n:03}.jpg,happy\n" for n in range(400)))
    truth = read("t.csv")
    assert truth.none_is_there
    assert truth.absent == (
        "none of the 400 images of t.csv is there: looked for new/000.jpg, there is img/0.jpg"
        " (--images DIR says which folder they are in)"
    )
    touch("new/007.jpg")
    assert not read("t.csv").none_is_there
    assert read("t.csv").absent.startswith(
        "1 of the 400 images of t.csv is there: looked for new/000.jpg, there is new/007"
    )


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    draw_face(seed).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("held", ["bytes", "struct"])
def test_the_images_that_a_table_holds_are_its_own(held: str) -> None:
    images = [picture(n) if held == "bytes" else {"bytes": picture(n), "path": f"{n}.png"} for n in range(3)]
    frame = pd.DataFrame({"image": images, "label": ["happy", "sad", "sad"], "votes_happy": 1})
    frame.to_parquet("hf.parquet")
    truth = read("hf.parquet")
    names = [f"hf.parquet/{n:09d}" if held == "bytes" else f"hf.parquet/{n}.png" for n in range(3)]
    assert [ref.path for ref in truth.images] == names
    assert [truth.names[code] for code in truth.codes] == ["happy", "sad", "sad"]
    assert [read_bytes(ref.file) for ref in truth.images] == [picture(n) for n in range(3)]
    with pytest.raises(UsageError, match=r"--images: the images of hf\.parquet are in it"):
        read("hf.parquet", images=".")
    frame.assign(file_name=list(ROWS)[:3]).to_parquet("both.parquet")
    assert sorted(by_name(read("both.parquet", path_column="file_name"))) == ["0.jpg", "1.jpg", "2.jpg"]


def test_the_names_that_hugging_face_gives_numbers_are_the_labels() -> None:
    pa, pq = parquet_tools()
    feature = {"label": {"names": ["angry", "Happy", "sad"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    table = pa.table({"image": [{"bytes": picture(n), "path": None} for n in range(4)], "label": [1, 2, 0, None]})
    pq.write_table(table.replace_schema_metadata(metadata), "hf.parquet")
    truth = read("hf.parquet")
    assert [truth.names[code] if code >= 0 else "" for code in truth.codes] == ["happy", "sad", "angry", ""]
    images = [{"bytes": None, "path": path} for path in ROWS]  # as Dataset.to_parquet has images that are files
    table = pa.table({"image": images, "label": [1] * len(ROWS)})
    pq.write_table(table.replace_schema_metadata(metadata), "paths.parquet")
    assert set(by_name(read("paths.parquet")).values()) == {"happy"}


def test_text_that_parquet_holds_as_bytes_is_text_and_an_image_is_no_label() -> None:
    rows = {"path": [path.encode() for path in ROWS], "label": [label.encode() for label in ROWS.values()]}
    pd.DataFrame(rows).to_parquet("t.parquet")
    assert is_found(read("t.parquet"))
    pd.DataFrame({"path": list(ROWS)[:1], "label": [picture(0)]}).to_parquet("odd.parquet")
    with pytest.raises(UsageError, match=r"odd\.parquet has none of the columns truth, label"):
        read("odd.parquet")


def test_an_image_that_is_a_path_and_no_bytes_is_that_path() -> None:
    images = [{"bytes": None, "path": path} for path in ROWS]
    pd.DataFrame({"image": images, "label": list(ROWS.values())}).to_parquet("hf.parquet")
    assert is_found(read("hf.parquet"))


@pytest.mark.parametrize("name", ["path", None, "whatever"])
def test_paths_in_a_frames_index_are_found(name: str | None) -> None:
    index = pd.Index(list(ROWS), name=name)
    pd.DataFrame({"label": list(ROWS.values())}, index=index).to_parquet("t.parquet")
    assert is_found(read("t.parquet"))


def test_a_nul_in_a_name_is_one_sentence() -> None:
    Path("nul.csv").write_text('path,label\nimg/0.jpg,happy\n"a\\x00b/c.jpg",happy\n')
    for reads in (
        lambda: read("nul.csv"),
        lambda: read_slices("nul.csv", read(written("t.csv", "path,label", "{},{}"))),
    ):
        with pytest.raises(UsageError, match=r"nul\.csv, row 2, column path: .* holds a NUL, which no name"):
            reads()


def test_no_message_shows_more_than_a_little_of_a_table() -> None:
    long = "x" * 5_000
    Path("t.csv").write_text(f"{long},{long}2\n{long},{long}\n")
    Path("labels.csv").write_text(f"path,label\n{long},{long}\n")
    Path("votes.csv").write_text(f"path,{long},happy,sad,neutral,surprise\n0.jpg,1,{long},1,1,1\n")
    truth = read(written("good.csv", "path,label", "{},{}"))
    for reads in (
        lambda: read("t.csv"),
        lambda: read("labels.csv"),
        lambda: read("t.csv", path_column=long),
        lambda: read_votes("votes.csv", truth),
        lambda: read_slices("labels.csv", truth),
    ):
        with pytest.raises(UsageError) as error:
            reads()
        assert str(error.value).count("x") <= 200


def pixels_table(path: str, rows: list[tuple[int, str]], header: str = "emotion,pixels,Usage") -> None:
    """A table as FER2013's: a drawn face in each row."""
    lines = []
    for n, (emotion, usage) in enumerate(rows):
        values = {"emotion": str(emotion), "pixels": " ".join(map(str, draw_face(n).tobytes())), "Usage": usage}
        lines.append(",".join(values[name.strip()] for name in header.split(",")))
    Path(path).write_text("\n".join([header, *lines]) + "\n")


USES = [(3, "Training"), (4, "Training"), (5, "PublicTest"), (6, "PrivateTest"), (0, "PrivateTest"), (3, "PrivateTest")]


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", "emotion, Usage, pixels"])
def test_a_table_of_pixels_is_its_own_folder_of_images(header: str) -> None:
    pixels_table("fer2013.csv", USES, header)
    truth = read("fer2013.csv")
    assert by_name(truth) == {"fer0000003.png": "neutral", "fer0000004.png": "angry", "fer0000005.png": "happy"}
    assert truth.notes == ("fer2013.csv: the 3 images of PrivateTest alone (--split takes another part)",)
    assert next(ref.path for ref in truth.images) == "fer2013.csv/PrivateTest/fer0000003.png"
    assert sorted(by_name(read("fer2013.csv", split="training"))) == ["fer0000000.png", "fer0000001.png"]
    for ref in truth.images:
        found = decode(read_bytes(ref.file))
        np.testing.assert_array_equal(np.asarray(found.pixels), np.asarray(draw_face(int(ref.path[-11:-4]))))
    Path("fer2013new.csv").write_text(
        "Usage,Image name,neutral,happiness,surprise,sadness,NF\nPrivateTest,fer0000003.png,8,1,0,0,1\n"
    )
    votes, _ = read_votes("fer2013new.csv", truth)
    assert votes.counts[0].tolist() == [1, 0, 8, 0, 1]
    with pytest.raises(UsageError, match=r"--images: the images of fer2013\.csv are in it"):
        read("fer2013.csv", images=".")


def test_classes_may_give_the_numbers_another_meaning() -> None:
    pixels_table("other.csv", [(1, ""), (2, "")])
    truth = read_truth("other.csv", LABELS, parse_classes("1=happy,2=sad", LABELS))
    assert by_name(truth) == {"fer0000000.png": "happy", "fer0000001.png": "sad"}
    assert next(ref.path for ref in truth.images) == "other.csv/fer0000000.png"


@pytest.mark.parametrize("pixels", ["1 2 3", "0 1 2 256", "0 1 2 x", "", "-1 0 0 0"])
def test_pixels_that_are_no_image_are_an_error_of_that_image(pixels: str) -> None:
    Path("t.csv").write_text(f"emotion,pixels,Usage\n3,{pixels},Training\n4,0 50 100 250,Training\n")
    with pytest.raises(UnreadableImageError, match="no square of numbers"):
        read_bytes(b"t.csv/Training/fer0000000.png")
    assert decode(read_bytes(b"t.csv/Training/fer0000001.png")).width == 2
    for nowhere in (b"t.csv/Training/fer0000002.png", b"t.csv/other.png", b"gone.csv/fer0000000.png"):
        with pytest.raises(UnreadableImageError, match="no such file"):
            read_bytes(nowhere)


def test_a_url_leads_where_it_says_unless_images_has_a_file_that_fits() -> None:
    away, near, lost = b"s3://bucket/none.jpg", b"s3://bucket/img/0.jpg", b"img/lost.jpg"
    Path("t.csv").touch()
    found = find("t.csv", [away, lost, near, b"img/1.jpg"], None)
    assert [*found.files.items()] == [(path, path) for path in (away, lost, near, b"img/1.jpg")]
    assert not found.none
    assert found.absent.startswith("1 of the 2 local images of t.csv is there: looked for img/lost.jpg")
    below = find("t.csv", [away, near], "img")
    assert below.files == {away: away, near: b"img/0.jpg"}
    assert (below.none, below.absent) == (False, "")
    there = find("t.csv", [b"./a%20b/c?.jpg", near, b"/abs/1.jpg"], "https://host/in?v=1")
    assert [*there.files.values()] == [b"https://host/in/a%2520b/c%3F.jpg?v=1", near, b"/abs/1.jpg"]


@pytest.mark.parametrize("header", ["url", "url,label"])
def test_a_url_that_is_parted_by_its_commas_is_refused(header: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    more = ",happy" * (header != "url")
    table.write_text(f"{header}\nhttps://host/w_48,h_48/1.jpg{more}\n")
    with pytest.raises(
        UsageError, match=r"row 1 of .*t\.csv has . values, its header .: a URL that holds commas needs"
    ):
        read_table(str(table))
    table.write_text(f'{header}\n"https://host/w_48,h_48/1.jpg"{more}\n')
    assert read_table(str(table)).paths("url") == [b"https://host/w_48,h_48/1.jpg"]
