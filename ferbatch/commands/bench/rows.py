"""How fast rows are written: ready batches, as a network leaves them, to a labels file, a journal and the counts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from ferbatch.core.batch import Batch
from ferbatch.core.options import BATCH_SIZE
from ferbatch.core.records import Doubt, Version
from ferbatch.core.writers import WRITERS
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.listing import Listing
from ferbatch.stream.journal import Journal
from ferbatch.stream.read import Content, gathered
from ferbatch.stream.recorder import Recorder

AT_LEAST = 50_000  # rows of one measurement; the images are written again until there are so many


def rate(images: Listing, labels: Sequence[str], folder: str, format_: str = "csv") -> float:
    """Images per second of CPU time whose rows one process writes: a face each, with probabilities drawn at random.

    images: what the rows are of; they are not read.
    labels: of the model.
    folder: to write in.
    format_: of the labels, a key of WRITERS.
    """
    drawn = [_batch(images, first, len(labels)) for first in range(0, len(images), BATCH_SIZE)]
    times = -(-AT_LEAST // len(images))
    outcomes = Outcomes.unpredicted(labels, np.zeros(times * len(images), np.int16))
    with (
        open(os.path.join(folder, "rows"), "wb") as stream,
        Journal(os.path.join(folder, "journal"), None, {}) as journal,
    ):
        writer = WRITERS[format_](stream, labels)
        recorder = Recorder(writer, journal, outcomes)
        start = time.process_time()
        for batch in drawn * times:
            recorder.add(batch, np.zeros(len(batch), bool), np.zeros(len(batch), bool))
        writer.close()
        return times * len(images) / (time.process_time() - start)


def _batch(images: Listing, first: int, labels: int) -> Batch:
    """Some of the images, as if a network had been asked about them."""
    n = min(BATCH_SIZE, len(images) - first)
    contents = [Content([np.zeros((1, 1), np.uint8)])] * n
    versions = [Version(2_000, time.time_ns()) for _ in range(n)]
    drawn = np.random.default_rng(first).dirichlet([1.0] * labels, n)
    return gathered(first, images.references(range(first, first + n)), 1, contents, versions).scored(drawn, Doubt())
