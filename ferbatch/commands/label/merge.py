"""Use case: the labels files of all shares -> the one that a run without --shard writes, to the byte."""

from __future__ import annotations

import heapq
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ferbatch.commands.label.identity import differences
from ferbatch.commands.label.output import Output
from ferbatch.commands.label.parts import holds_parts
from ferbatch.commands.label.plan import plan
from ferbatch.commands.label.result import counts_of, report_of, unscored
from ferbatch.commands.label.resume import AT_ONCE
from ferbatch.commands.label.store_output import StoreOutput
from ferbatch.core.batch import Batch, joined
from ferbatch.core.database import is_url, name_of
from ferbatch.core.errors import FerbatchError, OutputError, UsageError
from ferbatch.core.names import count, decode_path, escape, listed, shown
from ferbatch.core.options import Existing, Options, shard_of
from ferbatch.core.records import Doubt
from ferbatch.model import weights
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.listing import Listing
from ferbatch.stream.journal import Done, placed_in
from ferbatch.stream.recorder import Recorder, Tally

OF_ITS_OWN = {"--shard": None, "incremental": None, "labels": None}  # what a journal says of one part alone


@dataclass(frozen=True, slots=True)
class Part:
    """The labels of one share, as `ferbatch label --shard` left them."""

    output: Output
    number: int  # from 1
    of: int
    done: Done
    sidecar: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What all parts have in common."""
        return {name: value for name, value in self.done.head.items() if name not in OF_ITS_OWN}


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged, for the console."""

    output: Output
    parts: int
    labels: tuple[str, ...]
    listing: Listing
    tally: Tally
    report: Mapping[str, Any] | None

    @property
    def exit_code(self) -> int:
        return 3 if self.tally.failed else 0


def run(paths: Sequence[str], output: Output, existing: Existing) -> Merged:
    """Write the parts at `paths` as one file, with its sidecar, report and journal.

    UsageError where they are not all parts of one whole, OutputError or LockedError where it cannot be written.
    """
    if output.in_parts:
        raise UsageError(f"merge makes one file of many parts, and {output.shown} is a folder")
    with TemporaryDirectory(prefix="ferbatch-") as fetched:
        found = (_part(path, os.path.join(fetched, str(number))) for number, path in enumerate(paths))
        parts = sorted(found, key=lambda part: part.number)
        if any(os.path.realpath(part.output.owner) == os.path.realpath(output.owner) for part in parts):
            raise UsageError(f"{output.shown} is one of the parts: merge into another file")
        _check_same(parts)
        with output.held(existing, tuple(parts[0].sidecar["counts"]["labels"])):
            return _write(_Whole(parts), output)


def _part(path: str, folder: str) -> Part:
    """UsageError where it is no labels file of a finished share, as it was written.

    `folder`: to make, and to fetch it into, where it is in a store.
    """
    if is_url(path):
        raise UsageError(f"{name_of(path)} is no part: parts are files, and tables are joined by SQL")
    output, name = plan(path, None), shown(path)
    if isinstance(output, StoreOutput):
        output = type(output)(output.url, output.format, folder)
        os.makedirs(folder)
        try:
            output.fetch()
        except OutputError as error:
            raise UsageError(str(error)) from error
    if not output.exists:
        raise UsageError(f"no such file: {name}")
    if holds_parts(whole := os.path.dirname(output.path) or "."):
        raise UsageError(f"{name} is one part of {shown(whole)}/: name that folder")
    if os.path.exists(output.journal):
        raise UsageError(f"{name} is of a run that is not finished; `ferbatch label` with --resume ends it")
    sidecar = output.read_sidecar()
    done = Done(output.state) if os.path.exists(output.state) else None
    shard = done.head.get("--shard") if done is not None else None
    if output.in_parts and not shard:
        shard = "1/1"
    if done is None or not isinstance(shard, str):
        raise UsageError(
            f"{name} is no part: parts are made by `ferbatch label --shard I/N`, and keep what is beside them"
        )
    if output.sha256_of(output.path) != sidecar.get("sha256"):
        raise UsageError(f"{name} is not as ferbatch wrote it; label that share again")
    return Part(output, *shard_of(shard), done, sidecar)


def _check_same(parts: Sequence[Part]) -> None:
    """UsageError where the parts are not each of the N shares once, labelled in the same way."""
    first = parts[0]
    for part in parts[1:]:
        if part.of != first.of:
            raise UsageError(f"{first.output.shown} is one of {first.of} shares, {part.output.shown} one of {part.of}")
        for name, (one, other) in differences(first.identity, part.identity).items():
            here, there = (escape(" ".join(v) if isinstance(v, list) else str(v))[:60] for v in (one, other))
            where = f"{name} is {here} in {first.output.shown}, {there} in {part.output.shown}"
            raise UsageError(f"the parts were not labelled alike: {where}")
    for part, other in pairwise(parts):
        if part.number == other.number:
            raise UsageError(
                f"share {part.number}/{part.of} is there twice: {part.output.shown} and {other.output.shown}"
            )
    missing = [f"{number}/{first.of}" for number in range(1, first.of + 1) if number not in {p.number for p in parts}]
    if missing:
        raise UsageError(f"{count(len(missing), 'part')} of {first.of} missing: {listed(missing)}")


