"""What can go wrong, as sentences: each error carries the one line the user reads and the exit code it ends with."""

from __future__ import annotations

import re

MOST_OF_A_WORD = 200  # characters of a path, say, that a message shows
MOST_OF_ALL = 1_000  # characters of a message
LONG_WORD = re.compile(rf"\S{{{MOST_OF_A_WORD},}}")


class FerbatchError(Exception):
    """A run that cannot go on, said in one sentence: what, where, what would work.

    What would fill the screen is shown by its beginning and its end.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        words = LONG_WORD.sub(lambda found: _ends(found[0], MOST_OF_A_WORD), message)
        super().__init__(_ends(words, MOST_OF_ALL))


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


class DeviceError(WorkerError):
    """The device that finds faces fails, or its memory is full."""


class UnreadableImageError(FerbatchError):
    """One image that cannot be read; it becomes a row, never the end of a run.

    `kind` is one of `records.ERROR_KINDS`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _ends(text: str, most: int) -> str:
    """The text, or its first two thirds and its last third with dots between them, where it is longer than `most`."""
    return text if len(text) < most else f"{text[: most * 2 // 3 - 3]}...{text[-(most // 3) :]}"
