"""Use case: images -> labels file, with a run sidecar and, where truth folders are found, a report.

Not called label.py, because `ferbatch.label` is the function of the Python API."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import PIL
import torch

import ferbatch
from ferbatch import weights
from ferbatch.errors import NoImagesError
from ferbatch.outputs import Output
from ferbatch.paths import encode_path, escape, replace_file
from ferbatch.predict import Classifier, Decoded, choose_device, default_workers
from ferbatch.records import NONE, SCHEMA, Options, Prediction
from ferbatch.scores import Scores
from ferbatch.sources import Listing, class_of, is_expression, list_images
from ferbatch.writers import WRITERS

WHOLE_PICTURE_SHARE = 0.1  # of the images; above it the user is warned


@dataclass
class Tally:
    """Counts of a run, kept while it streams."""

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)  # by error_kind
    uncertain: int = 0
    whole_pictures: int = 0
    without_truth: int = 0

    def add(self, prediction: Prediction, whole_picture: bool) -> None:
        self.images += 1
        self.whole_pictures += whole_picture
        self.without_truth += prediction.truth is None
        if prediction.label is None:
            self.errors[str(prediction.error_kind)] += 1
            return
        self.labels[prediction.label] += 1
        self.uncertain += prediction.status == "uncertain"

    @property
    def failed(self) -> int:
        return self.errors.total()


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, for the console and the sidecar."""

    tally: Tally
    labels: tuple[str, ...]
    listing: Listing
    seconds: float  # of the streaming alone: not the listing, not the loading of the model
    report: Mapping[str, Any] | None

    @property
    def images_per_second(self) -> float:
        return self.tally.images / self.seconds

    @property
    def exit_code(self) -> int:
        return 3 if self.tally.failed else 0

    @property
    def whole_pictures(self) -> bool:
        """Whether so many images are too large or wide for cropped faces that the user should hear of it."""
        return self.tally.whole_pictures > WHOLE_PICTURE_SHARE * self.tally.images


class Watcher(Protocol):
    """What a caller sees of a run while it goes on."""

    def started(self, listing: Listing, classifier: Classifier) -> None: ...
    def progressed(self, prediction: Prediction) -> None: ...


def predictions(options: Options) -> Iterator[Prediction]:
    """A Prediction per image, one after the other, in the order of `run`; raises what `run` raises before it writes."""
    listing = _list(options, None)
    classifier = Classifier.load(options.model, options.device, tta=options.tta)
    return (prediction for _, prediction in _stream(classifier, listing, options))


def _list(options: Options, listed: Iterable[bytes] | None) -> Listing:
    labels = weights.read_card(options.model).labels if options.truth else ()
    return list_images(options.paths, labels, listed=listed, recursive=options.recursive)


def _shown(options: Options) -> list[str]:
    """PATHS as they may be printed."""
    return ["-" if path == "-" else encode_path(os.fsencode(path)) for path in options.paths]


def _stream(classifier: Classifier, listing: Listing, options: Options) -> Iterator[tuple[Decoded, Prediction]]:
    return classifier.stream(
        listing,
        batch_size=options.batch_size,
        workers=options.workers,
        min_confidence=options.min_confidence,
    )


def run(options: Options, output: Output, *, overwrite: bool, listed: Iterable[bytes] | None, watcher: Watcher) -> Run:
    """Label every image and write `output`, its sidecar and its report.

    Raises UsageError, NoImagesError, ModelError, OutputError or LockedError before or instead of writing anything.
    """
    began = datetime.now(UTC)
    output.check(overwrite)
    device = choose_device(options.device)
    listing = _list(options, listed)
    if not listing:
        where = ", ".join("the list on stdin" if path == "-" else path for path in _shown(options))
        raise NoImagesError(f"no images found under {where}" + (f" ({listing.aside})" if listing.aside else ""))
    with output.held(overwrite):
        classifier = Classifier.load(options.model, device, tta=options.tta)
        watcher.started(listing, classifier)
        tally, start = Tally(), time.perf_counter()
        with output.stream() as stream:
            writer = WRITERS[output.format](stream, classifier.card.labels)
            scores = _unscored(listing, classifier.card.labels)
            for at, (decoded, prediction) in enumerate(_stream(classifier, listing, options)):
                writer.write(prediction)
                tally.add(prediction, decoded.whole_picture)
                if scores:
                    scores.put(at, prediction)
                watcher.progressed(prediction)
            writer.close()
            stream.flush()
            seconds = time.perf_counter() - start
            report = _report(options, classifier, listing, scores)
            result = Run(tally, classifier.card.labels, listing, seconds, report)
            if output.is_file:  # before the labels appear under their name
                _write_beside(options, output, classifier, result, began)
    return result


