"""How a network is run so that the same image gives the same numbers: blocks of one shape, a head in float64."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator

import threadpoolctl
import torch
from torch import Tensor, nn

from ferbatch.model.weights import Card

CUDNN = threading.Lock()  # its flags are the whole process's

# Images the network runs on at a time, always exactly so many: enough that starting its layers on a GPU costs little.
BLOCK = {"cuda": 1_024, "mps": 256}
CPU_BLOCK = 16  # its layers' values stay near the core: with 64 or more the study's network is no faster
LIGHT_CPU_BLOCK = 64  # a light network's layers are over before a small block has paid for starting them
LIGHT = 30_000_000  # multiply-adds
AHEAD = 3  # blocks begun for each that is computed


def normalise(pixels: Tensor, card: Card, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (B, size, size) -> `dtype` (B, 1, size, size), channels last, by the card's mean and std."""
    x = pixels.unsqueeze(1).to(torch.float32).div_(255).sub_(card.mean).div_(card.std)
    return x.to(dtype, memory_format=torch.channels_last)


def on_one_core() -> None:
    """Have this thread compute by itself. Its host's other threads go on as they did."""
    torch.get_num_threads()  # at first it sets the number itself
    threadpoolctl.threadpool_limits(1, user_api="openmp")


def in_float64(head: nn.Module) -> nn.Module:
    return copy.deepcopy(head).eval().to("cpu", torch.float64)


@contextlib.contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA: no TF32, no choosing of algorithms by their speed, for this block of code only."""
    if device.type != "cuda":
        yield
        return
    with CUDNN, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
