"""Squares in a photo, turned by any angle: what is cut out of it to be looked at, by the detector or by the networks.

The frame of a face is levelled and scaled by the similarity that brings its landmarks nearest to TEMPLATE (least
squares; Umeyama, 1991). What lies beyond the photo's border is black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Eyes, nose tip and corners of the mouth, the subject's right ones first, on a square of side 1: the medians over
# 2,865 of 3,000 training faces of FER2013 in which the detector found a face, made symmetric.
TEMPLATE = np.array([(0.312, 0.386), (0.688, 0.386), (0.5, 0.592), (0.347, 0.752), (0.653, 0.752)])
PLACE = TEMPLATE.mean(0)  # of the landmarks' middle
ABOUT = TEMPLATE - PLACE
# What landmarks, (10,), are multiplied by for their middle, and for the similarity's cosine and sine times its scale.
SUMS = np.stack((np.tile((0.2, 0), 5), np.tile((0, 0.2), 5), ABOUT.ravel(), (ABOUT[:, ::-1] * (-1, 1)).ravel()))
LENGTH = float((ABOUT**2).sum())
GRID = (np.indices((64, 64)).reshape(2, -1).T + 0.5) / 64  # (4096, 2) evenly spread over a square of side 1
CORNERS = np.array(((0, 0), (0, 1), (1, 0), (1, 1)), np.float64)

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """A square in a photo: its upper left corner, the directions of its sides, their length in pixels."""

    corner: Points  # (2,)
    axes: Points  # (2, 2): to the right, down
    side: float

    def cut(self, photo: Image.Image, side: int) -> Image.Image:
        """What is in the frame, as a square of `side` pixels."""
        across, down = self.axes * (self.side / side)
        matrix = (across[0], down[0], self.corner[0], across[1], down[1], self.corner[1])
        return photo.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    def turned(self, degrees: float) -> Frame:
        """The frame turned clockwise about its middle."""
        turned = axes(degrees) @ self.axes
        return Frame(self.corner + self.side / 2 * (self.axes - turned).sum(0), turned, self.side)

    def widened(self, margin: float) -> Frame:
        """The frame with a margin on each side, a share of its own."""
        return Frame(self.corner - margin * self.side * self.axes.sum(0), self.axes, self.side * (1 + 2 * margin))

    def in_image(self, points: Points, side: int) -> Points:
        """(N, 2) points of what was cut, `side` pixels large, in pixels of the photo."""
        there: Points = points * (self.side / side) @ self.axes + self.corner
        return there

    def share_outside(self, size: tuple[int, int]) -> float:
        """The share of it, 0..1, that lies beyond the border of a photo of this size."""
        for points in (CORNERS, GRID):
            there = points * self.side @ self.axes + self.corner
            inside = float(((there >= 0) & (there <= size)).all(1).mean())
            if inside == 1:
                break
        return 1 - inside


def axes(turn: float) -> Points:
    """(2, 2) where right and down point to in something that is turned clockwise by so many degrees."""
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return np.array(((cosine, sine), (-sine, cosine))).round(15)  # as exact for quarters as they are


def apart(one: float, other: float) -> float:
    """Degrees, 0..180, from one turn to another."""
    return abs((one - other + 180) % 360 - 180)


def around(landmarks: Points) -> Frame:
    """Where TEMPLATE's square comes to lie when its landmarks are laid on a face's, (5, 2).

    As near as turning, scaling and shifting can bring them.
    """
    across, down, cosine, sine = (SUMS @ landmarks.ravel()).tolist()
    length = max(math.hypot(cosine, sine), 1e-9)
    sides = np.array(((cosine, sine), (-sine, cosine))) / length
    side = max(length / LENGTH, 1.0)
    return Frame((across, down) - side * (PLACE @ sides), sides, side)
