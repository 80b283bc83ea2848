"""Weights and their cards: NAME.safetensors holds the tensors, NAME.json beside it says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ferbatch.errors import ModelError, OutputError, UsageError
from ferbatch.paths import escape, replace_file
from ferbatch.records import Card

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).resolve().parent
SHIPPED = next((p for p in (HERE / "_weights", HERE.parent / "weights") if p.is_dir()), HERE / "_weights")


def shipped() -> list[str]:
    """The names of the models that come with ferbatch."""
    return sorted(card.stem for card in SHIPPED.glob("*.json"))


def find(name: str) -> Path:
    """The .safetensors file of a shipped model's name or of a path to a file of the pair; ModelError if none.

    A name without its version (`cnn`) is that of the newest.
    """
    there = shipped()
    versions = {int(one[len(name) + 2 :]): one for one in there if re.fullmatch(rf"{re.escape(name)}-v\d+", one)}
    name = versions[max(versions)] if versions else name
    if name in there:
        return SHIPPED / f"{name}.safetensors"
    path = Path(name)
    if path.suffix in (".json", ".safetensors"):
        return path.with_suffix(".safetensors")
    raise ModelError(
        f"no model called '{escape(name)}' (known: {', '.join(shipped())}, or a path to a .safetensors file)"
    )


def read_card(name: str) -> Card:
    """The card of a shipped model or a weights file; ModelError if it is missing or malformed."""
    path = find(name).with_suffix(".json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        card = Card(**{**values, "labels": tuple(values["labels"])})
        _check(card)
        return card
    except OSError as error:
        if not find(name).exists():
            raise ModelError(f"no file {escape(str(find(name)))}") from error
        raise ModelError(f"{escape(str(find(name)))} has no card: {escape(path.name)}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{escape(str(path))} is no model card: {escape(str(error))}") from error


def _check(card: Card) -> None:
    """ValueError or TypeError if inference could not trust these values."""
    numbers = {"mean": card.mean, "std": card.std, "temperature": card.temperature, "size": card.size}
    for name, value in numbers.items():
        if not math.isfinite(value) or (name != "mean" and value <= 0):
            raise ValueError(f"{name} is {value}")
    if not all(isinstance(label, str) and label.isidentifier() for label in card.labels) or len(set(card.labels)) < 2:
        raise ValueError("labels must be two or more different words")


def load(name: str) -> tuple[Card, dict[str, Tensor]]:
    """Card and tensors, the file's sha256 held against the card's; ModelError if anything does not fit."""
    import safetensors.torch  # torch with it: what only reads cards stays quick

    card, path = read_card(name), find(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{escape(str(path))} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ModelError(f"{escape(str(path))} is damaged: its sha256 is not the one in its card")
    try:
        return card, safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"{escape(str(path))} holds no tensors: {escape(str(error))}") from error


def check_output(path: Path, overwrite: bool) -> None:
    """UsageError or OutputError if weights and card must not or cannot be written here."""
    for one in (path, path.with_suffix(".json")):
        if one.exists() and not overwrite:
            raise UsageError(f"{escape(str(one))} exists; --overwrite replaces it")
    if not path.parent.is_dir():
        raise UsageError(f"no folder {escape(str(path.parent))} to write {escape(str(path))} in")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{escape(str(path))} could not be written: no permission to write in its folder")


def save(path: Path, card: Card, tensors: Mapping[str, Tensor]) -> Card:
    """Write path (.safetensors) and its card; returns the card with the sha256 of what was written."""
    import safetensors.torch

    content = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    card = dataclasses.replace(card, sha256=hashlib.sha256(content).hexdigest())
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False) + "\n"
    with replace_file(os.fspath(path)) as tensor_file, replace_file(os.fspath(path.with_suffix(".json"))) as card_file:
        tensor_file.write(content)
        card_file.write(text.encode())
    return card
