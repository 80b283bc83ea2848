"""A model is trained on what lies in stores as on the same images in folders."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import Fault, Store, serving
from support import Ferbatch, face_file

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

LABELS = ("happy", "sad")
PARTS = (("train", 24), ("validation", 8))
KEYS = sorted(f"{part}/{LABELS[at % 2]}/{at:03} ü.jpg" for part, n in PARTS for at in range(n))


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of drawn faces in class folders, in a zip, and named by tables."""
    faces = {f"in/{key}": face_file(at) for at, key in enumerate(KEYS)}
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for key in KEYS:
            archive.writestr(key, faces[f"in/{key}"])
    with serving(Store({"faces": {**faces, "in.zip": stream.getvalue(), "t.csv": b"path,label\n"}})) as one:
        yield one


@pytest.fixture
def train(store: Store, ferbatch_in: Ferbatch, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "r.toml").write_text('model = "cnn-lite"\nepochs = 1\nbatch_size = 8\nframing = "whole"\n')

    def call(data: str, *more: str) -> Any:
        faults = {"store": {"address": store.address}}
        return ferbatch_in("train", data, "--recipe", "r.toml", "--seed", "1", "--device", "cpu", *more, faults=faults)

    return call


def tensors(path: Path) -> bytes:
    """What a weights file holds but for its header."""
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_the_same_images_give_the_same_weights_wherever_they_are(train: Any, store: Store, tmp_path: Path) -> None:
    rows = [*(tuple(key.split("/", 2)) for key in KEYS)]
    for name, base in (("urls.csv", "s3://faces/in/"), ("relative.csv", "")):
        lines = [f"{base}{key},{label},{part}\n" for key, (part, label, _) in zip(KEYS, rows, strict=True)]
        (tmp_path / name).write_text("path,label,split\n" + "".join(lines))
    store.buckets["faces"]["in/splits.csv"] = (tmp_path / "relative.csv").read_bytes()
    for key in KEYS:
        path = tmp_path / "in" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.buckets["faces"][f"in/{key}"])
    (tmp_path / "in.zip").write_bytes(store.buckets["faces"]["in.zip"])
    found = set()
    for at, (data, *more) in enumerate(
        [
            ("in",),
            ("s3://faces/in",),
            ("s3://faces/in.zip",),
            (f"{store.address}/faces/in.zip?sv=1&sig=hush",),
            ("urls.csv",),
            ("relative.csv", "--images", "s3://faces/in"),
            ("s3://faces/in/splits.csv",),
        ]
    ):
        done = train(data, "-o", f"{at}.safetensors", *more)
        assert done.returncode == 0, done.stderr
        assert b"hush" not in done.stderr
        found.add(tensors(tmp_path / f"{at}.safetensors"))
        assert "hush" not in (tmp_path / f"{at}.json").read_text()
        assert json.loads((tmp_path / f"{at}.json").read_text())["data"]["train"] == {"happy": 12, "sad": 12}
    assert len(found) == 1
    assert store.asked[f"GET /faces/in/{KEYS[0]}"] == 4  # by four of them, once each


def test_what_cannot_be_fetched_is_named_and_left_out(train: Any, store: Store) -> None:
    store.faults[f"in/{KEYS[3]}"] = Fault(503)
    done = train("s3://faces/in", "-o", "w.safetensors")
    assert done.returncode == 0, done.stderr
    assert f"s3://faces/in/{KEYS[3]}" in done.stderr.decode()
    assert "the store answers 503" in done.stderr.decode()


def test_a_source_that_is_none_is_said_in_a_sentence(train: Any, store: Store, tmp_path: Path) -> None:
    for data, said in {
        "s3://faces/t.csv": "no images found under s3://faces/t.csv",
        "s3://faces/nothing": "no such object, and nothing below it: s3://faces/nothing",
        "https://me:hush@host/faces": "a https:// path holds a name, a password or keys",
        "s3://nowhere/faces": "there is no such bucket",
    }.items():
        done = train(data, "-o", "w.safetensors")
        assert done.returncode == (4 if data.endswith("csv") else 2)
        assert said in done.stderr.decode()
        assert b"hush" not in done.stderr
    assert not [*tmp_path.glob("w*")]
