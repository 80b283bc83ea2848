"""Batches as what they stand for: a list of images, each with its crops. Tests hold the one against the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from support import LABELS, NAMES, TEXTS

from ferbatch.core.batch import Batch, References
from ferbatch.core.names import encode_path
from ferbatch.core.records import ERROR_KINDS, NO_VERSION, UNIT, UNLISTABLE, Box, Failure, Prediction, Version, columns
from ferbatch.images.limits import MAX_SIDE

SIDE = 2  # pixels of a crop on each side


@dataclass(frozen=True)
class Crop:
    """A crop, and what a model said of it."""

    gray: int  # of its pixels
    units: tuple[int, ...]
    uncertain: bool
    box: Box | None = None  # None: of an image that was taken whole

    @property
    def best(self) -> int:
        return self.units.index(max(self.units))


@dataclass(frozen=True)
class Image:
    """An image on its way, with all that is its own."""

    file: bytes
    truth: str | None = None
    version: Version = NO_VERSION
    failure: Failure | None = None
    searched: bool = False
    large: bool = False
    missed: bool = False
    crops: tuple[Crop, ...] = ()

    @property
    def path(self) -> str:
        return encode_path(self.file)


def batch_of(images: Sequence[Image], first: int = 0, *, scored: bool = True) -> Batch:
    """The images as a batch that a model was asked about, or as one that it is still to be."""
    crops = [(place, crop) for place, image in enumerate(images) for crop in image.crops]
    boxes = [crop.box or Box(0, 0, 0, 0, 0.0) for _, crop in crops]
    batch = Batch(
        first,
        References([one.path for one in images], [one.file for one in images], [one.truth for one in images]),
        np.array([one.version for one in images], np.int64).reshape(-1, 2),
        {place: one.failure for place, one in enumerate(images) if one.failure},
        np.array([one.searched for one in images], np.bool_),
        np.array([one.large for one in images], np.bool_),
        np.array([one.missed for one in images], np.bool_),
        image=np.array([place for place, _ in crops], np.int64),
        boxes=np.array([(box.x, box.y, box.width, box.height) for box in boxes], np.int64).reshape(-1, 4),
        scores=np.array([box.score for box in boxes], np.float64),
        turns=np.array([box.turn for box in boxes], np.int64),
        blurs=np.array([box.blur for box in boxes], np.float64),
        cuts=np.array([box.cut for box in boxes], np.float64),
    )
    if not scored:
        grays = np.array([crop.gray for _, crop in crops], np.uint8)
        return replace(batch, inputs=np.tile(grays.reshape(-1, 1, 1), (1, SIDE, SIDE)))
    return replace(
        batch,
        units=np.array([crop.units for _, crop in crops], np.int64).reshape(-1, len(LABELS)),
        best=np.array([crop.best for _, crop in crops], np.int64),
        uncertain=np.array([crop.uncertain for _, crop in crops], np.bool_),
    )


def images_of(batch: Batch) -> list[Image]:
    """The images that a batch holds, of crops what it knows: their gray, or what a model said."""
    paths, files, truths = batch.references
    assert (
        len(batch)
        == len(paths)
        == len(files)
        == len(truths)
        == len(batch.searched)
        == len(batch.large)
        == len(batch.missed)
    )
    assert all(0 <= place < len(batch) for place in (*batch.failures, *batch.image.tolist()))
    found = []
    for place in range(len(batch)):
        searched = bool(batch.searched[place])
        crops = tuple(_crop(batch, index, searched) for index in np.flatnonzero(batch.image == place).tolist())
        version, failure = Version(*batch.versions[place].tolist()), batch.failures.get(place)
        large, missed = bool(batch.large[place]), bool(batch.missed[place])
        image = Image(files[place], truths[place], version, failure, searched, large, missed, crops)
        assert paths[place] == image.path
        found.append(image)
    return found


def _crop(batch: Batch, index: int, searched: bool) -> Crop:
    x, y, width, height = batch.boxes[index].tolist()
    shares = [float(column[index]) for column in (batch.scores, batch.blurs, batch.cuts)]
    turn = int(batch.turns[index])
    box = Box(x, y, width, height, shares[0], turn, *shares[1:]) if searched else None
    if len(batch.inputs):
        (gray,) = set(batch.inputs[index].ravel().tolist())
        return Crop(gray, (), False, box)
    crop = Crop(0, tuple(batch.units[index].tolist()), bool(batch.uncertain[index]), box)
    assert crop.best == batch.best[index]
    return crop


def unscored(images: Sequence[Image]) -> list[Image]:
    """The images before a model is asked."""
    return [replace(one, crops=tuple(replace(crop, units=(), uncertain=False) for crop in one.crops)) for one in images]


def scored(images: Sequence[Image]) -> list[Image]:
    """The images once a model was asked: the crops are let go."""
    return [replace(one, crops=tuple(replace(crop, gray=0) for crop in one.crops)) for one in images]


def noted(images: Sequence[Image]) -> list[Image]:
    """The images as a journal has them: what is no Unicode in a message, and is not printed, is a question mark."""

    def unicode(failure: Failure | None) -> Failure | None:
        return failure and replace(failure, message=failure.message.encode("utf-8", "replace").decode())

    return [replace(one, failure=unicode(one.failure)) for one in scored(images)]


def rows_of(image: Image) -> list[Prediction]:
    """The rows of one image, told one by one; an error is one line that can be printed."""
    path, truth = image.path, image.truth
    if image.failure:
        line = " ".join(image.failure.message.split())
        error = "".join(char if char.isprintable() else "?" for char in line)
        return [Prediction(path, truth, "error", error_kind=image.failure.kind, error=error)]
    if not image.crops:
        return [Prediction(path, truth, "no_face")]
    rows = []
    for number, crop in enumerate(image.crops):
        found = {label: unit / UNIT for label, unit in zip(LABELS, crop.units, strict=True)}
        status, label = "uncertain" if crop.uncertain else "ok", LABELS[crop.best]
        face = (number, *crop.box) if crop.box else ()
        rows.append(Prediction(path, truth, status, label, found[label], found, None, None, *face))
    return rows


def row_of(prediction: Prediction, labels: Sequence[str]) -> Mapping[str, Any]:
    """A prediction as column -> value, None where a column does not apply."""
    values = {name: getattr(prediction, name) for name in columns(())}
    values |= {label: prediction.probabilities.get(label) for label in labels}
    return {name: values[name] for name in columns(labels)}


# Drawn by hypothesis.

VERSIONS = st.just(NO_VERSION) | st.builds(Version, st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
FAILURES = st.builds(Failure, st.sampled_from(ERROR_KINDS), TEXTS | st.just(UNLISTABLE))
# Sums that are not 1, equal ones, none at all: what is written is what is there.
PARTS = st.sampled_from([0, 1, 9, 5_000, UNIT - 1, UNIT]) | st.integers(0, UNIT)
UNITS = st.tuples(*[PARTS] * len(LABELS))
PIXELS = st.integers(0, MAX_SIDE)
SHARES = PARTS.map(lambda unit: unit / UNIT)
BOXES = st.builds(Box, PIXELS, PIXELS, PIXELS, PIXELS, SHARES, st.integers(-179, 180), SHARES, SHARES)


@st.composite
def images(draw: st.DrawFn, files: st.SearchStrategy[bytes] = NAMES) -> Image:
    """An image that could not be read, holds no face or some, or was taken whole, large or not."""
    base = Image(draw(files), draw(st.sampled_from([None, *LABELS])), draw(VERSIONS))
    way = draw(st.sampled_from(["whole", "whole", "whole", "large", "missed", "faces", "no face", "failure"]))
    if way == "failure":
        return replace(base, failure=draw(FAILURES))
    n = draw(st.integers(1, 4)) if way == "faces" else int(way != "no face")
    boxes = BOXES if way == "faces" else st.none()
    crops = [Crop(draw(st.integers(0, 255)), draw(UNITS), draw(st.booleans()), draw(boxes)) for _ in range(n)]
    return replace(base, searched="face" in way, large=way == "large", missed=way == "missed", crops=tuple(crops))


# In one batch no file comes twice: a listing names each once.
BATCHES = st.lists(images(), max_size=12, unique_by=lambda image: image.path)
