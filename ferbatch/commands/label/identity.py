"""What two runs must have in common to give the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from ferbatch.core.errors import UsageError
from ferbatch.core.names import decode_path, escape, shown
from ferbatch.core.options import Options, shard_of
from ferbatch.core.records import SCHEMA, Doubt, Search
from ferbatch.core.stores import objects
from ferbatch.core.stores.urls import cleaned, is_remote, without_secret
from ferbatch.images import faces, jpeg
from ferbatch.images.inputs import PREPROCESSING_VERSION
from ferbatch.model.devices import DTYPES, choose_device, choose_precision
from ferbatch.model.weights import Card
from ferbatch.stream.journal import FORMAT
from ferbatch.stream.ray_cluster import Cluster

# What holds for a journal that does not say it, for there was no such thing.
UNSAID: Mapping[str, Any] = {
    **{"schema": 1, "--min-score": Doubt().min_score, "--max-turn": Doubt().max_turn},
    **{"--path-column": None, "--images": None},
}


def identity_of(
    options: Options, card: Card, before: Mapping[str, Any], cluster: Cluster | None = None
) -> dict[str, Any]:
    """What has to be the same for two runs to give the same rows, as a journal begins with it.

    It goes by the names of the options, where there is one. A run that goes on from another, whose journal says
    `before`, keeps its device and precision, where they are `auto`, and its decoder. The devices are the `cluster`'s;
    None: this machine's.
    """
    choose, choose_dtype = (cluster.device, cluster.precision) if cluster else (choose_device, choose_precision)
    device, precision, decoders = options.device, options.precision, jpeg.decoders()
    if device == "auto" and "--device" in before:
        with suppress(UsageError):  # it is gone: the output is then begun again, which is said
            device = str(choose(before["--device"]))
    if precision == "auto" and before.get("--precision") in [*DTYPES]:
        precision = before["--precision"]
    chosen = choose(device)
    return {
        "PATHS": [path if path in ("-", "/") else path.rstrip("/") for path in shown_paths(options)],
        "--model": card.name,
        "sha256": card.sha256,
        "--device": str(chosen),
        "--precision": choose_dtype(precision, chosen, measured=bool(card.scores)),
        "--min-confidence": options.doubt.min_confidence,
        "--min-score": options.doubt.min_score,
        "--max-turn": options.doubt.max_turn,
        "--no-recursive": not options.recursive,
        "--path-column": options.table.path_column,
        "--images": shown_images(options),
        "--no-truth": not options.truth,
        "--shard": options.shard and "{}/{}".format(*shard_of(options.shard)),
        "--tta": options.tta,
        "preprocessing": PREPROCESSING_VERSION,
        "--annotate": _folder(options.annotate),
        **_of_search(options.search_on(str(chosen))),
        "decoder": before["decoder"] if before.get("decoder") in decoders else decoders[0],
        "torch": torch.__version__,
        "journal": FORMAT,
        "schema": SCHEMA,
    }


def shown_images(options: Options) -> str | None:
    """--images as it may be printed."""
    images = options.table.images
    return None if images is None else _plain(shown(without_secret(images)))


def _of_search(search: Search) -> dict[str, Any]:
    """How faces are looked for; where they are not, most of it makes no difference."""
    said = {"--min-face": search.min_face, "--face-margin": search.margin, "--largest-face": search.largest}
    return {
        "--faces": search.mode,
        "--crops": _folder(search.crops),
        **(dict.fromkeys(said) if search.mode == "whole" else said),
        "detector": faces.version(search),
    }


def _folder(path: str | None) -> str | None:
    """A folder that pictures go to, in one spelling."""
    if path and is_remote(os.fsencode(path)):
        return objects.plain(path)
    return path and os.path.normpath(path)


HIDDEN_ONES = "--hidden"
OLD_RULES = {HIDDEN_ONES: True, "--exclude": [], "--follow-links": False}  # of a run that does not say by which it went


def rules_of(options: Options) -> dict[str, Any]:
    """What counts in folders, by the names of the options: no row depends on it, only which rows there are."""
    rules = options.rules
    return {HIDDEN_ONES: rules.hidden, "--exclude": [*map(escape, rules.exclude)], "--follow-links": rules.follow_links}


def spelled_as_before(options: Options, before: Mapping[str, Any]) -> Options:
    """The options, with PATHS spelled as by the run whose journal says `before` where they are the same: `./a/`, `a`.

    So each image keeps its path in the output, and with it its row.
    """
    spelled = before.get("PATHS", [])
    if [*map(_plain, spelled)] != [*map(_plain, shown_paths(options))]:
        return options
    return replace(options, paths=tuple(path if path == "-" else os.fsdecode(decode_path(path)) for path in spelled))


def _plain(path: str) -> str:
    """A path as printed, in one spelling: without the slashes and dots that change nothing. `..` may, past a link."""
    if is_remote(os.fsencode(path)):
        return path.rstrip("/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    plain = "/" * path.startswith("/") + "/".join(parts)
    return plain if path == "-" or plain not in ("", "-") else f"./{plain}"  # `-` is the list, `./-` a path


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not as it was: name -> before, now; None where a journal does not say it."""
    said = {**UNSAID, **before}
    return {name: (said.get(name), value) for name, value in now.items() if said.get(name) != value}


def named(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences as a clause for people."""

    def said(value: Any) -> str:
        return escape(" ".join(map(str, value)) or "none" if isinstance(value, list) else str(value))

    return ", ".join(f"{name} was {said(old)} and is {said(new)}" for name, (old, new) in differences.items())


def where(options: Options) -> str:
    """PATHS, as a sentence names them."""
    return ", ".join("the list on stdin" if path == "-" else path for path in shown_paths(options))


def shown_paths(options: Options) -> list[str]:
    """PATHS as they may be printed."""
    return ["-" if path == "-" else shown(os.fsdecode(cleaned(os.fsencode(path)))) for path in options.paths]
