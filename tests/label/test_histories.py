"""Whatever an earlier run has done, and wherever it ended: as many rows as images, each once, each its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from batches import Image, batch_of, images_of, noted, scored
from batches import images as drawn_images
from forks import Forks
from hypothesis import given, settings
from hypothesis import strategies as st
from support import NAMES, depth, face_file

import ferbatch
from ferbatch.commands.label import resume
from ferbatch.commands.label.resume import Work
from ferbatch.core.batch import Batch
from ferbatch.core.names import decode_path, encode_path
from ferbatch.core.records import Version
from ferbatch.images.formats import type_of_name
from ferbatch.sources.listing import Listing
from ferbatch.stream.journal import Done, Journal


def listing_of(images: Sequence[Image]) -> Listing:
    listing = Listing()
    for image in images:
        listing.add(b"", image.file, image.truth)
    return listing


def done_with(path: Path, images: Sequence[Image], cuts: Sequence[int]) -> Done:
    """A journal of these images, in batches."""
    with Journal(str(path), None, {}) as journal:
        for start, stop in zip([0, *cuts], [*cuts, len(images)], strict=True):
            journal.add(batch_of(images[start:stop]))
    return Done(str(path))


def fresh_batches(work: Work, images: Sequence[Image], cuts: Sequence[int]) -> Iterator[Batch]:
    """The images to label, as a stream hands them on."""
    fresh = [images[index] for index in work.fresh.tolist()]
    assert list(work.references(range(len(fresh))).files) == [image.file for image in fresh]
    for start, stop in pairwise(sorted({0, *cuts, len(fresh)})):
        if stop <= len(fresh):
            yield batch_of(fresh[start:stop], start)


FILES = st.lists(NAMES, min_size=1, max_size=14, unique_by=encode_path)
SIZES = st.integers(0, 1)  # of a file: whether it is as it was
CUTS = st.lists(st.integers(0, 14), max_size=4).map(sorted)


@st.composite
def seen(draw: st.DrawFn, files: Sequence[bytes]) -> list[Image]:
    """What a run saw of files, in an order of its own."""
    found = [draw(drawn_images(st.just(file))) for file in files]
    return draw(st.permutations([replace(image, version=Version(draw(SIZES), 0)) for image in found]))


@given(st.data())
def test_every_image_of_the_listing_comes_once_in_order_as_it_was_labelled_last(data: st.DataObject) -> None:
    files = data.draw(FILES)
    now = sorted(data.draw(seen(files)), key=lambda image: image.file)
    some = st.lists(st.sampled_from([*files, b"gone", b"gone, too"]), unique=True)
    base, begun = data.draw(some.flatmap(seen)), data.draw(some.flatmap(seen))
    retry, most = data.draw(st.booleans()), data.draw(st.integers(1, 6))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "AT_ONCE", most)
        versions = {image.file: image.version for image in now}
        patch.setattr(resume, "versions_of", lambda files: [versions[file] for file in files])
        before = [
            data.draw(st.none() | CUTS.map(partial(done_with, Path(folder) / f"{name}.journal", images)))
            for name, images in (("base", base), ("begun", begun))
        ]
        work = Work(listing_of(now), before[1], before[0], retry)
        known = [
            {image.file: image for image in noted(images)} if done else {}
            for done, images in zip(before, (base, begun), strict=True)
        ]
        wanted = [last(image, known[0], known[1], retry) for image in now]
        assert work.fresh.tolist() == [at for at, (where, *_) in enumerate(wanted) if where == "fresh"]
        assert work.old.tolist() == [old for _, old, _ in wanted]
        labelled = list(fresh_batches(work, now, data.draw(CUTS)))
        merged = list(work.merged(labelled))
        assert [image for batch in merged for image in images_of(batch)] == scored([image for *_, image in wanted])
        assert [batch.first for batch in merged] == list(accumulate(map(len, merged[:-1]), initial=0))
        assert all(len(batch) <= most for batch in merged)
        assert sorted(map(decode_path, work.gone())) == sorted({*known[0], *known[1]} - {*files})
        for n in range(len(labelled)):  # a signal: what was labelled is handed on, in its place, and no more is
            cut = sum(map(len, work.merged(labelled[:n])))
            assert (cut == int(work.fresh[labelled[n - 1].end - 1]) + 1) if n else cut == 0


def last(
    image: Image, base: Mapping[bytes, Image], begun: Mapping[bytes, Image], retry: bool
) -> tuple[str, bool, Image]:
    """Where an image's rows come from, whether they are those of the finished run, and what they say."""

    def usable(known: Image) -> bool:
        again = known.failure and (retry or known.failure.kind in ("permission", "unreachable"))
        return known.version == image.version and not again

    old = image.file in base and usable(base[image.file])
    if image.file in begun:
        found, old = ("begun", begun[image.file]), old and usable(begun[image.file])
    else:
        found = ("base", base.get(image.file, image))
    if not (image.file in base or image.file in begun) or not usable(found[1]):
        return "fresh", False, image
    return found[0], old, replace(found[1], truth=image.truth)


STEPS = st.sampled_from(["change", "remove", "add", "overwrite", "nothing"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@given(
    names=st.lists(NAMES.filter(lambda name: name != b"always"), min_size=1, max_size=10, unique=True),
    kills=st.lists(st.tuples(st.integers(1, 26), STEPS), max_size=4),
    name=st.sampled_from(["csv", "json", "jsonl", "parquet"]),
)
@settings(max_examples=depth(6, 25))
def test_any_names_and_any_interleaving_of_kill_change_and_resume_end_as_if_nothing_had_happened(
    commands: Forks | None, names: list[bytes], kills: list[tuple[int, str]], name: str
) -> None:
    if not commands:
        pytest.skip("this system cannot fork")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "images/always").mkdir(parents=True)
        (folder / "images/always/one.png").write_bytes(face_file(0, "PNG"))

        def put(at: int, seed: int) -> None:
            with open(os.path.join(os.fsencode(folder), b"images", names[at % len(names)]), "wb") as stream:
                if seed % 5:
                    stream.write(face_file(seed % 8, "PNG"))

        for at in range(len(names)):
            put(at, at)
        label = ["label", "images", "-q", "--batch-size", "3", "-o", f"labels.{name}"]
        for count, (step, what) in enumerate(kills):
            mode = "--overwrite" if what == "overwrite" else "--incremental" if count % 2 else "--resume"
            ended = commands(folder, *label, mode, kill_at=step)
            assert ended.code in (-9, 0, 3), ended.stderr
            if what in ("change", "add"):
                put(step, step + count)
            elif what == "remove":
                for gone in [one for one in os.listdir(os.fsencode(folder / "images")) if one in names][:1]:
                    os.unlink(os.path.join(os.fsencode(folder), b"images", gone))
        ended = commands(folder, *label, "--incremental")
        assert ended.code in (0, 3), ended.stderr
        assert commands(folder, "label", "images", "-q", "-o", f"whole.{name}").code in (0, 3)
        labels = folder / f"labels.{name}"
        assert labels.read_bytes() == (folder / f"whole.{name}").read_bytes()
        rows = [ferbatch.decode_path(path) for path in ferbatch.read_labels(labels)["path"]]
        images = [one for one in os.listdir(os.fsencode(folder / "images")) if one in names and is_listed(folder, one)]
        assert rows == sorted([b"images/always/one.png", *(b"images/" + one for one in images)])


def is_listed(folder: Path, name: bytes) -> bool:
    """An empty file without an image's name is no image."""
    path = os.path.join(os.fsencode(folder), b"images", name)
    return os.path.getsize(path) > 0 or type_of_name(name) is not None
