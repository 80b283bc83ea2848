"""The guide's tables of options, made from the program: `python tests/option_tables.py` writes them anew.

A table stands between `<!-- options: COMMAND -->` and `<!-- end -->`; names of options after the command choose some.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ferbatch.cli import app

GUIDE = Path(__file__).resolve().parent.parent / "ferbatch" / "guide"
TABLE = re.compile(
    r"^<!-- options: (?P<command>\S+)(?P<chosen>(?: --\S+)*) -->$.*?^<!-- end -->$", re.DOTALL | re.MULTILINE
)
HEAD = "| option | default | what it does |\n|---|---|---|"
METAVARS = {bool: "", int: " INTEGER", float: " NUMBER"}  # of anything else it is TEXT


@dataclass(frozen=True)
class Option:
    """One option of a command, as a table's row says it."""

    names: tuple[str, ...]  # the long ones first
    metavar: str  # with the space before it; empty for a switch
    repeatable: bool
    default: str
    help: str

    def row(self) -> str:
        names = ", ".join(f"`{name}{self.metavar}`" for name in self.names)
        return f"| {names}{', repeatable' if self.repeatable else ''} | {self.default} | {self.help} |"


@functools.cache
def commands() -> dict[str, list[Option]]:
    """Every command of the program with its options, in the order of `--help`."""
    group: Any = typer.main.get_command(app)  # click's classes or typer's own, by typer's version
    return {name: _options(command) for name, command in group.commands.items()}


def _options(command: Any) -> list[Option]:
    function = inspect.unwrap(command.callback)
    hints = typing.get_type_hints(function, include_extras=True)
    return [
        _option(parameter, *typing.get_args(hints[parameter.name]))
        for parameter in command.params
        if parameter.param_type_name == "option"
    ]


def _option(parameter: Any, kind: Any, info: Any) -> Option:
    """A parameter of the command line as a row; `kind` and `info` are what its function's annotation says of it."""
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: not name.startswith("--"))
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    metavar = next((METAVARS[one] for one in kinds if one in METAVARS), " TEXT")
    said = re.search(r"\s*\[default: (.*)\]$", info.help)  # where the default is no plain value
    text = info.help.removesuffix(said[0]) if said else info.help
    if info.min is not None:
        most = " or more" if info.max is None else f" to {info.max}"
        text = f"{text.removesuffix('.')} ({info.min}{most})."
    if said:
        default = said[1]
    elif parameter.required:
        default = "required"
    elif metavar == "":
        default = "on" if parameter.default else "off"
    else:
        default = "none" if parameter.default in (None, [], ()) else f"`{parameter.default}`"
    return Option(tuple(names), metavar, any(typing.get_origin(one) is list for one in kinds), default, text)


def filled(page: str) -> str:
    """A page of the guide with its tables as the program has them; KeyError for an option that it does not have."""
    known = commands()

    def table(found: re.Match[str]) -> str:
        options = known[found["command"]]
        if found["chosen"]:
            by_name = {name: option for option in options for name in option.names}
            options = [by_name[name] for name in found["chosen"].split()]
        rows = "\n".join(option.row() for option in options)
        return f"<!-- options: {found['command']}{found['chosen']} -->\n\n{HEAD}\n{rows}\n\n<!-- end -->"

    return TABLE.sub(table, page)


if __name__ == "__main__":
    for file in sorted(GUIDE.glob("*.md")):
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
