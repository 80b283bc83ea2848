"""README, guide and changelog say what the program is: its commands, options, columns, places and version."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from option_tables import GUIDE, TABLE, commands, filled
from support import ROOT
from typer.testing import CliRunner

import ferbatch
from ferbatch.cli import app
from ferbatch.commands.train.recipe import FIELDS
from ferbatch.core.records import ERROR_KINDS, columns
from ferbatch.model.weights import read_card, shipped

README = ROOT / "README.md"
PAGES = sorted(GUIDE.glob("*.md"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OTHERS = {"--help", "--version", "--now", "--thorough", "--torch-backend"}  # of no command of ferbatch's


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def page(name: str) -> str:
    return text(GUIDE / name)


def prose(file: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", text(file))


def spans(file: Path) -> list[str]:
    """What stands in the prose as code, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(file))]


def test_the_readme_is_short_and_its_first_screen_holds_what_one_needs_first() -> None:
    lines = text(README).splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:30])
    assert "$ ferbatch label ./images" in first
    assert re.search(r"^2,501 images .* -> labels\.csv$", first, re.MULTILINE)
    assert len(re.findall(r"^python3 -m venv \.venv && ", first, re.MULTILINE)) == 2
    assert len(re.findall(r"\]\(ferbatch/guide/\w+\.md\)", first)) == 5
    assert "(#what-it-must-not-be-used-for)" in first
    assert ",".join(columns(("happy", "sad", "neutral", "surprise"))) in lines


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_the_tables_of_options_are_the_programs(file: Path) -> None:
    assert text(file) == filled(text(file)), "`python tests/option_tables.py` writes the tables anew"
    assert text(file).count("<!-- options:") == len(TABLE.findall(text(file)))


def test_every_command_has_one_table_with_all_its_options() -> None:
    whole = [found["command"] for file in PAGES for found in TABLE.finditer(text(file)) if not found["chosen"]]
    assert sorted(whole) == sorted(commands())


def test_the_guide_names_every_column_error_kind_and_key_of_a_recipe() -> None:
    for word in (*columns(("happy", "sad", "neutral", "surprise")), *ERROR_KINDS):
        assert f"`{word}`" in page("columns.md"), word
    for key in FIELDS:
        assert f"`{key}`" in page("train.md"), key


@pytest.mark.parametrize("file", [README, *PAGES], ids=lambda file: file.stem)
def test_every_option_that_is_spoken_of_is_there(file: Path) -> None:
    known = OTHERS | {name for options in commands().values() for option in options for name in option.names}
    for span in spans(file):
        for option in re.findall(r"(?<!\S)--[a-z-]+", span):
            assert option in known, span


def examples(file: Path) -> Iterator[str]:
    """Every command of ferbatch's in a page, from its blocks and its prose, as one line each."""
    code = [block.replace("\\\n", " ") for _, block in FENCED.findall(text(file))]
    for line in [line for block in code for line in block.splitlines()] + spans(file):
        for found in re.finditer(rf"(?<![\w-])ferbatch ((?:{'|'.join(commands())})\b[^|#&>]*)", line):
            yield found[1]


@pytest.mark.parametrize("file", [README, *PAGES], ids=lambda file: file.stem)
def test_every_command_is_spelled_as_the_program_takes_it(file: Path) -> None:
    for example in examples(file):
        done = CliRunner().invoke(app, [*shlex.split(example), "--help"])  # parses the rest of the line first
        assert done.exit_code == 0, (example, done.output)


def test_the_readmes_commands_stand_in_the_guide_where_tests_run_them() -> None:
    guide = "\n".join(text(file) for file in PAGES)
    lines = [line for _, block in FENCED.findall(text(README)) for line in block.splitlines()]
    commands = [line for line in lines if re.search(r"ferbatch (label|evaluate|train) \S+", line)]
    assert len(commands) >= 10
    for line in commands:
        assert line.removeprefix("$ ") in guide, line


def test_the_tables_of_models_are_the_cards() -> None:
    for name in shipped():
        card = read_card(name)
        score = card.scores[0]
        low, high = score["interval_95"]
        row = f"| `{name}` | {card.parameters:,} | {score['value']:.3f} ({low:.3f} to {high:.3f}, n = {score['n']:,}) |"
        assert row in text(README)
        assert row in page("models-and-study.md")


def anchors(file: Path) -> set[str]:
    """What headings of a page can be linked to as, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", [README, *PAGES], ids=lambda file: file.stem)
def test_every_link_leads_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"\]\s*\n\s*\(", "](", prose(file)))
    for link in links:
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (file.parent / place).resolve() if place else file
        assert target.is_relative_to(ROOT), link
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(ferbatch/guide/([\w-]+\.md)\)", text(README)))
    assert linked == {file.name for file in PAGES}


def test_the_newest_release_in_the_changelog_is_this_version() -> None:
    changelog = text(ROOT / "CHANGELOG.md")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == "Unreleased"
    releases = re.findall(r"^## (\d\S*) - \d{4}-\d{2}-\d{2}$", changelog, re.MULTILINE)
    assert releases[0] == ferbatch.__version__
    assert CliRunner().invoke(app, ["--version"]).stdout == f"ferbatch {releases[0]}\n"
    source = tomllib.loads(text(ROOT / "pyproject.toml"))["tool"]["hatch"]["version"]["path"]  # the wheel's
    assert f'\n__version__ = "{releases[0]}"\n' in text(ROOT / source)
