"""Use case: class folders or a table -> a weights file, its card, the history of the training.

Beside NAME.safetensors and NAME.json there are NAME.history.csv, a row per epoch, and NAME.loss.png and
NAME.accuracy.png. NAME.checkpoint holds an unfinished run.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from ferbatch import charts, datasets, models, rates, weights, zoo
from ferbatch.calibration import ece, ece_by_chance
from ferbatch.datasets import LABELS, SIZE, Data, Part
from ferbatch.devices import choose_device
from ferbatch.errors import ModelError, UsageError
from ferbatch.images import PREPROCESSING
from ferbatch.locks import locked
from ferbatch.networks import Network
from ferbatch.outputs import remove
from ferbatch.paths import escape, replace_file
from ferbatch.predict import Classifier
from ferbatch.recipe import Recipe
from ferbatch.records import INTENDED_USE, LIMITS, NONE, Card
from ferbatch.scores import UNIT, Scores
from ferbatch.trainer import Epoch, Trainer

CURVES = {"loss": ("train_loss", "validation_loss"), "accuracy": ("train_accuracy", "validation_accuracy")}
FEW_STEPS = 200  # under so many, the weights have hardly moved
TEMPERATURES = (0.2, 5.0)  # to look between


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `ferbatch train` was asked to do, but for the recipe."""

    data: Path
    output: Path  # .safetensors
    votes: Path | None = None  # a table
    pretrained: Path | None = None  # a file of ImageNet weights
    distill: tuple[str, ...] = ()  # models to learn from
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False


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


def run(options: TrainOptions, recipe: Recipe, watcher: Watcher) -> Card:
    """Train on the data and write the weights of the best epoch, its card and the history; returns the card.

    Raises UsageError for bad data, options or an output that exists, LockedError where another run has the output,
    OutputError where it cannot be written. What interrupts it leaves the checkpoint of the last whole epoch, from which
    `resume` goes on to the same result.
    """
    files = Files(options.output)
    files.check(options)
    if recipe.model not in models.MODELS:
        raise UsageError(f"no model called '{escape(recipe.model)}' (known: {', '.join(models.MODELS)})")
    with locked(str(options.output)):
        files.check(options)
        return _run(options, recipe, files, watcher)


