"""The layers hold, and start-up stays light."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support import ROOT

# Imports go down only. The arrows between rooms; one that is new is a decision.
ROOMS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"commands", "shell", "core"},
    "commands": {"shell", "report", "stream", "sources", "scoring", "model", "images", "core"},
    "shell": {"report", "core"},
    "report": {"sources", "scoring", "model", "images", "core"},
    "stream": {"scoring", "model", "images", "core"},
    "sources": {"scoring", "images", "core"},
    "scoring": {"core"},
    "model": {"core"},
    "images": {"core"},
    "core": set(),
}
PACKAGE = ROOT / "ferbatch"
MODULES = {  # commands.label.run -> its file
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
LONGEST_MODULE, LONGEST_FUNCTION = 300, 40  # lines
MOST_PARAMETERS = 6  # self and cls aside
TALK = {"shell.log", "commands.bench.peers"}  # the way the consoles talk; a program of its own
HEAVY = {"torch", "torchvision", "pandas", "sklearn", "scipy", "cv2", "numpy", "PIL", "matplotlib", "jinja2"}
HEAVY |= {"sqlalchemy", "psycopg", "ray"}


def imports_of(module: str, *, typing: bool = False) -> dict[str, int]:
    """The modules of ferbatch that a module imports when it runs, with `typing` for its types as well; their lines."""
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing:
            node.body = []
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        lines |= {name.removeprefix("ferbatch."): node.lineno for name in names}
    return {name: line for name, line in lines.items() if name in MODULES}


def room_of(module: str) -> str:
    return module.split(".")[0]


def wing_of(module: str) -> list[str]:
    return module.split(".")[:2]


def test_every_module_lies_in_a_room_and_rooms_lie_above_those_they_use() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    order = list(ROOMS)
    assert all(order.index(room) < order.index(used) for room, below in ROOMS.items() for used in below)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    allowed = ROOMS[room_of(module)] | {room_of(module)}
    for other, line in imports_of(module, typing=True).items():
        assert room_of(other) in allowed, f"{MODULES[module]}:{line} imports {other}"


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) == "commands"])
def test_no_wing_of_the_commands_uses_another(module: str) -> None:
    for other, line in imports_of(module, typing=True).items():
        sideways = room_of(other) == "commands" and wing_of(other) != wing_of(module)
        assert not sideways, f"{MODULES[module]}:{line} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()  # its CycleError names the circle


@pytest.mark.parametrize("module", [name for name in MODULES if name not in TALK and not name.endswith("console")])
def test_only_the_consoles_talk(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"print", "say", "show", "log.say", "log.show", "tqdm", "Console"}


def functions_of(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Every function, but the commands: their parameters are the options of the command line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "exits" not in map(ast.unparse, node.decorator_list):
            yield node


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module: str) -> None:
    text = MODULES[module].read_text()
    tree = ast.parse(text)
    said = ast.get_docstring(tree) or ""
    assert text.count("\n") <= LONGEST_MODULE or "This module is long" in said, f"{MODULES[module]}: say why it is long"
    for function in functions_of(tree):
        where = f"{MODULES[module]}:{function.lineno} {function.name}"
        assert (function.end_lineno or 0) - function.lineno < LONGEST_FUNCTION, f"{where} is long"
        names = [one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)]
        assert len({*names} - {"self", "cls"}) <= MOST_PARAMETERS, f"{where} has many parameters"


OF_BATCHES = {"core.batch", "core.rows", "core.writers"}  # which are arrays
OF_DATABASES = {"core.database", "core.label_tables"}  # which SQLAlchemy is for
OF_PLACES = {"core.stores.known", "core.stores.web"}  # whose index is of arrays, and whose client is a package
HEAVIER = {"core.locks", *OF_DATABASES, *OF_BATCHES, *OF_PLACES}
LIGHT = [name for name in MODULES if room_of(name) == "core" and name not in HEAVIER]
LIGHT += ["images.formats", "commands.train.recipe", "shell.log"]


@pytest.mark.parametrize("module", LIGHT)
def test_the_lowest_floor_is_standard_library_only(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    roots = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    roots |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert roots <= set(sys.stdlib_module_names) | {"ferbatch"}


def named_on_the_map() -> set[str]:
    """What ferbatch/README.md names, from the package on: files and folders in its tree, and paths elsewhere."""
    before, tree, after = (PACKAGE / "README.md").read_text().split("```")
    named = set(re.findall(r"`([a-z_./]+(?:/|\.py|\.json|\.toml))`", before + after)) - {"tests/test_structure.py"}
    room = wing = ""
    for line in tree.splitlines():
        if top := re.match(r"([a-z]+/)|[a-z]", line):
            room, wing = top[1] or "", ""
        elif inner := re.match(r"  ([a-z]+/)", line):
            wing = inner[1]
        named |= {room + wing + name for name in ["", *re.findall(r"[a-z_.]+\.(?:py|json)\b", line)]}
    return named - {""}


def test_the_map_names_every_room_and_nothing_that_is_not_there() -> None:
    rooms = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py")} - {"./"}
    assert rooms <= named_on_the_map()
    assert not [name for name in named_on_the_map() if not (PACKAGE / name).exists()]


def loaded_after(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after `code`."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def running(*arguments: str) -> str:
    """Code that runs the command line in its own interpreter."""
    argv = ["ferbatch", *arguments]
    return f"import sys; sys.argv = {argv!r}\nfrom ferbatch.cli import main\ntry: main()\nexcept SystemExit: pass"


def test_importing_ferbatch_loads_nothing_heavy() -> None:
    assert not loaded_after("import ferbatch; ferbatch.Prediction; ferbatch.decode_path") & HEAVY


@pytest.mark.parametrize("command", ["", "label", "evaluate", "train", "convert", "bench", "models"])
def test_help_loads_nothing_heavy(command: str) -> None:
    assert not loaded_after(running(*command.split(), "--help")) & HEAVY


def test_the_consoles_load_no_torch() -> None:
    consoles = [name for name in MODULES if name.endswith("console")]
    assert "commands.label.console" in consoles
    assert not loaded_after("\n".join(f"import ferbatch.{name}" for name in consoles)) & HEAVY


def test_labelling_here_loads_no_ray(faces: Callable[..., Path]) -> None:
    assert "ray" not in loaded_after(running("label", str(faces("images", 1)), "-o", "-"))


def test_listing_the_models_loads_no_torch() -> None:
    assert not loaded_after(running("models")) & {"torch", "torchvision", "pandas", "sklearn"}


@pytest.mark.parametrize(("given", "wanted"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_command_line_has_threads_sleep_while_they_wait_and_the_api_does_not(
    given: str | None, wanted: str, faces: Callable[..., Path]
) -> None:
    images = faces("images", 1)
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    labelling = {
        running("label", str(images), "-o", "-"): wanted,
        f"import ferbatch; list(ferbatch.label({str(images)!r}))": given or "unset",
    }
    for code, expected in labelling.items():
        code += "\nimport os; print('it is', os.environ.get('OMP_WAIT_POLICY', 'unset'))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert f"it is {expected}" in done.stdout, done.stderr


def test_the_command_line_sets_the_allocator_and_the_api_does_not(faces: Callable[..., Path]) -> None:
    images = str(faces("images", 1))
    patched = "from ferbatch.core import process; process.keep_memory = lambda: print('kept')\n"
    api = f"import ferbatch; list(ferbatch.label({images!r})); ferbatch.load_model()"
    for code, said in ((running("label", images, "-o", "-"), 1), (api, 0)):
        done = subprocess.run([sys.executable, "-c", patched + code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.count("kept") == said, done.stderr
