"""Use case: images -> labels file, with a run sidecar and, where truth folders are found, a report."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

from ferbatch.commands.label.faces import FaceFolder, annotated, remove_copy
from ferbatch.commands.label.identity import identity_of, shown_paths
from ferbatch.commands.label.journal import Journal, line_of
from ferbatch.commands.label.output import Output
from ferbatch.commands.label.result import Run, Tally, report_of, unscored, write_beside
from ferbatch.commands.label.resume import Finished, Work, past
from ferbatch.core.errors import FerbatchError, NoImagesError, UsageError
from ferbatch.core.files import writing
from ferbatch.core.options import Existing, Options
from ferbatch.core.process import signals_deferred, stopped
from ferbatch.core.records import Decoding, ImageRef, Prediction, Workers
from ferbatch.core.writers import WRITERS
from ferbatch.images import crops, faces, jpeg
from ferbatch.model import weights
from ferbatch.scoring.outcomes import Scores
from ferbatch.sources.listing import Listing, list_images
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.read import Decoded

BYTES_AN_IMAGE = 190  # of labels and journal, at the least and without its path, for each image


class Watcher(Protocol):
    """What a caller sees of a run while it goes on."""

    def warned(self, sentence: str) -> None: ...
    def started(self, listing: Listing, classifier: Classifier, to_label: int) -> None: ...
    def progressed(self, prediction: Prediction) -> None: ...


class StoppedAtError(FerbatchError):
    """An image could not be labelled, and --on-error stop was given."""

    exit_code = 3


def predictions(options: Options) -> Iterator[Prediction]:
    """The rows of `run`, one after the other; raises what `run` raises before it writes."""
    listing = _list(options, None)
    classifier = Classifier.load(options.model, options.device, precision=options.precision, tta=options.tta)
    faces.version(options.search)
    return (prediction for _, rows in _stream(classifier, listing, options) for prediction in rows)


def _list(options: Options, listed: Iterable[bytes] | None) -> Listing:
    labels = weights.read_card(options.model).labels if options.truth else ()
    return list_images(options.paths, labels, listed=listed, recursive=options.recursive)


def _stream(
    classifier: Classifier, refs: Sequence[ImageRef], options: Options, decoder: str = ""
) -> Generator[tuple[Decoded, list[Prediction]], None, None]:
    return classifier.stream(
        refs,
        Decoding(classifier.card.size, decoder == jpeg.decoders()[-1], options.search),
        Workers(options.workers, options.isolate, options.timeout),
        min_confidence=options.min_confidence,
        batch_size=options.batch_size,
    )


def run(
    options: Options, output: Output, *, existing: Existing, listed: Iterable[bytes] | None, watcher: Watcher
) -> Run | None:
    """Label every image and write `output`, its sidecar and its report; None where this very run is finished already.

    Raises UsageError, NoImagesError, ModelError, OutputError or LockedError before or instead of writing anything;
    StoppedAtError, OutputError or process.Stopped later: what is done by then is in the journal.
    """
    began = datetime.now(UTC)
    output.check(existing)
    folders = _folders(options, output)
    for folder in folders:
        folder.check(existing)
    listing = _list(options, listed)
    if not listing:
        where = ", ".join("the list on stdin" if path == "-" else path for path in shown_paths(options))
        raise NoImagesError(f"no images found under {where}" + (f" ({listing.aside})" if listing.aside else ""))
    with output.held(existing) as dead:
        if dead:
            watcher.warned(f"the last run on {output.shown} died ({dead})")
        identity = identity_of(options, output, existing)
        labels = weights.read_card(options.model).labels
        try:
            known = past(output, existing, identity, labels)
        except Finished:
            return None
        for note in known.notes:
            watcher.warned(note)
        going_on = bool(known.journal or known.base)
        for folder in folders:
            if going_on and not folder.is_there:
                raise UsageError(f"{folder.shown} is gone, with the faces of {output.shown}; --overwrite begins again")
        output.check_room(_room(listing) - (known.journal.end if known.journal else 0))
        work = Work(listing, known, existing.retry_failed)
        device, precision = torch.device(identity["--device"]), identity["--precision"]
        classifier = Classifier.load(options.model, device, precision=precision, tta=options.tta)
        watcher.started(listing, classifier, len(work))
        for folder in folders:
            folder.begin(keep=going_on)
        end = known.journal.end if known.journal else None
        with ExitStack() as stack:
            stream = stack.enter_context(output.stream())
            journal = stack.enter_context(_journal(output, end, identity)) if output.is_file else None
            labelled = _stream(classifier, work, options, identity["decoder"])
            if options.annotate is not None:
                labelled = annotated(labelled, options.annotate, labels)
            result, scores = _label(options, work, labelled, classifier.card.labels, stream, output, journal, watcher)
            result = replace(result, report=report_of(options, classifier, listing, scores))
            if output.is_file:  # before the labels appear under their name
                write_beside(options, output, classifier, identity["decoder"], result, began)
        if journal:
            journal.finish(output.state)
    return result


def _journal(output: Output, end: int | None, identity: Mapping[str, Any]) -> Journal:
    """The journal, to go on with or a new one; it says which labels file was there, and is as private."""
    journal = Journal(output.journal, end, {**identity, "labels": output.sha256()})
    with writing(journal.shown):
        if os.path.exists(output.path):
            os.chmod(output.journal, stat.S_IMODE(os.stat(output.path).st_mode))
    return journal


def _room(listing: Listing) -> int:
    """Bytes that the labels and the journal will take at the least."""
    images = np.bincount(np.array(listing.folder_of, np.int64), minlength=len(listing.folders)).tolist()
    folders = sum(n * len(prefix) for n, (prefix, _) in zip(images, listing.folders, strict=True))
    return BYTES_AN_IMAGE * len(listing) + 2 * (int(folders) + sum(map(len, listing.names)))


def _label(
    options: Options,
    work: Work,
    labelled: Generator[tuple[Decoded, list[Prediction]], None, None],
    labels: tuple[str, ...],
    stream: BinaryIO,
    output: Output,
    journal: Journal | None,
    watcher: Watcher,
) -> tuple[Run, Scores | None]:
    """Write every row of the output, and every new one into the journal."""
    listing = work.listing
    tally, start = Tally(), time.perf_counter()
    this_run = Tally() if work.past.base else tally  # all rows are of this run
    writer = WRITERS[output.format](stream, labels)
    scores = unscored(listing, labels)
    with signals_deferred(), closing(labelled):
        for at, (rows, whole_picture, old) in enumerate(_rows(work, labelled, options, journal, watcher)):
            for prediction in rows:
                writer.write(prediction)
            tally.add(rows, whole_picture)
            if not old and this_run is not tally:
                this_run.add(rows, whole_picture)
            if scores:
                scores.put(at, rows[0])
    assert tally.images == len(listing)  # or a signal was raised
    writer.close()
    stream.flush()
    seconds = time.perf_counter() - start
    gone = _gone(work, options)
    return Run(tally, this_run, len(work), *gone, labels, listing, seconds, None, options.max_errors), scores


def _gone(work: Work, options: Options) -> tuple[int, str]:
    """How many images are gone since an earlier run, and the path of one; the files about their faces go as well."""
    n, example = 0, ""
    for path in work.gone():
        n, example = n + 1, example or path
        if options.search.crops is not None:
            crops.remove_crops(options.search.crops, path)
        if options.annotate is not None:
            remove_copy(options.annotate, path)
    return n, example


def _rows(
    work: Work,
    labelled: Iterator[tuple[Decoded, list[Prediction]]],
    options: Options,
    journal: Journal | None,
    watcher: Watcher,
) -> Iterator[tuple[list[Prediction], bool, bool]]:
    """For every image its rows, whether it is a whole picture, and whether an incremental run found it done.

    Ends early where `labelled` does, which it does for a signal.
    """
    for at in range(len(work.listing)):
        if known := work.done(at):
            if stopped():
                return
            entry, old, lacking = known
            if journal and lacking:
                journal.add(entry.line)
            yield entry.predictions(work.listing[at]), entry.whole_picture, old
            continue
        found = next(labelled, None)
        if found is None:
            return
        decoded, rows = found
        first = rows[0]
        if first.error_kind and options.on_error == "stop":
            why = f"stopped at {first.path}: {first.error_kind}: {first.error}"
            raise StoppedAtError(f"{why} (--resume tries it again, --on-error record goes past it)" if journal else why)
        if journal:
            journal.add(line_of(first.path, decoded.version, decoded.whole_picture, rows))
        watcher.progressed(first)
        yield rows, decoded.whole_picture, False


def _folders(options: Options, output: Output) -> list[FaceFolder]:
    """The folders that files about faces go to."""
    named = {"--crops": options.search.crops, "--annotate": options.annotate}
    owner = os.path.abspath(output.path) if output.is_file else output.path
    return [FaceFolder(path, option, owner) for option, path in named.items() if path is not None]
