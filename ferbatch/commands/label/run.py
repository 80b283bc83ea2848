"""Use case: images -> labels file, with a run sidecar and, where truth folders are found, a report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import torch

from ferbatch.commands.label.face_folders import FaceFolder, Labelled, annotated, face_folder, remove_copy
from ferbatch.commands.label.identity import identity_of, rules_of, spelled_as_before, where
from ferbatch.commands.label.output import Output
from ferbatch.commands.label.result import Job, Result, report_of, sidecar_of, unscored
from ferbatch.commands.label.resume import AT_ONCE, FRESH, Past, Work, said_before
from ferbatch.core.batch import Batch, Images
from ferbatch.core.errors import FerbatchError, NoImagesError, UsageError
from ferbatch.core.options import Existing, Options, shard_of
from ferbatch.core.process import signals_deferred, stopped
from ferbatch.core.records import Decoding, Prediction, Workers
from ferbatch.core.rows import predictions
from ferbatch.images import face_files, faces, jpeg
from ferbatch.model import weights
from ferbatch.model.weights import Card
from ferbatch.sources.listing import Listing, Lists, found_aside, list_images
from ferbatch.sources.lists import lists_in
from ferbatch.sources.shards import Share, share
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.journal import Journal, Placed
from ferbatch.stream.ray_cluster import Cluster, connected
from ferbatch.stream.ray_engine import Asked, RayEngine
from ferbatch.stream.recorder import Recorder

BYTES_AN_IMAGE = 140  # of labels and journal, at the least and without its path, for each image


class Watcher(Protocol):
    """What a caller sees of a run while it goes on."""

    def warned(self, sentence: str) -> None: ...
    def noted(self, sentence: str) -> None: ...
    def started(self, listing: Listing, classifier: Classifier | RayEngine, to_label: int) -> None: ...
    def progressed(self, batch: Batch) -> None: ...


class StoppedAtError(FerbatchError):
    """An image could not be labelled, and --on-error stop was given."""

    exit_code = 3


def rows_of(options: Options) -> Iterator[Prediction]:
    """The rows of `run`, one after the other; raises what `run` raises before it writes."""
    card = weights.read_card(options.model)
    listing = _list(options, card, lists_in(options.paths, options.table)[0])
    if options.shard:
        listing = share(listing, *shard_of(options.shard)).listing
    classifier = _load(options, card, options.device, options.precision)
    faces.check(options.search_on(str(classifier.device)))
    batches = _stream(classifier, listing, options)
    return (row for batch in batches for rows in predictions(batch, card.labels) for row in rows)


def _list(options: Options, card: Card, lists: Lists) -> Listing:
    labels = card.labels if options.truth else ()
    return list_images(options.paths, labels, listed=lists, recursive=options.recursive, rules=options.rules)


def _list_some(
    options: Options, card: Card, listed: Iterable[bytes] | None, output: Output, watcher: Watcher
) -> Listing:
    """As `_list`, of lists on stdin and in tables; NoImagesError where there is none."""
    lists, notes = lists_in(options.paths, options.table, listed, is_own=output.is_mine)
    for note in notes:
        watcher.noted(note)
    listing = _list(options, card, lists)
    if not listing:
        raise NoImagesError(f"no images found under {where(options)}{found_aside(listing)}")
    return listing


def _cluster(options: Options) -> AbstractContextManager[Cluster | None]:
    """The cluster that is to label; None where this machine is."""
    return connected(options.ray_address) if options.engine == "ray" else nullcontext()


def _load(
    options: Options, card: Card, device: str | torch.device, precision: str, cluster: Cluster | None = None
) -> Classifier | RayEngine:
    """What labels: this process, or a cluster, whose device it is then."""
    if cluster is None:
        return Classifier.load(options.model, device, precision=precision, tta=options.tta, card=card)
    _, tensors = weights.load(options.model, card)
    how = Asked(torch.device(device), precision, options.tta, options.ray_actors)
    return RayEngine(cluster, card, tensors, how)


def _stream(
    classifier: Classifier | RayEngine,
    images: Images,
    options: Options,
    *,
    by_pillow: bool = False,
    anew: bool = False,
) -> Labelled:
    return classifier.stream(
        images,
        Decoding(classifier.card.size, by_pillow, options.search_on(str(classifier.device)), anew=anew),
        Workers(options.workers, options.isolate, options.timeout),
        doubt=options.doubt,
        batch_size=options.batch_size,
    )


def run(
    options: Options, output: Output, *, existing: Existing, listed: Iterable[bytes] | None, watcher: Watcher
) -> Result | None:
    """Label every image and write `output`, its sidecar and its report; None where this very run is finished already.

    Raises UsageError, NoImagesError, ModelError, OutputError or LockedError before or instead of writing anything;
    StoppedAtError, OutputError or process.Stopped later: what is done by then is in the journal.

    options: what to label, and how.
    output: where the labels go; that it may be written is checked once it is held.
    existing: what may be done about labels that are there already.
    listed: the paths of a list on stdin, where `-` is among the paths.
    watcher: told how the run goes.
    """
    began = datetime.now(UTC)
    folders = _folders(options, output, existing)
    card = weights.read_card(options.model)
    options = spelled_as_before(options, said_before(output, existing))
    listing = _list_some(options, card, listed, output, watcher)
    own = share(listing, *shard_of(options.shard)) if options.shard else None
    listing = own.listing if own else listing
    with output.held(existing, card.labels) as dead, _cluster(options) as cluster:
        if dead:
            watcher.warned(f"the last run on {output.shown} died ({dead})")
        past = Past(output, existing)
        identity = identity_of(options, card, past.head, cluster)
        if not past.claim(identity, rules_of(options), listing.hides):
            return None
        for note in (*output.notes, *past.notes):
            watcher.warned(note)
        _check_kept(folders if past.any else [], output)
        output.check_room(_room(listing) - (past.journal.end if past.journal else 0))
        work = Work(listing, past.journal, past.base, existing.retry_failed)
        classifier = _load(options, card, torch.device(identity["--device"]), identity["--precision"], cluster)
        watcher.started(listing, classifier, len(work))
        for folder in folders:
            folder.begin(keep=past.any)
        job = Job(options, output, identity, work, classifier, began, bool(past.new_rules), own)
        return _do(job, existing, watcher)


def _folders(options: Options, output: Output, existing: Existing) -> list[FaceFolder]:
    """The folders that files about faces go to; UsageError where they may not."""
    named = {"--crops": options.search.crops, "--annotate": options.annotate}
    folders = [face_folder(path, option, output.owner) for option, path in named.items() if path is not None]
    for folder in folders:
        folder.check(existing)
    return folders


def _check_kept(folders: list[FaceFolder], output: Output) -> None:
    """UsageError where a folder that an earlier run filled is gone."""
    for folder in folders:
        if folder.owner != folder.output:
            raise UsageError(f"{folder.shown} is gone, with the faces of {output.shown}; --overwrite begins again")


def _room(listing: Listing) -> int:
    """Bytes that the labels and the journal will take at the least."""
    folders = sum(n * len(prefix) for prefix, _, n in listing.by_folder())
    return BYTES_AN_IMAGE * len(listing) + 2 * (folders + sum(map(len, listing.names)))


def _do(job: Job, existing: Existing, watcher: Watcher) -> Result:
    """Label what there is to label, and put every file in its place."""
    options, output, work, labels = job.options, job.output, job.work, job.classifier.card.labels
    with ExitStack() as stack:
        recording = output.recording(labels, _head(job, existing), work.journal, work.base)
        writer, journal = stack.enter_context(recording)
        if journal and work.journal and job.new_rules:
            journal.head({**work.journal.head, **rules_of(options)})
        by_pillow, anew = job.identity["decoder"] == jpeg.PILLOW, not (work.journal or work.base)
        labelled = _stream(job.classifier, work, options, by_pillow=by_pillow, anew=anew)
        if options.annotate is not None:
            labelled = annotated(labelled, options.annotate, labels)
        start = time.perf_counter()
        outcomes = None if job.share else unscored(work.listing, labels)  # that of a share would say little
        stay, anew = output.lasts and not output.is_file, bool(work.base)
        recorder = Recorder(writer, journal, outcomes, brings_up_to_date=anew, allowed=options.allow, rows_stay=stay)
        with signals_deferred(), closing(labelled):
            _record(job, labelled, recorder, watcher)
        assert recorder.tally.images == len(work.listing)  # or a signal was raised
        writer.close()
        writer.flush()
        seconds = time.perf_counter() - start
        card = job.classifier.card
        gone, report = _gone(job), report_of(options, card.name, card, work.listing, outcomes)
        result = Result(job, recorder.tally, recorder.this_run, *gone, seconds, report)
        if output.lasts:  # before the labels appear under their name
            output.keep(report, sidecar_of(result))
        if journal and (job.share or output.in_parts):
            _place(journal, job.share or share(work.listing, 1, 1))
    output.put()
    return result


def _place(journal: Journal, own: Share) -> None:
    """Let `ferbatch merge` know where the images stand among those of the other shares."""
    for start in range(0, max(len(own.at), 1), AT_ONCE):  # of no images too: they are of the same whole
        part = np.arange(start, min(start + AT_ONCE, len(own.at)))
        references = own.listing.references(part.tolist())
        journal.place(Placed(references.paths, references.truths, own.at[part], own.total, own.digest))


def _head(job: Job, existing: Existing) -> Mapping[str, Any]:
    """What the journal says of the run: which labels file was there, too, and whether its rows are kept."""
    kept = existing.incremental or bool(job.work.base)
    labels = job.output.sha256_of(job.output.path)
    return {**job.identity, **rules_of(job.options), "incremental": kept, "labels": labels}


def _record(job: Job, labelled: Labelled, recorder: Recorder, watcher: Watcher) -> None:
    """Hand the recorder every image of the listing: what is done already, and what is labelled as it comes.

    Ends early where `labelled` does, which it does for a signal.
    """
    work, stops, allowed = job.work, job.options.on_error == "stop", job.options.allow
    for batch in work.merged(labelled):
        known, old = work.known[batch.first : batch.end], work.old[batch.first : batch.end]
        failed = [
            place
            for place in sorted(batch.failures)
            if stops and known[place] == FRESH and batch.failures[place].kind not in allowed
        ][:1]
        n = failed[0] if failed else len(batch)
        recorder.add(batch.part(0, n), known=known[:n] > FRESH, old=old[:n])
        for place in failed:
            failure = batch.failures[place]
            why = f"stopped at {batch.references.paths[place]}: {failure.kind}: {failure.message}"
            goes_on = " (--resume tries it again, --on-error record goes past it)" if recorder.journal else ""
            raise StoppedAtError(why + goes_on)
        if stopped():
            return
        if (known == FRESH).any():
            watcher.progressed(batch.where(known == FRESH))


def _gone(job: Job) -> tuple[int, str]:
    """How many images are gone since an earlier run, and the path of one; the files about their faces go as well."""
    n, example, crops, copies = 0, "", job.options.search.crops, job.options.annotate
    for path in job.work.gone():
        n, example = n + 1, example or path
        job.output.forget(path)
        for folder in (crops, copies):
            face_files.make_room(folder)
        face_files.write_crops(crops, path)
        remove_copy(copies, path)
    for folder in (crops, copies):
        face_files.settle(folder)
    return n, example
