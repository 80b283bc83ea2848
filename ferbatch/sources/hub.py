"""Folders of data sets as the Hugging Face Hub has them: which tables in them are images, and of which split."""

from __future__ import annotations

import importlib.util
import os
import re

from ferbatch.core import archives
from ferbatch.core.containers import damages, first_values, image_column, names_files
from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.stores.urls import scheme_of
from ferbatch.images.formats import SIGNATURE_BYTES, type_of_bytes
from ferbatch.sources.aside import ARCHIVE, PATH_TABLE, TABLE, TAKEN, UNREAD_TABLE, Reason

SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?")  # train-00000-of-00002
NUMBERED = re.compile(r"\d{4,}")  # train/0000, as the Hub converts data sets
SPLIT = re.compile(r"(?<![a-z])(train|training|test|testing|eval|evaluation|valid|validation|val|dev)(?![a-z])")
DATA = b"data"  # a folder whose tables may be called as they like


def judged(prefix: bytes, name: bytes, key: bytes = b"") -> Reason:
    """What becomes of an archive that lies in a folder.

    TABLE where it is a Parquet table of images that is called as the Hub has them; TAKEN where it is called like a
    shard and damaged, or a link to nothing, which a row will say. UsageError where its store does not give it.

    prefix: the folder's path, with its slash.
    key: the same path in full, where it differs.
    """
    is_shard = SHARD.fullmatch(_stem(name)) is not None
    if not _is_called_so(os.path.basename((key or prefix).rstrip(b"/")), name):
        return ARCHIVE
    path = prefix + name
    if scheme_of(path) is None and not os.path.isfile(path):
        return TAKEN if is_shard and not os.path.exists(path) else ARCHIVE
    if importlib.util.find_spec("pyarrow") is None:
        return UNREAD_TABLE
    try:
        return _of_readable(path)
    except UnreadableImageError as error:
        raise archives.not_had(path, error) from None
    except damages():
        return TAKEN if is_shard else ARCHIVE


def _is_called_so(folder: bytes, name: bytes) -> bool:
    stem = _stem(name)
    if archives.suffix_of(name) != archives.TABLE:
        return False
    by_name = SHARD.fullmatch(stem) or NUMBERED.fullmatch(stem) or SPLIT.search(stem)
    return by_name is not None or folder.lower() == DATA


def _stem(name: bytes) -> str:
    return os.fsdecode(os.path.splitext(name)[0]).lower()


def _of_readable(path: bytes) -> Reason:
    """By the first of a table's images, if it has some; what pyarrow raises for a damaged one."""
    with archives.looked_at(path) as file:
        if (found := image_column(file)) is None:
            return PATH_TABLE if names_files(file) else ARCHIVE
        some = first_values(file, found[0])
    return TABLE if not some or any(type_of_bytes(data[:SIGNATURE_BYTES]) for data in some) else ARCHIVE


def split_of(below: bytes) -> str | None:
    """The split that a table's name or folder says, by the path of an image in it; None where there is none such."""
    parts = below.split(b"/")
    for at, part in enumerate(parts[:-1]):
        if archives.suffix_of(part) != archives.TABLE:
            continue
        stem, folder = _stem(part), os.fsdecode(parts[at - 1]).lower() if at else ""
        shard = SHARD.fullmatch(stem)
        for name in (shard[1] if shard else stem, folder):
            if found := SPLIT.search(name):
                return found[1]
        return shard[1] if shard else None
    return None
