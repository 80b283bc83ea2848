"""What the numbers in a table's columns mean, as Hugging Face's data sets say it: in the table, or in a file above."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.stores import urls
from ferbatch.images.decode import read_bytes

HEADER = re.compile(rb"\A---[ \t]*\r?\n(.*?)\r?\n---", re.DOTALL)  # of a README.md
LEVELS = 3  # folders above a table in which its data set may be described
LARGEST = 2**22  # bytes of a description


def class_names(metadata: Mapping[bytes, bytes], columns: Sequence[str], path: bytes) -> dict[str, list[str]]:
    """The names of the numbers in those of a table's columns that have some.

    metadata: the schema's own.
    columns: of whole numbers; files above the table are asked for what the schema does not say of them.
    path: the table's.
    """
    with suppress(ValueError, LookupError, AttributeError, TypeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        if found := _of_features(features):
            return found
    for described in _described(path) if columns else ():
        if found := {name: names for name, names in described.items() if name in columns}:
            return found
    return {}


def _of_features(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """By features as they stand in a schema and in dataset_infos.json."""
    return {name: [*map(str, one["names"])] for name, one in features.items() if one.get("_type") == "ClassLabel"}


def _described(path: bytes) -> Iterator[dict[str, list[str]]]:
    """What README.md and dataset_infos.json say in the folders above a table, the nearest first, by configuration."""
    folder = os.path.dirname(path if urls.is_remote(path) else os.path.abspath(path))
    within = {os.fsdecode(part) for part in path.split(b"/")}
    for _ in range(LEVELS):
        if not folder or folder.endswith((b":", b"/")):
            break
        for name, read in ((b"README.md", _of_readme), (b"dataset_infos.json", _of_infos)):
            with suppress(ValueError, LookupError, AttributeError, TypeError, UnreadableImageError):
                data = read_bytes(os.path.join(folder, name))
                found = read(data) if len(data) <= LARGEST else {}
                yield from (found[config] for config in sorted(found, key=lambda one: one not in within))
        folder = os.path.dirname(folder)


def _of_infos(data: bytes) -> dict[str, dict[str, list[str]]]:
    return {config: _of_features(info["features"]) for config, info in json.loads(data).items()}


def _of_readme(data: bytes) -> dict[str, dict[str, list[str]]]:
    """By the YAML that a README.md begins with; nothing where nothing here reads YAML."""
    header = HEADER.match(data)
    if header is None:
        return {}
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        return {}
    try:
        said = yaml.safe_load(header[1])["dataset_info"]
    except yaml.YAMLError as error:
        raise ValueError from error
    found = {}
    for info in [said] if isinstance(said, dict) else said:
        labels = {one["name"]: one["dtype"]["class_label"]["names"] for one in info["features"] if _is_label(one)}
        found[str(info.get("config_name", ""))] = {
            str(name): [str(names[number]) for number in sorted(names, key=int)] for name, names in labels.items()
        }
    return found


def _is_label(feature: Mapping[str, Any]) -> bool:
    return isinstance(feature.get("dtype"), dict) and "class_label" in feature["dtype"]
