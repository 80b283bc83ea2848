"""What two runs must have in common to give the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from ferbatch.commands.label.journal import run_of
from ferbatch.commands.label.output import Output
from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape, shown
from ferbatch.core.options import Existing, Options
from ferbatch.images import faces, jpeg
from ferbatch.images.inputs import PREPROCESSING_VERSION
from ferbatch.model import weights
from ferbatch.model.devices import DTYPES, choose_device, choose_precision


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


def identity_of(options: Options, output: Output, existing: Existing) -> dict[str, Any]:
    """What has to be the same for two runs to give the same rows.

    A run that goes on from another keeps its device and precision, where they are `auto`, and its decoder.
    """
    card = weights.read_card(options.model)
    before = begun_with(output, existing)
    device = options.device
    if device == "auto":
        device = _device_here(before.get("--device", device))
    chosen = choose_device(device)
    precision = options.precision
    if precision == "auto" and before.get("--precision") in DTYPES:
        precision = before["--precision"]
    decoders = jpeg.decoders()
    return {
        "PATHS": [path if path in ("-", "/") else path.rstrip("/") for path in shown_paths(options)],
        "--model": card.name,
        "sha256": card.sha256,
        "--device": str(chosen),
        "--precision": choose_precision(precision, chosen),
        "--min-confidence": options.min_confidence,
        "--no-recursive": not options.recursive,
        "--no-truth": not options.truth,
        "--tta": options.tta,
        "preprocessing": PREPROCESSING_VERSION,
        **_of_faces(options),
        "decoder": before["decoder"] if before.get("decoder") in decoders else decoders[0],
        "torch": torch.__version__,
        "incremental": existing.incremental,
    }


def _of_faces(options: Options) -> dict[str, Any]:
    """What rows about faces, and files about them, depend on."""
    search = options.search
    searched = {
        "--min-face": search.min_face,
        "--face-margin": search.margin,
        "--largest-face": search.largest,
        "detector": faces.version(search),
    }
    whole = search.mode == "whole"
    folders = {"--crops": search.crops, "--annotate": options.annotate}
    normal = {option: os.path.normpath(path) if path else path for option, path in folders.items()}
    return {"--faces": search.mode, **normal} | (dict.fromkeys(searched) if whole else searched)


def begun_with(output: Output, existing: Existing) -> Mapping[str, Any]:
    """What the run was that this one goes on from; empty if it goes on from none."""
    for path in (output.journal, output.state) if output.is_file and (existing.resume or existing.incremental) else ():
        if os.path.exists(path):
            return run_of(path) or {}
    return {}


def differences_between(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not the same in two runs: name -> before, now."""
    names = [name for name in now if name != "incremental" and before.get(name) != now[name]]
    return {name: (before.get(name), now[name]) for name in names}


def named(differences: Mapping[str, tuple[Any, Any]]) -> str:
    def said(value: Any) -> str:
        return escape(" ".join(value) if isinstance(value, list) else str(value))

    return ", ".join(f"{name} was {said(old)} and is {said(new)}" for name, (old, new) in differences.items())
