"""The files of a training: weights, checkpoint, history, curves."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferbatch.commands.train.validation import Epoch, Part
from ferbatch.core.errors import UsageError
from ferbatch.core.files import check_replaceable, replace_file
from ferbatch.core.names import shown
from ferbatch.core.options import Existing
from ferbatch.model import weights
from ferbatch.report import charts

CURVES = {"loss": ("train_loss", "validation_loss"), "accuracy": ("train_accuracy", "validation_accuracy")}


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a run, beside its weights."""

    output: Path

    @property
    def checkpoint(self) -> Path:
        return self.output.with_suffix(".checkpoint")

    @property
    def history(self) -> Path:
        return self.output.with_suffix(".history.csv")

    def curve(self, name: str) -> Path:
        return self.output.with_suffix(f".{name}.png")

    def check(self, existing: Existing) -> None:
        """UsageError or OutputError if these files must not or cannot be written."""
        if self.output.suffix != ".safetensors":
            raise UsageError(f"{shown(self.output)}: weights files end in .safetensors")
        if existing.resume and existing.overwrite:
            raise UsageError("--resume goes on with what is there, --overwrite replaces it: say one of them")
        if self.checkpoint.exists() and not existing.any:
            unfinished = f"{shown(self.checkpoint)} is of an unfinished run"
            raise UsageError(f"{unfinished}: --resume goes on with it, --overwrite begins anew")
        weights.check_output(self.output, existing.any)
        for path in (self.history, *map(self.curve, CURVES)):
            check_replaceable(path, existing.any)


def write_history(files: Files, history: Sequence[Epoch]) -> None:
    """Write a row per epoch as a table, and the curves as pictures. OutputError where one cannot be written."""
    text = io.StringIO()
    table = [row(epoch) for epoch in history]
    rows = csv.DictWriter(text, table[0], lineterminator="\n")
    rows.writeheader()
    rows.writerows(table)
    with replace_file(os.fspath(files.history)) as stream:
        stream.write(text.getvalue().encode())
    for name, columns in CURVES.items():
        lines = {column.split("_")[0]: [getattr(epoch, column) for epoch in history] for column in columns}
        if name == "accuracy":
            lines |= {one.name: [epoch.parts[at].accuracy.value for epoch in history] for at, one in _parts(history)}
        with replace_file(os.fspath(files.curve(name))) as stream:
            stream.write(charts.curves(name, lines))


def _parts(history: Sequence[Epoch]) -> Iterable[tuple[int, Part]]:
    """The parts of the validation images, which are the same in every epoch, with their places."""
    return enumerate(history[0].parts)


def row(epoch: Epoch) -> dict[str, Any]:
    """An epoch as column -> value: its own figures, then each source's in each framing."""
    names = [field.name for field in dataclasses.fields(Epoch) if field.name != "parts"]
    own = {name: getattr(epoch, name) for name in names}
    parts = {f"{one.name} {key}": value for one in epoch.parts for key, value in one.columns.items()}
    return own | parts
