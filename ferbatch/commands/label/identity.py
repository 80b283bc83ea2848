"""What two runs must have in common to give the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape, shown
from ferbatch.core.options import Options
from ferbatch.images import faces, jpeg
from ferbatch.images.inputs import PREPROCESSING_VERSION
from ferbatch.model.devices import DTYPES, choose_device, choose_precision
from ferbatch.model.weights import Card
from ferbatch.stream.journal import FORMAT

# What an Identity's values are called in journals and messages, in their order: by the option where there is one.
NAMES = (
    *("PATHS", "--model", "sha256", "--device", "--precision", "--min-confidence", "--no-recursive", "--no-truth"),
    *("--tta", "preprocessing", "--faces", "--crops", "--annotate", "--min-face", "--face-margin", "--largest-face"),
    *("detector", "decoder", "torch", "journal"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What has to be the same for two runs to give the same rows; None where a journal does not say it."""

    paths: list[str] | None  # of the sources, as they may be printed
    model: str | None
    sha256: str | None  # of the weights
    device: str | None
    precision: str | None
    min_confidence: float | None
    not_recursive: bool | None
    no_truth: bool | None
    tta: bool | None
    preprocessing: int | None
    faces: str | None
    crops: str | None
    annotate: str | None
    min_face: int | None  # of a run that looks for faces; else None, as all about its search
    face_margin: float | None
    largest_face: bool | None
    detector: str | None
    decoder: str | None
    torch: str | None  # its version
    journal: int | None  # its format

    @classmethod
    def from_journal(cls, values: Mapping[str, Any]) -> Identity:
        """The identity that the first line of a journal tells."""
        return cls(*map(values.get, NAMES))

    def for_journal(self) -> dict[str, Any]:
        """Every value by its name, for the first line of a journal."""
        return {name: getattr(self, one.name) for name, one in zip(NAMES, fields(self), strict=True)}

    def differences(self, before: Identity) -> dict[str, tuple[Any, Any]]:
        """What is not as it was: name -> before, now."""
        old, new = before.for_journal(), self.for_journal()
        return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def named(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences as a clause for people."""

    def said(value: Any) -> str:
        return escape(" ".join(value) if isinstance(value, list) else str(value))

    return ", ".join(f"{name} was {said(old)} and is {said(new)}" for name, (old, new) in differences.items())


def identity_of(options: Options, card: Card, before: Identity | None) -> Identity:
    """The identity of a run with these options.

    One that goes on from the run `before` keeps its device and precision, where they are `auto`, and its decoder.
    """
    device, precision = options.device, options.precision
    decoders = jpeg.decoders()
    decoder = decoders[0]
    if before:
        if device == "auto" and before.device is not None:
            device = _device_here(before.device)
        if precision == "auto" and before.precision in DTYPES:
            precision = str(before.precision)
        if before.decoder in decoders:
            decoder = str(before.decoder)
    chosen, search = choose_device(device), options.search
    searched = search.mode != "whole"
    return Identity(
        paths=[path if path in ("-", "/") else path.rstrip("/") for path in shown_paths(options)],
        model=card.name,
        sha256=card.sha256,
        device=str(chosen),
        precision=choose_precision(precision, chosen),
        min_confidence=options.min_confidence,
        not_recursive=not options.recursive,
        no_truth=not options.truth,
        tta=options.tta,
        preprocessing=PREPROCESSING_VERSION,
        faces=search.mode,
        crops=_normal(search.crops),
        annotate=_normal(options.annotate),
        min_face=search.min_face if searched else None,
        face_margin=search.margin if searched else None,
        largest_face=search.largest if searched else None,
        detector=faces.version(search),
        decoder=decoder,
        torch=torch.__version__,
        journal=FORMAT,
    )


def shown_paths(options: Options) -> list[str]:
    """PATHS as they may be printed."""
    return ["-" if path == "-" else shown(path) for path in options.paths]


def _device_here(name: str) -> str:
    """The device of this name, or `auto` where it is gone: the output is then begun again, which is said."""
    try:
        choose_device(name)
    except UsageError:
        return "auto"
    return name


def _normal(folder: str | None) -> str | None:
    """A folder's path, spelled in one way."""
    return os.path.normpath(folder) if folder else folder
