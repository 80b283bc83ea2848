"""The checkpoint of an unfinished training: written after each epoch, gone on from by --resume."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ferbatch.commands.train.data import Data
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.trainer import Trainer
from ferbatch.core.errors import ModelError, UsageError
from ferbatch.core.files import replace_file
from ferbatch.core.names import listed, shown

CHECKPOINT_FORMAT = 3  # a checkpoint of another format is of another run


def fingerprint_of(recipe: Recipe, data: Data, marks: Sequence[str]) -> str:
    """What makes a run the same run: its recipe, its data, and `marks`, the hashes of the weights that it begins with
    or learns from."""
    text = json.dumps([dataclasses.asdict(recipe), data.sha256, *marks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_same_labels(file: str, labels: Sequence[str], now: Sequence[str]) -> None:
    """UsageError where a file, named as it is printed, is of a run with other labels than those to be learned now."""
    if list(labels) != list(now):
        said = f"{file} is of a run with the labels {listed(labels)}, and now they are {listed(now)}"
        raise UsageError(f"{said}; --overwrite begins anew")


def save(path: Path, trainer: Trainer, fingerprint: str) -> None:
    """Write everything that `restore` needs; the file is there whole or not at all. OutputError where it cannot."""
    run = {"format": CHECKPOINT_FORMAT, "fingerprint": fingerprint, "start": trainer.card.recipe["start"]}
    run["labels"] = list(trainer.card.labels)
    content = io.BytesIO()
    torch.save({**run, **trainer.state_dict()}, content)
    with replace_file(str(path)) as stream:
        stream.write(content.getbuffer())


def restore(path: Path, trainer: Trainer, fingerprint: str) -> None:
    """Go on from a checkpoint; UsageError where it is of another run, ModelError where it is damaged."""
    file = shown(path)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    try:
        with stream:
            state = torch.load(stream, map_location="cpu", weights_only=True)
        labels = state.get("labels", trainer.card.labels)
        fits = state["format"] == CHECKPOINT_FORMAT and state["fingerprint"] == fingerprint
        if fits:
            trainer.load_state_dict(state)
            recipe = {**trainer.card.recipe, "start": state["start"]}
            trainer.card = dataclasses.replace(trainer.card, recipe=recipe)
    except Exception as error:  # whatever a damaged file makes of the reader
        raise ModelError(f"{file} is damaged; --overwrite begins anew") from error
    check_same_labels(file, labels, trainer.card.labels)
    if not fits:
        raise UsageError(f"{file} is of a run with other data or another recipe; --overwrite begins anew")
