"""Recipes: every setting of a training run, as a TOML file. One per shipped model comes with ferbatch.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferbatch.core.errors import UsageError
from ferbatch.core.names import escape
from ferbatch.core.records import PRECISIONS

RECIPES = Path(__file__).parent / "recipes"

# The recipe of a network that is asked for by its name alone. Where there are two it is that for one collection: those
# for several want tens of thousands of images, for their batches are large.
OF_MODEL = {
    "cnn": "cnn-v2",
    "cnn-lite": "cnn-lite-v1",
    "cnn-large": "cnn-large-v1",
    "vgg16": "vgg16",
    "resnet101": "resnet101",
    "efficientnetv2_b2": "efficientnetv2_b2",
}

SAMPLERS = ("shuffle", "balanced")
CHOICES = ("accuracy", "agreement", "sources", "loss", "last")
FRAMINGS = ("whole", "levelled", "both")
OUTPUTS = ("shared", "bias", "layers")
VIEWS = ("fixed", "same")
MOST_WEIGHT = 1000  # of a source
MEAN = "mean"  # what `keep` says instead of a source's name


@dataclass(frozen=True, slots=True)
class Source:
    """How one collection of images is trained on; the keys of a recipe's table [sources.NAME]."""

    weight: float  # how often an epoch shows each of its images: 1 once, 0.5 every other one, 0 none
    votes: float  # as in Recipe
    label_smoothing: float  # as in Recipe, but in the images' own targets: teachers' answers stay as they are


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every setting of a training run; the keys of a recipe file. Goes into the card as it is.

    UsageError where a value is out of its range.
    """

    # the network
    model: str = "cnn"  # a key of registry.MODELS
    arguments: Mapping[str, Any] = field(default_factory=dict)  # that the network is built with
    pretrained: bool = False  # begin with ImageNet weights, where they can be downloaded or a file is given
    frozen: bool = False  # the body keeps the weights it begins with; only the head learns

    # how long, and how fast
    epochs: int = 40
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 2e-3  # AdamW's, at its peak: after a linear warm-up, before a cosine to nothing
    body_learning_rate: float = 1.0  # of the body, as a share of learning_rate
    warmup: float = 0.1  # share of the steps in which the learning rate rises
    weight_decay: float = 0.05  # applies to weights, not to biases and norms
    precision: str = "auto"  # bf16 where the device computes with it (fp16 on older CUDA), else fp32

    # the images
    framing: str = "whole"  # as they are, "levelled" as --faces detect crops the faces, or by turns "both"
    fill_noise: float = 0.0  # probability that the black around a face that was cut out becomes noise
    fill_face: float = 0.0  # probability that another face, blurred, comes in there; what is left to 1 stays black
    source_column: str = "source"  # of a table: the collection that an image is of
    sources: Mapping[str, Any] = field(default_factory=dict)  # a collection's name -> its keys of Source

    # collections that mean different things by a label
    outputs: str = "shared"  # or while it trains each source has a "bias" of its own, or a last layer of its own
    keep: str = MEAN  # the source whose output the weights keep, or the mean of them all

    # the target: what each image is said to show
    votes: float = 0.5  # share of people's votes in the target, where there are votes; the label has the rest
    distill: float = 0.5  # share of the teachers' probabilities in the target; with --distill
    distill_views: str = "fixed"  # teachers see the image once, or each time the "same" augmented one as the network
    teachers: Sequence[str] = ()  # recipes of the teachers that the shipped weights had; --distill gives teachers
    label_smoothing: float = 0.0  # share of "anything"
    balance: float = 0.0  # an image weighs (1 / frequency of its class) ** balance: 0 all the same, 1 classes the same
    sampler: str = "shuffle"  # or "balanced": every class is drawn as often, small ones more than once

    # augmentation, drawn for each image anew
    flip: float = 0.5  # probability of the mirror image
    rotate: float = 12.0  # degrees, to either side
    shift: float = 0.08  # share of the side, in any direction
    zoom: float = 0.12  # share of the size, in or out
    shear: float = 6.0  # degrees
    brightness: float = 0.25  # brightness and contrast are multiplied by 1 +- this
    erase: float = 0.0  # probability of a gray box over some of the face
    mixup: float = 0.0  # alpha of Zhang et al., https://arxiv.org/abs/1710.09412; 0 mixes nothing

    # what is kept
    ema: float = 0.998  # the weights are averaged over some 1 / (1 - ema) steps; 0 keeps the last step's
    # The best epoch on validation by accuracy, agreement (the mean of accuracy and the agreement with people's
    # commonest answer), the mean over sources of what agreement is for each, or loss; or the last epoch.
    choose: str = "accuracy"
    patience: int = 0  # epochs without a better one after which to stop; 0 never stops
    calibrate: bool = True  # find the temperature on validation
    holdout: float = 0.1  # share of the images for validation, where the data is not split

    def __post_init__(self) -> None:
        _hold("epochs", self.epochs, 1)
        _hold("batch_size", self.batch_size, 2)  # batch norm needs two
        _hold("seed", self.seed, 0, 2**32 - 1)
        for name in ("patience", "balance", "rotate", "brightness", "mixup", "weight_decay"):
            _hold(name, getattr(self, name), 0)
        for name in ("votes", "distill", "flip", "erase", "warmup", "fill_noise", "fill_face"):
            _hold(name, getattr(self, name), 0, 1)
        _hold("fill_noise and fill_face", self.fill_noise + self.fill_face, 0, 1)
        for name in ("label_smoothing", "ema", "zoom", "shift"):
            _hold(name, getattr(self, name), 0, 1, below=True)
        _hold("holdout", self.holdout, 0.01, 0.5)
        _hold("shear", self.shear, 0, 80)
        _hold("learning_rate", self.learning_rate, 1e-12)
        _hold("body_learning_rate", self.body_learning_rate, 0)
        for name, words in KNOWN.items():
            if getattr(self, name) not in words:
                raise UsageError(f"{name} is '{escape(str(getattr(self, name)))}', not one of {', '.join(words)}")
        if self.mixup and self.outputs != "shared":
            raise UsageError("mixup blends images of different sources, so that outputs must be shared")
        for name in self.sources:
            _check_source(escape(name), self.sources[name])

    def of_source(self, name: str) -> Source:
        """How the images of a source are trained on: by its table, else as all are."""
        return Source(**{**self._of_all, **self.sources.get(name, {})})

    @property
    def _of_all(self) -> dict[str, float]:
        return {"weight": 1.0, "votes": self.votes, "label_smoothing": self.label_smoothing}


KNOWN = {  # words that a field may be
    "sampler": SAMPLERS,
    "precision": PRECISIONS,
    "choose": CHOICES,
    "framing": FRAMINGS,
    "outputs": OUTPUTS,
    "distill_views": VIEWS,
}


def _check_source(name: str, table: Any) -> None:
    """UsageError where a recipe's table of a source holds something else than the keys of Source in their ranges."""
    place, keys = f"sources.{name}", [one.name for one in dataclasses.fields(Source)]
    if not isinstance(table, dict):
        raise UsageError(f"{place} is {escape(repr(table))}, not a table")
    for key, value in table.items():
        if key not in keys:
            raise UsageError(f"no key '{escape(key)}' in {place} (known: {', '.join(keys)})")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UsageError(f"{place}.{key} is {escape(repr(value))}, not a number")
        most = MOST_WEIGHT if key == "weight" else 1
        _hold(f"{place}.{key}", value, 0, most, below=key == "label_smoothing")


