"""Whatever a file is called and wherever it lies: one row, its name in every format, and nothing that acts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from batches import Image, batch_of
from hypothesis import given
from hypothesis import strategies as st
from support import HOSTILE, LABELS, NAMES, TEXTS, Ferbatch, depth, draw_face

import ferbatch
from ferbatch.core.errors import UsageError
from ferbatch.core.names import decode_path, encode_path, encode_paths
from ferbatch.core.records import Failure
from ferbatch.core.writers import WRITERS, check_format
from ferbatch.sources.listing import list_images


def read_plainly(path: Path) -> list[dict[str, Any]]:
    """The rows as the plain readers of the field find them."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    with open(path, encoding="utf-8") as stream:
        return list(json.load(stream)) if path.suffix == ".json" else [json.loads(line) for line in stream]


def read_with_pandas(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=path.suffix == ".jsonl", dtype=False)


def same(path: str, name: bytes) -> bool:
    """Whether a path of an output is this name again, up to the `./` before what looks like a formula."""
    return decode_path(path) in (name, b"./" + name)


@pytest.mark.parametrize("suffix", WRITERS)
@given(rows=st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=8))
def test_every_name_comes_back_from_every_format(suffix: str, rows: list[tuple[bytes, str]], tmp_path: Path) -> None:
    names = [b"in/" * (at % 2 == 0) + name for at, (name, _) in enumerate(rows)]
    path = tmp_path / f"labels.{suffix}"
    with open(path, "wb") as stream:
        writer = WRITERS[suffix](stream, LABELS)
        said = [Failure("unreadable", f"PNG: {message}") for _, message in rows]
        writer.write(batch_of([Image(name, failure=why) for name, why in zip(names, said, strict=True)]))
        writer.close()
    plain = read_plainly(path)
    for found in (ferbatch.read_labels(path), read_with_pandas(path), pd.DataFrame(plain)):
        assert len(found) == len(names)
        assert all(map(same, found["path"], names))
        for said, (_, message) in zip(found["error"], rows, strict=True):
            assert said.isprintable()
            assert [c for c in said if c.isalnum()] == [c for c in f"PNG{message}" if c.isalnum()]


@given(name=NAMES)
def test_any_name_comes_back_and_does_nothing(name: bytes) -> None:
    text = encode_path(name)
    assert same(text, name)
    assert encode_path(decode_path(text)) == text
    assert len(text.splitlines()) == 1
    assert not text.startswith(("=", "+", "-", "@"))
    assert not {unicodedata.category(char) for char in text} & {"Cc", "Cs"}


PLAIN_NAMES = st.sampled_from([b"a/b.jpg", "größe-日本-😀/1.png".encode(), b"a=b", b"x y", b"'"])


@given(st.lists(PLAIN_NAMES | PLAIN_NAMES | PLAIN_NAMES | NAMES | st.binary(max_size=6), max_size=12))
def test_many_names_are_written_as_each_one_is(names: list[bytes]) -> None:
    assert encode_paths(names) == list(map(encode_path, names))


def test_there_is_no_character_that_many_names_are_written_another_way_for() -> None:
    every = (chr(code).encode() for code in chain(range(0xD800), range(0xE000, depth(0x10000, 0x110000))))
    bytes_ = (bytes([byte]) for byte in range(256))
    for one in chain(every, bytes_):
        for name in (one + b"a", b"a" + one):
            assert encode_paths([b"a", name]) == ["a", encode_path(name)]