def _run(options: TrainOptions, recipe: Recipe, files: Files, watcher: Watcher) -> Card:
    device = choose_device(options.device)
    teachers = [Classifier.load(name, device, tta=True) for name in options.distill]
    for teacher in teachers:
        if teacher.card.labels != LABELS or teacher.card.size != SIZE:
            raise UsageError(f"{escape(teacher.card.name)} cannot teach: its labels or its size are others")
    resuming = options.resume and files.checkpoint.exists()
    network = _network(recipe, options.pretrained)
    listing = datasets.list_images(options.data, options.votes, recipe.holdout, recipe.seed)
    with watcher.progress(len(listing), "reading") as progress:
        data = datasets.read(options.data, listing, progress.tick)
    watcher.read(data)
    for sentence in _unused(recipe, data, options):
        watcher.note(sentence)
    start = "scratch" if resuming else _begin(network, recipe, options.pretrained, watcher)  # a checkpoint knows better
    card = _first_card(options, recipe, data, network, start)
    marks = [_sha256(options.pretrained), *(teacher.card.sha256 for teacher in teachers)]
    taught = _taught(teachers, data.train, watcher) if teachers else None
    trainer = Trainer(data, recipe, network, card, device, taught, marks)
    if options.resume and _done_before(files, trainer):
        watcher.note(f"{escape(str(options.output))} is finished: there is nothing to resume")
        return weights.read_card(str(options.output))
    if resuming:
        trainer.restore(files.checkpoint)
        watcher.note(f"going on after epoch {trainer.done} of {recipe.epochs}")
    elif options.overwrite:
        remove(str(files.checkpoint))
    if (steps := recipe.epochs * trainer.steps) < FEW_STEPS:
        watcher.note(
            f"{steps:,} steps in all are few to learn from: more epochs, or a smaller batch_size in the recipe"
        )
    while not trainer.finished:
        with watcher.progress(trainer.images_per_epoch, f"epoch {trainer.done + 1}") as progress:
            epoch = trainer.epoch(progress.tick)
        trainer.save(files.checkpoint)
        watcher.epoch(epoch, recipe.epochs)
    card = _finish(trainer, data, files, teachers)
    watcher.finished(card, escape(str(options.output)))
    return card


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a run, beside its weights."""

    output: Path

    @property
    def checkpoint(self) -> Path:
        return self.output.with_suffix(".checkpoint")

    @property
    def history(self) -> Path:
        return self.output.with_suffix(".history.csv")

    def curve(self, name: str) -> Path:
        return self.output.with_suffix(f".{name}.png")

    def check(self, options: TrainOptions) -> None:
        """UsageError or OutputError if these files must not or cannot be written."""
        shown = escape(str(self.output))
        if self.output.suffix != ".safetensors":
            raise UsageError(f"{shown}: weights files end in .safetensors")
        if options.resume and options.overwrite:
            raise UsageError("--resume goes on with what is there, --overwrite replaces it: say one of them")
        if self.checkpoint.exists() and not (options.resume or options.overwrite):
            unfinished = f"{escape(str(self.checkpoint))} is of an unfinished run"
            raise UsageError(f"{unfinished}: --resume goes on with it, --overwrite begins anew")
        weights.check_output(self.output, options.overwrite or options.resume)
        for path in (self.history, *map(self.curve, CURVES)):
            if path.exists() and not (options.overwrite or options.resume):
                raise UsageError(f"{escape(str(path))} exists; --overwrite replaces it")


def _done_before(files: Files, trainer: Trainer) -> bool:
    """Whether the output is that of this very run; UsageError where it is of another."""
    if files.checkpoint.exists() or not files.output.exists():
        return False
    if weights.read_card(str(files.output)).recipe.get("fingerprint") != trainer.fingerprint:
        shown = escape(str(files.output))
        raise UsageError(f"{shown} is of a run with other data or another recipe; --overwrite replaces it")
    return True


def _sha256(file: Path | None) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""


def _network(recipe: Recipe, file: Path | None) -> Network:
    """The network with random weights; UsageError where it cannot be built or begun as it was asked for."""
    torch.manual_seed(recipe.seed)
    try:
        network = models.build(recipe.model, _arguments(recipe))
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 1, SIZE, SIZE))
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        raise UsageError(
            f"{escape(recipe.model)} cannot be built with these arguments: {escape(str(error))}"
        ) from error
    if (file or recipe.pretrained) and not isinstance(network, zoo.Backbone):
        raise UsageError(f"there are no ImageNet weights for {recipe.model}: it is always trained from scratch")
    if recipe.frozen and not (file or recipe.pretrained):
        raise UsageError(f"frozen: the body of {recipe.model} would stay as random as it begins")
    return network


def _begin(network: Network, recipe: Recipe, file: Path | None, watcher: Watcher) -> str:
    """Give the network the weights it begins with, and say which, for the card."""
    if isinstance(network, zoo.Backbone) and file:
        zoo.load_pretrained(network, file)
        return f"ImageNet weights of a local file, sha256 {_sha256(file)}"
    if isinstance(network, zoo.Backbone) and recipe.pretrained:
        try:
            zoo.download(network)
            return "ImageNet weights, downloaded by timm"
        except ModelError as error:
            if recipe.frozen:
                raise
            watcher.note(f"{error}: {recipe.model} is trained from scratch; --pretrained takes a local file")
    return "scratch"


def _arguments(recipe: Recipe) -> dict[str, Any]:
    return {**recipe.arguments, "labels": len(LABELS)}


def _unused(recipe: Recipe, data: Data, options: TrainOptions) -> list[str]:
    """What the recipe wants and the data does not have, a sentence each."""
    said = list(data.notes)
    if not recipe.votes and options.votes:
        said.append("the recipe gives votes no share of the target: they only stand beside the figures")
    if not recipe.distill and options.distill:
        said.append("the recipe gives teachers no share of the target: --distill changes nothing")
    if recipe.votes and not data.has_votes:
        said.append("no votes were given (--votes, or columns votes_* of a table): trained on the labels alone")
    if recipe.teachers and not options.distill:
        said.append(
            f"the recipe's teachers ({', '.join(recipe.teachers)}) were not given (--distill): trained without them,"
            " which comes out a little worse"
        )
    return said


def _taught(teachers: Sequence[Classifier], part: Part, watcher: Watcher) -> NDArray[np.float32]:
    """(N, labels) the mean of the teachers' probabilities, each of the image and its mirror image."""
    found = np.zeros((len(part), len(LABELS)))
    with watcher.progress(len(teachers) * len(part), "asking the teachers") as progress:
        for teacher in teachers:
            for at in range(0, len(part), datasets.BATCH):
                block = part.pixels[at : at + datasets.BATCH]
                found[at : at + datasets.BATCH] += teacher.probabilities_of(block) / len(teachers)
                progress.tick(len(block))
    return found.astype(np.float32)