def _unscored(listing: Listing, labels: Sequence[str]) -> Scores | None:
    """Scores to fill for the images of the listing; None where fewer than two labels are the truth of any."""
    if len({truth for _, truth in listing.folders if truth}) < 2:
        return None
    of_folder = np.array([labels.index(truth) if truth else NONE for _, truth in listing.folders], np.int16)
    return Scores.unpredicted(labels, of_folder[np.array(listing.folder_of, np.int64)])


def _report(
    options: Options, classifier: Classifier, listing: Listing, scores: Scores | None
) -> Mapping[str, Any] | None:
    """What `ferbatch evaluate` says, where at least two labels occur among the truths of labelled images."""
    if scores is None or len(set(scores.truth[scores.labelled].tolist()) - {NONE}) < 2:
        return None
    from ferbatch import report  # scikit-learn and SciPy with it: most runs need neither

    card = classifier.card
    counts = np.bincount(scores.truth[scores.truth != NONE], minlength=len(card.labels)).tolist()
    subject = report.Subject(
        truth=", ".join(_shown(options)),
        labels=card.labels,
        images=sum(counts),
        per_label=dict(zip(card.labels, counts, strict=True)),
        others=dict(_others(listing).most_common()),
        without_truth=int((scores.truth == NONE).sum()),
    )
    system = report.System(escape(card.name), listing, scores, card, options.tta)
    return report.build(subject, [system], options.min_confidence)


def _others(listing: Listing) -> Counter[str]:
    """Images by the folder they lie in, where it is named like an expression that is no label."""
    of_folder = np.bincount(np.array(listing.folder_of, np.int64), minlength=len(listing.folders)).tolist()
    found: Counter[str] = Counter()
    for (prefix, truth), n in zip(listing.folders, of_folder, strict=True):
        name = class_of(prefix)
        if truth is None and is_expression(name):
            found[escape(name)] += n
    return found


def _write_beside(options: Options, output: Output, classifier: Classifier, result: Run, began: datetime) -> None:
    """The report and the sidecar."""
    if result.report is None:
        output.remove_old_report()
    else:
        from ferbatch import pages  # draws with matplotlib

        pages.write(result.report, output.report)
    sidecar = _sidecar(options, output, classifier, result, began)
    with replace_file(output.sidecar) as stream:
        stream.write((json.dumps(sidecar, indent=2) + "\n").encode())


def _sidecar(options: Options, output: Output, classifier: Classifier, result: Run, began: datetime) -> dict[str, Any]:
    tally = result.tally
    workers = default_workers(classifier.device) if options.workers is None else options.workers
    return {
        "schema": SCHEMA,
        "ferbatch": ferbatch.__version__,
        "torch": torch.__version__,
        "model": {"name": classifier.card.name, "sha256": classifier.card.sha256},
        "options": asdict(options)
        | {"paths": _shown(options)}
        | {"output": output.shown, "format": output.format, "workers": workers}
        | {"device": str(classifier.device), "precision": "fp32", "decoder": f"pillow {PIL.__version__}"},
        "counts": {
            "images": tally.images,
            "labels": {label: tally.labels[label] for label in result.labels},
            "uncertain": tally.uncertain,
            "errors": dict(sorted(tally.errors.items())),
            "without_truth": tally.without_truth,
            "left_aside": result.listing.left_aside,
            "links_not_followed": result.listing.links,
            "large_or_wide": tally.whole_pictures,
        },
        "started": began.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "exit_code": result.exit_code,
    }
