"""How a command ends: with an exit code that users can rely on, and one line on stderr that says why."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import typer

from ferbatch.core import process
from ferbatch.core.errors import FerbatchError
from ferbatch.shell import log

P = ParamSpec("P")


def exits(command: Callable[P, None]) -> Callable[P, None]:
    """Run a command with its errors as one line on stderr and the exit codes users can rely on."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of images that become rows with an error
        log.hear_libraries(shown=not kwargs.get("quiet"))
        try:  # around them all, for a signal may come when the command is just over
            with process.native_code_hushed(), process.stopping_in_order(_farewell):
                try:
                    command(*args, **kwargs)
                except FerbatchError as error:
                    end_with(str(error), error.exit_code)
                except BrokenPipeError:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at exit
                    raise typer.Exit(141) from None
        except process.Stopped as stopped:
            end_with(ended(stopped.number), 128 + stopped.number)
        finally:
            log.end()

    return wrapped


def end_with(message: str, exit_code: int) -> NoReturn:
    """Say why, and end."""
    log.fail(message, exit_code)
    raise typer.Exit(exit_code) from None


def ended(number: int) -> str:
    """What a signal did to the run."""
    return {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(signal.Signals(number), "hung up")


def _farewell(number: int) -> None:
    with contextlib.suppress(typer.Exit):
        end_with(ended(number), 128 + number)
