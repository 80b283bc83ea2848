"""What an earlier run of an output has done already, and whether this run may go on from it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.label.identity import Identity, named
from ferbatch.commands.label.output import Output
from ferbatch.core.batch import Batch, References, joined
from ferbatch.core.errors import UsageError
from ferbatch.core.files import version_of
from ferbatch.core.names import count
from ferbatch.core.options import Existing
from ferbatch.sources.listing import Listing
from ferbatch.stream.journal import Done, head_of

RETRIED = frozenset({"permission"})  # errors that may be over though the file is as it was
NOT_UPDATED = "cannot be brought up to date; --overwrite, in place of --incremental, replaces it"
AT_ONCE = 16_384  # images of a listing that are looked up, or joined, together
FRESH = 0  # of an image that no journal speaks of


class Finished(Exception):
    """There is nothing left to do: the output is that of this very run."""


@dataclass
class Past:
    """The lines of earlier runs that this run may use, and what the user should know of them."""

    journal: Done | None = None  # of an unfinished run, to go on with
    base: Done | None = None  # of the finished run that an incremental one brings up to date
    notes: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self.journal or self.base)


def begun_as(output: Output, existing: Existing) -> Identity | None:
    """The identity of the run that this one goes on from; None if it goes on from none, or that does not say."""
    for path in (output.journal, output.state) if output.is_file and (existing.resume or existing.incremental) else ():
        if os.path.exists(path):
            head = head_of(path)
            return Identity.from_journal(head) if head else None
    return None


@dataclass(frozen=True, slots=True)
class Claim:
    """The output that a run wants, what it may do about one that is there, and the run's identity."""

    output: Output
    existing: Existing
    identity: Identity

    def differences(self, head: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """In what the run is another than the one whose journal begins with `head`."""
        return self.identity.differences(Identity.from_journal(head))


def past(claim: Claim) -> Past:
    """What there is to go on from.

    Raises Finished, or UsageError where the output is not one that this run may continue.
    """
    output, existing, found = claim.output, claim.existing, Past()
    begun = output.is_file and os.path.exists(output.journal)
    if not output.is_file or not (existing.resume or existing.incremental):
        return found
    if begun:
        _unfinished(claim, found)
    if not os.path.exists(output.path):
        return found
    finished = Done(output.state) if os.path.exists(output.state) else None
    if found.journal is not None:
        same = finished is not None and finished.head is not None and not claim.differences(finished.head)
        found.base = finished if same and found.journal.head and found.journal.head.get("incremental") else None
    elif existing.incremental:
        _bring_up_to_date(claim, found, finished, begun=begun)
    elif existing.resume and not begun:
        _finish(claim, found, finished)
    return found


def _unfinished(claim: Claim, found: Past) -> None:
    """The journal of a run that was killed or stopped."""
    output, existing = claim.output, claim.existing
    done = Done(output.journal)
    if done.foreign and not existing.overwrite:
        raise UsageError(f"{output.shown}.journal is no journal of ferbatch's; --overwrite replaces it")
    _check_untouched(claim, (done.head or {}).get("labels"))
    if done.head is None:
        return
    differences = claim.differences(done.head)
    if not differences:
        found.journal = done
        if len(done):
            found.notes.append(f"going on with an unfinished run of {output.shown}: {count(len(done), 'image')} done")
    elif existing.incremental and "PATHS" not in differences:
        found.notes.append(f"an unfinished run of {output.shown} is begun again: {named(differences)}")
    elif not existing.overwrite:
        raise UsageError(
            f"{output.shown}.journal is of an unfinished run with other options ({named(differences)});"
            " --resume goes on with the same ones, --overwrite begins again"
        )


def _bring_up_to_date(claim: Claim, found: Past, finished: Done | None, *, begun: bool) -> None:
    """An incremental run on the output of a finished one."""
    output = claim.output
    if finished is None or finished.head is None:
        if begun:  # a first run was cut short just as it put its files in place
            return
        raise UsageError(f"{output.shown}.run.jsonl is not ferbatch's or gone: {output.shown} {NOT_UPDATED}")
    if not begun:
        _check_untouched(claim, None)
    differences = claim.differences(finished.head)
    if "PATHS" in differences:
        raise UsageError(f"{output.shown} is of other images ({named(differences)}) and {NOT_UPDATED}")
    if differences:
        found.notes.append(f"every image of {output.shown} is labelled again: {named(differences)}")
    else:
        found.base = finished


def _finish(claim: Claim, found: Past, finished: Done | None) -> None:
    """--resume on the output of a finished run."""
    output, existing = claim.output, claim.existing
    differences = claim.differences(finished.head) if finished is not None and finished.head else {}
    if not differences and not finished:  # there is no telling what it did
        differences = {"run": ("unknown", "another")}
    if not differences and not existing.retry_failed:
        raise Finished
    if not differences:
        _check_untouched(claim, None)
        found.base = finished
    elif not existing.overwrite:
        raise UsageError(f"{output.shown} exists and is of another run ({named(differences)}); --overwrite replaces it")


def _check_untouched(claim: Claim, begun_on: str | None) -> None:
    """UsageError where the labels file is neither what its sidecar speaks of nor what a run was begun on (a sha256)."""
    output, existing = claim.output, claim.existing
    there = output.sha256()
    if there not in (None, begun_on, output.read_sidecar().get("sha256")) and not existing.overwrite:
        if existing.incremental:
            raise UsageError(f"{output.shown} is not as ferbatch wrote it and {NOT_UPDATED}")
        raise UsageError(f"{output.shown} is not as ferbatch wrote it; --overwrite, in place of --resume, replaces it")


class Work:
    """The images of a listing that have to be labelled; the others are known from the past."""

    def __init__(self, listing: Listing, past: Past, retry_failed: bool) -> None:
        self.listing, self.past = listing, past
        n = len(listing)
        # By which number, counted from 1, the journal knows an image; negative: the base.
        self.known = np.full(n, FRESH, np.int64)
        self.old = np.zeros(n, np.bool_)  # whether the base knows the image, be it in the journal or not
        for start in range(0, n if past.any else 0, AT_ONCE):
            self._look_up(range(start, min(start + AT_ONCE, n)), retry_failed)
        self.fresh = np.flatnonzero(self.known == FRESH)  # the listing's indices of the images to label

    def _look_up(self, indices: Sequence[int], retry_failed: bool) -> None:
        """Find by which numbers images are known, and whether of old."""
        paths, files, _ = self.listing.references(indices)
        versions = list(map(version_of, files))
        for done, sign in ((self.past.base, -1), (self.past.journal, 1)):  # what the journal says is newer
            for index, version, found in zip(indices, versions, done.find(paths), strict=True) if done else ():
                if found:
                    again = found.error_kind is not None and (retry_failed or found.error_kind in RETRIED)
                    usable = found.version == version and not again
                    self.known[index] = sign * (found.number + 1) if usable else FRESH
                    self.old[index] = usable and (sign < 0 or self.old[index])

    def __len__(self) -> int:
        return len(self.fresh)

    def references(self, indices: Sequence[int]) -> References:
        """References to images that have to be labelled."""
        return self.listing.references(self.fresh[indices].tolist())

    def merged(self, labelled: Iterable[Batch]) -> Iterator[Batch]:
        """Every image of the listing, in order: those that have to be labelled as they come, between the others.

        The batches count the images of the listing. Where `labelled` ends before its time, this does as well.
        """
        at = 0  # images of the listing that were handed on so far
        for batch in itertools.chain(labelled, [None]):
            fresh = self.fresh[batch.first : batch.end] if batch else self.fresh[:0]
            end = int(fresh[-1]) + 1 if batch else len(self.listing)
            if not batch and np.any(self.fresh >= at):
                return
            for start in range(at, end, AT_ONCE):
                stop = min(start + AT_ONCE, end)
                first, last = np.searchsorted(fresh, (start, stop)).tolist()
                parts = [(fresh[first:last], batch.part(first, last))] if batch and last > first else []
                yield self._joined(start, stop, parts)
            at = end

    def _joined(self, start: int, stop: int, parts: list[tuple[NDArray[np.int64], Batch]]) -> Batch:
        """The images of a span of the listing: batches of some, with their indices, and the others from the past."""
        known = self.known[start:stop]
        for done, which in ((self.past.journal, known > FRESH), (self.past.base, known < FRESH)):
            if done and which.any():
                indices = start + np.flatnonzero(which)
                references = self.listing.references(indices.tolist())
                parts = [*parts, (indices, done.read(np.abs(known[which]) - 1, references))]
        order = np.concatenate([indices for indices, _ in parts]) - start
        return replace(joined([batch for _, batch in parts], order), first=start)

    def gone(self) -> Iterator[str]:
        """The paths of images that were done before and are not listed any more."""
        base, journal = self.past.base, self.past.journal
        yield from base.gone() if base else ()
        for path in journal.gone() if journal else ():
            if not (base and base.find([path])[0]):
                yield path