def _hold(name: str, value: float, least: float, most: float = float("inf"), *, below: bool = False) -> None:
    """UsageError where a value is out of its range.

    name: what the message calls it.
    value: of the recipe.
    least: the smallest it may be.
    most: the largest it may be.
    below: whether it must be less than `most`.
    """
    if not least <= value <= most or value == float("inf") or (below and value == most):
        span = f"{least:g} or more" if most == float("inf") else f"{least:g} to {'below ' if below else ''}{most:g}"
        raise UsageError(f"{name} is {value}, not {span}")


TYPES: dict[str, tuple[Any, str]] = {  # a field's annotation -> what TOML gives, what messages call it
    "bool": (bool, "true or false"),
    "float": ((float, int), "a number"),
    "int": (int, "a whole number"),
    "str": (str, "a text"),
    "Mapping[str, Any]": (dict, "a table"),
    "Sequence[str]": (list, "a list"),
}
FIELDS = {one.name: one for one in dataclasses.fields(Recipe)}


def shipped() -> list[str]:
    """The names of the recipes that come with ferbatch."""
    return sorted(file.stem for file in RECIPES.glob("*.toml"))


def choose(name: str | None, model: str | None, *, epochs: int | None = None, seed: int | None = None) -> Recipe:
    """The recipe that the command line asks for: by its name or the network's, with what it says otherwise."""
    chosen = load(name or OF_MODEL.get(model or "cnn-lite", "")) if name or model in (None, *OF_MODEL) else Recipe()
    if model is not None and model != chosen.model:
        chosen = dataclasses.replace(chosen, model=model, arguments={})
    given: dict[str, Any] = {"epochs": epochs, "seed": seed}
    return dataclasses.replace(chosen, **{key: value for key, value in given.items() if value is not None})


def load(name: str) -> Recipe:
    """The recipe of this name, or of this .toml file; UsageError where there is none or it says what it should not."""
    path = RECIPES / f"{name}.toml" if name in shipped() else Path(name)
    if path.suffix != ".toml":
        raise UsageError(
            f"no recipe called '{escape(name)}' (known: {', '.join(shipped())}, or a path to a .toml file)"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{escape(name)} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise UsageError(f"{escape(name)} is no recipe: {escape(str(error).splitlines()[0])}") from error
    try:
        return Recipe(**{key: _value(key, value) for key, value in values.items()})
    except UsageError as error:
        raise UsageError(f"{escape(name)}: {error}") from error


def _value(key: str, value: Any) -> Any:
    """A TOML value as the field's type; UsageError where there is no such field or the type is another."""
    if key not in FIELDS:
        near = difflib.get_close_matches(key, FIELDS, 1)
        raise UsageError(f"no key '{escape(key)}'" + (f"; did you mean {near[0]}?" if near else ""))
    wanted, called = TYPES[str(FIELDS[key].type)]
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"{key} is {escape(repr(value))}, not {called}")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise UsageError(f"{key} is {escape(repr(value))}, not a list of texts")
    return float(value) if FIELDS[key].type == "float" else value
