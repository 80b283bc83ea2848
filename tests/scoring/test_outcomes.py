"""Outcomes of batches are those of their images, one by one."""

from __future__ import annotations

import numpy as np
from batches import BATCHES, Image, batch_of
from hypothesis import given
from hypothesis import strategies as st
from support import LABELS

from ferbatch.core.records import NO_FACE, NONE
from ferbatch.scoring.outcomes import Outcomes


def put(outcomes: Outcomes, index: int, image: Image, labels: list[str]) -> None:
    """What was said of an image: of its first face, where it has more than one."""
    if image.failure:
        return
    if not image.crops:
        outcomes.predicted[index] = NO_FACE
        return
    first = image.crops[0]
    outcomes.predicted[index] = LABELS.index(labels[first.best])
    outcomes.probabilities[index] = [first.units[labels.index(label)] for label in LABELS]
    if first.box and outcomes.boxes is not None:
        outcomes.boxes[index] = first.box.x, first.box.y, first.box.width, first.box.height


@given(st.lists(BATCHES, max_size=4), st.permutations(LABELS))
def test_a_batch_is_put_as_its_images_are_whatever_order_the_models_labels_have(
    batches: list[list[Image]], labels: list[str]
) -> None:
    images = [image for batch in batches for image in batch]
    truth = np.array([LABELS.index(image.truth) if image.truth else NONE for image in images], np.int16)
    found, wanted = Outcomes.unpredicted(LABELS, truth), Outcomes.unpredicted(LABELS, truth)
    start = 0
    for batch in batches:
        found.put(start, batch_of(batch, first=1_000), labels)
        start += len(batch)
    for index, image in enumerate(images):
        put(wanted, index, image, labels)
    for name in ("truth", "predicted", "probabilities", "boxes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
