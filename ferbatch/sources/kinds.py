"""Which files are tables, and which columns say what an image shows, by what they are called."""

from __future__ import annotations

import os

from ferbatch.core.stores.urls import is_remote
from ferbatch.core.writers import WRITERS

TEXTS = ("csv", "tsv", "tab", "txt", "lst")  # suffixes of tables that are text, whatever separates their values
SUFFIXES = (*WRITERS, *TEXTS[1:])
# What people call the column that says what an image shows, the surest first.
LABEL_COLUMNS = (
    *("truth", "label", "class", "expression", "emotion", "choice", "category", "sentiment", "labels", "emotions"),
    *("class_name", "label_name", "target"),
)


def suffix_of(path: str) -> str:
    """What a path ends in, in lower case and without its dot; a URL's without its query."""
    return os.path.splitext(path.partition("?")[0] if is_remote(os.fsencode(path)) else path)[1].lstrip(".").lower()
