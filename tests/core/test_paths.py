"""File names are bytes, and survive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import HOSTILE, ROOT

from ferbatch.core.files import replace_file
from ferbatch.core.names import decode_path, encode_path, escape, shown


@pytest.mark.parametrize("name", HOSTILE)
def test_every_name_comes_back(name: bytes) -> None:
    back = decode_path(encode_path(name))
    assert os.path.normpath(back) == os.path.normpath(name)
    assert back.removeprefix(b"./") == name.removeprefix(b"./")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_acts_on_a_terminal_or_a_spreadsheet(name: bytes) -> None:
    text = encode_path(name)
    text.encode()  # valid UTF-8
    assert len(text.splitlines()) == 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert not text.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_is_shown_as_the_outputs_write_it(name: bytes) -> None:
    assert shown(os.fsdecode(name)) == encode_path(name)


def test_what_no_file_can_be_called_is_shown_as_well() -> None:
    assert shown("\ud800.jpg") == r"\xed\xa0\x80.jpg"


def test_only_the_bytes_that_act_are_escaped() -> None:
    assert encode_path("größe\n\\.jpg".encode()) == "größe\\x0a\\x5c.jpg"
    assert encode_path(b"\xff\xe4.jpg") == "\\xff\\xe4.jpg"
    assert encode_path("\x9b".encode()) == "\\xc2\\x9b"


def test_surrogates_that_stand_for_no_byte_are_escaped_and_decoded_as_well() -> None:
    assert escape("\ud800\udcff.jpg") == "\\xed\\xa0\\x80\\xff.jpg"
    assert decode_path("\ud800\udcff.jpg") == decode_path(escape("\ud800\udcff.jpg")) == b"\xed\xa0\x80\xff.jpg"


def test_a_path_is_written_the_same_in_every_locale() -> None:
    program = "from ferbatch.core.names import *; print(ascii(encode_path(b'gr\\xc3\\xb6')), decode_path('gr\\xf6'))"
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONUTF8": "1"}):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **locale}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        assert done.stdout == b"'gr\\xf6' b'gr\\xc3\\xb6'\n"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(KeyError), replace_file(str(target)) as stream:
        stream.write({b"half": b"a line"}[b"missing"])
    assert target.read_text() == "old"
    with replace_file(str(target)) as stream:
        stream.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_what_replaces_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    replace = os.replace

    def synced(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).name
        size = os.fstat(handle).st_size if name.endswith(".part") else 0
        steps.append(("synced", name, size))

    def replaced(source: str, target: str) -> None:
        steps.append(("replaced", Path(target).name, 0))
        replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not say what is open")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with replace_file(str(tmp_path / "out.csv")) as stream:
        stream.write(b"rows")
    assert steps == [("synced", "out.csv.part", 4), ("replaced", "out.csv", 0), ("synced", tmp_path.name, 0)]
