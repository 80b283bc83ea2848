"""YuNet by PyTorch on a device: pictures of many photos together, and only what may be faces comes back.

Pictures of one padded size are computed in blocks of one fixed shape (a short block is padded): so what is said of a
picture depends on that picture alone. Whoever imports this imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ferbatch.core.errors import DeviceError
from ferbatch.core.names import escape
from ferbatch.images import yunet
from ferbatch.images.onnx_file import INPUT_NAME, OUTPUTS, Layer, parsed, simplified
from ferbatch.images.yunet import Rows, YuNet

# Pixels of a block, about: enough that starting the 70 layers on a GPU costs little. On a CPU more saves nothing.
BLOCK = {"cuda": 2**22, "cpu": 2**17}
MOST = 64  # pictures of a block
SMALL = yunet.LEAST_PADDED, yunet.LEAST_PADDED  # pixels of a picture that the device is tried with
MOST_WHY = 100  # characters of what PyTorch says, at the most

Picture = NDArray[np.uint8]  # (H, W)


class _Step(NamedTuple):
    """A layer with its weights: what it takes, what it gives, and what nothing takes after it."""

    run: Callable[..., Tensor]
    takes: list[str]
    gives: str
    frees: set[str]


class OnDevice(YuNet):
    """The detector on a device; DeviceError where that fails."""

    def __init__(self, device: str) -> None:
        """Copy the network to the device and try it. ModelError where the detector is not there.

        device: cpu, cuda or cuda:N.
        """
        self.device = torch.device(device)
        layers, weights = parsed(simplified(yunet.onnx()))
        with self._at_work():
            there = {name: torch.tensor(values, device=self.device) for name, values in weights.items()}
            self.steps = _steps(layers, there)
            self.candidates(np.zeros((1, *SMALL), np.uint8))

    def candidates(self, grays: NDArray[np.uint8]) -> list[Rows]:
        return self.candidates_of([grays])[0]

    def candidates_of(self, asked: Sequence[NDArray[np.uint8]]) -> list[list[Rows]]:
        """As of every detector; those of equal padded size are computed together."""
        found = [[np.empty((0, 15)) for _ in grays] for grays in asked]
        of_size: dict[tuple[int, int], list[tuple[int, int]]] = {}  # padded size -> places in `asked`
        for at, grays in enumerate(asked):
            if min(grays.shape[1:]) >= yunet.THINNEST:
                of_size.setdefault(yunet.padded_size(*grays.shape[1:]), []).extend((at, n) for n in range(len(grays)))
        with self._at_work():
            begun = [
                (some, size, self._launch(size, [asked[at][n] for at, n in some]))
                for size, places in of_size.items()
                for some in _parts(places, self._block(size))
            ]
            for some, size, values in begun:
                for (at, n), rows in zip(some, self._rows(values, size, len(some)), strict=True):
                    found[at][n] = rows
        return found

    def _block(self, size: tuple[int, int]) -> int:
        """How many pictures of a padded size are computed together, always exactly so many: a power of two."""
        fitting = min(MOST, BLOCK[self.device.type] // (size[0] * size[1]))
        return int(1 << max(fitting, 1).bit_length() - 1)

    def _launch(self, size: tuple[int, int], pictures: Sequence[Picture]) -> Tensor:
        """(block, 16, places) what the network says of all places on its three levels; a GPU may still be at it."""
        on_cuda = self.device.type == "cuda"
        block = torch.zeros((self._block(size), 1, *size), dtype=torch.uint8, pin_memory=on_cuda)
        for there, picture in zip(block.numpy()[:, 0], pictures, strict=False):
            there[: picture.shape[0], : picture.shape[1]] = picture
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            levels = self._network(block.to(self.device, non_blocking=True).to(torch.float32))
            return torch.cat([level.flatten(2) for level in levels], 2)

    def _network(self, pixels: Tensor) -> list[Tensor]:
        """The network's outputs, (N, 16, H / 8, W / 8) etc., of (N, 1, H, W) float32, 0..255."""
        values = {INPUT_NAME: pixels}
        for run, takes, gives, frees in self.steps:
            values[gives] = run(*(values[name] for name in takes))
            for name in frees:
                del values[name]
        return [values[name] for name in OUTPUTS]

    def _rows(self, values: Tensor, size: tuple[int, int], n: int) -> list[Rows]:
        """The candidates in each of the first n pictures of a block; they are picked out on the device."""
        sure = (values[:n, :2] >= yunet.LEAST_LOGIT).all(1)  # (n, places)
        picture, place = sure.nonzero(as_tuple=True)
        picked = values[picture, :, place].cpu().numpy()  # .cpu() waits for a GPU
        of, at = picture.cpu().numpy(), place.cpu().numpy()
        rows = yunet.rows_of(np.concatenate((picked, _places(size)[at]), 1, dtype=np.float64))
        faces = yunet.are_faces(rows)
        rows, ends = rows[faces], np.cumsum(np.bincount(of[faces], minlength=n))
        return np.split(rows, ends[:-1])

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Compute, and have what PyTorch raises be a DeviceError: the device's memory is full, or it is gone."""
        try:
            with torch.inference_mode(), _one_core(self.device):
                yield
        except RuntimeError as error:
            why = escape(shorten(str(error).partition("\n")[0].rstrip("."), MOST_WHY, placeholder="..."))
            raise DeviceError(
                f"faces cannot be looked for on {self.device} ({why}); fewer --workers or --faces-on cores need less"
            ) from error


def _steps(layers: Sequence[Layer], weights: Mapping[str, Tensor]) -> list[_Step]:
    made, found = {INPUT_NAME, *(layer.output for layer in layers)}, list[_Step]()
    needed = set(OUTPUTS)
    for layer in reversed(layers):
        takes = [name for name in layer.inputs if name in made]
        found.append(_Step(_does(layer, weights), takes, layer.output, {*takes} - needed))
        needed |= {*takes}
    return found[::-1]


def _does(layer: Layer, weights: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """What a layer does to the values that it takes."""
    said = layer.attributes
    if layer.does == "Conv":
        kernel, bias = (weights[name] for name in layer.inputs[1:])
        stride, padding, groups = said.get("strides", [1])[0], said["pads"][0], said["group"][0]
        return partial(F.conv2d, weight=kernel, bias=bias, stride=stride, padding=padding, groups=groups)
    if layer.does == "MaxPool":
        return partial(F.max_pool2d, kernel_size=said["kernel_shape"][0])
    if layer.does == "Resize":
        return partial(F.interpolate, scale_factor=2.0)
    if layer.does == "Relu":
        return torch.relu_  # no other layer takes what it is made of
    assert layer.does == "Add"
    return torch.add


@lru_cache(maxsize=256)
def _places(size: tuple[int, int]) -> NDArray[np.float64]:
    """(places, 3) across, down and stride of all places on the three levels of a picture."""
    of_levels = []
    for stride in yunet.STRIDES:
        down, across = np.indices((size[0] // stride, size[1] // stride)).reshape(2, -1)
        of_levels.append(np.stack((across, down, np.full(len(down), stride)), 1))
    return np.concatenate(of_levels, dtype=np.float64)


def _parts(places: list[Any], n: int) -> list[list[Any]]:
    return [places[start : start + n] for start in range(0, len(places), n)]


@contextmanager
def _one_core(device: torch.device) -> Iterator[None]:
    """Compute on one core of a CPU, so that the numbers do not depend on how many there are."""
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
