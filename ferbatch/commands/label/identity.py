"""What two runs must have in common to give the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
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


def identity_of(options: Options, card: Card, before: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same for two runs to give the same rows, as a journal begins with it.

    It goes by the names of the options, where there is one. A run that goes on from another, whose journal says
    `before`, keeps its device and precision, where they are `auto`, and its decoder.
    """
    device, precision, decoders = options.device, options.precision, jpeg.decoders()
    if device == "auto" and "--device" in before:
        with suppress(UsageError):  # it is gone: the output is then begun again, which is said
            device = str(choose_device(before["--device"]))
    if precision == "auto" and before.get("--precision") in [*DTYPES]:
        precision = before["--precision"]
    chosen, search = choose_device(device), options.search
    of_search = {"--min-face": search.min_face, "--face-margin": search.margin, "--largest-face": search.largest}
    return {
        "PATHS": [path if path in ("-", "/") else path.rstrip("/") for path in shown_paths(options)],
        "--model": card.name,
        "sha256": card.sha256,
        "--device": str(chosen),
        "--precision": choose_precision(precision, chosen, measured=bool(card.scores)),
        "--min-confidence": options.min_confidence,
        "--no-recursive": not options.recursive,
        "--no-truth": not options.truth,
        "--tta": options.tta,
        "preprocessing": PREPROCESSING_VERSION,
        "--faces": search.mode,
        "--crops": search.crops and os.path.normpath(search.crops),
        "--annotate": options.annotate and os.path.normpath(options.annotate),
        **(dict.fromkeys(of_search) if search.mode == "whole" else of_search),
        "detector": faces.version(search),
        "decoder": before["decoder"] if before.get("decoder") in decoders else decoders[0],
        "torch": torch.__version__,
        "journal": FORMAT,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not as it was: name -> before, now; None where a journal does not say it."""
    return {name: (before.get(name), value) for name, value in now.items() if before.get(name) != value}


def named(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences as a clause for people."""

    def said(value: Any) -> str:
        return escape(" ".join(value) if isinstance(value, list) else str(value))

    return ", ".join(f"{name} was {said(old)} and is {said(new)}" for name, (old, new) in differences.items())


def shown_paths(options: Options) -> list[str]:
    """PATHS as they may be printed."""
    return ["-" if path == "-" else shown(path) for path in options.paths]
