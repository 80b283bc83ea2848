"""A Keras file -> its layers as they were configured, and the arrays of each. Nothing that it holds is ever run.

Keras itself is not asked: it refuses what its earlier versions wrote, and layers of its own may hold code.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape, shown

MOST_CONFIG_BYTES = 2**24  # of the JSON that describes the layers
MOST_ARRAY_BYTES = 2**30  # of all the arrays of a file together
HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
# What else is taken for a Keras file: how it begins, from which byte on, and what it is.
OTHERS: tuple[tuple[bytes, int, str], ...] = (
    (
        b"version https://git-lfs",
        0,
        "the pointer that Git LFS left in the file's place: `git lfs pull` fetches the file",
    ),
    (b"<", 0, "a web page or XML, as a link to a page gives in place of the file: download the file itself, raw"),
    (b"TFL3", 4, "a TFLite model, made from a Keras model: convert that one"),
    (b"\x80", 0, "a Python pickle, which could run code: save the model with model.save('model.keras')"),
    (b"\x08", 0, "an ONNX or TensorFlow graph: convert the Keras model that it was made from"),
    (b"\x0a", 0, "an ONNX or TensorFlow graph: convert the Keras model that it was made from"),
    (b"\x1f\x8b", 0, "packed by gzip: unpack it first"),
    (b"Rar!", 0, "a RAR archive: unpack it first"),
    (b"7z\xbc\xaf", 0, "a 7-Zip archive: unpack it first"),
    (b"{", 8, "a safetensors file: ferbatch takes it as it is if it wrote it (--model); else convert the Keras model"),
    (b"{", 0, "JSON, as model.to_json() gives it: say the file of its weights, and this one with --architecture"),
)
WANTED = "a Keras model is HDF5 or a zip file, as model.save('model.h5') or model.save('model.keras') writes it"
DAMAGED = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OSError, EOFError, zlib.error)
Config = Mapping[str, Any]
V3_CONTAINERS = ("layers", "_layer_checkpoint_dependencies", "_self_tracked_trackables")  # what holds them since 2.12


class NotThereError(Exception):
    """Why a file holds no model that can be read, in words."""


@dataclass(frozen=True, slots=True)
class KerasFile:
    """What a file says, before anything is made of it."""

    model: Config  # class_name and config of the whole
    version: tuple[int, ...]  # of the Keras that wrote it
    backend: str  # that Keras computed with; empty where it is not said
    arrays: Arrays


class Arrays:
    """The arrays of an open file, by the groups that hold them."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.left = MOST_ARRAY_BYTES

    @property
    def layer_names(self) -> list[str]:
        return names_in(self.group, "layer_names")

    @staticmethod
    def member(group: Any, name: str) -> Any:
        """What a group holds under a name (or a path); NotThereError for a link into another file."""
        import h5py

        for part in name.split("/"):
            if isinstance(group.get(part, getlink=True), h5py.ExternalLink):
                raise NotThereError("its weights lie in another file")
            group = group[part]
        return group

    def read(self, dataset: Any) -> NDArray[np.float32]:
        """A dataset's values; NotThereError for what lies in another file or is no plain numbers."""
        if getattr(dataset, "external", None) or getattr(dataset, "is_virtual", False):
            raise NotThereError("its weights lie in another file")
        if not hasattr(dataset, "shape") or dataset.dtype.kind not in "fiu" or dataset.shape is None:
            raise NotThereError("its weights are no plain numbers")
        self.left -= 4 * int(np.prod(dataset.shape, dtype=object))
        if self.left < 0:
            raise NotThereError(f"its weights take more than {MOST_ARRAY_BYTES:,} bytes")
        return np.asarray(dataset[()], np.float32)


@contextmanager
def opened(path: Path, architecture: Path | None) -> Iterator[KerasFile]:
    """The file, which stays open for its arrays; UsageError for what is no Keras model, in one sentence.

    architecture: the JSON that says what the layers are, where `path` holds weights alone.
    """
    try:
        beside = None if architecture is None else _json_of(architecture)
        with _hdf5(path) as (whole, group):
            yield _keras_file(whole, group, beside)
    except NotThereError as error:
        raise UsageError(f"{shown(path)}: {error}") from error
    except zipfile.BadZipFile as error:
        raise UsageError(f"{shown(path)} is a damaged zip file, or cut short: fetch it again") from error
    except DAMAGED as error:  # whatever a damaged or hostile file makes of the readers
        said = escape(str(error).partition("\n")[0][:150])
        raise UsageError(f"{shown(path)} cannot be read as a Keras model: {said or type(error).__name__}") from error


