"""The file that --log-file names. A module of its own, for its base class takes as long to import as all of the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import WatchedFileHandler

from ferbatch.core.names import shown


class LogFile(WatchedFileHandler):
    """Appends; goes on in a new file where logrotate took the old one away. Where it cannot, that is said once."""

    def __init__(self, path: str, warn: Callable[[str], None]) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.warn = warn
        self.failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # the new file cannot be opened
            self.handleError(record)

    def handleError(self, _: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            self.warn(f"{shown(self.baseFilename)} could not be written: {sys.exc_info()[1]}")

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is tried once more
            super().close()
