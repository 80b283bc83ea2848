"""Files that are there whole or not at all, and what tells a file from what it was."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ferbatch.core.errors import OutputError
from ferbatch.core.names import encode_path
from ferbatch.core.records import Version


class OutputStream(io.BufferedWriter):
    """A binary stream whose failures are OutputErrors that name it; a reader that went away stays BrokenPipeError."""

    def __init__(self, raw: io.RawIOBase, shown: str) -> None:
        super().__init__(raw)
        self.shown = shown

    def write(self, data: Any) -> int:
        try:  # `writing` would do, but costs as much as the rest, for every row
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(self.shown, error) from error

    def flush(self) -> None:
        with writing(self.shown):
            super().flush()


@contextmanager
def writing(shown: str) -> Iterator[None]:
    """OutputError for what the system says against writing to what is `shown` so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(shown, error) from error


def _unwritten(shown: str, error: OSError) -> OutputError:
    return OutputError(f"{shown} could not be written: {error.strerror}")


@contextmanager
def replace_file(path: str) -> Iterator[OutputStream]:
    """A stream into `path`.part, renamed to `path` when all went well: there is the whole new file or the old one.

    The new file has the old one's permissions. Raises OutputError where it cannot be written; whatever ends the block
    early removes the part.
    """
    part, shown = f"{path}.part", encode_path(os.fsencode(path))
    with writing(shown):
        with suppress(FileNotFoundError):
            os.unlink(part)
        raw = io.FileIO(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb")
    try:
        with OutputStream(raw, shown) as stream:
            yield stream
            stream.flush()
            with writing(shown):
                if os.path.exists(path):
                    os.chmod(part, stat.S_IMODE(os.stat(path).st_mode))
                os.fsync(stream.fileno())
        with writing(shown):
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
    with writing(encode_path(os.fsencode(path))), suppress(FileNotFoundError):
        os.unlink(path)


def version_of(file: bytes) -> Version | None:
    """What tells a file from what it was before; None if it cannot be had."""
    info = stat_of(file)
    return Version(info.st_size, info.st_mtime_ns) if info else None


def stat_of(file: bytes) -> os.stat_result | None:
    with suppress(OSError, ValueError):  # ValueError: a NUL in the name
        return os.stat(file)
    return None
