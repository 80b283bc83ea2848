"""Batch: what travels from the listing to the rows. N images and their M crops, column by column, never parted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.records import UNIT, Doubt, Failure


class References(NamedTuple):
    """N images to read, column by column."""

    paths: Sequence[str]  # as printed; `names.decode_path` gives the bytes back
    files: Sequence[bytes]  # as opened
    truths: Sequence[str | None]  # a label each, where a folder at or below PATH is named like one

    def part(self, start: int, stop: int | None = None) -> References:
        """The images from one place to before another."""
        return References(self.paths[start:stop], self.files[start:stop], self.truths[start:stop])

    def at(self, places: Sequence[int]) -> References:
        """The images at these places, in their order."""
        paths, files, truths = self
        return References([paths[at] for at in places], [files[at] for at in places], [truths[at] for at in places])


class Images(Protocol):
    """Images in order, as many as there may be; references to some of them are made when asked for."""

    def __len__(self) -> int: ...
    def references(self, indices: Sequence[int]) -> References: ...


_nothing: Any = partial(np.zeros, (0, 0, 0), np.uint8)


@dataclass(slots=True)
class Batch:
    """N images in the order of their source; of the M crops each belongs to the image at its place, in that order.

    An image that was searched for faces has a crop for each, the largest first; one that was taken whole has one, and
    one with a failure none.
    """

    first: int  # number of its first image among those that are labelled
    references: References
    versions: NDArray[np.int64]  # (N, 2) each file's Version before it was read
    failures: dict[int, Failure]  # by the image's place: why it could not be read
    searched: NDArray[np.bool_]  # (N,) whether faces were looked for: its crops are faces
    large: NDArray[np.bool_]  # (N,) whether it is too large or too wide for a cropped face, and was taken for one
    missed: NDArray[np.bool_]  # (N,) whether no face was found in it, and it was taken whole for all that
    image: NDArray[np.int64]  # (M,) the place of each crop's image, ascending
    boxes: NDArray[np.int64]  # (M, 4) x, y, width and height of each face, in pixels of the upright image
    scores: NDArray[np.float64]  # (M,) 0..1, how sure the detector is of each face
    turns: NDArray[np.int64]  # (M,) degrees by which each face is turned clockwise, -179..180
    blurs: NDArray[np.float64]  # (M,) 0..1, how blurred each face's crop is
    cuts: NDArray[np.float64]  # (M,) 0..1, the share of each face's crop that lies outside the image
    inputs: NDArray[np.uint8] = field(default_factory=_nothing)  # (M, size, size), until a model was asked
    # From then on:
    units: NDArray[np.int64] = field(default_factory=_nothing)  # (M, labels) probabilities in 0..UNIT
    best: NDArray[np.int64] = field(default_factory=_nothing)  # (M,) index of the most probable label
    uncertain: NDArray[np.bool_] = field(default_factory=_nothing)  # (M,) whether it is less sure than asked for

    def __len__(self) -> int:
        return len(self.versions)

    @property
    def end(self) -> int:
        """The number of the first image after these."""
        return self.first + len(self)

    def of(self, references: References) -> Batch:
        """The batch with its images' references, which stayed behind when it was read elsewhere."""
        if len(references.files) != len(self):
            raise ValueError(f"{len(references.files)} references to {len(self)} images")
        return replace(self, references=references)

    def scored(self, probabilities: NDArray[np.float64], doubt: Doubt) -> Batch:
        """The batch with what a model says of its crops, (M, labels); the crops themselves are let go.

        What is doubted goes by the numbers as they are written.
        """
        if len(probabilities) != len(self.image):
            raise ValueError(f"{len(probabilities)} answers for {len(self.image)} crops")
        best, units = probabilities.argmax(axis=1), np.rint(probabilities * UNIT).astype(np.int64)
        of_face = (np.rint(self.scores * UNIT) / UNIT < doubt.min_score) | (np.abs(self.turns) > doubt.max_turn)
        uncertain = units[np.arange(len(best)), best] / UNIT < doubt.min_confidence
        uncertain |= of_face & self.searched[self.image]
        return replace(self, inputs=_nothing(), units=units, best=best, uncertain=uncertain)

    @property
    def crops_of(self) -> NDArray[np.int64]:
        """(N,) how many crops each image has."""
        return np.bincount(self.image, minlength=len(self))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(M,) the number of each crop among its image's, from 0."""
        n = self.crops_of
        return np.arange(len(self.image)) - np.repeat(n.cumsum() - n, n)

    @property
    def faceless(self) -> NDArray[np.bool_]:
        """(N,) whether faces were looked for and none was found."""
        return np.asarray(self.searched & (self.crops_of == 0))

    def at(self, places: NDArray[np.int64]) -> Batch:
        """The images at these places (each at most once) in their order, with all that is theirs."""
        n = self.crops_of
        start, chosen = n.cumsum() - n, n[places]
        crops = np.repeat(start[places] - (chosen.cumsum() - chosen), chosen) + np.arange(chosen.sum())
        there = {place: now for now, place in enumerate(places.tolist())} if self.failures else {}
        columns = {name: getattr(self, name)[places] for name in OF_IMAGES}
        columns |= {name: getattr(self, name)[crops] for name in ("inputs", *OF_CROPS) if len(getattr(self, name))}
        columns["image"] = np.repeat(np.arange(len(places)), chosen)
        failures = {there[place]: failure for place, failure in self.failures.items() if place in there}
        return replace(self, references=self.references.at(places.tolist()), failures=failures, **columns)

    def where(self, which: NDArray[np.bool_]) -> Batch:
        """The images that a mask chooses."""
        return self if which.all() else self.at(np.flatnonzero(which))

    def part(self, start: int, stop: int) -> Batch:
        """The images from one place to before another."""
        whole = start == 0 and stop >= len(self)
        return self if whole else replace(self.at(np.arange(start, min(stop, len(self)))), first=self.first + start)

    def largest(self) -> Batch:
        """The images with the largest of their faces alone."""
        chosen = self.numbers == 0
        return replace(self, **{name: getattr(self, name)[chosen] for name in OF_CROPS})

    def pin_memory(self) -> Batch:
        """The batch with its crops where a GPU can fetch them; a torch DataLoader asks for it."""
        import torch

        inputs = torch.from_numpy(self.inputs)
        return self if inputs.is_pinned() else replace(self, inputs=inputs.pin_memory().numpy())


