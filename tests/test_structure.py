"""The layers hold, and start-up stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

# Imports go down only; a module may import those of a lower rank.
RANKS = {
    "__main__": 16,
    "cli": 15,
    "label_command": 14,
    "evaluate_command": 14,
    "train_command": 14,
    "bench_command": 14,
    "endings": 13,
    "options": 3,
    "label_console": 13,
    "evaluate_console": 13,
    "train_console": 13,
    "bench_console": 13,
    "models_console": 13,
    "console": 12,
    "labelling": 10,
    "resuming": 6,
    "journal": 3,
    "bench": 10,
    "measure": 6,
    "peers": 5,
    "isolation": 6,
    "reading": 5,
    "faces": 4,
    "facefiles": 3,
    "yunet": 1,
    "drawing": 7,
    "log": 3,
    "locks": 3,
    "limits": 1,
    "runs": 8,
    "convert": 10,
    "evaluate": 10,
    "train": 11,
    "trainer": 10,
    "datasets": 9,
    "augment": 4,
    "recipe": 3,
    "process": 0,
    "networks": 2,
    "zoo": 3,
    "predict": 8,
    "screen": 8,
    "pages": 8,
    "report": 8,
    "words": 7,
    "gates": 7,
    "charts": 7,
    "annotations": 7,
    "predictions": 8,
    "agreement": 6,
    "comparison": 7,
    "metrics": 6,
    "calibration": 5,
    "truth": 5,
    "rates": 4,
    "outputs": 4,
    "tables": 4,
    "scores": 3,
    "joins": 3,
    "sources": 3,
    "images": 3,
    "devices": 3,
    "samples": 2,
    "jpeg": 2,
    "models": 4,
    "weights": 3,
    "writers": 3,
    "paths": 2,
    "filetypes": 2,
    "records": 1,
    "figures": 1,
    "errors": 0,
}
MODULES = sorted(path.stem for path in (ROOT / "ferbatch").glob("*.py") if path.stem != "__init__")
TALK = {"log", "peers"}  # the way the consoles talk; a program of its own
HEAVY = {"torch", "torchvision", "pandas", "sklearn", "scipy", "cv2", "numpy", "PIL", "matplotlib", "jinja2"}


def imported(module: str) -> set[str]:
    """The ferbatch modules that a module imports when it runs (type-checking blocks aside)."""
    tree = ast.parse((ROOT / "ferbatch" / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "ferbatch":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ferbatch."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ferbatch.")}
    return names & set(MODULES)


def test_every_module_has_a_layer() -> None:
    assert set(RANKS) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    upward = {name for name in imported(module) if RANKS[name] >= RANKS[module]}
    assert not upward, f"{module} imports {upward}"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in TALK and not name.endswith("console")])
def test_only_the_consoles_talk(module: str) -> None:
    tree = ast.parse((ROOT / "ferbatch" / f"{module}.py").read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"print", "say", "show", "log.say", "log.show", "tqdm", "Console"}


@pytest.mark.parametrize("module", ["records", "errors", "figures", "paths", "filetypes", "recipe", "process", "log"])
def test_the_lowest_layer_is_standard_library_only(module: str) -> None:
    tree = ast.parse((ROOT / "ferbatch" / f"{module}.py").read_text())
    roots = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    roots |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert roots <= set(sys.stdlib_module_names) | {"ferbatch"}


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
    assert "label_console" in consoles
    assert not loaded_after("\n".join(f"import ferbatch.{name}" for name in consoles)) & HEAVY


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
    patched = "from ferbatch import process; process.keep_memory = lambda: print('kept')\n"
    api = f"import ferbatch; list(ferbatch.label({images!r})); ferbatch.load_model()"
    for code, said in ((running("label", images, "-o", "-"), 1), (api, 0)):
        done = subprocess.run([sys.executable, "-c", patched + code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.count("kept") == said, done.stderr
