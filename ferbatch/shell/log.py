"""What ferbatch says, line by line: on stderr and, where wanted, in a file; for people or, as JSON, for machines."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from ferbatch.core.errors import UsageError
from ferbatch.core.files import check_is_local, writing
from ferbatch.core.names import escape, shown

FORMATS = ("text", "json")
INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


class _Json(logging.Formatter):
    """An object a line: time, level, message, and what belongs to the event."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"time": _time(record), "level": _level(record), **_fields(record)}, ensure_ascii=True)


class _Text(logging.Formatter):
    """Each line with its time and level."""

    def format(self, record: logging.LogRecord) -> str:
        lines = "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in record.msg).splitlines()
        return "\n".join(f"{_time(record)} {_level(record):<7} {line}" for line in lines if line)


class _Bare(logging.Formatter):
    """The message alone, as on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {"message": record.msg, **getattr(record, "fields", {})}


class _Stderr(logging.Handler):
    """Whatever sys.stderr is at the time; what it cannot take is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "shown", True):
            return
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except OSError:  # what the buffer holds would fail again at exit, with exit code 120
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Libraries(logging.Handler):
    """What libraries log, as ours. Of matplotlib, the file alone hears: of a home that cannot be written, for one."""

    def __init__(self, shown: bool) -> None:
        super().__init__(WARNING)
        self.shown, self.by_python = shown, warnings.showwarning

    def emit(self, record: logging.LogRecord) -> None:
        self.say(
            f"{record.name}: {record.getMessage()}", shown=self.shown and record.name.split(".")[0] != "matplotlib"
        )

    def warn(self, message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        """In place of `warnings.showwarning`."""
        self.say(f"{category.__name__}: {message}", shown=self.shown)

    def say(self, message: str, *, shown: bool) -> None:
        say(escape(" ".join(message.split())), WARNING, shown=shown, event="library")


_stderr = _Stderr()
_stderr.setFormatter(_Bare())
_logger = logging.Logger("ferbatch")  # known to nobody else: the process's logging is not touched
_logger.addHandler(_stderr)


def speak(format_name: str) -> None:
    """Say everything in this format from now on; UsageError if there is none such."""
    if format_name not in FORMATS:
        raise UsageError(f"no log format called '{escape(format_name)}' (known: {', '.join(FORMATS)})")
    if format_name == "json":
        _stderr.setFormatter(_Json())


def append_to(path: str) -> None:
    """Say everything in this file besides stderr; OutputError if it cannot be written, UsageError if it is no file."""
    from ferbatch.shell.log_file import LogFile

    check_is_local(path)
    with writing(shown(path)):
        file = LogFile(path, partial(show, level=WARNING))
    file.setFormatter(_Json() if is_json() else _Text())
    _logger.addHandler(file)


def hear_libraries(*, shown: bool) -> None:
    """Say what libraries warn of, until the end; not `shown`: in the file alone."""
    libraries = _Libraries(shown)
    logging.getLogger().addHandler(libraries)
    warnings.showwarning = libraries.warn


def end() -> None:
    """Close the file and say things as before."""
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, _Libraries):
            logging.getLogger().removeHandler(handler)
            warnings.showwarning = handler.by_python
    _stderr.setFormatter(_Bare())
    for handler in _logger.handlers[1:]:
        _logger.removeHandler(handler)
        handler.close()


def is_json() -> bool:
    """Whether machines read what is said."""
    return isinstance(_stderr.formatter, _Json)


def show(text: str, level: int = INFO) -> None:
    """To stderr alone."""
    _stderr.handle(logging.LogRecord("ferbatch", level, "", 0, text, None, None))


def say(message: str, level: int = INFO, /, *, shown: bool = True, **fields: Any) -> None:
    """One message, and what it holds for machines; not `shown`: for the file alone.

    Names in it were escaped by whoever made it.
    """
    _logger.log(level, message, extra={"shown": shown, "fields": fields})


def fail(message: str, exit_code: int) -> None:
    """The one line that says why a run ended: here, for it may end while the consoles are still being imported."""
    say(f"ferbatch: {message}", ERROR, message=message, event="ended", exit_code=exit_code)
