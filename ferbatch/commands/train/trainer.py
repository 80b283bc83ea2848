"""One training run: a network, its targets, its schedule; epochs, the state for a checkpoint, the best weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ferbatch.commands.train.augment import Augment, mixed
from ferbatch.commands.train.data import Data
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.targets import class_weights, targets
from ferbatch.core.errors import UsageError
from ferbatch.core.records import NONE
from ferbatch.model.devices import computes_bf16
from ferbatch.model.engine import Engine, standardise_
from ferbatch.model.networks import Network
from ferbatch.model.weights import Card
from ferbatch.sources.labels import LABELS

LEAST_LIKELIHOOD = 1e-12  # the validation loss takes no probability for less


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch reached; a row of history.csv."""

    epoch: int  # from 1
    learning_rate: float  # at its last step
    train_loss: float  # against the targets, on the augmented images
    train_accuracy: float  # against each target's most probable label, on the augmented images
    validation_loss: float  # mean of -ln(probability of the label)
    validation_accuracy: float
    validation_agreement: float | None  # with people's commonest answer, where there are votes
    best: bool  # better than every epoch before

    def score(self, choose: str) -> float:
        """How good the epoch is by a recipe's word for it, one of recipe.CHOICES; more is better."""
        agreement = self.validation_accuracy if self.validation_agreement is None else self.validation_agreement
        scores = {
            "accuracy": self.validation_accuracy,
            "agreement": (self.validation_accuracy + agreement) / 2,
            "loss": -self.validation_loss,
            "last": self.epoch,
        }
        return scores[choose]


