"""What is said of a user's mistake: one sentence that names what, where and what works, with little of the data."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from option_tables import commands
from support import ROOT, Ferbatch

from ferbatch.core.errors import MOST_OF_A_WORD, MOST_OF_ALL, UsageError

PACKAGE = ROOT / "ferbatch"
CALLED = {"UsageError", "NoImagesError", "ModelError", "LockedError"}
JUNK = "zq" * 2_500
# What each command needs to get as far as its other options, of the files of `place`.
NEEDS = {
    "label": ["in"],
    "evaluate": ["--truth", "in"],
    "train": ["in", "-o", "w.safetensors"],
    "convert": ["m.h5", "-o", "w.safetensors", "--labels", "happy,sad", "--scale", "0,1"],
    "merge": ["a.csv"],
    "bench": ["in", "--repeat", "1", "--no-recommend"],
    "models": [],
}
# Options whose value is a name that may be as long as one likes, or that nothing is said about before work begins.
FREE = {("label", "--output"), ("label", "--crops"), ("label", "--annotate"), ("label", "--log-file")}
FREE |= {("label", "--exclude"), ("evaluate", "--exclude"), ("train", "--exclude"), ("bench", "--peer-python")}
FREE |= {("evaluate", "--report"), ("train", "--output"), ("convert", "--output"), ("merge", "--output")}
FREE |= {("evaluate", "--strip-prefix"), ("evaluate", "--split"), ("convert", "--architecture")}


def said(node: ast.expr) -> str:
    """The text of a message as it stands in the code, with {} for what comes from elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(said, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return said(node.left) + said(node.right)
    return "{}"


def messages() -> Iterator[tuple[str, str]]:
    """Where each error for a user is raised, and what it says."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLED and node.args:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", said(node.args[0])


@pytest.mark.parametrize(("where", "text"), [*messages()])
def test_a_message_is_one_sentence(where: str, text: str) -> None:
    assert text, where
    assert "\n" not in text
    assert not re.search(r"[.!]$", text), "the line ends without a full stop"
    assert not re.search(r"\. [A-Z]", text), "one sentence, whose parts : and ; divide"
    assert re.match(r"[a-z{`'-]|\?|Parquet|ImageNet|no ", text), (
        "it begins in lower case, for it stands after `ferbatch:`"
    )
    assert not re.search(r"\b(invalid|illegal|oops|please|sorry|failed to)\b", text.lower())
    assert re.search(r"[a-z]{2}", text) or text in {"{}", "{} {}", "{}: {}", "{}; {}"}


def test_the_messages_are_found() -> None:
    assert len([*messages()]) > 150


@pytest.fixture
def place(tmp_path: Path, faces: Callable[..., Path]) -> Path:
    for name in ("in/happy", "in/sad"):
        faces(name, 2)
    (tmp_path / "m.h5").write_bytes(b"no model")
    (tmp_path / "a.csv").write_bytes(b"no labels")
    return tmp_path


TEXTS = [
    (command, option.names[0])
    for command, options in commands().items()
    for option in options
    if option.metavar == " TEXT" and (command, option.names[0]) not in FREE
]


@pytest.mark.parametrize(("command", "option"), TEXTS, ids=lambda value: value)
def test_no_option_prints_its_value_without_end(
    command: str, option: str, place: Path, ferbatch_here: Ferbatch
) -> None:
    needed = NEEDS[command]
    if option in needed:
        needed = [*needed[: needed.index(option)], *needed[needed.index(option) + 2 :]]
    done = ferbatch_here(command, *needed, option, JUNK)
    text = done.stderr.decode()
    assert done.returncode == 2 or (done.returncode == 6 and option in ("--model", "--distill")), text[:400]
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("ferbatch: ")]
    assert len(max(re.findall("[zq]+", line), default="")) <= MOST_OF_A_WORD
    assert len(line) < 700


@pytest.mark.parametrize("argument", ["label", "evaluate --truth", "train", "merge", "bench", "convert"])
def test_no_argument_is_printed_without_end(argument: str, place: Path, ferbatch_here: Ferbatch) -> None:
    command, *options = argument.split()
    more = [value for value in NEEDS[command][1:] if command in ("train", "convert", "bench")]
    done = ferbatch_here(command, *options, JUNK, *more)
    assert done.returncode == 2
    assert len(max(re.findall("[zq]+", done.stderr.decode()), default="")) <= MOST_OF_A_WORD


def test_what_is_long_is_shown_by_its_ends() -> None:
    whole = str(UsageError(f"no such file: {'a' * 300}/{'b' * 300}"))
    assert whole.startswith("no such file: aaa")
    assert whole.endswith("bbb")
    assert len(whole) < MOST_OF_A_WORD + 20
    assert str(UsageError("x " * 5_000)).count("x") < MOST_OF_ALL
    assert str(UsageError(short := f"no such file: {'a' * 150}")) == short
