"""Outcomes: what is true of many images and what a model said of them, in a few bytes an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.batch import Batch
from ferbatch.core.records import NO_FACE, NONE


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Truths and predictions of N images over K labels.

    Probabilities are kept as the outputs write them, in whole units of 1/10,000: measures computed from them do not
    depend on the order of the images, and are the same from a run and from its labels file.
    """

    labels: tuple[str, ...]
    truth: NDArray[np.int16]  # (N,) index of the label that is true, NONE where none is
    predicted: NDArray[np.int16]  # (N,) index of the label that was given; NO_FACE, or NONE where reading it failed
    probabilities: NDArray[np.uint16]  # (N, K) in 0..UNIT
    boxes: NDArray[np.int32] | None = None  # (N, 4) x, y, width, height of the face that was labelled; 0 where none was

    @classmethod
    def unpredicted(cls, labels: Sequence[str], truth: NDArray[np.int16]) -> Outcomes:
        """Outcomes with every image not labelled yet; `put` fills them in."""
        n, k = len(truth), len(labels)
        nothing = np.full(n, NONE, np.int16)
        return cls(tuple(labels), truth, nothing, np.zeros((n, k), np.uint16), np.zeros((n, 4), np.int32))

    def put(self, start: int, batch: Batch, labels: Sequence[str]) -> None:
        """What a model with these labels, in whatever order, said of images, of which the first has the index `start`:
        of its largest face, where an image has more."""
        first = batch.numbers == 0
        where = start + batch.image[first]
        self.predicted[start + np.flatnonzero(batch.faceless)] = NO_FACE
        best, units = batch.best[first], batch.units[first]
        if tuple(labels) != self.labels:
            best = np.array([self.labels.index(label) for label in labels])[best]
            units = units[:, [labels.index(label) for label in self.labels]]
        self.predicted[where], self.probabilities[where] = best, units
        if self.boxes is not None:
            self.boxes[where] = batch.boxes[first]

    def where(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Outcomes:
        """The images that a mask or a list of indices chooses."""
        boxes = None if self.boxes is None else self.boxes[which]
        return Outcomes(self.labels, self.truth[which], self.predicted[which], self.probabilities[which], boxes)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) whether the image has a label."""
        return np.asarray(self.predicted >= 0)

    @property
    def faceless(self) -> NDArray[np.bool_]:
        """(N,) whether no face was found in the image."""
        return np.asarray(self.predicted == NO_FACE)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the label given is the true one."""
        return np.asarray(self.labelled & (self.predicted == self.truth))

    @property
    def confidence(self) -> NDArray[np.uint16]:
        """(N,) the probability of the label given, in 0..UNIT; without meaning where none was."""
        return self.probabilities[np.arange(len(self.predicted)), self.predicted]

    def __len__(self) -> int:
        return len(self.truth)
