"""The training images as an epoch shows them: which, in what order, in which view; and where they lie meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferbatch.commands.train.data import Data
from ferbatch.commands.train.fill import outside
from ferbatch.commands.train.recipe import Recipe
from ferbatch.core.errors import UsageError

MOST_MEMORY = 0.5  # share of a GPU's free memory that the images may take; where they need more, they come by batches
SENT_AT_ONCE = 8192  # images


@dataclass(frozen=True, slots=True)
class Order:
    """What an epoch shows, (M,) each: the images' indices, and in which view."""

    images: NDArray[np.int64]
    views: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shown:
    """Images on the device that trains."""

    pixels: Tensor  # (B, size, size) uint8
    targets: Tensor  # (B, labels) probabilities
    sources: Tensor  # (B,) index into Data.sources
    outside: Tensor | None  # (B, bits) as fill.outside has them, if that is to be filled


def shown_of_sources(data: Data, recipe: Recipe) -> list[int]:
    """How many images an epoch shows of each source, one that it shows twice counted twice; of all, without sources."""
    if not data.sources:
        return [len(data.train)]
    images = np.bincount(data.train.sources, minlength=len(data.sources)).tolist()
    shown = [round(recipe.of_source(name).weight * n) for name, n in zip(data.sources, images, strict=True)]
    if not any(shown):
        raise UsageError("the recipe gives no source a weight: an epoch would show no image")
    return shown


def order_of(data: Data, recipe: Recipe, epoch: int) -> Order:
    """What an epoch (from 0) shows, drawn from the recipe's seed and the epoch's number."""
    rng = np.random.default_rng([recipe.seed, epoch])
    part, shown = data.train, shown_of_sources(data, recipe)
    if recipe.sampler == "balanced":
        weights = np.array([recipe.of_source(name).weight for name in data.sources] or [1.0])[part.sources]
        p = weights / np.maximum(np.bincount(part.labels, weights, minlength=len(data.labels)), 1e-9)[part.labels]
        images = rng.choice(len(part), sum(shown), p=p / p.sum())
    elif shown == [len(part)]:
        images = rng.permutation(len(part))
    else:
        images = rng.permutation(np.concatenate([_times(part.sources == at, n, rng) for at, n in enumerate(shown)]))
    views = len(part.views)
    return Order(images, rng.integers(views, size=len(images)) if views > 1 else np.zeros(len(images), np.int64))


def _times(own: NDArray[np.bool_], shown: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`shown` of the images that a mask chooses: each as often as all can be, then some of them once more."""
    images = np.flatnonzero(own)
    whole, rest = divmod(shown, max(1, len(images)))
    return np.concatenate([np.tile(images, whole), rng.permutation(images)[:rest]])


class Showings:
    """The training images: on a GPU whole, if it has room, so that no step waits for pixels; else where they were."""

    def __init__(self, data: Data, targets: NDArray[np.float32], device: torch.device, *, fill: bool) -> None:
        """targets: (N, labels) of the training images.
        fill: whether what is outside of faces will be asked for.
        """
        part = data.train
        self.device = device
        self.views = part.views
        self.outside = np.stack([outside(view) for view in part.views]) if fill else None
        self.targets, self.sources = torch.from_numpy(targets), torch.from_numpy(part.sources)
        self.resident: tuple[Tensor, Tensor | None] | None = None
        if device.type == "cuda" and part.views.nbytes < MOST_MEMORY * torch.cuda.mem_get_info(device)[0]:
            self.targets, self.sources = self.targets.to(device), self.sources.to(device)
            self.resident = self._sent(part.views), None if self.outside is None else self._sent(self.outside)
        self.order = Order(np.empty(0, np.int64), np.empty(0, np.int64))
        self.sent_order: tuple[Tensor, Tensor] | None = None

    def begin(self, order: Order) -> None:
        """Take the order of an epoch."""
        self.order = order
        if self.resident:
            images, views = (torch.from_numpy(each).to(self.device) for each in (order.images, order.views))
            self.sent_order = images, views

    def batch(self, start: int, stop: int) -> Shown:
        """The images from one place of the order to another."""
        if self.resident and self.sent_order:
            there, view = (each[start:stop] for each in self.sent_order)
            all_pixels, all_bits = self.resident
            bits = None if all_bits is None else all_bits[view, there]
            return Shown(all_pixels[view, there], self.targets[there], self.sources[there], bits)
        images, views = self.order.images[start:stop], self.order.views[start:stop]
        hidden = None if self.outside is None else self._to_device(torch.from_numpy(self.outside[views, images]))
        pixels = self._to_device(torch.from_numpy(self.views[views, images]))
        return Shown(pixels, self.targets[images].to(self.device), self.sources[images].to(self.device), hidden)

    def _to_device(self, values: Tensor) -> Tensor:
        values = values.pin_memory() if self.device.type == "cuda" else values
        return values.to(self.device, non_blocking=True)

    def _sent(self, values: NDArray[np.uint8]) -> Tensor:
        """All of it on the device, block by block."""
        there = torch.empty(values.shape, dtype=torch.uint8, device=self.device)
        for view, block in zip(there, values, strict=True):
            for start in range(0, len(block), SENT_AT_ONCE):
                some = np.array(block[start : start + SENT_AT_ONCE])
                view[start : start + len(some)].copy_(torch.from_numpy(some))
        return there
