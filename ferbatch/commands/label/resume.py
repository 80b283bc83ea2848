"""What an earlier run of an output has done already, and whether this run may go on from it."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ferbatch.commands.label.identity import Identity, named
from ferbatch.commands.label.journal import Done, Entry, head_of
from ferbatch.commands.label.output import Output
from ferbatch.core.errors import UsageError
from ferbatch.core.files import version_of
from ferbatch.core.names import count
from ferbatch.core.options import Existing
from ferbatch.core.records import ImageRef
from ferbatch.sources.listing import Listing

RETRIED = frozenset({"permission"})  # errors that may be over though the file is as it was
NOT_UPDATED = "cannot be brought up to date; --overwrite, in place of --incremental, replaces it"
FRESH = 0  # in place of an offset: no line about an image begins where the journal does


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


def past(claim: Claim, labels: Sequence[str]) -> Past:
    """What there is to go on from, for a model with these labels.

    Raises Finished, or UsageError where the output is not one that this run may continue.
    """
    output, existing, found = claim.output, claim.existing, Past()
    begun = output.is_file and os.path.exists(output.journal)
    if not output.is_file or not (existing.resume or existing.incremental):
        return found
    if begun:
        _unfinished(claim, labels, found)
    if not os.path.exists(output.path):
        return found
    finished = Done(output.state, labels) if os.path.exists(output.state) else None
    if found.journal is not None:
        same = finished is not None and finished.head is not None and not claim.differences(finished.head)
        found.base = finished if same and found.journal.head and found.journal.head.get("incremental") else None
    elif existing.incremental:
        _bring_up_to_date(claim, found, finished, begun=begun)
    elif existing.resume and not begun:
        _finish(claim, found, finished)
    return found


def _unfinished(claim: Claim, labels: Sequence[str], found: Past) -> None:
    """The journal of a run that was killed or stopped."""
    output, existing = claim.output, claim.existing
    done = Done(output.journal, labels)
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
    known = finished is not None and len(finished) and finished.head
    differences = claim.differences(known) if known else {"run": ("unknown", "another")}
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


class Work(Sequence[ImageRef]):
    """The images of a listing that have to be labelled; the others have their line in the past."""

    def __init__(self, listing: Listing, past: Past, retry_failed: bool) -> None:
        self.listing, self.past = listing, past
        self.lines = array("q", [FRESH]) * len(listing)  # where the journal has an image's line; negative: the base
        self.old = bytearray(len(listing))  # 1 where the base has the image's line, be it in the journal or not
        self.fresh = array("q")  # the listing's indices of the images to label
        for index in range(len(listing)) if past.any else ():
            self.lines[index], self.old[index] = self._known(listing[index], retry_failed)
        self.fresh.extend(index for index, line in enumerate(self.lines) if line == FRESH)

    def _known(self, ref: ImageRef, retry_failed: bool) -> tuple[int, bool]:
        """Where the line is, and whether it is an old one."""
        version = version_of(ref.file)
        where, old = FRESH, False
        for done, sign in ((self.past.base, -1), (self.past.journal, 1)):  # what the journal says is newer
            if done and (found := done.find(ref.path)):
                offset, entry = found
                again = entry.error_kind is not None and (retry_failed or entry.error_kind in RETRIED)
                usable = entry.version == version and not again
                where, old = (sign * offset if usable else FRESH), usable and (sign < 0 or old)
        return where, old

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "past": Past()}  # decode processes need none of it

    def __len__(self) -> int:
        return len(self.fresh)

    def __getitem__(self, index: int) -> ImageRef:  # type: ignore[override]  # no slices: nothing needs them
        return self.listing[self.fresh[index]]

    def done(self, index: int) -> tuple[Entry, bool, bool] | None:
        """What is known of an image of the listing, whether of old, and whether the journal lacks it.

        None if it has to be labelled.
        """
        offset = self.lines[index]
        if offset == FRESH:
            return None
        done = self.past.journal if offset > 0 else self.past.base
        assert done is not None
        return done.read(abs(offset)), bool(self.old[index]), offset < 0

    def gone(self) -> Iterator[str]:
        """The paths of images that were done before and are not listed any more."""
        base, journal = self.past.base, self.past.journal
        yield from base.gone() if base else ()
        for path in journal.gone() if journal else ():
            if not (base and base.find(path)):
                yield path
