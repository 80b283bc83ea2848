"""What --engine ray does not take is said in a sentence, before any work."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Ferbatch

from ferbatch.stream import ray_cluster


@pytest.fixture
def said(ferbatch_here: Ferbatch, faces: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """What `ferbatch label` says with these options; it ends with exit code 2, and writes nothing."""
    faces("images", 1)

    def call(*options: str) -> str:
        done = ferbatch_here("label", "images", *options)
        assert done.returncode == 2, done.stderr
        return done.stderr.decode()

    yield call
    assert os.listdir(tmp_path) == ["images"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--engine", "spark"), "--engine is local or ray, not 'spark'"),
        (("--ray-address", "auto"), "--ray-address and --ray-actors need --engine ray"),
        (("--ray-actors", "2"), "--ray-address and --ray-actors need --engine ray"),
        (("--engine", "ray", "--crops", "crops"), "--crops is a folder in a bucket with --engine ray"),
        (("--engine", "ray", "--workers", "0"), "--workers is 1 or more with --engine ray"),
        (("--engine", "ray", "--device", "cuda:1"), "--device is auto, cpu, cuda with --engine ray, not 'cuda:1'"),
        (("--engine", "ray", "--device", "mps"), "--device is auto, cpu, cuda with --engine ray, not 'mps'"),
    ],
)
def test_what_it_cannot_do_is_said(said: Callable[..., str], options: tuple[str, ...], sentence: str) -> None:
    assert said(*options).startswith(f"ferbatch: {sentence}")


def test_what_brings_ray_is_named(said: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert said("--engine", "ray") == "ferbatch: --engine ray needs ray: pip install 'ferbatch[ray]'\n"


@pytest.mark.parametrize("way", ["option", "environment"])
def test_an_address_without_a_cluster_is_said(
    said: Callable[..., str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: True)  # it is not asked for before something answers
    with socket.socket() as held:  # where nobody listens
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        for address, sentence in {
            nobody: f"no Ray cluster at --ray-address {nobody}: Connection refused",
            "ray://127.0.0.1:10001": "--ray-address is auto or HOST:PORT, of the cluster that this machine is part of",
            "here": "--ray-address is auto or HOST:PORT",
        }.items():
            options: tuple[Any, ...] = ("--ray-address", address) if way == "option" else ()
            monkeypatch.setenv("RAY_ADDRESS", "" if way == "option" else address)
            assert said("--engine", "ray", *options).startswith(f"ferbatch: {sentence}")


def test_a_device_that_the_cluster_lacks_is_said() -> None:
    class Ray:
        @staticmethod
        def cluster_resources() -> dict[str, float]:
            return {"CPU": 2.0}

    cluster = ray_cluster.Cluster(Ray)
    assert cluster.device("auto").type == "cpu"
    with pytest.raises(ray_cluster.UsageError, match="device cuda is not available on the Ray cluster"):
        cluster.device("cuda")
