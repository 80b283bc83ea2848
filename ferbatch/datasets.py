"""What `ferbatch train` learns from: the splits of a data folder, and the augmentation, which is train's alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ferbatch.errors import UsageError
from ferbatch.paths import escape
from ferbatch.predict import Decoded, ImageFiles, loader
from ferbatch.records import ImageRef
from ferbatch.sources import list_images

LABELS = ("happy", "sad", "neutral", "surprise")  # the study's order
SIZE = 48  # pixels, the study's
VALIDATION_FOLDERS = ("validation", "valid", "val")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every setting of a training run; goes into the card as it is."""

    model: str = "cnn"
    epochs: int = 26
    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 1.5e-3  # the peak, after a linear warm-up; cosine to nothing from there
    warmup: float = 0.15  # of all steps
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    balance: float = 0.5  # class weight = (1 / frequency) ** balance: 0 none, 1 every class counts the same
    rotate: float = 10.0  # degrees, to either side
    shift: float = 0.06  # of the side, any direction
    zoom: float = 0.1  # of the size, in or out
    shear: float = 5.0  # degrees
    brightness: float = 0.2  # factor 1 +- this, contrast likewise


@dataclass(frozen=True, slots=True)
class Splits:
    """The images of a data folder, looked at once before the first epoch."""

    train: list[ImageRef]
    validation: list[ImageRef]
    skipped: list[tuple[str, str]]  # path and reason of each unreadable one, in either split
    mean: float  # of the training pixels scaled to 0..1
    std: float


def list_splits(data: Path) -> tuple[list[ImageRef], list[ImageRef]]:
    """The images of the training and the validation folder; UsageError where one is missing."""
    validation = next((data / name for name in VALIDATION_FOLDERS if (data / name).is_dir()), None)
    if validation is None or not (data / "train").is_dir():
        raise UsageError(f"{escape(str(data))} needs the folders train and validation, each with a folder per label")
    train, held_out = ([r for r in list_images([folder], LABELS) if r.truth] for folder in (data / "train", validation))
    return train, held_out


def read_splits(
    data: Path, listings: tuple[list[ImageRef], list[ImageRef]], tick: Callable[[int], None] = lambda n: None
) -> Splits:
    """Read every image once; UsageError where a split has no readable image of a label."""
    skipped: list[tuple[str, str]] = []
    kept: list[list[ImageRef]] = []
    moments = np.zeros(3)  # of the training pixels: their number, sum, sum of squares
    for refs in listings:
        good: list[ImageRef] = []
        for decoded in (one for batch in loader(ImageFiles(refs, SIZE), 256, 0) for one in batch):
            tick(1)
            if decoded.pixels is None:
                skipped.append((decoded.ref.path, decoded.error.message if decoded.error else ""))
                continue
            good.append(decoded.ref)
            if not kept:
                pixels = decoded.pixels / 255
                moments += pixels.size, pixels.sum(), (pixels**2).sum()
        missing = sorted(set(LABELS) - {str(ref.truth) for ref in good})
        if missing:
            split = "validation" if kept else "train"
            raise UsageError(f"{escape(str(data))}: no readable {split} image of {', '.join(missing)}")
        kept.append(good)
    mean = moments[1] / moments[0]
    std = float(np.sqrt(moments[2] / moments[0] - mean**2))
    return Splits(kept[0], kept[1], skipped, round(float(mean), 4), round(std, 4))


class AugmentedFiles(Dataset[tuple[Tensor, int]]):
    """Index -> (uint8 pixels (size, size) after augmentation, class)."""

    def __init__(self, refs: Sequence[ImageRef], recipe: Recipe) -> None:
        self.files = ImageFiles(refs, SIZE)
        self.augment = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomAffine(
                    recipe.rotate,
                    translate=(recipe.shift, recipe.shift),
                    scale=(1 - recipe.zoom, 1 + recipe.zoom),
                    shear=recipe.shear,
                    interpolation=v2.InterpolationMode.BILINEAR,
                ),
                v2.ColorJitter(brightness=recipe.brightness, contrast=recipe.brightness),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        decoded: Decoded = self.files[index]
        if decoded.pixels is None:  # read_splits has read it before: it changed under our hands
            raise UsageError(f"{decoded.ref.path} could be read before the training and cannot now")
        pixels: Tensor = self.augment(torch.from_numpy(decoded.pixels).unsqueeze(0))  # (1, size, size)
        return pixels[0], LABELS.index(str(decoded.ref.truth))
