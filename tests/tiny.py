"""A model so small that it costs nothing to load and to run: for tests that do not hang on what its labels are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ferbatch.model import registry, weights

ARGUMENTS: dict[str, Any] = {"labels": 4, "stem": 4, "channels": [4, 4], "blocks": [1, 1], "strides": [1, 2]}
STEM = "features.0.weight"  # its first tensor


@cache
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return registry.build("cnn-lite", ARGUMENTS).state_dict()


@cache
def card() -> dict[str, Any]:
    return {
        **dataclasses.asdict(weights.read_card("cnn-lite-v1")),
        "name": "mine",
        "arguments": ARGUMENTS,
        "parameters": registry.parameters(registry.build("cnn-lite", ARGUMENTS)),
    }


def make(path: Path, content: bytes | dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A pair with the right hash whose tensors or whose card are what a test wants them to be."""
    content = tensors() if content is None else content
    content = save(content) if isinstance(content, dict) else content
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({**card(), "sha256": sha256, **changes}))
    return path
