"""What belongs to an image stays with it, however batches are cut, chosen from and joined."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from batches import BATCHES, Crop, Image, batch_of, images_of, scored, unscored
from hypothesis import given
from hypothesis import strategies as st
from support import LABELS

from ferbatch.core.batch import Batch, References, joined
from ferbatch.core.records import UNIT, Doubt
from ferbatch.core.rows import predictions


def seen(images: list[Image], asked: bool) -> list[Image]:
    """What a batch of these images knows of them."""
    return scored(images) if asked else unscored(images)


@given(images=BATCHES, asked=st.booleans(), data=st.data())
def test_any_cutting_choosing_and_joining_is_that_of_a_list(
    images: list[Image], asked: bool, data: st.DataObject
) -> None:
    batch, wanted = batch_of(images, 7, scored=asked), seen(images, asked)
    assert images_of(batch) == wanted
    for _ in range(data.draw(st.integers(0, 4))):
        match data.draw(st.sampled_from(["at", "part", "joined"])):
            case "at":
                places = data.draw(st.permutations(range(len(wanted))))[: data.draw(st.integers(0, len(wanted)))]
                batch, wanted = batch.at(np.array(places, np.int64)), [wanted[at] for at in places]
            case "part":
                start = data.draw(st.integers(0, len(wanted)))
                stop = data.draw(st.integers(start, len(wanted) + 3))
                first, batch = batch.first, batch.part(start, stop)
                assert (batch.first, batch.end) == (first + start, first + start + len(wanted[start:stop]))
                wanted = wanted[start:stop]
            case "joined" if wanted:
                cuts = sorted(data.draw(st.lists(st.integers(0, len(wanted)), max_size=3)))
                parts = [batch.part(*ends) for ends in zip([0, *cuts], [*cuts, len(wanted)], strict=True)]
                order = data.draw(st.permutations(range(len(wanted))))
                if asked:  # only then are they joined
                    batch = joined(parts, np.array(order, np.int64))
                    wanted = [wanted[order.index(at)] for at in range(len(wanted))]
        assert images_of(batch) == wanted
        assert batch.faceless.tolist() == [one.searched and not one.crops for one in wanted]
        assert batch.crops_of.tolist() == [len(one.crops) for one in wanted]
        assert batch.numbers.tolist() == [number for one in wanted for number in range(len(one.crops))]


@given(images=BATCHES, data=st.data())
def test_images_and_places_that_do_not_fit_are_not_joined(images: list[Image], data: st.DataObject) -> None:
    order = data.draw(st.lists(st.integers(-1, len(images)), max_size=len(images) + 1))
    if sorted(order) != list(range(len(images))):
        with pytest.raises(ValueError, match="do not fit"):
            joined([batch_of(images)], np.array(order, np.int64))


@given(images=BATCHES)
def test_the_largest_face_is_the_first(images: list[Image]) -> None:
    batch = batch_of(images)
    wanted = [replace(one, crops=one.crops[:1]) for one in scored(images)]
    assert images_of(batch.largest()) == wanted


def is_doubted(crop: Crop, doubt: Doubt) -> bool:
    """By the label's probability; of a face that was found, by the detector's score and by how it is turned as well."""
    unsure = max(crop.units) / UNIT < doubt.min_confidence
    return unsure or (
        crop.box is not None and (crop.box.score < doubt.min_score or abs(crop.box.turn) > doubt.max_turn)
    )


DOUBTS = st.builds(Doubt, st.floats(0, 1), st.floats(0, 1), st.floats(0, 180))


@given(images=BATCHES, doubt=DOUBTS)
def test_a_model_is_asked_once_for_every_crop(images: list[Image], doubt: Doubt) -> None:
    batch = batch_of(images, scored=False)
    crops = [crop for one in images for crop in one.crops]
    exact = np.array([crop.units for crop in crops], np.float64).reshape(-1, len(LABELS)) / UNIT
    answered = batch.scored(exact + 0.4 / UNIT, doubt)
    assert not len(answered.inputs)
    assert answered.units.tolist() == [list(crop.units) for crop in crops]
    assert answered.best.tolist() == [crop.best for crop in crops]
    assert answered.uncertain.tolist() == [is_doubted(crop, doubt) for crop in crops]
    for wrong in (exact[1:], np.concatenate([exact, np.ones((1, len(LABELS)))])):
        if len(wrong) != len(exact):
            with pytest.raises(ValueError, match=rf"{len(wrong)} answers for {len(exact)} crops"):
                batch.scored(wrong, doubt)


@given(images=BATCHES)
def test_references_come_back_to_as_many_images_as_they_are(images: list[Image]) -> None:
    batch = batch_of(images, 3)
    away = pickle.loads(pickle.dumps(batch.of(batch.references)))
    assert images_of(away.of(batch.references.at(range(len(images))))) == images_of(batch)
    for n in {max(0, len(images) - 1), len(images) + 1} - {len(images)}:
        with pytest.raises(ValueError, match=rf"{n} references to {len(images)} images"):
            batch.of(References(["a"] * n, [b"a"] * n, [None] * n))


def test_a_batch_of_nothing_is_one() -> None:
    batch = batch_of([])
    assert isinstance(batch, Batch)
    assert (len(batch), batch.end, predictions(batch, LABELS), images_of(batch.largest())) == (0, 0, [], [])
