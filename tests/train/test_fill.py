"""What is black around faces that were cut out is found and filled, so that it tells nothing of where they are from."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from support import drawn

from ferbatch.commands.train.fill import Fill, outside
from ferbatch.commands.train.recipe import Recipe
from ferbatch.model.engine import scale

SIDE = 48
ROW, COLUMN = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
FACE = (ROW / 23) ** 2 + (COLUMN / 19) ** 2 < 1  # that is cut out
HEAD = (ROW / 18) ** 2 + (COLUMN / 15) ** 2 < 1  # that has something around it


def backed(n: int, seed: int) -> np.ndarray:
    """(n, 48, 48) uint8 drawn faces before something of their own, mostly brighter than black."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(10, 245, (n, 1, 1)) + rng.normal(0, 1, (n, 1, 1)) * ROW + rng.normal(0, 1, (n, 1, 1)) * COLUMN
    return np.where(HEAD, np.maximum(drawn(n), 20), level).clip(8, 255).astype(np.uint8)


def cut_out(n: int, seed: int) -> np.ndarray:
    """The same, cut out along the outline, on black."""
    return np.where(FACE, np.maximum(drawn(n), 20), np.random.default_rng(seed).integers(0, 4, (n, SIDE, SIDE))).astype(
        np.uint8
    )


def bits(pixels: np.ndarray) -> np.ndarray:
    packed = outside(pixels)
    return np.unpackbits(packed, axis=1).reshape(pixels.shape).astype(bool)


def test_what_is_outside_is_what_is_black_from_the_border_inwards() -> None:
    assert not bits(backed(8, 0)).any()
    found = bits(cut_out(8, 0))
    assert (found | FACE).all()  # all of it,
    assert (found & FACE).mean() < 0.08  # and no more of the face than its outline
    hole = backed(1, 0)
    hole[0, 20:28, 20:28] = 0  # an open mouth, say
    assert not bits(hole).any()
    little = backed(1, 0)
    little[0, :2, :2] = 0
    assert not bits(little).any()


def border(x: torch.Tensor) -> np.ndarray:
    """(N, pixels) the outermost two rows and columns of images."""
    edge = np.ones((SIDE, SIDE), bool)
    edge[2:-2, 2:-2] = False
    return x.numpy().reshape(len(x), SIDE, SIDE)[:, edge]


def told_apart(x: torch.Tensor, sources: np.ndarray) -> float:
    """How often a linear classifier knows the source by the border alone; 0.5 is chance."""
    return float(cross_val_score(LogisticRegression(max_iter=500, C=0.1), border(x), sources, cv=4).mean())


def test_the_border_no_longer_tells_the_source() -> None:
    n = 240
    pixels = np.concatenate([backed(n, 1), cut_out(n, 2)])
    sources = np.repeat([0, 1], n)
    assert told_apart(scale(torch.from_numpy(pixels)), sources) > 0.97
    torch.manual_seed(0)
    fill, packed = Fill(Recipe(fill_noise=0.4, fill_face=0.6)), torch.from_numpy(outside(pixels))
    filled = fill(scale(torch.from_numpy(pixels)), packed)
    assert told_apart(filled, sources) < 0.62
    assert filled.min() >= 0
    assert filled.max() <= 1


def test_faces_stay_as_they_are_and_shares_are_the_recipes() -> None:
    pixels = np.concatenate([backed(200, 1), cut_out(200, 2)])
    x, packed = scale(torch.from_numpy(pixels)), torch.from_numpy(outside(pixels))
    torch.manual_seed(0)
    fill = Fill(Recipe(fill_noise=0.25, fill_face=0.25))
    filled = fill(x, packed)
    changed = (filled != x).flatten(1).any(1)
    assert changed[:200].sum() == 0
    assert 0.35 < changed[200:].float().mean() < 0.65
    # In the middle there is the face still, a little smaller.
    middle = (slice(None), 0, slice(16, 32), slice(16, 32))
    assert (filled[middle] - x[middle])[changed].abs().mean() < 0.15
    assert fill.fills
    assert not Fill(Recipe()).fills
