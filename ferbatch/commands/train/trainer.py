"""One training run: a network, its targets, its schedule; epochs, the state for a checkpoint, the best weights."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ferbatch.commands.train.augment import Augment, mixed
from ferbatch.commands.train.average import Average
from ferbatch.commands.train.data import Data
from ferbatch.commands.train.outputs import PerSource, index_of
from ferbatch.commands.train.pixels import SIZE
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.schedule import dtype_of, parameter_groups, share_of_peak
from ferbatch.commands.train.showings import Showings, Shown, order_of, shown_of_sources
from ferbatch.commands.train.targets import class_weights, smoothing_of_all, targets
from ferbatch.commands.train.teachers import Teachers
from ferbatch.commands.train.validation import Epoch, loss_of, parts_of
from ferbatch.core.errors import UsageError
from ferbatch.core.records import NONE
from ferbatch.model.engine import Engine, standardise_
from ferbatch.model.networks import Network
from ferbatch.model.weights import Card


class Trainer:
    """Trains a network on a device; `epoch()` is called until `finished`.

    Every epoch draws its random numbers from the seed and its own number, so that a run that goes on from a checkpoint
    is, on a CPU, the same to the bit. On a GPU no step waits for another: sums are read once an epoch.
    """

    def __init__(
        self,
        data: Data,
        recipe: Recipe,
        network: Network,
        card: Card,
        device: torch.device,
        taught: NDArray[np.float32] | Sequence[Engine] | None = None,
    ) -> None:
        """A trainer before its first epoch.

        data: the images, their labels and what people said of them.
        recipe: every setting of the training.
        network: with the weights that it begins with; it is moved to the device and trained in place.
        card: of the network, as far as it is known; its mean and std are applied.
        device: to train on.
        taught: (N, labels) the teachers' probabilities for the training images, or the teachers, to be asked each time.
        """
        self.data, self.recipe, self.card, self.device = data, recipe, card, device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        answers, teachers = (taught, ()) if isinstance(taught, np.ndarray) else (None, taught or ())
        self.teachers = Teachers(teachers, card, device) if teachers else None
        self.augment = Augment(recipe)
        self.showings = Showings(data, targets(data, recipe, answers), device, fill=self.augment.fill.fills)
        self.class_weights = class_weights(data.train, recipe.balance).to(device)
        self.keep = index_of(recipe.keep, data.sources)
        if recipe.frozen:
            self.network.features.requires_grad_(False)
        apart = len(data.sources) > 1 and recipe.outputs != "shared"
        self.own = PerSource(network, len(data.sources), layers=recipe.outputs == "layers") if apart else None
        self.shown = sum(shown_of_sources(data, recipe))  # images that an epoch draws
        self.batch_size = min(recipe.batch_size, self.shown)
        self.steps = self.shown // self.batch_size  # per epoch; images left over sit out, others each time
        self._prepare()
        self.validator = Engine(card, network, device, precision="fp32")
        self.done = 0  # whole epochs
        self.history: list[Epoch] = []
        self.best_score = -math.inf
        self.best_tensors: dict[str, Tensor] = {}
        self.best_epoch = 0

    def _prepare(self) -> None:
        """What changes the weights, step by step."""
        recipe, device = self.recipe, self.device
        groups = parameter_groups(self.network, recipe, self.own.changes if self.own else ())
        fused = True if device.type == "cuda" else None
        self.optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=fused)
        self.schedule = LambdaLR(self.optimizer, share_of_peak(recipe.epochs * self.steps, recipe.warmup))
        self.dtype = dtype_of(recipe.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.average = Average(self.model, recipe.ema) if recipe.ema else None

    @property
    def model(self) -> nn.Module:
        """What learns: the network, with what its sources have of their own."""
        return self.own or self.network

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
        self.model.train()
        if self.recipe.frozen:
            self.network.features.eval()
        loss, hits, rate = torch.zeros((), device=self.device), torch.zeros((), device=self.device), 0.0
        self.showings.begin(order_of(self.data, self.recipe, self.done))
        with self._quick_convolutions():
            for step in range(self.steps):
                rate = float(self.schedule.get_last_lr()[-1])
                step_loss, step_hits = self._step(self.showings.batch(*self._span(step)))
                loss, hits = loss + step_loss, hits + step_hits
                tick(self.batch_size)
        if not math.isfinite(float(loss)):
            raise UsageError(f"the loss of epoch {self.done + 1} is no number: the recipe's learning_rate is too high")
        self.done += 1
        return self._validated(rate, float(loss) / self.steps, float(hits) / self.images_per_epoch)

    def _span(self, step: int) -> tuple[int, int]:
        return step * self.batch_size, (step + 1) * self.batch_size

    def _step(self, batch: Shown) -> tuple[Tensor, Tensor]:
        """One step down on these images; their mean loss, and how many labels were the target's."""
        x = standardise_(self.augment(batch.pixels, batch.outside), self.card)
        x = x.contiguous(memory_format=torch.channels_last)
        x, target = mixed(x, batch.targets, self.recipe.mixup)
        if self.teachers:
            target = (1 - self.recipe.distill) * target + self.recipe.distill * self.teachers(x)
        with self._autocast():
            logits = self.own(x, batch.sources) if self.own else self.network(x)
        smoothing = smoothing_of_all(self.data, self.recipe)
        loss = nn.functional.cross_entropy(logits.float(), target, self.class_weights, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, where the scaler leaves the first step out
            self.schedule.step()
        if self.average is not None:
            self.average.update(self.model)
        return loss.detach(), (logits.argmax(1) == target.argmax(1)).sum()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _quick_convolutions(self) -> contextlib.AbstractContextManager[Any]:
        """On CUDA: algorithms chosen by their speed, for batches are all of one shape."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)

    def _validated(self, rate: float, loss: float, accuracy: float) -> Epoch:
        """What an epoch reached, by validation too; its weights are kept where they are the best so far."""
        part, views = self.data.validation, len(self.data.framings)
        network = self._plain()
        found = self.asked(network)
        labels, commonest = np.tile(part.labels, views), np.tile(part.commonest, views)
        label, asked = found.argmax(1), commonest != NONE
        agreement = float((label == commonest)[asked].mean()) if asked.any() else None
        right, parts = float((label == labels).mean()), parts_of(self.data, found.reshape(views, len(part), -1))
        epoch = Epoch(self.done, rate, loss, accuracy, loss_of(found, labels), right, agreement, False, parts)
        if (score := epoch.score(self.recipe.choose)) > self.best_score:
            self.best_score, self.best_epoch = score, self.done
            self.best_tensors = {name: t.detach().cpu().clone() for name, t in network.state_dict().items()}
            epoch = dataclasses.replace(epoch, best=True)
        self.history.append(epoch)
        return epoch

    def _plain(self) -> Network:
        """The network that would be written now."""
        module = self.average.module if self.average is not None else self.model
        return module.kept(self.keep) if isinstance(module, PerSource) else cast(Network, module)

    def asked(self, network: Network) -> NDArray[np.float64]:
        """(V * N, labels) what a network says of the validation images, view after view."""
        self.validator.take(network)
        return self.validator.probabilities(self.data.validation.views.reshape(-1, SIZE, SIZE))

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on after the last whole epoch."""
        return {
            "done": self.done,
            "network": self.model.state_dict(),
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
        self.model.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = [Epoch.restored(epoch) for epoch in state["history"]]
        best = state["best"]
        self.best_score, self.best_epoch, self.best_tensors = best["score"], best["epoch"], best["tensors"]
