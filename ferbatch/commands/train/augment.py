"""Augmentation: what torchvision's v2 transforms of these names do, drawn for every image of a batch anew.

v2 draws once per call, so that it would have to be called once per image, ten times slower than the whole batch at
once; on these small images that costs more than the training itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms import v2

from ferbatch.commands.train.fill import Fill
from ferbatch.commands.train.recipe import Recipe
from ferbatch.model.engine import scale


class Augment(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """(B, size, size) uint8 -> (B, 1, size, size) float32 in 0..1, each image moved, turned and lit its own way.

    What is black outside of faces is filled before, where `fill.outside` says where it is.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.fill = Fill(recipe)

    def forward(self, pixels: Tensor, outside: Tensor | None = None) -> Tensor:
        x = scale(pixels)
        return self._erased(self._lit(self._moved(x if outside is None else self.fill(x, outside))))

    def _moved(self, x: Tensor) -> Tensor:
        """Horizontal flip, rotation, shear, zoom and shift in one resampling; black comes in from outside."""
        r, n, device = self.recipe, len(x), x.device
        turn, shear = (math.pi / 180 * _between(n, -most, most, device) for most in (r.rotate, r.shear))
        scale = 1 / _between(n, 1 - r.zoom, 1 + r.zoom, device)
        mirror = torch.where(torch.rand(n, device=device) < r.flip, -1.0, 1.0)
        slant = torch.tan(shear)
        cos, sin = scale * torch.cos(turn), scale * torch.sin(turn)
        right, down = (_between(n, -2 * r.shift, 2 * r.shift, device) for _ in range(2))  # the side is 2 units long
        rows = ((cos * mirror, cos * slant - sin, right), (sin * mirror, sin * slant + cos, down))
        matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (B, 2, 3): from new to old places
        places = torch.nn.functional.affine_grid(matrices, list(x.shape), align_corners=False)
        return torch.nn.functional.grid_sample(x, places, mode="bilinear", align_corners=False)

    def _lit(self, x: Tensor) -> Tensor:
        """Brightness and contrast, as in v2.ColorJitter."""
        most, n = self.recipe.brightness, len(x)
        low = max(0.0, 1 - most)
        brightness, contrast = (_between(n, low, 1 + most, x.device).view(n, 1, 1, 1) for _ in range(2))
        mean = x.mean((1, 2, 3), keepdim=True)
        return (((x - mean) * contrast + mean) * brightness).clamp(0, 1)

    def _erased(self, x: Tensor) -> Tensor:
        """A box of the image's own mean over an eighth to two fifths of each side, as in v2.RandomErasing."""
        if not self.recipe.erase:
            return x
        n, side, device = len(x), x.shape[-1], x.device
        position = torch.arange(side, device=device) / side
        inside = []
        for _ in range(2):
            half, middle = _between(n, 1 / 16, 1 / 5, device), _between(n, 0, 1, device)
            inside.append((position[None] - middle[:, None]).abs() < half[:, None])  # (B, side)
        chosen = torch.rand(n, device=device) < self.recipe.erase
        box = inside[0][:, None, :, None] & inside[1][:, None, None, :] & chosen[:, None, None, None]
        return torch.where(box, x.mean((1, 2, 3), keepdim=True), x)


def _between(n: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.empty(n, device=device).uniform_(low, high)


def mixed(x: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Images (B, ...) and targets (B, labels), each blended with another one by a share from Beta(alpha, alpha)."""
    if not alpha:
        return x, targets
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(x), device=x.device)
    return share * x + (1 - share) * x[other], share * targets + (1 - share) * targets[other]
