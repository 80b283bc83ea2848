"""Gates for cron and CI: `accuracy=0.75` holds a figure of the report against a number."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferbatch.errors import UsageError
from ferbatch.paths import escape

LESS_IS_BETTER = frozenset({"nll", "brier", "ece", "cross_entropy", "failed"})  # for these the gate is a ceiling
UNBOUNDED = frozenset({"nll", "cross_entropy", "brier"})


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure's name, as its place in a result of the report, and the number it must not fall short of."""

    name: str
    bound: float

    @property
    def ceiling(self) -> bool:
        return self.name.rpartition(".")[2] in LESS_IS_BETTER


def parse(texts: Sequence[str]) -> list[Gate]:
    """The gates; UsageError where one is not NAME=NUMBER."""
    gates = []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not name.strip() or not math.isfinite(bound):
            raise UsageError(f"--fail-under {escape(text)}: say FIGURE=NUMBER, accuracy=0.75 for one")
        gates.append(Gate(name.strip(), bound))
    return gates


def check(gates: Sequence[Gate], result: Mapping[str, Any]) -> None:
    """UsageError for a gate whose figure a result like this one does not have, or that no rate can pass."""
    names = dict(figures_of(result))
    for gate in gates:
        if gate.name not in names:
            close = difflib.get_close_matches(gate.name, names, n=3, cutoff=0.5)
            known = ", ".join(close or ["accuracy", "balanced_accuracy", "macro_avg.f1", "ece", "LABEL.recall"])
            raise UsageError(f"--fail-under: the report has no figure '{escape(gate.name)}' (it has: {known}, …)")
        is_share = names[gate.name]["n"] is not None and gate.name.rpartition(".")[2] not in UNBOUNDED
        if is_share and not 0 <= gate.bound <= 1:
            raise UsageError(f"--fail-under {escape(gate.name)}={gate.bound:g}: this figure lies between 0 and 1")


def missed(gates: Sequence[Gate], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What fell short and by how much, a clause per gate and result; empty where every gate was passed."""
    clauses = []
    for result in results:
        figures = dict(figures_of(result))
        of = f" of {result['name']}" if len(results) > 1 else ""
        for gate in gates:
            figure = figures[gate.name]
            value = figure["value"]
            name = escape(gate.name)
            if value is None:
                clauses.append(f"{name}{of} is undefined: {figure['reason']}")
            elif gate.ceiling and value > gate.bound:
                clauses.append(f"{name}{of} is {_digits(value)}, {_digits(value - gate.bound)} over {gate.bound:g}")
            elif not gate.ceiling and value < gate.bound:
                clauses.append(f"{name}{of} is {_digits(value)}, {_digits(gate.bound - value)} short of {gate.bound:g}")
    return clauses


def _digits(value: float) -> str:
    """Four digits, or more where they would all be 0."""
    return f"{value:.4f}" if abs(value) >= 1e-4 or not value else f"{value:.1e}"


def figures_of(result: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every figure and count in a result by its place: `accuracy`, `sad.recall`, `slices.camera.A.accuracy`, ..."""
    for key, value in result.items():
        name = f"{place}{key}" if key != "labels" else place.removesuffix(".")
        if isinstance(value, Mapping):
            if "value" in value and "n" in value:
                yield name, value
            else:
                yield from figures_of(value, f"{name}." if name else "")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield name, {"value": value, "n": None}
