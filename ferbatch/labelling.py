"""Use case: images -> labels file, with a run sidecar and, where truth folders are found, a report.

Not called label.py, because `ferbatch.label` is the function of the Python API."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

import ferbatch
from ferbatch import facefiles, faces, images, jpeg, weights
from ferbatch.devices import DTYPES, choose_device, choose_precision
from ferbatch.drawing import annotated
from ferbatch.errors import FerbatchError, NoImagesError, UsageError
from ferbatch.facefiles import FaceFolder
from ferbatch.journal import Journal, line_of
from ferbatch.outputs import Output
from ferbatch.paths import encode_path, escape, replace_file, writing
from ferbatch.predict import Classifier
from ferbatch.process import signals_deferred, stopped
from ferbatch.reading import Decoded
from ferbatch.records import NONE, SCHEMA, Existing, ImageRef, Options, Prediction
from ferbatch.resuming import Finished, Work, begun_with, past
from ferbatch.runs import Run, Tally
from ferbatch.scores import Scores
from ferbatch.sources import Listing, class_of, is_expression, list_images
from ferbatch.writers import WRITERS

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


def _shown(options: Options) -> list[str]:
    """PATHS as they may be printed."""
    return ["-" if path == "-" else encode_path(os.fsencode(path)) for path in options.paths]


def _stream(
    classifier: Classifier, refs: Sequence[ImageRef], options: Options, decoder: str = ""
) -> Generator[tuple[Decoded, list[Prediction]], None, None]:
    return classifier.stream(
        refs,
        batch_size=options.batch_size,
        workers=options.workers,
        min_confidence=options.min_confidence,
        isolate=options.isolate,
        timeout=options.timeout,
        by_pillow=decoder == jpeg.decoders()[-1],
        search=options.search,
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
        where = ", ".join("the list on stdin" if path == "-" else path for path in _shown(options))
        raise NoImagesError(f"no images found under {where}" + (f" ({listing.aside})" if listing.aside else ""))
    with output.held(existing) as dead:
        if dead:
            watcher.warned(f"the last run on {output.shown} died ({dead})")
        identity = _identity(options, output, existing)
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
            result = replace(result, report=_report(options, classifier, listing, scores))
            if output.is_file:  # before the labels appear under their name
                _write_beside(options, output, classifier, identity["decoder"], result, began)
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
    scores = _unscored(listing, labels)
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
            facefiles.remove_crops(options.search.crops, path)
        if options.annotate is not None:
            facefiles.remove_copy(options.annotate, path)
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


def _device_here(name: str) -> str:
    """The device of this name, or `auto` where it is gone: the output is then begun again, which is said."""
    try:
        choose_device(name)
    except UsageError:
        return "auto"
    return name


def _identity(options: Options, output: Output, existing: Existing) -> dict[str, Any]:
    """What has to be the same for two runs to give the same rows.

    A run that goes on from another keeps its device and precision, where they are `auto`, and its decoder.
    """
    card = weights.read_card(options.model)
    before = begun_with(output, existing)
    device = options.device
    if device == "auto":
        device = _device_here(before.get("--device", device))
    chosen = choose_device(device)
    precision = options.precision
    if precision == "auto" and before.get("--precision") in DTYPES:
        precision = before["--precision"]
    decoders = jpeg.decoders()
    return {
        "PATHS": [path if path in ("-", "/") else path.rstrip("/") for path in _shown(options)],
        "--model": card.name,
        "sha256": card.sha256,
        "--device": str(chosen),
        "--precision": choose_precision(precision, chosen),
        "--min-confidence": options.min_confidence,
        "--no-recursive": not options.recursive,
        "--no-truth": not options.truth,
        "--tta": options.tta,
        "preprocessing": images.PREPROCESSING_VERSION,
        **_of_faces(options),
        "decoder": before["decoder"] if before.get("decoder") in decoders else decoders[0],
        "torch": torch.__version__,
        "incremental": existing.incremental,
    }


def _of_faces(options: Options) -> dict[str, Any]:
    """What rows about faces, and files about them, depend on."""
    search = options.search
    searched = {
        "--min-face": search.min_face,
        "--face-margin": search.margin,
        "--largest-face": search.largest,
        "detector": faces.version(search),
    }
    whole = search.mode == "whole"
    folders = {"--crops": search.crops, "--annotate": options.annotate}
    normal = {option: os.path.normpath(path) if path else path for option, path in folders.items()}
    return {"--faces": search.mode, **normal} | (dict.fromkeys(searched) if whole else searched)


def _folders(options: Options, output: Output) -> list[FaceFolder]:
    """The folders that files about faces go to."""
    named = {"--crops": options.search.crops, "--annotate": options.annotate}
    owner = os.path.abspath(output.path) if output.is_file else output.path
    return [FaceFolder(path, option, owner) for option, path in named.items() if path is not None]


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


def _write_beside(
    options: Options, output: Output, classifier: Classifier, decoder: str, result: Run, began: datetime
) -> None:
    """The report and the sidecar."""
    if result.report is None:
        output.remove_old_report()
    else:
        from ferbatch import pages  # draws with matplotlib

        pages.write(result.report, output.report)
    sidecar = _sidecar(options, output, classifier, decoder, result, began)
    with replace_file(output.sidecar) as stream:
        stream.write((json.dumps(sidecar, indent=2) + "\n").encode())


def _sidecar(
    options: Options, output: Output, classifier: Classifier, decoder: str, result: Run, began: datetime
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "ferbatch": ferbatch.__version__,
        "torch": torch.__version__,
        "model": {"name": classifier.card.name, "sha256": classifier.card.sha256},
        "options": asdict(options)
        | {"paths": _shown(options)}
        | {"output": output.shown, "format": output.format}
        | {"device": str(classifier.device), "precision": classifier.precision, "decoder": decoder}
        | {"detector": faces.version(options.search)},
        "sha256": _sha256(output.part),
        **result.counts(),
        "started": began.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "exit_code": result.exit_code,
    }


def _sha256(path: str) -> str:
    with writing(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
