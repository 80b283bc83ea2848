"""Where a batch goes: what is known is not written down again, what is old does not count for this run."""

from __future__ import annotations

import json
from collections import Counter
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from batches import BATCHES, Image, batch_of
from hypothesis import given
from hypothesis import strategies as st
from support import LABELS

from ferbatch.core.records import UNLISTABLE
from ferbatch.core.writers import WRITERS
from ferbatch.stream.journal import Journal
from ferbatch.stream.recorder import Recorder, Tally


def tally_of(images: list[Image]) -> Tally:
    """Images counted one by one."""
    failed = [image for image in images if image.failure]
    crops = [crop for image in images for crop in image.crops]
    return Tally(
        images=len(images),
        labels=Counter(LABELS[crop.best] for crop in crops),
        searched=sum(image.searched for image in images),
        faces=sum(len(image.crops) for image in images if image.searched),
        no_face=sum(image.searched and not image.crops for image in images),
        missed=sum(image.missed for image in images),
        turned=sum(abs(crop.box.turn) > 45 for crop in crops if crop.box),
        errors=Counter(image.failure.kind for image in failed if image.failure),
        failed_example=failed[0].path if failed else "",
        unlistable=sum(image.failure.message == UNLISTABLE for image in failed if image.failure),
        uncertain=sum(crop.uncertain for crop in crops),
        whole_pictures=sum(image.large for image in images),
        without_truth=sum(image.truth is None for image in images),
    )


@given(st.lists(BATCHES, max_size=4), st.data())
def test_every_row_is_written_what_is_new_is_noted_and_counted(batches: list[list[Image]], data: st.DataObject) -> None:
    stream, whole = BytesIO(), BytesIO()
    noted, of_this_run = list[Image](), list[Image]()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv.journal"
        with Journal(str(path), None, {}) as journal:
            recorder = Recorder(WRITERS["csv"](stream, LABELS), journal, None, brings_up_to_date=True)
            for images in batches:
                masks = st.lists(st.booleans(), min_size=len(images), max_size=len(images))
                known, old = data.draw(masks), data.draw(masks)
                recorder.add(batch_of(images), np.array(known, np.bool_), np.array(old, np.bool_))
                noted += [image for image, is_known in zip(images, known, strict=True) if not is_known]
                of_this_run += [image for image, is_old in zip(images, old, strict=True) if not is_old]
        lines = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    every = [image for images in batches for image in images]
    Recorder(WRITERS["csv"](whole, LABELS), None, None).add(batch_of(every), *[np.zeros(len(every), np.bool_)] * 2)
    assert stream.getvalue() == whole.getvalue()
    assert [path for line in lines for path in line["batch"]["paths"]] == [image.path for image in noted]
    assert recorder.tally == tally_of(every)
    assert recorder.this_run == tally_of(of_this_run)
    for tally in (recorder.tally, recorder.this_run):
        assert tally.images == tally.whole + tally.searched + tally.failed
        assert tally.labels.total() == tally.whole + tally.faces


def test_rows_for_stdout_are_there_after_each_batch() -> None:
    class Stream(BytesIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    stream = Stream()
    recorder = Recorder(WRITERS["csv"](stream, LABELS), None, None)
    for number in range(3):
        nothing = np.zeros(1, np.bool_)
        recorder.add(batch_of([Image(b"%d.jpg" % number, searched=True)]), nothing, nothing)
        assert stream.flushed == len(stream.getvalue())
        assert stream.getvalue().count(b"\n") == number + 2
