"""A run of label and what it came to: counts, exit code, report, sidecar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from ferbatch.commands.label.identity import shown_images, shown_paths
from ferbatch.commands.label.output import Output
from ferbatch.commands.label.resume import Work
from ferbatch.core.names import escape
from ferbatch.core.options import Options, failures_allowed
from ferbatch.core.records import NONE, SCHEMA
from ferbatch.core.version import __version__
from ferbatch.model.weights import Card
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.aside import by_kind
from ferbatch.sources.labels import class_of, is_expression
from ferbatch.sources.listing import Listing
from ferbatch.sources.shards import Share
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.ray_engine import RayEngine
from ferbatch.stream.recorder import Tally

GONE_SHARE = 0.1  # of the images that were done before; above it the user is warned that they are gone


@dataclass(frozen=True, slots=True)
class Job:
    """A run that may begin: what was asked for, and what it goes by."""

    options: Options
    output: Output
    identity: Mapping[str, Any]
    work: Work
    classifier: Classifier | RayEngine
    began: datetime
    new_rules: bool  # whether what counts in folders has changed since the run that this one goes on from
    share: Share | None = None  # of a run with --shard


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run, for the console and the sidecar."""

    job: Job
    tally: Tally
    this_run: Tally  # without the rows that an incremental run found done
    gone: int  # images that were done before and are not there any more
    gone_example: str
    seconds: float  # of the streaming alone: not the listing, not the loading of the model
    report: Mapping[str, Any] | None

    @property
    def labels(self) -> tuple[str, ...]:
        return self.job.classifier.card.labels

    @property
    def processed(self) -> int:
        """Images that this very process read, those that failed among them."""
        return len(self.job.work)

    @property
    def images_per_second(self) -> float:
        return self.processed / self.seconds

    @property
    def too_many_errors(self) -> bool:
        """Whether more of this run's images failed than --max-errors allows."""
        most, this_run = self.job.options.max_errors, self.this_run
        return most is not None and this_run.failed > failures_allowed(most, this_run.images)

    @property
    def exit_code(self) -> int:
        return 5 if self.too_many_errors else 3 if self.this_run.failed else 0

    @property
    def many_gone(self) -> bool:
        """Whether so many images are gone that it may be a mistake: a share not mounted, a folder out of sight."""
        return self.gone > GONE_SHARE * (self.tally.images + self.gone) or bool(self.gone and self.this_run.unlistable)


def unscored(listing: Listing, labels: Sequence[str]) -> Outcomes | None:
    """Outcomes to fill for the images of the listing; None where fewer than two labels are the truth of any."""
    if len({truth for _, truth in listing.folders if truth}) < 2:
        return None
    of_folder = np.array([labels.index(truth) if truth else NONE for _, truth in listing.folders], np.int16)
    return Outcomes.unpredicted(labels, of_folder[np.array(listing.folder_of, np.int64)])


def report_of(
    options: Options, name: str, card: Card | None, listing: Listing, outcomes: Outcomes | None
) -> Mapping[str, Any] | None:
    """What `ferbatch evaluate` says, where at least two labels occur among the truths of labelled images.

    The `card` is that of the model with this name, None where it is not at hand.
    """
    if outcomes is None or len(set(outcomes.truth[outcomes.labelled].tolist()) - {NONE}) < 2:
        return None
    from ferbatch.report import build  # scikit-learn and SciPy with it: most runs need neither

    labels = outcomes.labels
    counts = np.bincount(outcomes.truth[outcomes.truth != NONE], minlength=len(labels)).tolist()
    subject = build.Subject(
        truth=", ".join(shown_paths(options)),
        labels=tuple(labels),
        images=sum(counts),
        per_label=dict(zip(labels, counts, strict=True)),
        others=dict(_others(listing).most_common()),
        without_truth=int((outcomes.truth == NONE).sum()),
    )
    system = build.System(escape(name), listing, outcomes, card, options.tta)
    return build.build(subject, [system], options.doubt.min_confidence)


def _others(listing: Listing) -> Counter[str]:
    """Images by the folder they lie in, where it is named like an expression that is no label."""
    found: Counter[str] = Counter()
    for prefix, truth, n in listing.by_folder():
        name = class_of(prefix)
        if truth is None and is_expression(name):
            found[escape(name)] += n
    return found


def counts_of(tally: Tally, labels: Sequence[str]) -> dict[str, Any]:
    """What a sidecar says of all rows."""
    return {
        "images": tally.images,
        "labels": {label: tally.labels[label] for label in labels},
        "uncertain": tally.uncertain,
        "whole": tally.whole,
        "searched": tally.searched,
        "faces": tally.faces,
        "no_face": tally.no_face,
        "no_face_taken_whole": tally.missed,
        "faces_turned": tally.turned,
        "errors": dict(sorted(tally.errors.items())),
        "allowed": dict(sorted(tally.allowed.items())),
        "without_truth": tally.without_truth,
        "large_or_wide": tally.whole_pictures,
    }


def _options(options: Options) -> dict[str, Any]:
    """The options, each under its own name."""
    own = {name: value for name, value in asdict(options).items() if name not in ("doubt", "table")}
    return own | asdict(options.doubt) | {"path_column": options.table.path_column, "images": shown_images(options)}


def sidecar_of(result: Result) -> dict[str, Any]:
    """What made the labels, how many there are, and how the run ended."""
    job, classifier, tally, this_run = result.job, result.job.classifier, result.tally, result.this_run
    left = by_kind(job.work.listing.left)
    return {
        "schema": SCHEMA,
        "ferbatch": __version__,
        "torch": torch.__version__,
        "model": {"name": classifier.card.name, "sha256": classifier.card.sha256},
        "options": _options(job.options)
        | {"paths": shown_paths(job.options), "output": job.output.shown, "format": job.output.format}
        | {"device": str(classifier.device), "precision": classifier.precision}
        | {name: job.identity[name] for name in ("decoder", "detector")},
        "sha256": job.output.sha256_of(job.output.part),
        "this_run": {
            "images": this_run.images,
            "processed": result.processed,
            "errors": dict(sorted(this_run.errors.items())),
            "allowed": dict(sorted(this_run.allowed.items())),
            "gone": result.gone,
        },
        "counts": {
            **counts_of(tally, result.labels),
            "left_aside": left.get("other_files", 0),
            "links_not_followed": left.get("links", 0),
            "aside": left,
        },
        "started": job.began.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "exit_code": result.exit_code,
    }