class Trainer:
    """Trains a network on a device; `epoch()` is called until `finished`.

    Every epoch draws its random numbers from the seed and its own number, so that a run that goes on from a checkpoint
    is, on a CPU, the same to the bit.
    """

    def __init__(
        self,
        data: Data,
        recipe: Recipe,
        network: Network,
        card: Card,
        device: torch.device,
        taught: NDArray[np.float32] | None = None,
    ) -> None:
        """A trainer before its first epoch.

        data: the images, their labels and what people said of them.
        recipe: every setting of the training.
        network: with the weights that it begins with; it is moved to the device and trained in place.
        card: of the network, as far as it is known; its mean and std are applied.
        device: to train on.
        taught: (N, labels) the teachers' probabilities for the training images.
        """
        self.data, self.recipe, self.card, self.device = data, recipe, card, device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.targets = torch.from_numpy(targets(data.train, recipe, taught))
        self.class_weights = class_weights(data.train, recipe.balance).to(device)
        self.augment = Augment(recipe)
        self.batch_size = min(recipe.batch_size, len(data.train))
        self.steps = len(data.train) // self.batch_size  # per epoch; images left over sit out, others each time
        if recipe.frozen:
            self.network.features.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.network, recipe), weight_decay=recipe.weight_decay)
        self.schedule = LambdaLR(self.optimizer, share_of_peak(recipe.epochs * self.steps, recipe.warmup))
        self.dtype = _dtype(recipe.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.average = AveragedModel(network, multi_avg_fn=self._blend, use_buffers=True) if recipe.ema else None
        self.validator = Engine(card, network, device, precision="fp32")
        self.done = 0  # whole epochs
        self.history: list[Epoch] = []
        self.best_score = -math.inf
        self.best_tensors: dict[str, Tensor] = {}
        self.best_epoch = 0

    @property
    def finished(self) -> bool:
        """Whether every epoch is done, or none has been better for `patience` of them."""
        waited = self.done - self.best_epoch
        return self.done >= self.recipe.epochs or bool(self.recipe.patience and waited >= self.recipe.patience)

    @property
    def images_per_epoch(self) -> int:
        """Training images that one epoch shows the network."""
        return self.steps * self.batch_size

    def epoch(self, tick: Callable[[int], None] = lambda n: None) -> Epoch:
        """Train one epoch, then look at the validation images."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.done)
        self.network.train()
        if self.recipe.frozen:
            self.network.features.eval()
        loss, hits, rate = torch.zeros(()), torch.zeros(()), 0.0
        order = self._order()
        for step in range(self.steps):
            rate = float(self.schedule.get_last_lr()[-1])
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            step_loss, step_hits = self._step(chosen)
            loss, hits = loss + step_loss, hits + step_hits
            tick(len(chosen))
        if not math.isfinite(float(loss)):
            raise UsageError(f"the loss of epoch {self.done + 1} is no number: the recipe's learning_rate is too high")
        self.done += 1
        return self._validated(rate, float(loss) / self.steps, float(hits) / self.images_per_epoch)

    def _step(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """One step down on the images of these indices; their mean loss, and how many labels were the target's."""
        pixels = torch.from_numpy(self.data.train.pixels[chosen])
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        x = standardise_(self.augment(pixels.to(self.device, non_blocking=True)), self.card)
        x = x.contiguous(memory_format=torch.channels_last)
        x, target = mixed(x, self.targets[chosen].to(self.device), self.recipe.mixup)
        with self._autocast():
            logits = self.network(x)
        loss = nn.functional.cross_entropy(
            logits.float(), target, self.class_weights, label_smoothing=self.recipe.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, where the scaler leaves the first step out
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return loss.detach().cpu(), (logits.argmax(1) == target.argmax(1)).sum().cpu()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _blend(self, averages: Any, currents: Any, updates: Any) -> None:
        """The running average: quick at first, when its past is worth little, slow in the end."""
        n = int(updates)
        blend: Any = get_ema_multi_avg_fn(min(self.recipe.ema, (1 + n) / (10 + n)))  # type: ignore[no-untyped-call]
        blend(averages, currents, updates)

    def _validated(self, rate: float, loss: float, accuracy: float) -> Epoch:
        """What an epoch reached, by validation too; its weights are kept where they are the best so far."""
        part = self.data.validation
        network = cast(Network, self.average.module) if self.average is not None else self.network
        found = self.asked(network)
        truth = np.maximum(found[np.arange(len(part)), part.labels], LEAST_LIKELIHOOD)
        label, asked = found.argmax(1), part.commonest != NONE
        agreement = float((label == part.commonest)[asked].mean()) if asked.any() else None
        right = float((label == part.labels).mean())
        epoch = Epoch(self.done, rate, loss, accuracy, float(-np.log(truth).mean()), right, agreement, False)
        if (score := epoch.score(self.recipe.choose)) > self.best_score:
            self.best_score, self.best_epoch = score, self.done
            self.best_tensors = {name: t.detach().cpu().clone() for name, t in network.state_dict().items()}
            epoch = dataclasses.replace(epoch, best=True)
        self.history.append(epoch)
        return epoch

    def asked(self, network: Network) -> NDArray[np.float64]:
        """(N, labels) what a network says of the validation images."""
        self.validator.take(network)
        return self.validator.probabilities(self.data.validation.pixels)

    def _order(self) -> NDArray[np.int64]:
        """Indices of the training images as this epoch shows them."""
        rng = np.random.default_rng([self.recipe.seed, self.done])
        labels = self.data.train.labels
        if self.recipe.sampler == "shuffle":
            return rng.permutation(len(labels))
        weights = 1 / np.bincount(labels, minlength=len(LABELS))[labels]
        return rng.choice(len(labels), len(labels), p=weights / weights.sum())

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on after the last whole epoch."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "best": {"score": self.best_score, "epoch": self.best_epoch, "tensors": self.best_tensors},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as the trainer was whose state this is; any error at all where it is not a trainer's."""
        self.done = state["done"]
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        best = state["best"]
        self.best_score, self.best_epoch, self.best_tensors = best["score"], best["epoch"], best["tensors"]


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters by how they learn: the body slower if the recipe says so, biases and norms without decay.

    The head's come last.
    """
    groups = []
    for module, share in ((network.features, recipe.body_learning_rate), (network.head, 1.0)):
        peak = recipe.learning_rate * share
        learning = [p for p in module.parameters() if p.requires_grad]
        weights, rest = ([p for p in learning if (p.ndim > 1) == wide] for wide in (True, False))
        groups += [{"params": weights, "lr": peak}, {"params": rest, "lr": peak, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def share_of_peak(steps: int, warmup: float) -> Callable[[int], float]:
    """The learning rate at each of `steps` as a share of its peak: linear up, then half a cosine to nothing.

    `warmup` is the share of the steps (0..1) that it rises.
    """
    rising = warmup * steps

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return share


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    """What the network computes in while it trains."""
    if precision == "fp32" or device.type == "mps":
        return torch.float32
    native = computes_bf16(device)
    if device.type == "cuda":
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if native or precision == "bf16" else torch.float32
