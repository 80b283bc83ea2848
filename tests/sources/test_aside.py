"""What people's folders hold besides their images: what is hidden, what programs keep, what they exclude, links."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import LABELS, some

from ferbatch.core.errors import UsageError
from ferbatch.core.records import Rules
from ferbatch.sources.aside import KEPT_BY_PROGRAMS, REASONS, UNFINISHED, Globs, Reason, by_kind, rule_of
from ferbatch.sources.listing import Listing, list_images, look_through


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"\xff\xd8\xff")  # how a JPEG begins


def listed(*paths: str, **rules: bool | tuple[str, ...]) -> Listing:
    return list_images(paths, LABELS, rules=Rules(**rules))  # type: ignore[arg-type]


def paths_of(listing: Listing) -> list[str]:
    return [ref.path for ref in listing]


def told(*paths: str, recursive: bool = True, **rules: bool | tuple[str, ...]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def tell(path: bytes, reason: Reason) -> None:
        found.append((os.fsdecode(path), rule_of(reason)))

    look_through(paths, tell, recursive=recursive, rules=Rules(**rules))  # type: ignore[arg-type]
    return found


HIDDEN = ("._a.jpg", ".a.jpg.aB3dE9", ".thumbnails/a.png", ".Trash-1000/files/a.jpg", ".stversions/a.jpg", "b/.x.jpg")


def test_hidden_files_and_folders_are_left_aside_and_counted_and_hidden_takes_them() -> None:
    files("in/a.jpg", *(f"in/{name}" for name in HIDDEN), "in/.thumbnails/deep/b.png")
    listing = listed("in")
    assert paths_of(listing) == ["in/a.jpg"]
    assert listing.aside == "3 hidden files, 3 hidden folders left aside"
    assert by_kind(listing.left) == {"hidden_files": 3, "hidden_folders": 3}
    everything = listed("in", hidden=True)
    assert (len(everything), everything.aside) == (8, "")


@pytest.mark.parametrize("name", [*KEPT_BY_PROGRAMS.values(), "$Recycle.Bin", "Lost+Found", "@EADIR"])
def test_folders_that_programs_keep_are_left_aside_in_whatever_case_and_not_walked(name: str) -> None:
    files(f"in/b/{name}/sad/a.jpg", "in/b/c.jpg")
    listing = listed("in")
    assert paths_of(listing) == ["in/b/c.jpg"]
    assert listing.aside == f"1 folder of other programs ({KEPT_BY_PROGRAMS[name.lower().encode()]}) left aside"
    assert len(listed("in", hidden=True)) == 2


def test_a_file_may_be_called_like_a_folder_of_a_program() -> None:
    files("in/lost+found", "in/@eaDir.jpg", "in/my @eaDir/a.jpg")
    assert paths_of(listed("in")) == ["in/@eaDir.jpg", "in/lost+found", "in/my @eaDir/a.jpg"]


@pytest.mark.parametrize("suffix", sorted(os.fsdecode(suffix) for suffix in UNFINISHED))
def test_files_that_are_still_being_written_are_left_aside(suffix: str) -> None:
    files(f"in/a.jpg{suffix}", f"in/b{suffix.upper()}", "in/part.jpg", "in/part")
    listing = listed("in")
    assert paths_of(listing) == ["in/part", "in/part.jpg"]
    assert listing.aside == "2 unfinished files left aside"
    assert len(listed("in", hidden=True)) == 4


def test_what_is_named_is_always_taken_and_path_is_always_walked() -> None:
    files(".hidden/@eaDir/a.jpg", ".hidden/@eaDir/.b.jpg", ".hidden/c.jpg")
    assert paths_of(listed(".hidden", exclude=("@eaDir/",))) == [".hidden/c.jpg"]
    assert paths_of(listed(".hidden/@eaDir", exclude=("@eaDir/",))) == [".hidden/@eaDir/a.jpg"]
    assert paths_of(listed(".hidden/@eaDir/.b.jpg", exclude=("*",))) == [".hidden/@eaDir/.b.jpg"]
    lines = [b".hidden/@eaDir/.b.jpg", b".hidden/@eaDir", b".hidden"]
    found = list_images(["-"], LABELS, listed=lines)
    assert paths_of(found) == [".hidden/@eaDir/.b.jpg", ".hidden/@eaDir/a.jpg", ".hidden/c.jpg"]


def test_what_is_left_aside_is_counted_once_however_often_it_is_met() -> None:
    files("in/.a.jpg", "in/@eaDir/b.jpg", "in/c.gif", "in/d.jpg")
    once = listed("in", "./in", os.path.abspath("in"), exclude=("*.gif",))
    assert once.aside == "1 hidden file, 1 folder of other programs (@eaDir), 1 excluded left aside"


TREE = (
    *("a.jpg", "b.gif", "thumbs/a.jpg", "x/thumbs/a.jpg", "x/raw/a.jpg", "x/raw/y/b.jpg", "raw.jpg", "x/keep.jpg"),
    *("x/c.gif", "#odd/a.jpg", "!odd.jpg", "new\nline/a.jpg", "x/ü.jpg"),
)


@pytest.mark.parametrize(
    ("globs", "out"),
    [
        (("thumbs/",), {"thumbs/a.jpg", "x/thumbs/a.jpg"}),
        (("/thumbs/",), {"thumbs/a.jpg"}),
        (("**/raw/**",), {"x/raw/a.jpg", "x/raw/y/b.jpg"}),
        (("*.gif",), {"b.gif", "x/c.gif"}),
        (("x/*", "!keep.jpg"), {*(path for path in TREE if path.startswith("x/"))} - {"x/keep.jpg"}),
        (("x/", "!keep.jpg"), {path for path in TREE if path.startswith("x/")}),  # what is out is not looked into
        (("*", "!*/", "!*.gif"), {path for path in TREE if not path.endswith(".gif")}),
        (
            ("*.jpg", "!x/raw"),
            {path for path in TREE if path.endswith(".jpg")},
        ),  # that a folder is not out says no more
        (("y/", "!x/raw/"), {"x/raw/y/b.jpg"}),
        ((r"\#odd/", r"\!odd.jpg"), {"#odd/a.jpg", "!odd.jpg"}),
        (("line/",), set()),
        (("new?line",), {"new\nline/a.jpg"}),
        (("a.jpg/",), set()),
        (("x/?.jpg",), {"x/ü.jpg"}),
        (("x/**/",), {"x/thumbs/a.jpg", "x/raw/a.jpg", "x/raw/y/b.jpg"}),
    ],
)
def test_excluded_is_what_gitignore_would_leave_out(globs: tuple[str, ...], out: set[str]) -> None:
    files(*(f"in/{name}" for name in TREE))
    found = {os.fsdecode(ref.file)[3:] for ref in listed("in", exclude=globs)}
    assert {*TREE} - found == out
    assert {os.fsdecode(ref.file)[5:] for ref in listed("./in/", exclude=globs)} == found


PATTERNS = [
    *(
        ["a"],
        ["a/"],
        ["/a"],
        ["/a/"],
        ["a/b"],
        ["a/*"],
        ["a/**"],
        ["**/b"],
        ["**/b/"],
        ["a/**/c"],
        ["*"],
        ["*/"],
        ["/*"],
    ),
    *(
        ["*", "!*/", "!c"],
        ["/*", "!/a"],
        ["a", "!a/b"],
        ["c", "!a"],
        ["c", "!a/"],
        ["!a", "c"],
        ["a/*", "!a/b"],
        ["[ab]"],
    ),
    *(
        ["[!ab]"],
        ["?"],
        ["a/**/"],
        ["**/"],
        ["a*", "!a/"],
        [r"\a"],
        ["a ", "b "],
        ["**/a/**", "!**/a/c"],
        ["a/b/", "!c"],
    ),
]


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git to compare with")
@pytest.mark.parametrize("globs", some(PATTERNS, 12), ids=" ".join)
def test_git_leaves_out_the_same(globs: list[str]) -> None:
    names = [
        f"{top}{second}{last}" for top in ("a/", "b/", "ab/", "") for second in ("a/", "b/", "x/", "") for last in "cde"
    ]
    files(*(f"in/{name}" for name in names))
    subprocess.run(["git", "init", "-q", "in"], check=True)
    Path("in/.git/info/exclude").write_text("\n".join(globs))
    command = ["git", "-C", "in", "-c", "core.excludesFile=", "ls-files", "--others", "--exclude-standard"]
    kept = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert sorted(path[3:] for path in paths_of(listed("in", exclude=tuple(globs)))) == sorted(kept)


@pytest.mark.parametrize(
    ("glob", "said"),
    [
        *(("", "no pattern"), (" ", "no pattern"), ("!", "no pattern"), ("/", "no pattern"), ("[z-a]", "no pattern")),
        *(
            ("#recycle", r"a comment by gitignore's rules: '\\#recycle'"),
            ("./a", "without ./"),
            ("../a/", "without ./"),
        ),
        *(("!./a", "without ./"), ("\x1b[31m" * 100, r"x1b"), ("a\\", "no pattern")),
    ],
)
def test_a_pattern_that_can_match_nothing_is_one_sentence(glob: str, said: str) -> None:
    files("in/a.jpg")
    with pytest.raises(UsageError, match=said) as error:
        listed("in", exclude=("*.gif", glob))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_names_that_are_no_utf8_are_excluded_as_they_were_typed() -> None:
    files("in/a.jpg")
    Path(os.fsdecode(b"in/\xff.jpg")).touch()
    assert paths_of(listed("in", exclude=(os.fsdecode(b"\xff*"),))) == ["in/a.jpg"]
    assert Globs(["?.jpg"]).excluding(b"\xff.jpg", False) == Reason("excluded", "?.jpg")


def test_links_to_folders_are_followed_where_that_is_asked_for_and_are_classes() -> None:
    files("store/glad/1.jpg", "store/glad/below/2.jpg", "in/sad/3.jpg")
    os.symlink("../store/glad", "in/happy")
    os.symlink("../store/glad", "in/again")
    assert listed("in").aside == "2 links to folders not followed (--follow-links)"
    truths = {ref.path: ref.truth for ref in listed("in", follow_links=True)}
    assert truths == {
        **{"in/again/1.jpg": None, "in/again/below/2.jpg": None},
        **{"in/happy/1.jpg": "happy", "in/happy/below/2.jpg": "happy", "in/sad/3.jpg": "sad"},
    }


def test_links_obey_the_other_rules() -> None:
    files("store/1.jpg", "written/2.jpg", "written/.ferbatch")
    os.makedirs("in")
    for name in (".hidden", "@eaDir", "out", "ok"):
        os.symlink("../store", f"in/{name}")
    os.symlink("../written", "in/own")
    listing = listed("in", follow_links=True, exclude=("out/",))
    assert paths_of(listing) == ["in/ok/1.jpg"]
    assert list(by_kind(listing.left)) == ["hidden_folders", "program_folders", "excluded", "own_folders"]


LOOPS: list[dict[str, str]] = [
    {"in/self": "."},
    {"in/a/up": ".."},
    {"in/a/top": "../.."},  # above PATH
    {"in/a/root": "/"},
    {"in/there": "../other", "other/back": "../in"},
    {"in/there": "../other", "other/up": ".."},
    {"in/one": "../two", "two": "other", "other/back": "../in/a/.."},  # by way of other links
]


@pytest.mark.parametrize("links", LOOPS, ids=" ".join)
def test_loops_end_and_are_counted_and_no_image_comes_twice_by_one(links: dict[str, str]) -> None:
    files("in/1.jpg", "in/a/2.jpg", "other/3.jpg")
    for link, target in links.items():
        os.symlink(target, link)
    listing = listed("in", follow_links=True)
    assert [os.path.basename(ref.file) for ref in listing] == [b"1.jpg", b"2.jpg", b"3.jpg"][: 1 + len(links)]
    assert by_kind(listing.left) == {"loops": 1}
    assert listing.aside == "1 link back to a folder above not followed"


def test_a_folder_that_is_reached_by_two_ways_is_no_loop() -> None:
    files("in/1.jpg", "in/a/2.jpg", "other/3.jpg")
    for link, target in {"in/b": "../other", "other/c": "../in/a", "in/a/d": "../../other"}.items():
        os.symlink(target, link)
    listing = listed("in", follow_links=True)
    assert paths_of(listing) == ["in/1.jpg", "in/a/2.jpg", "in/a/d/3.jpg", "in/b/3.jpg", "in/b/c/2.jpg"]
    assert by_kind(listing.left) == {"loops": 2}


def test_each_path_is_told_in_order_with_its_rule() -> None:
    files("in/.h/1.jpg", "in/@eaDir/2.jpg", "in/a.jpg", "in/b/c.jpg", "in/d.gif", "in/e.jpg.part", "in/own/.ferbatch")
    Path("in/notes.txt").write_text("no image")
    os.symlink("b", "in/link")
    assert told("in", exclude=("*.gif",)) == [
        ("in/.h/", "hidden"),
        ("in/@eaDir/", "folder of a program: @eaDir"),
        ("in/a.jpg", "taken"),
        ("in/b/c.jpg", "taken"),
        ("in/d.gif", "excluded by *.gif"),
        ("in/e.jpg.part", "not finished"),
        ("in/link/", "link not followed"),
        ("in/notes.txt", "not an image"),
        ("in/own/", "written by ferbatch"),
    ]
    os.symlink("..", "in/b/up")
    assert ("in/b/up/", "loop") in told("in", follow_links=True)
    assert told("in/b", "in/b/c.jpg", "in/b") == [
        ("in/b/c.jpg", "taken"),
        ("in/b/up/", "link not followed"),
        ("in/b/c.jpg", "already listed"),
        ("in/b/c.jpg", "already listed"),
    ]
    assert ("in/b/", "below PATH, with --no-recursive") in told("in", recursive=False)


@pytest.mark.parametrize("rules", [{}, {"hidden": True}, {"follow_links": True}, {"exclude": ("b/", "!c.jpg")}])
def test_what_is_told_is_what_is_listed(rules: dict[str, bool]) -> None:
    files("in/.h/1.jpg", "in/@eaDir/2.jpg", "in/a.jpg", "in/b/c.jpg", "in/c.jpg", "in/z/c.jpg")
    os.symlink("b", "in/link")
    paths = ["in/z", "in", "in/b", "./in/.h/1.jpg"]
    listing = listed(*paths, **rules)
    verdicts = told(*paths, **rules)
    assert [path for path, rule in verdicts if rule == "taken"] == paths_of(listing)
    counted = {said.rule.split("{")[0] for said in REASONS.values() if said.noun or said.rest}
    aside = [rule for _, rule in verdicts if any(rule.startswith(one) for one in counted)]
    assert len(aside) == listing.left.total()


def test_telling_keeps_nothing_of_a_single_path() -> None:
    import tracemalloc

    for folder in range(20):
        files(*(f"in/{folder}/a-longer-name-{n:04}.jpg" for n in range(200)))
    tracemalloc.start()
    look_through(["in"], lambda path, reason: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000 * 30  # a list of their names alone takes more than twice that


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a\0" * 500])
def test_what_no_file_can_be_called_is_one_sentence(name: str) -> None:
    with pytest.raises(UsageError, match="no file or folder can be called") as error:
        list_images(["a.jpg", name], LABELS)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
