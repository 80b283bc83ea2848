"""Where what goes to a store is written first: folders of this machine, one for each output."""

from __future__ import annotations

import hashlib
import os
import re

from ferbatch.core.errors import UsageError
from ferbatch.core.files import unwritten
from ferbatch.core.names import shown

SPOOL = "FERBATCH_SPOOL"  # the environment's variable that names the folder of spools
ODD = re.compile(r"[^\w.-]")


def folder() -> str:
    """The folder that spools are in."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return os.path.expanduser(os.environ.get(SPOOL) or os.path.join(state, "ferbatch"))


def of(output: str) -> str:
    """The spool of an output, by its path as `objects.plain` has it."""
    name = ODD.sub("_", os.path.basename(output))[-60:]
    return os.path.join(folder(), f"{name}-{hashlib.sha256(os.fsencode(output)).hexdigest()[:12]}")


def check() -> None:
    """UsageError where it depends on the working folder where spools lie, OutputError where none can be made."""
    where = folder()
    if not os.path.isabs(where):
        raise UsageError(f"{shown(where)} is no absolute path of a folder for spools: say one in {SPOOL}")
    try:
        os.makedirs(where, mode=0o700, exist_ok=True)
        if not os.access(where, os.W_OK | os.X_OK):
            raise PermissionError(0, "no permission to write in it")
    except OSError as error:
        raise unwritten(shown(where), f"{error.strerror}; {SPOOL} names another folder") from error
