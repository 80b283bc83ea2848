"""The bytes of tables wherever they lie: a file is read as it is, an object of a store fetched whole, and held."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from ferbatch.core import archives
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.files import is_folder
from ferbatch.core.names import shown
from ferbatch.core.stores import known, remote
from ferbatch.core.stores.urls import check_installed, is_remote, scheme_of
from ferbatch.sources.kinds import SUFFIXES, suffix_of

_held: dict[str, bytes] = {}  # the object that was fetched last


def is_table(path: str) -> bool:
    """Whether a file or an object is there that is called like a table; UsageError where a store does not say it."""
    if suffix_of(path) not in SUFFIXES:
        return False
    name = os.fsencode(path)
    if not is_remote(name):
        return os.path.isfile(path)
    check_installed(scheme_of(name) or "")
    if known.version_of(name) is None:
        try:
            known.index.add(name, remote.ahead().looked_at(name))
        except UnreadableImageError as error:
            if error.kind == "not_found":
                return False
            raise archives.not_had(name, error) from None
    return True


def is_of_folders(path: str) -> bool:
    """Whether what lies at a path is listed as folders are, rather than by the rows of a table."""
    return is_folder(path) and not is_table(path)


def check_is_there(path: str) -> None:
    """UsageError where there is no file and no object."""
    if not (is_table(path) if is_remote(os.fsencode(path)) else os.path.exists(path)):
        raise UsageError(f"no such file: {shown(path)}")


def opened(path: str) -> BinaryIO:
    """A table's bytes, from their beginning; UsageError where a store does not give them, or they are too many."""
    source = source_of(path)
    return open(source, "rb") if isinstance(source, str) else source


def source_of(path: str) -> str | io.BytesIO:
    """What pandas reads a table from, as `opened` has it: the path itself, where it is a file's."""
    name = os.fsencode(path)
    if not is_remote(name):
        return path
    if path not in _held:
        let_go()
        try:
            _held[path] = remote.read(name)
        except UnreadableImageError as error:
            raise archives.not_had(name, error) from None
    return io.BytesIO(_held[path])


def size_of(path: str) -> int:
    """Bytes of a table; UsageError as `opened` raises it."""
    source = source_of(path)
    return os.path.getsize(source) if isinstance(source, str) else source.getbuffer().nbytes


def let_go() -> None:
    """Hold no object any longer."""
    _held.clear()
