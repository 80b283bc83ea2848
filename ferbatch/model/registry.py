"""MODELS, the table of the networks, and what can be said of any of them."""

from __future__ import annotations

import copy
import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from ferbatch.core.errors import FerbatchError, ModelError
from ferbatch.core.names import escape
from ferbatch.model.backbones import BACKBONES, Backbone
from ferbatch.model.networks import Cnn, CnnLarge, CnnLite, Graph, Network, Sequential, Wired
from ferbatch.model.weights import INTENDED_USE, LIMITS, Card

MODELS: dict[str, Callable[..., Network]] = {  # networks that can be trained
    "cnn": Cnn,
    "cnn-lite": CnnLite,
    "cnn-large": CnnLarge,
    **{name: partial(Backbone, name) for name in BACKBONES},
}
# Networks that weights may have.
ARCHITECTURES: dict[str, Callable[..., Network]] = {**MODELS, "sequential": Sequential, "graph": Graph}

MOST_LAYER_VALUES = 2**22  # that a layer may make of one image; VGG16 has as many at 256 pixels
MOST_ALIVE = 2**25  # values of one image that are there at a time: where parts merge, early ones wait
MOST_WORK = 25_000_000_000  # multiply-adds, or values looked at, for one image; VGG16 at 256 pixels: 20 billion


def build(architecture: str, arguments: Mapping[str, Any]) -> Network:
    """A network with random weights; ModelError where no such architecture is known."""
    if architecture not in ARCHITECTURES:
        raise ModelError(f"no architecture called '{escape(architecture)}' (known: {', '.join(ARCHITECTURES)})")
    return ARCHITECTURES[architecture](**arguments)


def load(card: Card, tensors: Mapping[str, Tensor]) -> Network:
    """The network of a card with the tensors of its file, for inference; ModelError where they do not fit each other.

    Both may be hostile: the network takes no memory (it is on PyTorch's device "meta") until the tensors fit it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of arguments that are refused further down
            with torch.device("meta"):
                network = build(card.architecture, card.arguments)
            if _shapes(network.state_dict()) != _shapes(tensors) or parameters(network) != card.parameters:
                raise ValueError("other tensors")
            network.load_state_dict(tensors, assign=True)
            if outputs(network, card.size) != len(card.labels):
                raise ValueError("other outputs")
    except FerbatchError:
        raise
    except Exception as error:  # whatever hostile arguments make of PyTorch
        raise ModelError(f"the weights of '{escape(card.name)}' do not fit their card") from error
    return network


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def outputs(network: Network, size: int) -> int:
    """Logits per image of size x size pixels; ValueError where the network costs too much or gives no numbers."""
    network.eval()
    with torch.inference_mode():
        if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
            raise ValueError("it holds numbers that are none")
        _check_cost(network, size)
        logits = network(torch.zeros(1, 1, size, size))
    if logits.ndim != 2 or len(logits) != 1 or not bool(logits.isfinite().all()):
        raise ValueError("it gives no logits")
    return int(logits.shape[1])


def _check_cost(network: Network, size: int) -> None:
    """ValueError where one image would take more memory or time than MOST_LAYER_VALUES, MOST_ALIVE, MOST_WORK allow.

    A run on no image at all tells: every layer's shape is there, and nothing is computed.
    """
    work = 0
    made: list[weakref.ref[Tensor]] = []  # that were there when the last layer was done

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal work, made
        values = math.prod(output.shape[1:])
        made = [one for one in made if one() is not None and one() is not output] + [weakref.ref(output)]
        alive = sum(math.prod(one.shape[1:]) for ref in made if (one := ref()) is not None)
        weight, kernel = getattr(module, "weight", None), getattr(module, "kernel_size", 1)
        kernel = kernel if isinstance(kernel, Sequence) else (kernel, kernel)  # a pool has one number or two
        work += values * (math.prod(kernel) if weight is None else weight[0].numel())
        if output.shape[:1] != (0,):
            raise ValueError("it makes something of no image")
        if values > MOST_LAYER_VALUES or alive > MOST_ALIVE or work > MOST_WORK:
            raise ValueError("it is too large to run")

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    network(torch.zeros(0, 1, size, size))
    for hook in hooks:
        hook.remove()


def new_card(network: Network, size: int, **known: Any) -> Card:
    """The card of a network that was never scored: what is `known` of it, by Card's names, and what can be counted."""
    return Card(
        size=size,
        temperature=1.0,
        sha256="",
        parameters=parameters(network),
        multiply_adds=multiply_adds(network, size),
        scores=(),
        licence={"weights": "unstated", "data": "unstated"},
        intended_use=INTENDED_USE,
        limits=LIMITS,
        **known,
    )


def folded(features: nn.Module) -> nn.Module:
    """A copy for inference with each batch norm folded into the convolution before it: a pass over memory less."""
    features = copy.deepcopy(features).eval()
    for parent in [module for module in features.modules() if isinstance(module, nn.Sequential)]:
        pairs = parent.followed() if isinstance(parent, Wired) else pairwise(parent.named_children())
        for (name, conv), (after, norm) in pairs:
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, after, nn.Identity())
    return features


def parameters(network: nn.Module) -> int:
    """Trainable parameters, the figure papers quote (batch-norm statistics are not counted)."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: Network, size: int) -> int:
    """Multiply-adds of one image's forward pass, counted by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 1, size, size))
    return int(counter.get_total_flops()) // 2
