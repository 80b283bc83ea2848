"""What can run the detector's network: ONNX Runtime where it is installed (ferbatch[photos]), else OpenCV.

Both give the same faces (tests/images/test_detector.py); the first takes two fifths of the time. With either, what is
said of a picture depends on that picture alone. torch takes five times as long as the first on a core, and is imported
only where a device is to find the faces (on_device.py).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.process import ONE_CORE
from ferbatch.images.onnx_file import EIGHTH, OUTPUTS, REACH, WIDTH, halves

Pixels = NDArray[np.float32]  # (N, 1, H, W), 0..255
Network = Callable[[Pixels], list[NDArray[np.float32]]]  # its outputs, (N, values, height, width) each
Session = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]  # a network or a part of it
ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging
LARGE, STRIP = 2**19, 240_000  # pixels: of a picture that is computed in strips, and of such a strip, about


@dataclass(frozen=True, slots=True)
class Engine:
    """Something that runs networks: how, the module that is imported for it, the packages that may bring that."""

    load: Callable[[bytes], Network]
    module: str
    packages: tuple[str, ...]

    @property
    def version(self) -> str | None:
        """Name and version; None where it is not installed."""
        if importlib.util.find_spec(self.module) is None:
            return None
        for package in self.packages:
            with suppress(importlib.metadata.PackageNotFoundError):
                return f"{self.packages[0].split('-')[0]} {importlib.metadata.version(package)}"
        return self.packages[0].split("-")[0]


def _onnx_runtime(network: bytes) -> Network:
    """One thread of it: there is a process for each core, or few photos.

    The first half of a large picture is computed strip by strip, for what its layers hand on would be larger than what
    a core has at hand: that saves a fifth of the time. The numbers are the same, to the bit.
    """
    whole = _session(network)

    @cache
    def parts() -> tuple[Session, Session]:
        stem, rest = halves(network)
        return _session(stem), _session(rest)

    def run(pixels: Pixels) -> list[NDArray[np.float32]]:
        if pixels[0].size < LARGE:
            return whole(pixels)
        stem, rest = parts()
        return rest(_in_strips(stem, pixels))

    return run


def _session(network: bytes) -> Session:
    import onnxruntime  # here, for most images are crops

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = session.run(None, {name: values})
        return outputs

    return run


def _in_strips(stem: Session, pixels: Pixels) -> NDArray[np.float32]:
    """What the first half of the network makes of pictures."""
    n, _, height, width = pixels.shape
    made = np.empty((n, WIDTH, height // EIGHTH, width // EIGHTH), np.float32)
    rows = max(STRIP // width // EIGHTH, 1) * EIGHTH
    for top in range(0, height, rows):
        above = min(REACH, top)
        (strip,) = stem(np.ascontiguousarray(pixels[:, :, top - above : top + rows + REACH]))
        there = made[:, :, top // EIGHTH : (top + rows) // EIGHTH]
        there[:] = strip[:, :, above // EIGHTH :][:, :, : there.shape[2]]
    return made


def _opencv(network: bytes) -> Network:
    inherited = "cv2" in sys.modules
    import cv2  # here, for most images are crops

    if os.environ.get(ONE_CORE) and not inherited:  # by a fork from a process with threads: it would wait for them
        cv2.setNumThreads(1)
    net: Any = cv2.dnn.readNetFromONNX(np.frombuffer(network, np.uint8))

    def run(pixels: Pixels) -> list[NDArray[np.float32]]:
        net.setInput(pixels)
        return [values.copy() for values in net.forward(OUTPUTS)]  # for the next call writes into the same memory

    return run


ENGINES = {
    "onnxruntime": Engine(_onnx_runtime, "onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")),
    "opencv": Engine(
        _opencv,
        "cv2",
        ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    ),
}


def torch_on(device: str) -> str:
    """Name and version of what runs the network on a device, as `on_device.py` does."""
    return f"torch {importlib.metadata.version('torch')} on {device.partition(':')[0]}"


def best() -> Engine | None:
    """The first engine that is installed."""
    return next((engine for engine in ENGINES.values() if engine.version), None)
