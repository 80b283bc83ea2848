"""The running average of a network's weights, which validates and is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """As torch.optim.swa_utils.AveragedModel with its exponential average and buffers, without waiting for a GPU.

    Quick at first, when its past is worth little, slow in the end.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """decay: the share (0..1) of its past that a late step keeps."""
        self.module = copy.deepcopy(module)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after one more step."""
        ours, theirs = self._tensors(self.module), self._tensors(module)
        n, self.updates = self.updates, self.updates + 1
        decay = min(self.decay, (1 + n) / (10 + n))
        for our, their in zip(ours, theirs, strict=True):
            if not our:
                continue
            if not n:
                torch._foreach_copy_(our, their)
            elif our[0].is_floating_point():
                torch._foreach_lerp_(our, their, 1 - decay)
            else:  # batches counted by batch norm
                counts = torch.stack(our) * decay + torch.stack(their) * (1 - decay)
                torch._foreach_copy_(our, list(counts.to(our[0].dtype).unbind()))

    @staticmethod
    def _tensors(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """A module's weights and statistics: the numbers, and the counts."""
        found = [t.detach() for t in (*module.parameters(), *module.buffers())]
        return [t for t in found if t.is_floating_point()], [t for t in found if not t.is_floating_point()]

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]
