"""Whether a file may be written, files that are there whole or not at all, and what tells a file from what it was."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ferbatch.core import archives
from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.names import shown
from ferbatch.core.records import NO_VERSION, Version
from ferbatch.core.stores.urls import is_remote, stream_of

EXISTS = "exists; --overwrite replaces it"  # said of a file that must not be replaced, after its path


class OutputStream(io.BufferedWriter):
    """A binary stream whose failures are OutputErrors that name it; a reader that went away stays BrokenPipeError."""

    def __init__(self, raw: io.RawIOBase, name: str) -> None:
        super().__init__(raw)
        self.shown = name

    def write(self, data: Any) -> int:
        with writing(self.shown):
            return super().write(data)

    def flush(self) -> None:
        with writing(self.shown):
            super().flush()


@contextmanager
def writing(name: str) -> Iterator[None]:
    """OutputError for what the system says against writing to what messages call `name`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritten(name, error.strerror) from error


def unwritten(name: str, why: str | None) -> OutputError:
    """The error that says why what messages call `name` could not be written."""
    return OutputError(f"{name} could not be written: {why}")


def check_replaceable(path: str | os.PathLike[str], overwrite: bool) -> None:
    """UsageError where a file is there already that must not be replaced."""
    if not overwrite and os.path.exists(path):
        raise UsageError(f"{shown(path)} {EXISTS}")


def check_is_local(path: str) -> None:
    """UsageError where it is a path into a store, for what is not written there."""
    if is_remote(os.fsencode(path)):
        scheme = path.partition("://")[0]
        raise UsageError(f"{scheme}:// takes labels, reports and pictures, and not this: say a path of this machine")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, or an archive of files or a place in a store, which count as one."""
    return is_remote(os.fsencode(path)) or archives.is_folder(path)


def check_is_folder(path: str | os.PathLike[str]) -> None:
    """UsageError where something is there that is no folder."""
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError(f"{shown(path)} is not a folder")


def check_has_folder(path: str | os.PathLike[str]) -> None:
    """UsageError where there is no folder to write this file in, OutputError where nothing may be written in it."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        check_is_local(os.fspath(path).replace(":/", "://", 1))  # as pathlib spells it
        raise UsageError(f"no folder {shown(folder)} to write {shown(path)} in")
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
        why = "its file system is read-only" if read_only else "no permission to write in its folder"
        raise unwritten(shown(path), why)


def check_room(path: str, needed: int) -> None:
    """OutputError if fewer bytes than these are free where this file is to be written."""
    with writing(shown(path)):
        free = shutil.disk_usage(os.path.dirname(path) or ".").free
    if free < needed:
        room = f"at least {needed / 1e6:,.1f} MB are needed in its folder, {free / 1e6:,.1f} MB are free"
        raise unwritten(shown(path), room)


@contextmanager
def replace_file(path: str) -> Iterator[OutputStream]:
    """A stream into `path`.part, renamed to `path` when all went well: there is the whole new file or the old one.

    The new file has the old one's permissions. Raises OutputError where it cannot be written; whatever ends the block
    early removes the part.
    """
    part, name = f"{path}.part", shown(path)
    try:  # around the opening, too: a signal may come when the part is just there
        with writing(name):
            with suppress(FileNotFoundError):
                os.unlink(part)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        raw = io.FileIO(descriptor, "wb")
        with OutputStream(raw, name) as stream:
            yield stream
            stream.flush()
            with writing(name):
                if os.path.exists(path):
                    os.chmod(part, stat.S_IMODE(os.stat(path).st_mode))
                os.fsync(stream.fileno())
        with writing(name):
            os.replace(part, path)
        sync_folder(os.path.dirname(path) or ".")
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def sync_folder(folder: str) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: str) -> None:
    """Take a file of ours away, if it is there; OutputError where that fails."""
    with writing(shown(path)), suppress(FileNotFoundError):
        os.unlink(path)


def sha256_of(path: str) -> str | None:
    """The hash of a file of ours as it is, None if there is none; OutputError where it cannot be read back."""
    with writing(shown(path)), suppress(FileNotFoundError), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return None


def version_of(file: bytes) -> Version:
    """What tells a file from what it was before; NO_VERSION if it cannot be had."""
    return version_in(stat_of(file))


def versions_of(files: Sequence[bytes]) -> list[Version]:
    """The versions of many files; those in stores are asked about many at once."""
    looked_at: dict[bytes, Version] = {}
    if any(map(is_remote, files)):
        from ferbatch.core.stores import remote

        looked_at = remote.look_at(files)
    return [looked_at.get(file) or version_of(file) for file in files]


def version_in(info: os.stat_result | None) -> Version:
    """The version of a file that os.stat said this of; a time that 64 bits do not hold is the last or first they do."""
    return Version(info.st_size, max(-(2**63), min(info.st_mtime_ns, 2**63 - 1))) if info else NO_VERSION


def stat_of(file: bytes) -> os.stat_result | None:
    """What the system says of a file, an archive of its member or a store of its object; None where nobody can say."""
    if is_remote(file):
        from ferbatch.core.stores import remote  # most runs need none of it

        return remote.stat_of(file)
    with suppress(OSError, ValueError):  # ValueError: a NUL in the name
        try:
            return archives.stat_of(file) if stream_of(file) else os.stat(file)
        except NotADirectoryError:
            return archives.stat_of(file)
    return None