def _first_card(options: TrainOptions, recipe: Recipe, data: Data, network: Network, start: str) -> Card:
    return Card(
        name=options.output.stem,
        architecture=recipe.model,
        arguments=_arguments(recipe),
        labels=LABELS,
        size=SIZE,
        mean=data.mean,
        std=data.std,
        preprocessing=PREPROCESSING,
        temperature=1.0,
        sha256="",
        parameters=models.parameters(network),
        multiply_adds=models.multiply_adds(network, SIZE),
        data={
            "folder": options.data.name,
            "train": data.train.counts,
            "validation": data.validation.counts,
            "votes": f"for {int(data.train.votes.any(1).sum()):,} of the training images",
            "unreadable": len(data.skipped),
        },
        recipe={**dataclasses.asdict(recipe), "start": start},
        scores=(),
        licence={"weights": "unstated", "data": "unstated"},
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )


def _finish(trainer: Trainer, data: Data, files: Files, teachers: Sequence[Classifier]) -> Card:
    """Calibrate the best epoch's weights, score them, write everything, take the checkpoint away."""
    network = trainer.network
    network.load_state_dict(trainer.best_tensors)
    part = data.validation
    found = Classifier(trainer.card, network, trainer.device, precision="fp32").probabilities_of(part.pixels)
    temperature = _temperature(found, part.labels) if trainer.recipe.calibrate else 1.0
    recipe = {
        **trainer.card.recipe,
        "precision": str(trainer.dtype).removeprefix("torch."),
        "taught_by": [{"name": one.card.name, "sha256": one.card.sha256} for one in teachers],
        "epochs_done": trainer.done,
        "best_epoch": trainer.best_epoch,
        "fingerprint": trainer.fingerprint,
    }
    card = dataclasses.replace(
        trainer.card, temperature=temperature, recipe=recipe, scores=_scores(_tempered(found, temperature), part)
    )
    _write_history(files, trainer.history)
    card = weights.save(files.output, card, trainer.best_tensors)
    remove(str(files.checkpoint))
    return card


def _tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities (N, labels) as they are when the logits are divided by a temperature."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _temperature(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature at which the mean confidence is the accuracy: Clarte et al., https://arxiv.org/abs/2303.02644.

    With noisy labels it leaves a smaller calibration error than the temperature that makes the labels likeliest, which
    a few sure and wrong ones pull about.
    """
    accuracy = (probabilities.argmax(1) == labels).mean()

    def gap(temperature: float) -> float:
        return float((_tempered(probabilities, temperature).max(1).mean() - accuracy) ** 2)

    return round(float(minimize_scalar(gap, bounds=TEMPERATURES, method="bounded").x), 4)


def _scores(probabilities: NDArray[np.float64], part: Part) -> list[dict[str, Any]]:
    """Accuracy, agreement with people and calibration on validation, for the card."""
    said = probabilities.argmax(1)
    scores = [_rate("accuracy", said == part.labels)]
    asked = part.commonest != NONE
    if asked.any():
        scores.append(_rate("agreement with people's commonest answer", (said == part.commonest)[asked]))
    counted = Scores(LABELS, part.labels.astype(np.int16), said.astype(np.int16), _whole(probabilities))
    return [*scores, _calibration(counted)]


def _calibration(scores: Scores) -> dict[str, Any]:
    """The ECE, and what it would be, with its 95 % interval, of probabilities that are exactly right."""
    error, chance = ece(scores, ""), ece_by_chance(scores, "")
    return {
        "data": "validation",
        "metric": "ece",
        "value": round(error.value or 0.0, 4),
        "by_chance": round(chance.value or 0.0, 4),
        "by_chance_95": [round(end, 4) for end in chance.interval_95 or ()],
        "n": error.n,
    }


def _whole(probabilities: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.asarray(np.round(probabilities * UNIT).astype(np.uint16))


def _rate(metric: str, right: NDArray[np.bool_]) -> dict[str, Any]:
    correct, n = int(right.sum()), len(right)
    low, high = rates.wilson(correct, n)
    return {
        "data": "validation",
        "metric": metric,
        "value": round(correct / n, 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "correct": correct,
        "n": n,
    }


def _write_history(files: Files, history: Sequence[Epoch]) -> None:
    text = io.StringIO()
    rows = csv.DictWriter(text, [field.name for field in dataclasses.fields(Epoch)], lineterminator="\n")
    rows.writeheader()
    rows.writerows(dataclasses.asdict(epoch) for epoch in history)
    with replace_file(os.fspath(files.history)) as stream:
        stream.write(text.getvalue().encode())
    for name, columns in CURVES.items():
        lines = {column.split("_")[0]: [getattr(epoch, column) for epoch in history] for column in columns}
        with replace_file(os.fspath(files.curve(name))) as stream:
            stream.write(charts.curves(name, lines))
