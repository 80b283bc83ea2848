"""Weights and their cards: NAME.safetensors holds the tensors, NAME.json beside it says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbatch.core.errors import ModelError
from ferbatch.core.files import check_has_folder, check_replaceable, replace_file
from ferbatch.core.names import count, escape, shown
from ferbatch.core.options import PACKAGE
from ferbatch.core.records import columns

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = next((p for p in (PACKAGE / "_weights", PACKAGE.parent / "weights") if p.is_dir()), PACKAGE / "_weights")

# Cards and weights may come from anyone. What follows is more than any model needs and less than could do harm.
MOST_CARD_BYTES = 2**22  # of a card, which may name a thousand labels three times
MOST_HEADER_BYTES = 2**20  # of the JSON that a .safetensors file begins with
MOST_TENSOR_BYTES = 2**30  # the size of a .safetensors file
MOST_SIZE = 1024  # pixels on a side of the input
MOST_LABELS = 1_000
FIGURES = ("macro_avg", "weighted_avg", "truth_avg")  # of a report, that stand where its labels do
LONGEST_WORD = 255  # characters of a name or a label
MOST_DEPTH = 16  # lists and objects of a card in one another
LEAST_SCALE, MOST_SCALE = 1e-9, 1e9  # std and temperature lie between; a mean is less than MOST_SCALE from 0
CARD_TYPES: Mapping[str, type | tuple[type, ...]] = {  # what a card's values must be
    **dict.fromkeys(("name", "architecture", "sha256", "intended_use", "limits"), str),
    **dict.fromkeys(("arguments", "preprocessing", "data", "recipe", "licence"), dict),
    **dict.fromkeys(("labels", "scores"), list),
    **dict.fromkeys(("size", "parameters", "multiply_adds"), int),
    **dict.fromkeys(("mean", "std", "temperature"), (int, float)),
}


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
        values = json.loads(_read(path, MOST_CARD_BYTES).decode())
        _check_json(values)
        card = Card(**values)
        _check(card)
        return dataclasses.replace(card, labels=tuple(card.labels))
    except OSError as error:
        if not os.path.exists(find(name)):
            raise ModelError(f"no file {shown(find(name))}") from error
        raise ModelError(f"{shown(find(name))} has no card: {escape(path.name)}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{shown(path)} is no model card: {_said(error)}") from error


def _read(path: Path, most: int) -> bytes:
    """A regular file's content; ValueError for anything else or more than `most` bytes, OSError if it is unreadable."""
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        raise ValueError("not a regular file")
    if info.st_size > most:
        raise ValueError(f"{info.st_size:,} bytes, the limit is {most:,}")
    with path.open("rb") as stream:
        return stream.read(info.st_size)  # no more, whatever the file has become: memory is taken for so many bytes


def _said(error: Exception) -> str:
    """What an error says, though it may repeat what a hostile file holds."""
    return escape(str(error)[:300])


def _check_json(value: Any, depth: int = 0) -> None:
    """ValueError for what could not be used or written again: deep nesting, endless numbers, text that is no UTF-8."""
    if depth > MOST_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_json(one, depth + 1)
    elif isinstance(value, str):
        value.encode()
    elif isinstance(value, int | float) and not abs(value) < 2**63:
        raise ValueError("it holds a number that is none or too large")