OF_IMAGES = {
    "versions": np.int64,
    "searched": np.bool_,
    "large": np.bool_,
    "missed": np.bool_,
}  # columns with a value for each image
OF_CROPS = {  # columns with a value for each crop, what a model says of it among them
    **{"image": np.int64, "boxes": np.int64, "scores": np.float64},
    **{"turns": np.int64, "blurs": np.float64, "cuts": np.float64},
    **{"units": np.int64, "best": np.int64, "uncertain": np.bool_},
}


def joined(batches: Iterable[Batch], order: NDArray[np.int64]) -> Batch:
    """Batches as one: the image that is the i-th of all their images comes to the place `order[i]`.

    ValueError unless each place is given once.
    """
    parts = [batch for batch in batches if len(batch)]
    if not np.array_equal(np.sort(order), np.arange(sum(map(len, parts)))):
        raise ValueError("images and their places do not fit each other")
    if len(parts) == 1 and np.array_equal(order, np.arange(len(order))):
        return parts[0]
    several = list(zip(parts, np.cumsum([0, *map(len, parts)]).tolist(), strict=False))
    names = (*OF_IMAGES, *OF_CROPS)
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    columns["image"] = np.concatenate([part.image + start for part, start in several])
    references = zip(*(part.references for part in parts), strict=True)
    columns["references"] = References(*(list(itertools.chain(*column)) for column in references))
    columns["failures"] = {start + at: why for part, start in several for at, why in part.failures.items()}
    return Batch(parts[0].first, **columns).at(np.argsort(order))