@contextmanager
def _hdf5(path: Path) -> Iterator[tuple[Config | None, Any]]:
    """What describes a zip file's layers, or None, and the HDF5 group that is the file or lies in it."""
    if path.is_dir():
        saved = (path / "saved_model.pb").exists()
        what = "a TensorFlow SavedModel: save it again where TensorFlow is" if saved else "a folder"
        raise NotThereError(f"it is {what}; {WANTED}")
    if not path.is_file():
        raise NotThereError("no such file")
    with path.open("rb") as stream:
        begin = stream.read(64)
    if begin.startswith(HDF5):
        with _file(path) as file:
            yield None, file
    elif begin.startswith(ZIP):
        with zipfile.ZipFile(path) as archive:
            whole = _zipped_config(archive)
            with archive.open("model.weights.h5") as packed, _file(packed) as file:
                yield whole, file
    else:
        raise NotThereError(f"it is {_what(begin)}")


def _file(source: Any) -> Any:
    """An HDF5 file, open; UsageError where h5py, which reads it, is not installed, NotThereError if it is damaged."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError("convert needs h5py: pip install 'ferbatch[keras]', in a checkout '.[keras]'") from error
    try:
        return h5py.File(source, "r")
    except OSError as error:
        raise NotThereError("it is a damaged HDF5 file, or cut short: fetch it again") from error


def _what(begin: bytes) -> str:
    if not begin:
        return "empty"
    named = next((what for sign, at, what in OTHERS if begin[at : at + len(sign)] == sign), None)
    return named or f"no Keras model: it begins with {begin[:8]!r}, and {WANTED}".replace("\\", "/")


def _zipped_config(archive: zipfile.ZipFile) -> Config:
    names = set(archive.namelist())
    if not {"config.json", "model.weights.h5"} <= names:
        torch = any(name.endswith("/data.pkl") for name in names)
        what = (
            "a PyTorch file, and convert reads Keras models"
            if torch
            else "a zip file without a Keras model's config.json and model.weights.h5"
        )
        raise NotThereError(f"it is {what}" + ("" if torch else ": if it was packed by hand, unpack it first"))
    if archive.getinfo("config.json").file_size > MOST_CONFIG_BYTES:
        raise NotThereError(f"its config.json is longer than {MOST_CONFIG_BYTES:,} bytes")
    about = json.loads(archive.read("metadata.json")[:MOST_CONFIG_BYTES]) if "metadata.json" in names else {}
    return {"keras_version": about.get("keras_version", "3"), **json.loads(archive.read("config.json"))}


def _json_of(path: Path) -> Config:
    """The model that a JSON file of model.to_json() describes; UsageError where it is none."""
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(MOST_CONFIG_BYTES))
            found = json.loads(found) if isinstance(found, str) else found  # json.dump(model.to_json(), …)
    except OSError as error:
        raise UsageError(f"--architecture {shown(path)}: {error.strerror}") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"class_name", "config"} <= found.keys():
        wanted = 'model.to_json() gives {"class_name": "Sequential", "config": …}'
        raise UsageError(f"--architecture {shown(path)} does not describe a Keras model: {wanted}")
    return found


def _keras_file(whole: Config | None, file: Any, beside: Config | None) -> KerasFile:
    """What the open file says, or what stands beside it where it holds weights alone."""
    said = attribute(file, "model_config")
    if said is not None:
        whole = json.loads(said)
    if whole is not None and beside is not None:
        raise NotThereError("it says itself what its layers are: leave --architecture out")
    group = Arrays.member(file, "model_weights") if "model_weights" in file and said is not None else file
    if whole is None and beside is None:
        known = "layer_names" in file.attrs or "layer_names0" in file.attrs or {*V3_CONTAINERS} & set(file)
        raise NotThereError(
            "it holds weights alone; say with --architecture FILE.json what model.to_json() gave of the model"
            if known
            else "it is HDF5, but no Keras model: it has neither model_config nor layers"
        )
    model = whole or beside or {}
    unsaid = "3" if "registered_name" in model else "1"  # what Keras 3's to_json() and Keras 1 leave out
    version = attribute(file, "keras_version") or attribute(group, "keras_version") or model.get("keras_version")
    backend = attribute(file, "backend") or attribute(group, "backend") or model.get("backend") or ""
    numbers = tuple(int(one) for one in re.findall(r"\d+", str(version or unsaid))[:3])
    return KerasFile(model, numbers, str(backend), Arrays(group))


def attribute(group: Any, name: str) -> str | None:
    """A text that a group has as an attribute, however its Python and its h5py wrote it."""
    value = group.attrs.get(name)
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


def names_in(group: Any, name: str) -> list[str]:
    """A list of names that a group has as an attribute, or as several where it is long."""
    keys = (
        [name]
        if name in group.attrs
        else sorted(
            (key for key in group.attrs if re.fullmatch(rf"{name}\d+", key)), key=lambda key: int(key[len(name) :])
        )
    )
    return [one.decode() if isinstance(one, bytes) else str(one) for key in keys for one in group.attrs[key]]
