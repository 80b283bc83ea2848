"""What a run of `ferbatch label` came to: its counts while it streams, and the run when it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ferbatch.gates import failures_allowed
from ferbatch.records import UNLISTABLE, Prediction
from ferbatch.sources import Listing

WHOLE_PICTURE_SHARE = 0.1  # of the images; above it the user is warned
GONE_SHARE = 0.1  # of the images that were done before; as well


@dataclass
class Tally:
    """Counts of a run, kept while it streams: of images but where they are of faces."""

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)  # given to faces and to images that were taken whole
    searched: int = 0  # images that faces were looked for in
    faces: int = 0  # found in these
    no_face: int = 0  # of these, in which none was found
    errors: Counter[str] = field(default_factory=Counter)  # by error_kind
    failed_example: str = ""  # the first path of those
    unlistable: int = 0  # folders that could not be looked into
    uncertain: int = 0
    whole_pictures: int = 0
    without_truth: int = 0

    def add(self, rows: Sequence[Prediction], whole_picture: bool) -> None:
        """An image's rows."""
        first = rows[0]
        self.images += 1
        self.whole_pictures += whole_picture
        self.without_truth += first.truth is None
        if first.label is None:
            self._unlabelled(first)
            return
        if first.face is not None:
            self.searched += 1
            self.faces += len(rows)
        for one in rows:
            self.labels[str(one.label)] += 1
            self.uncertain += one.status == "uncertain"

    def _unlabelled(self, only: Prediction) -> None:
        if only.status == "no_face":
            self.searched += 1
            self.no_face += 1
            return
        self.errors[str(only.error_kind)] += 1
        self.failed_example = self.failed_example or only.path
        self.unlistable += only.error == UNLISTABLE

    @property
    def whole(self) -> int:
        """Images that were taken whole."""
        return self.images - self.failed - self.searched

    @property
    def failed(self) -> int:
        return self.errors.total()


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, for the console and the sidecar."""

    tally: Tally
    this_run: Tally  # without the rows that an incremental run found done
    processed: int  # images, by this very process, those that failed among them
    gone: int  # images that were done before and are not there any more
    gone_example: str
    labels: tuple[str, ...]
    listing: Listing
    seconds: float  # of the streaming alone: not the listing, not the loading of the model
    report: Mapping[str, Any] | None
    max_errors: str | None = None

    @property
    def images_per_second(self) -> float:
        return self.processed / self.seconds

    @property
    def too_many_errors(self) -> bool:
        """Whether more of this run's images failed than --max-errors allows."""
        return self.max_errors is not None and self.this_run.failed > failures_allowed(
            self.max_errors, self.this_run.images
        )

    @property
    def exit_code(self) -> int:
        return 5 if self.too_many_errors else 3 if self.this_run.failed else 0

    @property
    def many_gone(self) -> bool:
        """Whether so many images are gone that it may be a mistake: a share not mounted, a folder out of sight."""
        return self.gone > GONE_SHARE * (self.tally.images + self.gone) or bool(self.gone and self.this_run.unlistable)

    @property
    def whole_pictures(self) -> bool:
        """Whether so many images are too large or wide for cropped faces that the user should hear of it."""
        return self.tally.whole_pictures > WHOLE_PICTURE_SHARE * self.tally.images

    def counts(self) -> dict[str, Any]:
        """What the sidecar says of this run and of the whole output."""
        tally = self.tally
        return {
            "this_run": {
                "images": self.this_run.images,
                "processed": self.processed,
                "errors": dict(sorted(self.this_run.errors.items())),
                "gone": self.gone,
            },
            "counts": {
                "images": tally.images,
                "labels": {label: tally.labels[label] for label in self.labels},
                "uncertain": tally.uncertain,
                "whole": tally.whole,
                "searched": tally.searched,
                "faces": tally.faces,
                "no_face": tally.no_face,
                "errors": dict(sorted(tally.errors.items())),
                "without_truth": tally.without_truth,
                "left_aside": self.listing.left_aside,
                "links_not_followed": self.listing.links,
                "large_or_wide": tally.whole_pictures,
            },
        }
