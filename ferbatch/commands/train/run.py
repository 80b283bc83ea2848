"""Use case: class folders or a table -> a weights file, its card, the history of the training.

Beside NAME.safetensors and NAME.json there are NAME.history.csv, a row per epoch, and NAME.loss.png and
NAME.accuracy.png. NAME.checkpoint holds an unfinished run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ferbatch.commands.train import checkpoint
from ferbatch.commands.train.card import arguments_of, finished_card, first_card
from ferbatch.commands.train.classes import check_labels
from ferbatch.commands.train.data import Data, Splits, list_splits, read
from ferbatch.commands.train.output import Files, write_history
from ferbatch.commands.train.pixels import AT_ONCE, SIZE
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.trainer import Trainer
from ferbatch.commands.train.validation import Epoch
from ferbatch.core.errors import ModelError, UsageError
from ferbatch.core.files import remove
from ferbatch.core.locks import locked
from ferbatch.core.names import count, escape, listed, shown
from ferbatch.core.options import Existing, TrainOptions
from ferbatch.model import backbones, registry, weights
from ferbatch.model.devices import choose_device
from ferbatch.model.networks import Network
from ferbatch.model.weights import Card
from ferbatch.sources.labels import LABELS
from ferbatch.stream.classifier import Classifier

FEW_STEPS = 200  # after fewer, the weights have hardly moved


class Progress(Protocol):
    """A context manager that counts images done."""

    def tick(self, n: int = 1) -> None: ...
    def __enter__(self) -> Progress: ...
    def __exit__(self, *_: Any) -> None: ...


class Watcher(Protocol):
    """What a caller sees of a training run."""

    def progress(self, total: int, what: str) -> Progress: ...
    def note(self, sentence: str) -> None: ...
    def read(self, data: Data) -> None: ...
    def epoch(self, epoch: Epoch, of: int) -> None: ...
    def finished(self, card: Card, path: str) -> None: ...


def run(options: TrainOptions, recipe: Recipe, existing: Existing, watcher: Watcher) -> Card:
    """Train on the data and write the weights of the best epoch, its card and the history; returns the card.

    Raises UsageError for bad data, options or an output that exists, LockedError where another run has the output,
    OutputError where it cannot be written. What interrupts it leaves the checkpoint of the last whole epoch, from which
    `existing.resume` goes on to the same result.
    """
    files = Files(options.output)
    files.check(existing)
    check_labels(options.labels)
    if recipe.model not in registry.MODELS:
        raise UsageError(f"no model called '{escape(recipe.model)}' (known: {', '.join(registry.MODELS)})")
    with locked(str(options.output)):
        files.check(existing)
        return _run(options, recipe, existing, files, watcher)


def _run(options: TrainOptions, recipe: Recipe, existing: Existing, files: Files, watcher: Watcher) -> Card:
    """The training, while no other run has its files.

    options: what to train on.
    recipe: every setting of the training.
    existing: whether to go on with an unfinished run, or to replace what there is.
    files: to write.
    watcher: hears what goes on.
    """
    device = choose_device(options.device)
    going_on = existing.resume and files.checkpoint.exists()
    splits = _splits(options, recipe)
    teachers = _teachers(options.distill, splits.labels, device)
    network = _network(recipe, len(splits.labels), options.pretrained)
    data = _data(options, splits, recipe, watcher)
    # A run that goes on learns from the checkpoint what it began with.
    start = "scratch" if going_on else _begin(network, recipe, options.pretrained, watcher)
    card = first_card(options, recipe, data, network, start)
    marks = [_sha256(options.pretrained), *(teacher.card.sha256 for teacher in teachers)]
    fingerprint = checkpoint.fingerprint_of(recipe, data, marks)
    if existing.resume and _done_before(files, data.labels, fingerprint):
        watcher.note(f"{shown(options.output)} is finished: there is nothing to resume")
        return weights.read_card(str(options.output))
    taught = _taught(recipe, teachers, data, watcher) if teachers else None
    trainer = Trainer(data, recipe, network, card, device, taught)
    if going_on:
        checkpoint.restore(files.checkpoint, trainer, fingerprint)
        watcher.note(f"going on after epoch {trainer.done} of {recipe.epochs}")
    elif existing.overwrite:
        remove(str(files.checkpoint))
    _train(trainer, files, fingerprint, watcher)
    card = finished_card(trainer, [teacher.card for teacher in teachers], fingerprint)
    write_history(files, trainer.history)
    card = weights.save(files.output, card, trainer.best_tensors)
    remove(str(files.checkpoint))
    watcher.finished(card, shown(options.output))
    return card


def _train(trainer: Trainer, files: Files, fingerprint: str, watcher: Watcher) -> None:
    """Every epoch that is left, each with its checkpoint."""
    epochs = trainer.recipe.epochs
    if (steps := epochs * trainer.steps) < FEW_STEPS:
        watcher.note(
            f"{count(steps, 'step')} in all {'is' if steps == 1 else 'are'} few to learn from: more epochs, or a"
            " smaller batch_size in the recipe"
        )
    while not trainer.finished:
        with watcher.progress(trainer.images_per_epoch, f"epoch {trainer.done + 1}") as progress:
            epoch = trainer.epoch(progress.tick)
        checkpoint.save(files.checkpoint, trainer, fingerprint)
        watcher.epoch(epoch, epochs)


def _teachers(names: Sequence[str], labels: Sequence[str], device: torch.device) -> list[Classifier]:
    """The models to learn from; UsageError where one has other labels or another size."""
    teachers = [Classifier.load(name, device, tta=True) for name in names]
    for card in (teacher.card for teacher in teachers):
        if card.size != SIZE:
            raise UsageError(f"{escape(card.name)} cannot teach: it sees {card.size} pixels a side, and not {SIZE}")
        if list(card.labels) != list(labels):
            said = f"its labels are {listed(card.labels)}, and those of the data {listed(labels)}"
            order = " (--labels can say the same)" if set(card.labels) <= set(labels) else ""
            raise UsageError(f"{escape(card.name)} cannot teach: {said}{order}")
    return teachers


def _splits(options: TrainOptions, recipe: Recipe) -> Splits:
    """The images, listed."""
    return list_splits(options, recipe.holdout, recipe.seed, recipe.source_column)


def _data(options: TrainOptions, splits: Splits, recipe: Recipe, watcher: Watcher) -> Data:
    """The images, read; the watcher hears what they are and what the recipe wants of them in vain."""
    with watcher.progress(len(splits) * (1 if recipe.framing == "whole" else 2), "reading") as progress:
        data = read(options.data, splits, recipe.framing, progress.tick)
    watcher.read(data)
    for sentence in _unused(recipe, data, options):
        watcher.note(sentence)
    return data


def _done_before(files: Files, labels: Sequence[str], fingerprint: str) -> bool:
    """Whether the output is that of this very run; UsageError where it is of another."""
    if files.checkpoint.exists() or not files.output.exists():
        return False
    card, file = weights.read_card(str(files.output)), shown(files.output)
    checkpoint.check_same_labels(file, card.labels, labels)
    if card.recipe.get("fingerprint") != fingerprint:
        raise UsageError(f"{file} is of a run with other data or another recipe; --overwrite replaces it")
    return True


def _sha256(file: Path | None) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""


def _network(recipe: Recipe, labels: int, file: Path | None) -> Network:
    """The network with random weights; UsageError where it cannot be built or begun as it was asked for."""
    torch.manual_seed(recipe.seed)
    try:
        network = registry.build(recipe.model, arguments_of(recipe, labels))
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 1, SIZE, SIZE))
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise UsageError(
            f"{escape(recipe.model)} cannot be built with these arguments: {escape(str(error))}"
        ) from error
    if (file or recipe.pretrained) and not isinstance(network, backbones.Backbone):
        raise UsageError(f"there are no ImageNet weights for {recipe.model}: it is always trained from scratch")
    if recipe.frozen and not (file or recipe.pretrained):
        raise UsageError(f"frozen: the body of {recipe.model} would stay as random as it begins")
    return network


def _begin(network: Network, recipe: Recipe, file: Path | None, watcher: Watcher) -> str:
    """Give the network the weights it begins with, and say which, for the card."""
    if isinstance(network, backbones.Backbone) and file:
        backbones.load_pretrained(network, file)
        return f"ImageNet weights of a local file, sha256 {_sha256(file)}"
    if isinstance(network, backbones.Backbone) and recipe.pretrained:
        try:
            backbones.download(network)
            return "ImageNet weights, downloaded by timm"
        except ModelError as error:
            if recipe.frozen:
                raise
            watcher.note(f"{error}: {recipe.model} is trained from scratch; --pretrained takes a local file")
    return "scratch"


def _unused(recipe: Recipe, data: Data, options: TrainOptions) -> list[str]:
    """What the recipe wants and the data does not have, a sentence each."""
    said = list(data.notes)
    if not recipe.votes and options.votes:
        said.append("the recipe gives votes no share of the target: they only stand beside the figures")
    if not recipe.distill and options.distill:
        said.append("the recipe gives teachers no share of the target: --distill changes nothing")
    if recipe.votes and not data.has_votes:
        said.append("no votes were given (--votes, or columns votes_* of a table): trained on the labels alone")
    if recipe.sources and not data.sources:
        said.append(
            f"the recipe's sources ({', '.join(recipe.sources)}) are not told apart: no column {recipe.source_column}"
        )
    if data.sources and (absent := [escape(name) for name in recipe.sources if name not in data.sources]):
        said.append(f"the recipe speaks of {', '.join(absent)}, but the sources are {', '.join(data.sources)}")
    if recipe.teachers and not options.distill and data.labels == LABELS:  # theirs
        said.append(
            f"the recipe's teachers ({', '.join(recipe.teachers)}) were not given (--distill): trained without them,"
            " which comes out a little worse"
        )
    return said


def _taught(
    recipe: Recipe, teachers: Sequence[Classifier], data: Data, watcher: Watcher
) -> NDArray[np.float32] | Sequence[Classifier]:
    """(N, labels) what the teachers say of the training images; the teachers, where they are asked in every step.

    The mean of their probabilities, each of the image and its mirror image, whole or else levelled.
    """
    if recipe.distill_views == "same":
        return teachers
    pixels = data.train.views[0]
    found = np.zeros((len(pixels), len(data.labels)))
    with watcher.progress(len(teachers) * len(pixels), "asking the teachers") as progress:
        for teacher in teachers:
            for start in range(0, len(pixels), AT_ONCE):
                block = pixels[start : start + AT_ONCE]
                found[start : start + AT_ONCE] += teacher.probabilities(block) / len(teachers)
                progress.tick(len(block))
    return found.astype(np.float32)
