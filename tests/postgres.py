"""A PostgreSQL server that tests start for themselves, from the programs that a distribution's package brings."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTINGS = ("listen_addresses=", "fsync=off", "log_min_messages=panic")
PASSWORD = "s3cr%t/w@rd:?"  # with all that a URL has to spell


def programs() -> Path | None:
    """Where initdb and pg_ctl are, of the newest version; None where there are none."""
    found = shutil.which("initdb")
    known = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *map(Path, [found] if found else [])]
    return max(known, key=lambda path: path.parts).parent if known else None


@contextmanager
def server(bin: Path) -> Iterator[Path]:
    """The folder of its socket; the user `ferbatch` has the PASSWORD, and the user `trusted` needs none.

    It refuses to run as root: its user is then `postgres`, or `nobody`.
    """
    folder = Path(tempfile.mkdtemp(prefix="ferbatch-pg-"))  # a socket's name is short, and its user must reach it
    names = {entry.pw_name for entry in pwd.getpwall()}
    who: dict[str, Any] = {"user": "postgres" if "postgres" in names else "nobody"} if os.geteuid() == 0 else {}
    if who:
        shutil.chown(folder, who["user"])
    folder.chmod(0o755)
    how: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **who}
    data, control = folder / "data", [bin / "pg_ctl", "-w", "-D", folder / "data"]
    try:
        subprocess.run([bin / "initdb", "-D", data, "-U", "trusted", "-A", "trust", "-E", "UTF8", "-N"], **how)
        rule = "local all ferbatch scram-sha-256\nlocal all all trust\n"
        (data / "pg_hba.conf").write_text(rule)
        options = " ".join(f"-c {one}" for one in (*SETTINGS, f"unix_socket_directories={folder}"))
        subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], **how)
        yield folder
    finally:
        if (data / "postmaster.pid").exists():
            subprocess.run([*control, "-m", "immediate", "stop"], **how)
        shutil.rmtree(folder, ignore_errors=True)
