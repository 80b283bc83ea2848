"""What this machine computes on and in: devices and precisions, chosen by what they can do, never by a timing."""

from __future__ import annotations

import re
from typing import Any

import torch

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import PRECISIONS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # CPU features, as PyTorch calls them


def choose_device(name: str) -> torch.device:
    """The torch device for auto | cpu | cuda | cuda:N | mps; UsageError if there is none such here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    known = re.fullmatch(r"(cpu|mps|cuda)(?:(?<=cuda):([0-9]+))?", name)
    if not known:
        raise UsageError(f"no device called '{escape(name)}' (known: auto, cpu, cuda, cuda:N, mps)")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if int(known[2] or 0) >= there[known[1]]:
        raise UsageError(f"device {name} is not available here")
    return torch.device(name)


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16, which is then about twice as fast as fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # the oldest PyTorch that will do has none
    return device.type == "cpu" and any(known.get(name) for name in NATIVE_BF16)


def choose_precision(name: str, device: torch.device, *, measured: bool = True) -> str:
    """A key of DTYPES for auto | fp32 | bf16; UsageError if there is none such.

    measured: whether the model's card has scores. Where it has none, as of a converted model, nobody knows what bf16
    costs it, and auto is fp32: its probabilities are then those of the network that it was.
    """
    if name not in PRECISIONS:
        raise UsageError(f"no precision called '{escape(name)}' (known: {', '.join(PRECISIONS)})")
    return name if name != "auto" else "bf16" if measured and computes_bf16(device) else "fp32"
