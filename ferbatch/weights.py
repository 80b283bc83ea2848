"""Weights and their cards: NAME.safetensors holds the tensors, NAME.json beside it says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ferbatch.errors import ModelError
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
    """The .safetensors file of a shipped model's name or of a path to a file of the pair; ModelError if none."""
    if name in shipped():
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
        return Card(**{**values, "labels": tuple(values["labels"])})
    except OSError as error:
        raise ModelError(f"{escape(str(path))} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{escape(str(path))} is no model card: {escape(str(error))}") from error


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


def save(path: Path, card: Card, tensors: Mapping[str, Tensor]) -> Card:
    """Write path (.safetensors) and its card; returns the card with the sha256 of what was written."""
    import safetensors.torch

    content = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    card = dataclasses.replace(card, sha256=hashlib.sha256(content).hexdigest())
    with replace_file(os.fspath(path)) as stream:
        stream.write(content)
    with replace_file(os.fspath(path.with_suffix(".json"))) as stream:
        stream.write((json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False) + "\n").encode())
    return card