@given(name=NAMES)
def test_the_path_of_a_row_opens_the_file(name: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    here = os.getcwd()
    os.chdir(folder)
    try:
        Path(os.fsdecode(name)).touch()
        (ref,) = list_images([name], LABELS)
        assert os.path.samefile(decode_path(ref.path), name)
        (ref,) = list_images(["-"], LABELS, listed=[name])
        assert os.path.samefile(decode_path(ref.path), name)
    finally:
        os.chdir(here)
        shutil.rmtree(folder)


def picture(path: bytes, seed: int = 1) -> None:
    os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
    with open(path, "wb") as stream:
        draw_face(seed).save(stream, "PNG")


MORE_NAMES = [
    *(b"\xff" * 255, "\ufeffbom.jpg".encode(), "zero\u200bwidth.jpg".encode(), "next\x85line.jpg".encode()),
    *(b"\xed\xa0\x80.jpg", b"\n", b" ", b"~", b"-", b"--help.jpg", b"-o", b"%s%n{0}.jpg", b"\x1b]0;title\x07.jpg"),
    *(b"$(touch owned).jpg", b"`touch owned`.jpg", b"*.jpg", rb"..\x2f..\x2f.jpg", b"..jpg", b"...", b"labels.csv"),
]
LONG = b"d" * 250  # the name of a folder; a path of 17 of them is longer than a path may be


def build_deep() -> dict[bytes, str]:
    """Folders in folders, to where no path reaches: a row for each picture and for what cannot be looked into."""
    top, path, rows = os.getcwd(), b"in/deep", {}
    os.mkdir(path)
    os.chdir(path)
    for level in range(20):
        picture(b"face.jpg")
        if level < 17:
            rows[path + b"/face.jpg"] = "ok"
        if level == 16:
            picture(b"e" * 60 + b"/1.jpg")
            picture(b"e" * 60 + b"/too-long.jpg")
            rows[path + b"/" + b"e" * 60 + b"/1.jpg"] = "ok"
            rows[path + b"/" + b"e" * 60 + b"/too-long.jpg"] = "unreadable"
        if level == 17:
            rows[path] = "unreadable"
        path += b"/" + LONG
        os.mkdir(LONG)
        os.chdir(LONG)
    os.chdir(top)
    return rows


def build_tree() -> dict[bytes, str]:
    """Everything odd in a folder `in`; what its rows must say, by the bytes of their paths."""
    rows = {}
    for at, name in enumerate((*HOSTILE, *MORE_NAMES)):
        for path in (b"in/" + name, b"in/folders/" + name + b"/" + name):
            picture(path, at)
            rows[path] = "ok"
    picture(b"in/folder.jpg/face")
    picture(b"in/secret.jpg")
    picture(b"in/secret/face.jpg")
    rows |= {b"in/folder.jpg/face": "ok", b"in/hard.jpg": "ok", b"in/soft.jpg": "ok"}
    os.link("in/folder.jpg/face", "in/hard.jpg")
    for link, target in {
        **{"soft.jpg": "hard.jpg", "nowhere.jpg": "gone", "self.jpg": "self.jpg", "there.jpg": "back.jpg"},
        **{"back.jpg": "there.jpg", "self": "self", "nowhere": "gone", "up": "..", "same": ".", "to.jpg": "folder.jpg"},
    }.items():
        os.symlink(target, f"in/{link}")
    rows |= {b"in/nowhere.jpg": "not_found"} | {b"in/%s.jpg" % n: "unreadable" for n in (b"self", b"there", b"back")}
    Path("in/damaged.jpg").write_text("no image")
    Path("in/notes.txt").write_text("no image")
    rows[b"in/damaged.jpg"] = "unreadable"
    for kind in ("", ".jpg"):
        os.mkfifo(f"in/pipe{kind}")
        os.mknod(f"in/socket{kind}", stat.S_IFSOCK | 0o600)
    os.symlink("pipe.jpg", "in/to-pipe.jpg")
    os.chmod("in/secret.jpg", 0)
    os.chmod("in/secret", 0)
    looks = os.access("in/secret", os.R_OK)  # as root may
    rows |= {b"in/secret.jpg": "ok" if looks else "permission"}
    rows |= {b"in/secret/face.jpg": "ok"} if looks else {b"in/secret": "permission"}
    return rows | build_deep()


ASIDE = 8  # notes.txt, two pipes, two sockets, the link to a pipe, the links to nowhere and to itself that are no .jpg
LINKS = 3  # to folders
NAMED = {  # on the command line, besides `in`
    **{b"in/pipe.jpg": "unsupported", b"in/socket": "unsupported", b"/dev/zero": "unsupported"},
    **{b"in/to-pipe.jpg": "unsupported", b"in/notes.txt": "unreadable", b"in/self": "unreadable"},
    **{b"in/nowhere": "not_found"},
}
LISTED = {b"./-": "not_found", b"gone\n.jpg": "not_found", b"in/pipe": "unsupported"}
AGAIN = [
    b"in",
    b"./in//",
    b"in/../in",
    b"./in//hard.jpg",
    b"in/folder.jpg/../soft.jpg",
    b"in/secret",
    b"in/nowhere.jpg",
]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[bytes, str]]:
    """The tree below tmp_path/in, and what its rows must say."""
    monkeypatch.chdir(tmp_path)
    yield build_tree()
    os.chmod("in/secret", 0o700)
    shutil.rmtree("in")  # pytest would leave that to a later run


def test_a_format_that_acts_is_not_printed_as_it_is() -> None:
    with pytest.raises(UsageError, match=r"no format called '\\x1b\[31mcsv'"):
        check_format("\x1b[31mcsv")


