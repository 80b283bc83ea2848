"""What can run the detector's network: ONNX Runtime where it is installed (ferbatch[photos]), else OpenCV.

Both give the same faces (tests/images/test_detector.py); the first takes two fifths of the time. With either, what is
said of a picture depends on that picture alone. torch was measured as well: at the sizes that matter its time goes
into starting the 50 small layers, and processes that only decode would have to import it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.process import ONE_CORE
from ferbatch.images.onnx_file import OUTPUTS

Pixels = NDArray[np.float32]  # (N, 1, H, W), 0..255
Network = Callable[[Pixels], list[NDArray[np.float32]]]  # its outputs, (N, values, height, width) each
ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging


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
    """One thread of it: there is a process for each core, or few photos."""
    import onnxruntime  # here, for most images are crops

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(pixels: Pixels) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = session.run(None, {name: pixels})
        return outputs

    return run


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


def best() -> Engine | None:
    """The first engine that is installed."""
    return next((engine for engine in ENGINES.values() if engine.version), None)
