"""What is an image, in which order, and what its folder says."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from support import LABELS, draw_face

from ferbatch.core.errors import UsageError
from ferbatch.core.records import MARKER
from ferbatch.sources.labels import label_of
from ferbatch.sources.listing import Listing, list_images, read_list


def paths_of(listing: Listing) -> list[str]:
    return [ref.path for ref in listing]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        draw_face(0).save(name, "PNG")


def test_rows_are_in_the_bytewise_order_of_whole_paths(here: Path) -> None:
    names = [
        "a/b.jpg",
        "a.jpg",
        "a-1/x.jpg",
        "a/c/d.jpg",
        "a/C.jpg",
        "a/c.jpg",
        "B.png",
        "é.jpg",
        "z/1.jpg",
        "a/c/0.jpg",
    ]
    touch(*(f"in/{name}" for name in names))
    wanted = sorted((f"in/{name}" for name in names), key=os.fsencode)
    assert paths_of(list_images(["in"], LABELS)) == wanted
    assert [ref.file for ref in list_images(["in"], LABELS)] == [os.fsencode(path) for path in wanted]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("in", "in/x.png"), ("in/", "in/x.png"), ("./in//", "./in/x.png"), (".", "./in/x.png"), ("in/x.png", "in/x.png")],
)
def test_a_path_is_as_typed_and_what_is_below(here: Path, typed: str, wanted: str) -> None:
    touch("in/x.png")
    assert paths_of(list_images([typed], LABELS)) == [wanted]
    absolute = here / "in"
    assert paths_of(list_images([absolute], LABELS)) == [f"{absolute}/x.png"]


def test_a_path_reached_twice_is_listed_once_where_it_came_first(here: Path) -> None:
    touch("in/a/1.png", "in/b/2.png", "in/b/3.png")
    overlapping = ["in/b/3.png", "./in/b", here / "in", "in/../in/b", "in", f"/{here}//in", "in//a/./1.png"]
    assert paths_of(list_images(overlapping, LABELS)) == ["in/b/3.png", "./in/b/2.png", f"{here}/in/a/1.png"]


def test_different_paths_to_one_file_are_different_rows(here: Path) -> None:
    touch("in/1.png")
    os.link("in/1.png", "in/2.png")
    os.symlink("1.png", "in/3.png")
    os.symlink("in", "other")
    assert paths_of(list_images(["in", "other"], LABELS)) == [f"{d}/{n}.png" for d in ("in", "other") for n in "123"]


def test_folders_are_images_by_extension_or_signature_and_the_rest_is_counted(here: Path) -> None:
    touch("in/upper.JPG", "in/no-extension", "in/odd.data")
    Path("in/notes.txt").write_text("no image")
    Path("in/broken.jpeg").write_text("says it is an image")
    Path("in/BM").write_bytes(b"BM is how this text begins")
    listing = list_images(["in"], LABELS)
    assert paths_of(listing) == [f"in/{n}" for n in ("broken.jpeg", "no-extension", "odd.data", "upper.JPG")]
    assert listing.aside == "2 other files left aside"
    assert list_images(["in", "./in", here / "in"], LABELS).aside == "2 other files left aside"


def test_a_named_file_is_always_listed(here: Path) -> None:
    touch("in/1.png")
    Path("in/notes.txt").write_text("no image")
    assert paths_of(list_images(["in", "in/notes.txt"], LABELS)) == ["in/1.png", "in/notes.txt"]


def test_links_to_folders_are_followed_only_as_paths(here: Path) -> None:
    touch("real/1.png")
    os.makedirs("in")
    os.symlink(here / "real", "in/link")
    os.symlink(here / "in", "in/loop")
    listing = list_images(["in"], LABELS)
    assert paths_of(listing) == []
    assert listing.aside == "2 links to folders not followed (--follow-links)"
    assert paths_of(list_images(["in/link"], LABELS)) == ["in/link/1.png"]


def test_dangling_links_are_listed_and_pipes_are_not(here: Path) -> None:
    os.makedirs("in")
    os.symlink("nowhere", "in/gone.jpg")
    os.symlink("self.jpg", "in/self.jpg")
    os.mkfifo("in/pipe.jpg")
    touch("in/whole.jpg")
    listing = list_images(["in"], LABELS)
    assert paths_of(listing) == ["in/gone.jpg", "in/self.jpg", "in/whole.jpg"]
    assert listing.aside == "1 other file left aside"


def test_no_recursive_stays_at_the_top(here: Path) -> None:
    touch("in/1.png", "in/below/2.png")
    assert paths_of(list_images(["in"], LABELS, recursive=False)) == ["in/1.png"]
    assert paths_of(list_images(["in", "in/below"], LABELS, recursive=False)) == ["in/1.png", "in/below/2.png"]


def test_folders_that_ferbatch_wrote_are_no_sources(here: Path) -> None:
    touch("in/1.png", "in/crops/2.png")
    Path("in/crops", MARKER).touch()
    assert paths_of(list_images(["in"], LABELS)) == ["in/1.png"]
    with pytest.raises(UsageError, match="written by ferbatch"):
        list_images(["in/crops"], LABELS)


def test_a_missing_path_is_an_error_but_in_a_list_it_keeps_its_place(here: Path) -> None:
    touch("in/1.png")
    with pytest.raises(UsageError, match="no such file or folder: nowhere"):
        list_images(["in", "nowhere"], LABELS)
    with pytest.raises(UsageError, match="nowhere"):  # before the others are walked
        list_images(["in", "-", "nowhere"], LABELS, listed=(1 // 0 for _ in [b""]))
    listed = list_images(["-"], LABELS, listed=[b"in/1.png", b"gone.png", b"in"])
    assert paths_of(listed) == ["in/1.png", "gone.png"]


def test_the_list_stands_where_its_dash_stands(here: Path) -> None:
    touch("a.png", "b.png", "c.png")
    assert paths_of(list_images(["c.png", "-", "a.png"], LABELS, listed=[b"b.png"])) == ["c.png", "b.png", "a.png"]


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_lists_are_split_at_their_separator_alone(separator: bytes) -> None:
    names = [b"a b.jpg", b" c.jpg ", b"\xff.jpg", b"d" * 100_000]
    stream = BytesIO(separator.join([*names[:2], b"", *names[2:]]))
    assert list(read_list(stream, separator)) == names
    assert list(read_list(BytesIO(b"a\nb\0c\n"), b"\0")) == [b"a\nb", b"c\n"]
    with pytest.raises(UsageError, match="--null"):
        list(read_list(BytesIO(b"a\0b\0"), b"\n"))


def test_a_list_costs_no_more_than_its_length_and_is_refused_at_its_first_nul() -> None:
    class Unending(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert self.tell() == 0, "read on"
            self.seek(1)
            return b"a.png\0b.png\0" * 5_000

    with pytest.raises(UsageError, match="--null"):
        list(read_list(Unending(), b"\n"))
    path = b"p" * 30_000_000  # in pieces that are put together once: else this takes seconds
    began = time.process_time()
    assert list(read_list(BytesIO(b"a\n" + path + b"\nb"), b"\n")) == [b"a", path, b"b"]
    assert time.process_time() - began < 1


def test_lists_from_windows_are_understood(here: Path) -> None:
    touch("a.png", "odd\r")
    assert list(read_list(BytesIO(b"a.png\r\nodd\r\n"), b"\n")) == [b"a.png", b"odd\r"]


def test_truth_is_the_nearest_folder_named_like_a_label(here: Path) -> None:
    touch("in/Happy/1.png", "in/sadness/other/2.png", "in/happy/sad/3.png", "in/4.png", "in/angry/5.png", "joy/6.png")
    truths = {ref.path: ref.truth for ref in list_images(["in", "joy"], LABELS)}
    assert truths == {
        "in/4.png": None,
        "in/Happy/1.png": "happy",
        "in/angry/5.png": None,
        "in/happy/sad/3.png": "sad",
        "in/sadness/other/2.png": "sad",
        "joy/6.png": "happy",
    }


def test_truth_comes_from_at_or_below_path_only(here: Path) -> None:
    touch("happy/batch/1.png")
    assert [ref.truth for ref in list_images(["happy/batch"], LABELS)] == [None]
    assert [ref.truth for ref in list_images(["happy/batch/1.png"], LABELS)] == [None]
    assert [ref.truth for ref in list_images(["happy"], LABELS)] == ["happy"]


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        *(("HAPPY", "happy"), ("joy", "happy"), ("Happiness", "happy"), ("sadness", "sad"), ("neutral", "neutral")),
        *(("surprised", "surprise"), ("Surprises", "surprise"), ("angry", None), ("0", None), ("unhappy", None)),
    ],
)
def test_common_spellings_are_understood(folder: str, label: str | None) -> None:
    assert label_of(folder, LABELS) == label


def test_a_folder_that_may_not_be_listed_is_a_row(here: Path) -> None:
    touch("in/1.png", "in/secret/2.png")
    os.chmod("in/secret", 0)
    try:
        if os.access("in/secret", os.R_OK):
            pytest.skip("who runs this may look into any folder")
        assert paths_of(list_images(["in"], LABELS)) == ["in/1.png", "in/secret"]
        assert paths_of(list_images(["in/secret", here / "in", "in"], LABELS)) == ["in/secret", f"{here}/in/1.png"]
    finally:
        os.chmod("in/secret", 0o700)


def test_a_folder_that_fails_while_it_is_listed_is_a_row_and_what_it_gave_is_kept(
    here: Path, fault: Callable[..., None]
) -> None:
    touch("in/1.png", "in/bad/2.png", "in/bad/3.png", "in/z/4.png")
    fault("folder_that_fails", folder=b"in/bad/")
    found = paths_of(list_images(["in", "in"], LABELS))
    assert found[2] in ("in/bad/2.png", "in/bad/3.png")
    assert found == ["in/1.png", "in/bad", found[2], "in/z/4.png"]


def test_where_no_path_reaches_is_one_row_and_a_shorter_path_gets_further(here: Path) -> None:
    name = "d" * 250
    os.mkdir("in")
    os.chdir("in")
    for _ in range(18):
        os.mkdir(name)
        os.chdir(name)
        draw_face(0).save("x.png")
    os.chdir(here)
    try:
        reached = ["in/" + f"{name}/" * depth + "x.png" for depth in range(1, 17)]
        assert sorted(paths_of(list_images(["in", "./in"], LABELS))) == sorted([*reached, "in" + f"/{name}" * 17])
        shorter = "./" * 160 + "in", "in"
        listing = list_images(shorter, LABELS)
        assert {os.path.normpath(path) for path in paths_of(listing)} >= {*reached}
        assert len(listing) == len({os.path.normpath(path) for path in paths_of(listing)})
        assert len(list_images([*shorter, *reached], LABELS)) == len(listing)
    finally:
        shutil.rmtree("in")


def test_deep_trees_are_walked(here: Path) -> None:
    deep = Path(*["d"] * 1200)
    top = os.getcwd()
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    draw_face(0).save("x.png")
    os.chdir(top)
    try:
        assert paths_of(list_images(["d"], LABELS)) == [f"{deep}/x.png"]
    finally:
        shutil.rmtree("d") if sys.version_info >= (3, 13) else os.system("rm -rf d")


def test_the_listing_costs_under_200_bytes_an_image(here: Path, faces: Callable[..., Path]) -> None:
    import tracemalloc

    os.makedirs("many")
    for number in range(20_000):
        os.close(os.open(f"many/picture-{number:08}.jpg", os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    listing = list_images(["many"], LABELS)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing) == 20_000
    print(f"bytes an image: {peak / 20_000:.0f} at the peak of the listing, {kept / 20_000:.0f} kept")
    assert kept / 20_000 < peak / 20_000 < 200


def test_a_shuffled_list_costs_no_more() -> None:
    import random
    import tracemalloc

    lines = [b"folder-%03d/picture-%08d.jpg" % (number % 500, number) for number in range(20_000)]
    random.Random(0).shuffle(lines)
    tracemalloc.start()
    listing = list_images(["-"], LABELS, listed=(bytes(line) for line in lines))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing) == 20_000
    print(f"bytes an image: {peak / 20_000:.0f} at the peak of the listing, {kept / 20_000:.0f} kept")
    assert peak / 20_000 < 200


def test_a_path_that_may_not_be_listed_is_an_error_and_no_row(here: Path, fault: Callable[..., None]) -> None:
    fault("forbidden_folder", name=b"secret")
    (here / "secret").mkdir()
    with pytest.raises(UsageError, match="secret cannot be listed: permission denied"):
        list_images(["secret"], LABELS)