class _Whole:
    """The images of all parts in the order of the whole listing, with what their journals know of them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """UsageError where the parts did not see the same images."""
        self.parts, self.listing = parts, Listing()
        self.part_of, self.numbers = array("H"), array("q")  # each image's part, and its number in that one's journal
        seen = [next(placed_in(part.output.state), None) for part in parts]
        for part, one in zip(parts, seen, strict=True):
            if one is None or seen[0] is None or (one.total, one.digest) != (seen[0].total, seen[0].digest):
                totals = [f"{placed.total:,}" if placed else "none" for placed in (seen[0], one)]
                raise UsageError(
                    f"the parts saw different images: of {parts[0].output.shown} the whole is {totals[0]},"
                    f" of {part.output.shown} {totals[1]}; `ferbatch label --incremental` brings each up to date"
                )
        for index, path, truth, part_at, number in heapq.merge(*map(_placed, range(len(parts)), parts)):
            if index != len(self.listing):
                raise UsageError(f"{parts[part_at].output.shown} does not fit the other parts at {path}")
            file = decode_path(path)
            name = os.path.basename(file)
            self.listing.add(file[: len(file) - len(name)], name, truth or None)
            self.part_of.append(part_at)
            self.numbers.append(number)
        if seen[0] is not None and len(self.listing) != seen[0].total:
            raise UsageError(f"{count(seen[0].total - len(self.listing), 'image')} of {seen[0].total:,} are in no part")

    def batches(self) -> Iterator[Batch]:
        """Every image, in order."""
        part_of, numbers = np.array(self.part_of, np.int64), np.array(self.numbers, np.int64)
        for start in range(0, len(numbers), AT_ONCE):
            span = slice(start, start + AT_ONCE)
            own = [np.flatnonzero(part_of[span] == at) for at in range(len(self.parts))]
            found = [
                part.done.read(numbers[span][places]).of(self.listing.references((start + places).tolist()))
                for part, places in zip(self.parts, own, strict=True)
                if len(places)
            ]
            yield replace(joined(found, np.concatenate(own)), first=start)


def _placed(at: int, part: Part) -> Iterator[tuple[int, str, str, int, int]]:
    """A part's images: index in the whole, path, truth ('' for none), which part it is, number in its journal."""
    for placed in placed_in(part.output.state):
        numbers = np.full(len(placed.paths), -1)
        for places, found, _ in part.done.find(placed.paths):
            numbers[places] = found
        if (numbers < 0).any():
            raise UsageError(f"{part.output.shown}.run.jsonl is damaged; label that share again")
        for index, path, truth, number in zip(
            placed.at.tolist(), placed.paths, placed.truths, numbers.tolist(), strict=True
        ):
            yield index, path, truth or "", at, number


def _write(whole: _Whole, output: Output) -> Merged:
    """The labels, the journal that an incremental run goes by, the report and the sidecar."""
    first, listing = whole.parts[0], whole.listing
    labels = tuple(first.sidecar["counts"]["labels"])
    head = {**first.identity, "--shard": None, "incremental": False, "labels": output.sha256_of(output.path)}
    outcomes = unscored(listing, labels)
    with _dropped_if_it_fails(output):
        with output.recording(labels, head) as (writer, journal):
            recorder = Recorder(writer, journal, outcomes, allowed=tuple(first.sidecar["options"]["allow"]))
            for batch in whole.batches():
                recorder.add(batch, np.zeros(len(batch), bool), np.zeros(len(batch), bool))
            writer.close()
            writer.flush()
            report = _report(first, listing, outcomes)
            if output.lasts:
                output.keep(report, _sidecar(whole, output, recorder.tally, labels))
        output.put()
    return Merged(output, len(whole.parts), labels, listing, recorder.tally, report)


@contextmanager
def _dropped_if_it_fails(output: Output) -> Iterator[None]:
    """Nobody can go on with what was merged to a part."""
    try:
        yield
    except BaseException:
        output.drop()
        raise


def _report(first: Part, listing: Listing, outcomes: Outcomes | None) -> Mapping[str, Any] | None:
    """The report of all images; it says less of the model where its card is not at hand."""
    asked, card = first.sidecar["options"], None
    with suppress(FerbatchError):
        card = weights.read_card(asked["model"])
    if card and card.sha256 != first.identity["sha256"]:
        card = None
    options = Options(tuple(asked["paths"]), doubt=Doubt(asked["min_confidence"]), tta=asked["tta"])
    return report_of(options, first.identity["--model"], card, listing, outcomes)


def _sidecar(whole: _Whole, output: Output, tally: Tally, labels: Sequence[str]) -> dict[str, Any]:
    """What the parts' sidecars say together."""
    every = [part.sidecar for part in whole.parts]
    first, seconds = every[0], sum(one["seconds"] for one in every)
    processed = sum(one["this_run"]["processed"] for one in every)
    return {
        **first,
        "options": {**first["options"], "shard": None, "output": output.shown, "format": output.format},
        "sha256": output.sha256_of(output.part),
        "this_run": {
            "images": sum(one["this_run"]["images"] for one in every),
            "processed": processed,
            "errors": dict(sorted(sum((Counter(one["this_run"]["errors"]) for one in every), Counter()).items())),
            "gone": sum(one["this_run"]["gone"] for one in every),
        },
        "counts": {**first["counts"], **counts_of(tally, labels)},
        "started": min(one["started"] for one in every),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),  # of all runs together
        "images_per_second": round(processed / seconds, 1) if seconds else 0.0,
        "exit_code": 3 if tally.failed else 0,
        "merged": [{"part": part.output.shown, "sha256": part.sidecar["sha256"]} for part in whole.parts],
    }
