"""The black outside of faces that were cut out along their outline: where it is, and what comes in there instead.

A collection of such faces is known by its border, whatever the faces show; a network would learn that first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferbatch.commands.train.recipe import Recipe

BLACK = 6  # of 255; what lies outside is no lighter, for all that a JPEG made of it
LEAST = 0.05  # share of an image that is outside, if any is
NOISE = 0.2  # the most that a filled outside deviates from its own gray, as a standard deviation of 0..1
BLUR = 5  # pixels on a side that are averaged, twice, of a face that comes in
SMALLEST = 0.8  # share of its size to which a face is shrunk, at the most, where its outside is filled
ALL_INSIDE = 0.99  # share of a pixel that is inside, if it is taken for that
AT_ONCE = 4096  # images looked at together


def outside(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, bits) where N images, (N, size, size), are black from the border inwards, a bit a pixel, packed.

    A pixel is outside if everything between it and one of the borders, in a straight line, is black; or if it is next
    to such a pixel, for the outline was smoothed. Images in which that is less than LEAST have no outside.
    """
    blocks = [_outside(pixels[start : start + AT_ONCE]) for start in range(0, len(pixels), AT_ONCE)]
    return np.packbits(np.concatenate(blocks).reshape(len(pixels), -1), axis=1)


def _outside(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    dark = pixels <= BLACK
    ways = [np.logical_and.accumulate(way, axis=axis) for axis in (1, 2) for way in (dark, np.flip(dark, axis))]
    found = ways[0] | np.flip(ways[1], 1) | ways[2] | np.flip(ways[3], 2)
    found[found.mean((1, 2)) < LEAST] = False
    wider = found.copy()
    for axis in (1, 2):
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(1, None), slice(None, -1)
        wider[tuple(one)] |= found[tuple(other)]
        wider[tuple(other)] |= found[tuple(one)]
    return wider


class Fill:
    """(B, 1, size, size) in 0..1 with the outside of some of the images filled, drawn for each anew."""

    def __init__(self, recipe: Recipe) -> None:
        self.noise, self.face = recipe.fill_noise, recipe.fill_face

    @property
    def fills(self) -> bool:
        """Whether it ever changes an image."""
        return self.noise + self.face > 0

    def __call__(self, x: Tensor, bits: Tensor) -> Tensor:
        """The images x, filled; `bits` is what `outside` says of them."""
        n, device = len(x), x.device
        shifts = torch.arange(7, -1, -1, device=device, dtype=torch.uint8)
        hidden = (bits[:, :, None] >> shifts & 1).bool().view(x.shape)
        drawn = torch.rand(n, 1, 1, 1, device=device)
        gray = torch.rand(n, 1, 1, 1, device=device)
        noise = gray + torch.rand_like(gray) * NOISE * torch.randn_like(x)
        # Another image; where it has an outside itself, its gray. Blurred, for it is to be seen as no second face.
        other = torch.randperm(n, device=device)
        face = torch.where(hidden[other], gray, x[other])
        for _ in range(2):
            face = torch.nn.functional.avg_pool2d(face, BLUR, 1, BLUR // 2, count_include_pad=False)
        filling = torch.where(drawn < self.noise, noise.clamp(0, 1), face)
        chosen = (drawn < self.noise + self.face) & hidden.flatten(1).any(1).view(n, 1, 1, 1)
        smaller, inside = _smaller(x, ~hidden)
        return torch.where(chosen, torch.where(inside, smaller, filling), x)


def _smaller(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Images, and what is inside in them, at SMALLEST to all of their size somewhere within their borders.

    Faces that are cut out reach the border, as others do not.
    """
    n, device = len(x), x.device
    size = SMALLEST + (1 - SMALLEST) * torch.rand(n, device=device)
    right, down = ((2 * torch.rand(n, device=device) - 1) * (1 - size) for _ in range(2))
    none = torch.zeros(n, device=device)
    rows = torch.stack((1 / size, none, -right / size)), torch.stack((none, 1 / size, -down / size))
    places = torch.nn.functional.affine_grid(torch.stack(rows).permute(2, 0, 1), list(x.shape), align_corners=False)
    both = torch.nn.functional.grid_sample(torch.cat((x, inside.to(x.dtype)), 1), places, align_corners=False)
    return both[:, :1], both[:, 1:] > ALL_INSIDE
