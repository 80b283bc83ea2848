"""Use case: class folders -> a weights file and its card.

DATA holds `train/` and `validation/` (or `val/`, `valid/`), each with a folder per label. The epoch with the best
validation accuracy is kept; each time one is better, weights and card are written, so a run that is cut short
leaves its best.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ferbatch import models, rates, weights
from ferbatch.datasets import LABELS, SIZE, AugmentedFiles, Recipe, Splits, list_splits, read_splits
from ferbatch.errors import UsageError
from ferbatch.images import PREPROCESSING
from ferbatch.paths import escape
from ferbatch.predict import Classifier, choose_device, default_workers, loader, normalise
from ferbatch.records import INTENDED_USE, LIMITS, Card


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch reached."""

    number: int  # from 1
    loss: float
    train_accuracy: float  # on the augmented images, dropout on
    correct: int  # of the validation images
    n: int
    best: bool  # so far; if so, it was written


class Trainer:
    """One training run. `epoch()` is called recipe.epochs times; `card` is that of the best so far."""

    def __init__(self, data: Path, splits: Splits, recipe: Recipe, output: Path, device: str = "auto") -> None:
        torch.manual_seed(recipe.seed)
        self.splits, self.recipe, self.output = splits, recipe, output
        self.device = choose_device(device)
        self.network = models.build(recipe.model, {"labels": len(LABELS)})
        self.card = self._first_card(data)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.batches = loader(
            AugmentedFiles(splits.train, recipe),
            recipe.batch_size,
            default_workers(self.device),
            shuffle=True,
            drop_last=True,  # batch norm dislikes a batch of one
            generator=torch.Generator().manual_seed(recipe.seed),
        )
        if not len(self.batches):
            raise UsageError(f"{len(splits.train)} training images are fewer than one batch of {recipe.batch_size}")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=recipe.learning_rate,
            total_steps=recipe.epochs * len(self.batches),
            pct_start=recipe.warmup,
        )
        self.loss = nn.CrossEntropyLoss(self._class_weights(), label_smoothing=recipe.label_smoothing).to(self.device)
        self.best = -1
        self.number = 0

    @property
    def images_per_epoch(self) -> int:
        """Training images that one epoch shows the network."""
        return len(self.batches) * self.recipe.batch_size

    def _class_weights(self) -> Tensor:
        counts = Counter(ref.truth for ref in self.splits.train)
        frequencies = torch.tensor([counts[label] / len(self.splits.train) for label in LABELS])
        raised = frequencies**-self.recipe.balance
        return raised / (raised * frequencies).sum()  # the mean image weighs 1

    def epoch(self, tick: Callable[[int], None] = lambda n: None) -> Epoch:
        """Train one epoch, validate, write the weights if they are the best so far."""
        self.number += 1
        self.network.train()
        total, hits, seen = 0.0, 0, 0
        for batch in self.batches:
            pixels = torch.stack([one for one, _ in batch]).to(self.device)
            truth = torch.tensor([label for _, label in batch], device=self.device)
            logits = self.network(normalise(pixels, self.card))
            loss = self.loss(logits, truth)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item() * len(batch)
            hits += int((logits.argmax(1) == truth).sum())
            seen += len(batch)
            tick(len(batch))
        correct, n = self._validate()
        best = correct > self.best
        if best:
            self.best = correct
            self._save(correct, n)
        return Epoch(self.number, total / seen, hits / seen, correct, n, best)

    def _validate(self) -> tuple[int, int]:
        """Correct and all validation images, labelled by the very loop that `ferbatch label` uses."""
        rows = [p for _, p in Classifier(self.card, self.network, self.device).stream(self.splits.validation)]
        return sum(p.label == p.truth for p in rows), len(rows)

    def _first_card(self, data: Path) -> Card:
        counts = {
            split: dict(sorted(Counter(str(ref.truth) for ref in refs).items()))
            for split, refs in (("train", self.splits.train), ("validation", self.splits.validation))
        }
        return Card(
            name=self.output.stem,
            architecture=self.recipe.model,
            arguments={"labels": len(LABELS)},
            labels=LABELS,
            size=SIZE,
            mean=self.splits.mean,
            std=self.splits.std,
            preprocessing=PREPROCESSING,
            temperature=1.0,
            sha256="",
            parameters=models.parameters(self.network),
            multiply_adds=models.multiply_adds(self.network, SIZE),
            data={"folder": data.name, **counts, "unreadable": len(self.splits.skipped)},
            recipe=dataclasses.asdict(self.recipe),
            scores=(),
            licence={"weights": "unstated", "data": "unstated"},
            intended_use=INTENDED_USE,
            limits=LIMITS,
        )

    def _save(self, correct: int, n: int) -> None:
        low, high = rates.wilson(correct, n)
        score = {
            "data": "validation",
            "metric": "accuracy",
            "value": round(correct / n, 4),
            "interval_95": [round(low, 4), round(high, 4)],
            "correct": correct,
            "n": n,
        }
        recipe = {**self.card.recipe, "best_epoch": self.number}
        self.card = weights.save(
            self.output, dataclasses.replace(self.card, scores=[score], recipe=recipe), self.network.state_dict()
        )


class Progress(Protocol):
    """A context manager that counts images done."""

    def tick(self, n: int = 1) -> None: ...
    def __enter__(self) -> Progress: ...
    def __exit__(self, *_: Any) -> None: ...


class Watcher(Protocol):
    """What a caller sees of a training run."""

    def progress(self, total: int, what: str) -> Progress: ...
    def splits(self, splits: Splits) -> None: ...
    def epoch(self, epoch: Epoch, of: int) -> None: ...
    def finished(self, card: Card, path: str) -> None: ...


def run(data: Path, recipe: Recipe, output: Path, *, overwrite: bool, device: str, watcher: Watcher) -> Card:
    """Train on DATA and write `output` (.safetensors) with its card; returns the card of the best epoch.

    Raises UsageError for bad data, options or an output that exists, OutputError where it cannot be written.
    """
    shown = escape(str(output))
    if output.suffix != ".safetensors":
        raise UsageError(f"{shown}: weights files end in .safetensors")
    weights.check_output(output, overwrite)
    if recipe.model not in models.MODELS:
        raise UsageError(f"no model called '{escape(recipe.model)}' (known: {', '.join(models.MODELS)})")
    choose_device(device)
    listings = list_splits(data)
    with watcher.progress(sum(map(len, listings)), "reading") as progress:
        splits = read_splits(data, listings, progress.tick)
    watcher.splits(splits)
    trainer = Trainer(data, splits, recipe, output, device)
    for number in range(1, recipe.epochs + 1):
        with watcher.progress(trainer.images_per_epoch, f"epoch {number}") as progress:
            epoch = trainer.epoch(progress.tick)
        watcher.epoch(epoch, recipe.epochs)
    watcher.finished(trainer.card, shown)
    return trainer.card