def test_what_vanishes_after_it_was_listed_is_a_row(tmp_path: Path) -> None:
    for name in (b"in/1.png", b"in/2.png", b"in/below/3.png"):
        picture(os.fsencode(tmp_path) + b"/" + name)
    predictions = ferbatch.label(tmp_path / "in")
    (tmp_path / "in/2.png").unlink()
    shutil.rmtree(tmp_path / "in/below")
    assert [one.error_kind for one in predictions] == [None, "not_found", "not_found"]


def controls(text: bytes) -> set[str]:
    """What could act on a terminal in something printed, lines apart."""
    return {char for char in text.decode() if not char.isprintable()} - {"\n"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and sockets have no names here")
def test_a_tree_built_to_break_it_has_one_row_for_each_image_in_every_format(
    tree: dict[bytes, str], ferbatch_in: Ferbatch, tmp_path: Path
) -> None:
    in_order = sorted(tree.items(), key=lambda one: one[0] + b"/" * os.path.isdir(one[0]))
    wanted = dict(in_order) | NAMED | LISTED | {b"in/to.jpg/face": "ok"}
    paths = [b"in", *AGAIN, b"/%s//in" % os.fsencode(tmp_path), *NAMED, b"-", b"in/to.jpg", *AGAIN]
    listed = b"\0".join([b"-", *AGAIN, *LISTED, *AGAIN])
    for suffix in WRITERS:
        done = ferbatch_in("label", "-0", "--hidden", *paths, "-o", f"out.{suffix}", "-v", input=listed)
        assert done.returncode == 3
        assert not controls(done.stderr)
        rows = read_plainly(tmp_path / f"out.{suffix}")
        assert len(rows) == len(wanted)
        for row, (path, kind) in zip(rows, wanted.items(), strict=True):
            assert same(row["path"], path)
            assert (row["error_kind"] or "ok") == kind
        frame = ferbatch.read_labels(tmp_path / f"out.{suffix}")
        assert list(frame["path"]) == [row["path"] for row in rows]
        counts = json.loads((tmp_path / f"out.{suffix}.run.json").read_text())["counts"]
        assert counts["images"] == len(wanted)
        assert counts["errors"] == Counter(kind for kind in wanted.values() if kind != "ok")
        assert sum(counts["labels"].values()) == sum(kind == "ok" for kind in wanted.values())
        assert (counts["left_aside"], counts["links_not_followed"]) == (ASIDE, LINKS)


MARKUP_NAMES = [
    *(
        "<img src=x onerror=alert(1)>.jpg",
        '"><svg onload=alert(1)>.jpg',
        "' onmouseover='alert(1).jpg",
        "`><plaintext>",
    ),
    *(
        '" autofocus onfocus="alert(1).jpg',
        "<!--.jpg",
        "--!><b>.jpg",
        "]]><b>.jpg",
        "&lt;b&gt;&#60;b&#62;.jpg",
        "<.jpg",
    ),
    *("{{ 7 * 7 }}{% raw %}.jpg", "javascript:alert(1).jpg"),
]


class Structure(HTMLParser):
    """A page's elements with the names of their attributes, and the text of its <code> elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[str]]] = []
        self.code: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))
        self.inside = tag == "code"
        self.code += [""] * self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.code[-1] += data


def test_no_name_becomes_an_element_or_an_attribute_of_the_report(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    def page(report: str, truth: str, other: str, names: list[str]) -> Structure:
        for folder in ("happy", "sad", other):
            for name in names:
                picture(os.fsencode(tmp_path / truth / folder / name))
        done = ferbatch_in("evaluate", "--truth", truth, "--report", report, "--thumbnails", "--others")
        assert done.returncode == 0
        html = (tmp_path / report / "report.html").read_text(encoding="utf-8")
        assert all(name not in html for name in names if "<" in name or '"' in name)
        return Structure(html)

    hostile = page("hostile", "</title><script>alert(1)<", "<b onclick=alert(1)>", MARKUP_NAMES)
    plain = page("plain", "truth/truth", "angry", [f"{at}.jpg" for at in range(len(MARKUP_NAMES))])
    assert hostile.elements == plain.elements
    mistakes = json.loads((tmp_path / "hostile/report.json").read_text(encoding="utf-8"))["results"][0]["mistakes"]
    names = {Path(one["path"]).name for one in mistakes}
    assert names == set(MARKUP_NAMES)  # none was left out of the page
    assert {one["path"] for one in mistakes} < set(hostile.code)
