"""Gates for cron and CI: `accuracy=0.75` holds a measure of the report against a number."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferbatch.core.errors import UsageError
from ferbatch.core.names import count, escape
from ferbatch.scoring.measures import Measure

MEASURE_KEYS = {field.name for field in dataclasses.fields(Measure)}
LESS_IS_BETTER = frozenset(  # measures whose gate is a ceiling
    {"nll", "brier", "ece", "cross_entropy", "failed", "missing", "surplus", "ambiguous"}
)
NEEDED = {name: f"--{name.replace('_', '-')}" for name in ("votes", "slices", "others", "min_confidence")}
UNBOUNDED = frozenset({"nll", "cross_entropy", "brier"})


@dataclass(frozen=True, slots=True)
class Gate:
    """A measure's name, as its place in a result of the report, and the number it must not fall short of."""

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
        gates.append(Gate(name.strip().removeprefix("labels."), bound))
    return gates


def check(gates: Sequence[Gate], result: Mapping[str, Any]) -> None:
    """UsageError for a gate whose measure a result like this one does not have, or that no rate can pass."""
    names = dict(measures_of(result))
    for gate in gates:
        if gate.name not in names:
            needed = NEEDED.get(gate.name.partition(".")[0])
            if needed and not result[gate.name.partition(".")[0]]:
                raise UsageError(f"--fail-under {escape(gate.name)} needs {needed}")
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
        measures = dict(measures_of(result))
        of = f" of {result['name']}" if len(results) > 1 else ""
        for gate in gates:
            measure = measures[gate.name]
            value = measure["value"]
            name = escape(gate.name)
            if value is None:
                clauses.append(f"{name}{of} is undefined: {measure['reason']}")
            elif value > gate.bound if gate.ceiling else value < gate.bound:
                short = "over" if gate.ceiling else "short of"
                said = f"{_shown(value, gate.bound)}, {_gap(value, gate.bound)} {short} {gate.bound:,.10g}"
                clauses.append(f"{name}{of} is {said}{_beyond_truth(gate.name, result)}")
    return clauses


def _beyond_truth(name: str, result: Mapping[str, Any]) -> str:
    """What a macro average counts that is no fault of the truth's labels; nothing where it is no such average."""
    average, _, figure = name.partition(".")
    if average != "macro_avg" or not result["beyond_truth"]:
        return ""
    others = result["truth_avg"][figure]["value"]
    counted = f"{count(result['beyond_truth'], 'label')} that no image has counted as 0"
    return f" ({counted}; truth_avg.{figure} is {others:.4f})"


def _shown(value: float, bound: float) -> str:
    """A count, or four digits, or as many as tell it from the bound."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if f"{value:.4f}" != f"{bound:.4f}" else repr(value)


def _gap(value: float, bound: float) -> str:
    gap = abs(value - bound)
    return f"{gap:,.0f}" if isinstance(value, int) else f"{gap:.4f}" if gap >= 1e-4 else f"{gap:.1e}"


def measures_of(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every measure and count in a result by its place: `accuracy`, `sad.recall`, `slices.camera.A.accuracy`, ..."""
    yield from _group({key: value for key, value in result.items() if key != "slices"}, "")
    for column, values in (result["slices"] or {}).items():
        for value, group in values.items():
            yield from _group(group, f"slices.{column}.{value}.")


def _group(group: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The measures of one group of images; those of its labels go without `labels.`."""
    for key, value in group.items():
        yield from _walk(value, place if key == "labels" else f"{place}{key}")


def _walk(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping) and value.keys() == MEASURE_KEYS:
        yield place, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _walk(one, f"{place}{key}" if not place or place.endswith(".") else f"{place}.{key}")
    elif isinstance(value, int) and not isinstance(value, bool):
        yield place, {"value": value, "n": None}
