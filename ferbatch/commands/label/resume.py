"""What an earlier run of an output has done already, and whether this run may go on from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.label.identity import HIDDEN_ONES, OLD_RULES, differences, named
from ferbatch.commands.label.output import Output
from ferbatch.core.batch import Batch, References, joined
from ferbatch.core.errors import UsageError
from ferbatch.core.files import versions_of
from ferbatch.core.names import count
from ferbatch.core.options import Existing
from ferbatch.sources.listing import Listing
from ferbatch.stream.journal import Done

RETRIED = frozenset({"permission", "unreachable"})  # errors that may be over though the file is as it was
NOT_UPDATED = "cannot be brought up to date; --overwrite, in place of --incremental, replaces it"
AT_ONCE = 16_384  # images of a listing that are looked up, or joined, together
FRESH = 0  # of an image that no journal speaks of


def said_before(output: Output, existing: Existing) -> Mapping[str, Any]:
    """What the run that this one may go on from says of itself, of an unfinished one first; nothing where none is."""
    going_on = output.lasts and (existing.resume or existing.incremental)
    heads = map(output.head_of, (output.journal, output.state) if going_on else ())
    return next(filter(None, heads), {})


class Past:
    """What earlier runs of an output did, and what of it this run may use."""

    def __init__(self, output: Output, existing: Existing) -> None:
        """Read their journals, where this run is to go on from one; OutputError where that cannot be done."""
        self.output, self.existing = output, existing
        going_on = output.lasts and (existing.resume or existing.incremental)
        paths = (output.journal, output.state)
        self.begun, self.finished = (output.done(path) if going_on else None for path in paths)
        # What the run that this one goes on from says of itself; nothing where there is none.
        self.head: Mapping[str, Any] = next((done.head for done in (self.begun, self.finished) if done is not None), {})
        self.journal: Done | None = None  # of an unfinished run, to go on with
        self.base: Done | None = None  # of the finished run that this one brings up to date
        self.notes: list[str] = []  # what the user should know
        self.new_rules: Mapping[str, tuple[Any, Any]] = {}  # of what counts in folders: name -> before, now

    @property
    def any(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self.journal or self.base)

    def claim(self, identity: Mapping[str, Any], rules: Mapping[str, Any], left_hidden: bool) -> bool:
        """Take what a run of this identity may use; False where nothing is left to do: the output is of this very run.

        UsageError where the output is not one that this run may continue.

        identity: what the rows depend on.
        rules: what counts in folders.
        left_hidden: whether anything was left aside for being hidden.
        """
        self.new_rules = differences({**OLD_RULES, **self.head}, rules) if self.head else {}
        if HIDDEN_ONES not in self.head and not left_hidden:  # that today's default is another makes no difference
            self.new_rules = {name: both for name, both in self.new_rules.items() if name != HIDDEN_ONES}
        if not self._may_go_on(identity):
            return False
        if self.any and self.new_rules:
            said = "what does not count any more loses its rows, and nothing else is labelled again for it"
            self.notes.append(f"what counts in folders has changed ({named(self.new_rules)}): {said}")
        return True

    def _may_go_on(self, identity: Mapping[str, Any]) -> bool:
        """As `claim`, but for the rules."""
        if self.begun is not None:
            self._go_on(self.begun, identity)
        if not self.output.exists:
            return True
        finished = self.finished if self.finished is not None and self.finished.head else None
        changed = {} if finished is None else differences(finished.head, identity)
        if self.journal is not None:
            self.base = finished if self.journal.head.get("incremental") and not changed else None
        elif self.existing.incremental:
            self._bring_up_to_date(finished, changed)
        elif self.existing.resume and self.begun is None:
            # An empty journal does not tell what the run did.
            # A run that names no rules was finished by those of its time.
            changed |= {name: both for name, both in self.new_rules.items() if name in self.head or name != HIDDEN_ONES}
            return self._end(finished, changed if finished or changed else {"run": ("unknown", "another")})
        return True

    def _go_on(self, begun: Done, identity: Mapping[str, Any]) -> None:
        """The journal of a run that was killed or stopped."""
        name, changed = self.output.shown, differences(begun.head, identity)
        if begun.foreign and not self.existing.overwrite:
            raise UsageError(f"{self.output.of_journal} is no journal of ferbatch's; --overwrite replaces it")
        self._check_untouched(begun.head.get("labels"))
        if begun.head and not changed:
            self.journal = begun
            if len(begun):
                self.notes.append(f"going on with an unfinished run of {name}: {count(len(begun), 'image')} done")
        elif begun.head and self.existing.incremental and "PATHS" not in changed:
            self.notes.append(f"an unfinished run of {name} is begun again: {named(changed)}")
        elif begun.head and not self.existing.overwrite:
            raise UsageError(
                f"{self.output.of_journal} is of an unfinished run with other options ({named(changed)});"
                " --resume goes on with the same ones, --overwrite begins again"
            )

    def _bring_up_to_date(self, finished: Done | None, changed: Mapping[str, tuple[Any, Any]]) -> None:
        """An incremental run on the output of a finished one."""
        name = self.output.shown
        if self.begun is None:
            if finished is None:
                raise UsageError(f"{self.output.of_state} is not ferbatch's or gone: {name} {NOT_UPDATED}")
            self._check_untouched(None)
        if "PATHS" in changed:
            raise UsageError(f"{name} is of other images ({named(changed)}) and {NOT_UPDATED}")
        if changed:
            self.notes.append(f"every image of {name} is labelled again: {named(changed)}")
        else:  # without a journal where a first run was cut short just as it put its files in place
            self.base = finished

    def _end(self, finished: Done | None, changed: Mapping[str, tuple[Any, Any]]) -> bool:
        """--resume on the output of a finished run; whether there is something to do."""
        if changed and not self.existing.overwrite:
            name, helps = self.output.shown, "--overwrite replaces it"
            if changed.keys() <= OLD_RULES.keys():
                helps = f"--incremental brings it up to date, {helps}"
            raise UsageError(f"{name} exists and is of another run ({named(changed)}); {helps}")
        again = self.existing.retry_failed or self.output.is_marked_otherwise()
        if not changed and again:
            self._check_untouched(None)
            self.base = finished
        return bool(changed) or again

    def _check_untouched(self, begun_on: str | None) -> None:
        """UsageError where the labels are not those of their sidecar, nor those that a run was begun on (a sha256)."""
        output, existing = self.output, self.existing
        if output.is_changed(begun_on) and not existing.overwrite:
            so = f" and {NOT_UPDATED}" if existing.incremental else "; --overwrite, in place of --resume, replaces it"
            raise UsageError(f"{output.shown} is not as ferbatch wrote it{so}")


class Work:
    """The images of a listing that have to be labelled; the others are known from the past."""

    def __init__(self, listing: Listing, journal: Done | None, base: Done | None, retry_failed: bool) -> None:
        """What an unfinished run did, by its `journal`, is newer than what the `base` says that a finished one did."""
        self.listing, self.journal, self.base = listing, journal, base
        n = len(listing)
        # By which number, counted from 1, the journal knows an image; negative: the base.
        self.known = np.full(n, FRESH, np.int64)
        self.old = np.zeros(n, np.bool_)  # whether the base knows the image, be it in the journal or not
        for start in range(0, n if journal or base else 0, AT_ONCE):
            self._look_up(range(start, min(start + AT_ONCE, n)), retry_failed)
        self.fresh = np.flatnonzero(self.known == FRESH)  # the listing's indices of the images to label

    def _look_up(self, indices: range, retry_failed: bool) -> None:
        """Find by which numbers images are known, and whether of old."""
        references = self.listing.references(indices)
        versions = np.array(versions_of(references.files))
        for done, sign in ((self.base, -1), (self.journal, 1)):
            for places, numbers, batch in done.find(references.paths) if done else ():
                usable = (batch.versions == versions[places]).all(axis=1)
                failures = batch.failures.items()
                usable[[at for at, failure in failures if retry_failed or failure.kind in RETRIED]] = False
                found = indices.start + places
                self.known[found] = np.where(usable, sign * (numbers + 1), FRESH)
                self.old[found] = usable & (self.old[found] | (sign < 0))

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
        for done, which in ((self.journal, known > FRESH), (self.base, known < FRESH)):
            if done and which.any():
                indices = start + np.flatnonzero(which)
                references = self.listing.references(indices.tolist())
                parts = [*parts, (indices, done.read(np.abs(known[which]) - 1).of(references))]
        order = np.concatenate([indices for indices, _ in parts]) - start
        return replace(joined([batch for _, batch in parts], order), first=start)

    def gone(self) -> Iterator[str]:
        """The paths of images that were done before and are not listed any more."""
        yield from self.base.gone() if self.base else ()
        for path in self.journal.gone() if self.journal else ():
            if not (self.base and any(len(found) for found, *_ in self.base.find([path]))):
                yield path