def _check(card: Card) -> None:
    """ValueError if inference, or what reports it, could not trust these values."""
    for name, kind in CARD_TYPES.items():
        value = getattr(card, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is of the wrong type")
    if max(len(card.name), len(card.architecture)) > LONGEST_WORD:
        raise ValueError(f"name or architecture is longer than {LONGEST_WORD} characters")
    if not can_scale(card.mean, card.std) or not LEAST_SCALE < card.temperature < MOST_SCALE:
        raise ValueError(f"mean, std, temperature are {card.mean}, {card.std}, {card.temperature}")
    if not 0 < card.size <= MOST_SIZE:
        raise ValueError(f"size is {card.size}, not 1 to {MOST_SIZE:,}")
    if why := unfit(card.labels):
        raise ValueError(why)


def can_scale(mean: float, std: float) -> bool:
    """Whether pixels, less this mean and divided by this std, stay numbers that a network can take."""
    return abs(mean) < MOST_SCALE and LEAST_SCALE < std < MOST_SCALE


def unfit(labels: Sequence[Any]) -> str:
    """Why these cannot be a model's labels, in words; empty where they can.

    They are 2 to MOST_LABELS texts that differ in more than their case, are safe to print and to open in a
    spreadsheet, and are called like no column of an output and no figure of a report.
    """
    for one in labels:
        if why := _unfit(one):
            return f"'{escape(str(one)[:LONGEST_WORD])}' can be no label: {why}"
    of_name = Counter(one.casefold() for one in labels)
    if not 2 <= len(labels) <= MOST_LABELS:
        named = f" ({labels[0]})" if len(labels) == 1 else ""
        return f"{count(len(labels), 'label')}{named}, where a model has 2 to {MOST_LABELS:,}"
    twice = [one for one in labels if of_name[one.casefold()] > 1]
    return f"two labels are called the same: {twice[0]} and {twice[1]}" if twice else ""


def _unfit(label: Any) -> str:
    """Why this can be no label, whatever the others are; empty where it can."""
    if not isinstance(label, str) or label.strip() != label or not label:
        return "it is no text, or begins or ends with a space"
    if len(label) > LONGEST_WORD:
        return f"it is longer than {LONGEST_WORD} characters"
    if escape(label) != label:
        return "it holds a backslash, or characters that are not seen"
    if shown(label) != label:
        return "a spreadsheet would take it for a formula"
    if label.casefold() in (*columns(()), *FIGURES):
        return "a column of the output, or a figure of the report, is called so"
    return ""


def load(name: str, card: Card | None = None) -> tuple[Card, dict[str, Tensor]]:
    """Card and tensors, the file's sha256 held against the card's; ModelError if anything does not fit.

    `card` is the model's, where it was read before.
    """
    import safetensors.torch  # here, for it loads torch: what only reads cards stays quick

    card, path = card or read_card(name), find(name)
    try:
        content = _read(path, MOST_TENSOR_BYTES)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{shown(path)} cannot be read: {said}") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ModelError(f"{shown(path)} is damaged: its sha256 is not the one in its card")
    try:
        if int.from_bytes(content[:8], "little") > MOST_HEADER_BYTES:
            raise ValueError(f"its header is longer than {MOST_HEADER_BYTES:,} bytes")
        return card, safetensors.torch.load(content)
    except Exception as error:  # whatever a hostile header makes of the reader
        raise ModelError(f"{shown(path)} holds no tensors: {_said(error)}") from error


def check_output(path: Path, overwrite: bool) -> None:
    """UsageError or OutputError if weights and card must not or cannot be written here."""
    for file in (path, path.with_suffix(".json")):
        check_replaceable(file, overwrite)
    check_has_folder(path)


def save(path: Path, card: Card, tensors: Mapping[str, Tensor]) -> Card:
    """Write path (.safetensors) and its card; returns the card with the sha256 of what was written."""
    import safetensors.torch

    content = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    card = dataclasses.replace(card, sha256=hashlib.sha256(content).hexdigest())
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False) + "\n"
    with replace_file(os.fspath(path)) as tensor_file, replace_file(os.fspath(path.with_suffix(".json"))) as card_file:
        tensor_file.write(content)
        card_file.write(text.encode(errors="replace"))  # the name of a model may be no UTF-8
    return card


# What every card says, whoever trained the model.
INTENDED_USE = "Sorting and describing images of faces by the expression they show."
LIMITS = (
    "The labels are guesses at the expression a picture shows, not at what a person feels. Not for inferring emotions"
    " of people at work or in schools (prohibited in the EU by the AI Act, Article 5(1)(f)), nor for any decision"
    " about a person."
)
UNKNOWN_ACCURACY = "Its accuracy is unknown until `ferbatch evaluate` has measured it."  # of a model that has no scores


@dataclass(frozen=True, slots=True)
class Card:
    """What a weights file knows about itself; stands beside it as NAME.json."""

    name: str
    architecture: str  # a key of registry.MODELS
    arguments: Mapping[str, Any]  # that the architecture is built with
    labels: tuple[str, ...]  # in the order of the outputs
    size: int  # pixels, both sides of the input
    mean: float  # is taken from pixels scaled to 0..1
    std: float  # divides what is left
    preprocessing: Mapping[str, Any]  # how an image becomes size x size, in words and numbers
    temperature: float  # logits are divided by it
    sha256: str  # what the .safetensors file must have
    parameters: int
    multiply_adds: int  # per image
    data: Mapping[str, Any]  # what it was trained on, and what was left out
    recipe: Mapping[str, Any]  # every setting of the training, its seed included
    scores: Sequence[Mapping[str, Any]]  # each with n and a 95 % interval
    licence: Mapping[str, str]  # `weights` and `data` -> under which each may be used
    intended_use: str
    limits: str
