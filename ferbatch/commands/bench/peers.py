"""What ferbatch is measured against: python peers.py NAME [MODEL] reads paths, NUL-separated, and prints images/s.

Run as a file of its own, by the Python that has the peer installed. Start-up and the first images are not counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

WARM_UP = 32  # images that are labelled before the clock starts
NAIVE_BATCH = 32  # images; the quickest size from 16 to 256 on the machine that it was tried on


def naive(paths: list[str], model: str) -> Callable[[list[str]], None]:
    """Plain PyTorch, as one writes it at first: Pillow by path, a DataLoader, the network as it was trained."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from ferbatch.model import registry, weights

    card, tensors = weights.load(model)
    network = registry.load(card, tensors).eval()

    class Faces(Dataset[torch.Tensor]):
        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            image = Image.open(self.paths[index]).convert("L").resize((card.size, card.size))
            return torch.from_numpy(np.array(image)).unsqueeze(0).float().div(255).sub(card.mean).div(card.std)

    def label(paths: list[str]) -> None:
        with torch.no_grad():
            for images in DataLoader(Faces(paths), batch_size=NAIVE_BATCH):
                network(images).softmax(1).argmax(1).tolist()

    return label


def fer(paths: list[str], model: str) -> Callable[[list[str]], None]:
    """The package fer with its TFLite network, on faces that are cropped already."""
    import cv2
    from fer.fer import FER

    detector = FER(use_tflite=True)

    def label(paths: list[str]) -> None:
        for path in paths:
            image = cv2.imread(path)
            assert image is not None
            height, width = image.shape[:2]
            detector.detect_emotions(image, face_rectangles=[(0, 0, width, height)])

    return label


PEERS = {"naive": naive, "fer": fer}


def _paths() -> Iterator[str]:
    for path in sys.stdin.buffer.read().split(b"\0"):
        if path:
            yield path.decode("utf-8", "surrogateescape")


def main() -> None:
    paths = list(_paths())
    label = PEERS[sys.argv[1]](paths, sys.argv[2])
    label(paths[:WARM_UP])
    start = time.perf_counter()
    label(paths)
    print(len(paths) / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
