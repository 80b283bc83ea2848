"""The study's other three networks and larger teachers: timm's bodies with a dense head of ours.

timm is an extra (`pip install 'ferbatch[zoo]'`) and is imported only where such a network is built.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferbatch.core.errors import ModelError, UsageError
from ferbatch.core.names import shown
from ferbatch.model.networks import Network

BACKBONES = {  # what we call a body -> what timm calls it
    "vgg16": "vgg16",  # cut at block5_pool, 14.7 M parameters
    "resnet101": "resnet101",  # cut at the end of its last stage, 42.5 M parameters
    "efficientnetv2_b2": "tf_efficientnetv2_b2",  # 8.7 M parameters; Keras adds 0.08 M statistics
    "efficientnet_lite0": "tf_efficientnet_lite0",  # 3.4 M parameters
    "efficientnet_lite1": "tf_efficientnet_lite1",  # 4.1 M parameters
    "efficientnet_lite2": "tf_efficientnet_lite2",  # 4.8 M parameters
}


class Backbone(Network):
    """A timm body cut before its own classifier, gray laid on three channels, and a dense head.

    Input (B, 1, size, size) of any size. The head is a hidden layer with ReLU and dropout, then one logit per label.

    name: a key of BACKBONES.
    labels: how many there are.
    side: pixels that the input is scaled to first, for a body that was made for larger pictures.
    hidden: units of the hidden layer.
    dropout: before the last layer.
    """

    def __init__(self, name: str, labels: int = 4, side: int = 48, hidden: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.name = name
        body, channels = _body(name)
        self.features = nn.Sequential(
            nn.UpsamplingBilinear2d((side, side)),
            _ThreeChannels(),  # (B, 3, side, side)
            body,  # (B, channels, side / 32, side / 32)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (B, channels)
        )
        self.head = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, labels)
        )  # (B, labels)

    @property
    def pretrainable(self) -> nn.Module:
        """The part that ImageNet weights fit."""
        return self.features[2]  # type: ignore[index,no-any-return]


class _ThreeChannels(nn.Module):
    def forward(self, gray: Tensor) -> Tensor:
        return gray.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


class _Body(nn.Module):
    """timm's model up to the last feature map; its names stay timm's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            if name not in ("global_pool", "fc", "classifier", "head", "pre_logits"):
                self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            f"this network needs timm: pip install 'ferbatch[zoo]', in a checkout '.[zoo]' ({error})"
        ) from error
    return timm


def _body(name: str) -> tuple[nn.Module, int]:
    model = _timm().create_model(BACKBONES[name], num_classes=0, global_pool="")
    return _Body(model), int(model.num_features)


def load_pretrained(network: Backbone, path: Path) -> None:
    """Fill the body from a local file of ImageNet weights: .safetensors, or a PyTorch file of nothing but tensors.

    Tensors are found by timm's (or torchvision's) names; where a file uses other names, by their order, if every shape
    agrees. UsageError where they do not fit; nothing is unpickled but tensors.
    """
    file = shown(path)
    try:
        given = _read(path)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a damaged or hostile file makes of the readers
        raise UsageError(f"{file} holds no tensors that can be read safely") from error
    wanted = network.pretrainable.state_dict()
    if not wanted.keys() <= given.keys():
        given = _by_order(wanted, given)
    misfits = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    if misfits:
        raise UsageError(f"{file} does not fit this network: {len(misfits)} tensors differ, {misfits[0]} for one")
    try:
        network.pretrainable.load_state_dict({name: given[name] for name in wanted})
    except RuntimeError as error:  # the file holds sparse or quantised tensors
        raise UsageError(f"{file} does not fit this network: its tensors are no plain numbers") from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names; whatever error the readers raise where there are none."""
    if path.suffix == ".safetensors":
        import safetensors.torch

        return dict(safetensors.torch.load_file(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of pickles, which weights_only keeps it from running
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    tensors = next((tensors[name] for name in ("state_dict", "model") if name in tensors), tensors)
    return {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _by_order(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors under the wanted names, paired in their order; batches counted by batch norm left aside."""
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    tensors = [tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")]
    paired = dict(zip(names, tensors, strict=False))
    return {name: paired.get(name, wanted[name]) for name in wanted if name in paired or name not in names}


def download(network: Backbone) -> None:
    """Fill the body with ImageNet weights from timm's hub; ModelError where they cannot be had."""
    chatter = logging.getLogger("huggingface_hub")  # speaks of every retry
    level = chatter.level
    try:
        chatter.setLevel(logging.CRITICAL)
        model = _timm().create_model(BACKBONES[network.name], num_classes=0, global_pool="", pretrained=True)
    except Exception as error:  # no network, no hub, no room: whatever the hub's client raises
        raise ModelError(f"ImageNet weights could not be downloaded ({type(error).__name__})") from error
    finally:
        chatter.setLevel(level)
    network.pretrainable.load_state_dict(_Body(model).state_dict())
