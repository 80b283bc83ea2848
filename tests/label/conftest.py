"""What the tests of folders, lists and spellings share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Ferbatch

Label = Callable[..., Any]


@pytest.fixture
def photos(faces: Callable[..., Path]) -> Path:
    """Faces, and beside each the twin that a Mac leaves; thumbnails; a link."""
    folder = faces("photos", 4)
    for image in sorted(folder.iterdir()):
        image.with_name(f"._{image.name}").write_bytes(b"\0\5\x16\7 no picture")
    faces("photos/@eaDir", 2)
    faces("store", 1)
    (folder / "link").symlink_to("../store")
    return folder


@pytest.fixture
def label(ferbatch_here: Ferbatch, model: Path, tmp_path: Path) -> Label:
    """`ferbatch label photos` with the tiny model and these options -> CompletedProcess, stderr as text."""

    def call(*options: str, paths: tuple[str, ...] = ("photos",)) -> Any:
        done = ferbatch_here("label", *paths, "--model", model, "--device", "cpu", *options)
        done.stderr = done.stderr.decode()
        return done

    return call
