"""Networks that a card describes part by part, and that branch: what they compute, and what they may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from ferbatch.core.errors import ModelError
from ferbatch.model import registry
from ferbatch.stream.classifier import Classifier

CONV = {
    "kind": "convolution",
    "inputs": 1,
    "outputs": 4,
    "kernel": [3, 3],
    "pad": [1, 1, 1, 1],
    "stride": [1, 1],
    "dilation": [1, 1],
    "groups": 1,
    "bias": False,
}
NORM = {"kind": "batch_norm_2d", "features": 4, "eps": 0.001}
HEAD = [{"kind": "global_average_pool"}, {"kind": "dense", "inputs": 4, "outputs": 4, "bias": True}]
BRANCHES = [
    CONV,
    NORM,  # folded
    {**CONV, "inputs": 4, "pad": [0, 1, 0, 1], "kernel": [2, 2]},
    {**NORM},  # not folded: the next part takes the convolution itself
    {"kind": "add", "from": [2, 3]},
    {**NORM, "from": [0]},  # not folded: the convolution is taken twice
    {"kind": "multiply", "from": [4, 5]},
    *HEAD,
]


def graph(parts: list[dict[str, Any]], head: int) -> dict[str, Any]:
    return {"architecture": "graph", "arguments": {"parts": parts, "head": head}}


def test_what_is_folded_for_inference_computes_the_same() -> None:
    torch.manual_seed(0)
    for parts in (BRANCHES, [BRANCHES[0], NORM, *HEAD]):
        network = registry.build(**graph(parts, len(parts) - 1)).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for name in ("weight", "bias", "running_mean", "running_var"):
                    getattr(module, name).data.uniform_(0.5, 1.5)
        x = torch.randn(2, 1, 12, 12)
        with torch.inference_mode():
            found = registry.folded(network.features)
            assert torch.allclose(found(x), network.features(x), atol=1e-5)
        norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in found.modules())
        assert norms == (3 if parts is BRANCHES else 0)


def test_a_graph_is_saved_and_loaded(tmp_path: Path) -> None:
    network = registry.build(**graph(BRANCHES, 8))
    changes = {**graph(BRANCHES, 8), "parameters": registry.parameters(network)}
    assert Classifier.load(str(tiny.make(tmp_path / "mine.safetensors", network.state_dict(), **changes)), "cpu")


@pytest.mark.parametrize(
    "parts",
    [
        [{"kind": "add", "from": [0, 1]}, CONV, *HEAD],
        [CONV, {"kind": "add", "from": [0, 0.5]}, *HEAD],
        [CONV, {"kind": "add", "from": "ab"}, *HEAD],
        [CONV, {"kind": "add", "from": [-2]}, *HEAD],
        [CONV, {"kind": "add", "from": []}, *HEAD],
        [CONV, {"kind": "concatenate", "axis": 0, "from": [0, 0]}, *HEAD],
        [CONV, {"kind": "reshape", "channels": 4, "height": 7, "width": 7}, *HEAD],
        [CONV, {"kind": "resize", "height": 10**6, "width": 10**6, "mode": "nearest"}, *HEAD],
        [CONV, *[{"kind": "tanh", "from": [0]}] * 900, *HEAD],
    ],
    ids=lambda parts: str(parts[1])[:40],
)
def test_a_graph_that_cannot_be_is_refused(parts: list[dict[str, Any]], tmp_path: Path) -> None:
    try:
        network = registry.build(**graph(parts, len(parts) - 1))
    except (ValueError, TypeError):
        network = registry.build(**graph([CONV, *HEAD], 2))
    changes = {**graph(parts, len(parts) - 1), "parameters": registry.parameters(network)}
    path = tiny.make(tmp_path / "mine.safetensors", network.state_dict(), **changes)
    if len(parts) < 900:
        with pytest.raises(ModelError, match="do not fit their card"):
            Classifier.load(str(path), "cpu")
    else:  # 900 that are over at once take no memory
        assert Classifier.load(str(path), "cpu")


def test_a_graph_that_keeps_too_much_at_a_time_is_refused(tmp_path: Path) -> None:
    """Forty maps that are merged at the end: each is modest, all of them together are not."""
    maps = [{"kind": "tanh", "from": [0]} for _ in range(40)]
    parts = [CONV, *maps, {"kind": "add", "from": list(range(1, 41))}, *HEAD]
    network = registry.build(**graph(parts, len(parts) - 1))
    changes = {**graph(parts, len(parts) - 1), "parameters": registry.parameters(network)}
    assert Classifier.load(str(tiny.make(tmp_path / "a.safetensors", network.state_dict(), **changes, size=48)), "cpu")
    path = tiny.make(tmp_path / "b.safetensors", network.state_dict(), **changes, size=480)
    with pytest.raises(ModelError) as raised:
        Classifier.load(str(path), "cpu")
    assert str(raised.value.__cause__) == "it is too large to run"
