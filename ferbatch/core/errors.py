"""What can go wrong, as sentences: each error carries the one line the user reads and the exit code it ends with."""

from __future__ import annotations


class FerbatchError(Exception):
    """A run that cannot go on, said in one sentence: what, where, what would work."""

    exit_code = 1


class UsageError(FerbatchError):
    """A bad option, a missing path, an output that exists, an extra that is not installed."""

    exit_code = 2


class NoImagesError(FerbatchError):
    """Nothing under the given paths is an image."""

    exit_code = 4


class ModelError(FerbatchError):
    """The weights or their card are missing, damaged or do not fit each other."""

    exit_code = 6


class OutputError(FerbatchError):
    """The output could not be written: disk full, read-only, no permission."""

    exit_code = 74


class LockedError(FerbatchError):
    """Another run holds this output."""

    exit_code = 75


class WorkerError(FerbatchError):
    """Decode processes die, or cannot be started (EX_OSERR)."""

    exit_code = 71


class UnreadableImageError(FerbatchError):
    """One image that cannot be read; it becomes a row, never the end of a run.

    `kind` is one of `records.ERROR_KINDS`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
