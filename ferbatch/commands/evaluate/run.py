"""Use case: images with known truth -> how good a model's labels are, or those of a labels file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.evaluate.folder import ReportFolder
from ferbatch.commands.evaluate.judged import Judged, judge
from ferbatch.commands.evaluate.labels_file import LabelsFile
from ferbatch.commands.evaluate.store_folder import StoreReportFolder
from ferbatch.core.batch import Batch
from ferbatch.core.errors import UsageError
from ferbatch.core.files import replace_file
from ferbatch.core.names import escape, listed, shown
from ferbatch.core.options import EvaluateOptions, Existing
from ferbatch.core.process import importing
from ferbatch.core.records import Decoding, Doubt, Workers
from ferbatch.core.stores import objects
from ferbatch.core.stores.urls import is_remote
from ferbatch.core.writers import WRITERS, Writer
from ferbatch.model import weights
from ferbatch.model.weights import Card
from ferbatch.report import build, gates, pages
from ferbatch.report.build import System
from ferbatch.report.gates import Gate
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.sources.metadata import Matched
from ferbatch.sources.truth import Truth, of_labels, parse_classes, read_truth

if TYPE_CHECKING:
    from ferbatch.stream.classifier import Classifier


class Watcher(Protocol):
    """What a caller sees of an evaluation while it goes on."""

    def known(self, truth: Truth, others: bool) -> None: ...
    def matched(self, what: str, matched: Matched) -> None: ...
    def left_out(self, columns: tuple[str, ...]) -> None: ...
    def started(self, images: int, name: str, device: str) -> None: ...
    def progressed(self, batch: Batch) -> None: ...
    def labelled(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation."""

    report: Mapping[str, Any]
    missed: list[str]  # gates, in words
    failed: int  # images that could not be labelled in this run
    folder: ReportFolder | None

    @property
    def exit_code(self) -> int:
        return 5 if self.missed else 3 if self.failed else 0


def run(options: EvaluateOptions, *, existing: Existing, watcher: Watcher) -> Evaluation:
    """Hold labels against the truth, write the report folder if one is asked for, and try the gates.

    Raises what a wrong option, a bad table or a model that cannot be loaded raises before any image is labelled;
    OutputError where the report cannot be written.
    """
    wanted = gates.parse(options.fail_under)
    folder = _folder(options, existing)
    systems: list[System] = []
    models: Mapping[str, Classifier] = {}
    if options.predictions is not None:
        judged, system = _of_file(options, LabelsFile.read(options.predictions), wanted, watcher)
        systems.append(system)
    else:
        judged, models = _of_models(options, wanted, watcher)
    with ExitStack() as stack:  # what the report folder holds is replaced at its end, or not at all
        if folder:
            stack.enter_context(folder.held(existing))
        for name, classifier in models.items():
            writer = _open_rows(folder, len(systems), classifier.card.labels, stack) if folder else None
            outcomes = _label(options, name, classifier, judged.seen, writer, watcher)
            systems.append(replace(judged.system(name, outcomes), card=classifier.card, tta=options.tta))
        built = build.build(judged.subject, systems, options.min_confidence)
        if folder:
            _write(folder, built, systems, options)
    return Evaluation(built, gates.missed(wanted, built["results"]), _failed(systems[0]) if models else 0, folder)


def _folder(options: EvaluateOptions, existing: Existing) -> ReportFolder | None:
    """The folder for the report, if one is asked for; UsageError or OutputError where it cannot be had."""
    if options.report is None:
        return None
    if not options.report:
        raise UsageError("--report is empty")
    in_store = is_remote(os.fsencode(options.report))
    folder = StoreReportFolder(objects.folder(options.report)) if in_store else ReportFolder(options.report)
    folder.check(existing)
    for path in filter(None, (options.truth, options.predictions, options.votes, options.slices)):
        if folder.holds(path):
            raise UsageError(f"{shown(path)} lies in {folder.shown}, which would be replaced: choose another --report")
    return folder


def _of_file(options: EvaluateOptions, file: LabelsFile, wanted: list[Gate], watcher: Watcher) -> tuple[Judged, System]:
    """What a labels file says of the images with a truth; UsageError where it or a gate does not fit them."""
    classes = parse_classes(options.classes, file.labels)
    truth = file.truth(classes) if options.truth is None else _truth(options, file.labels)
    watcher.known(truth, options.others)
    outcomes, matched, has_row = file.outcomes(truth, options.strip_prefix)
    watcher.matched("labels", matched)
    judged = _judge(options, truth, has_row, watcher)
    system = replace(judged.system(shown(file.path), outcomes), matched=matched)
    if wanted:
        gates.check(wanted, build.blank(system, options.min_confidence))
    return judged, system


def _of_models(
    options: EvaluateOptions, wanted: list[Gate], watcher: Watcher
) -> tuple[Judged, Mapping[str, Classifier]]:
    """The images to label and the models, each by its name in the report; nothing is labelled yet.

    UsageError where an option, a table or a gate does not fit the images, ModelError where a model cannot be loaded.
    """
    with importing():  # both load torch, which a labels file does not need
        from ferbatch.model.devices import choose_device
        from ferbatch.stream.classifier import Classifier

    device = choose_device(options.device)
    cards = _cards(options.models)
    labels = next(iter(cards.values())).labels
    truth = _truth(options, labels)
    if truth.none_is_there:
        raise UsageError(truth.absent)
    truth = replace(truth, notes=(*truth.notes, *filter(None, [truth.absent])))
    watcher.known(truth, options.others)
    judged = _judge(options, truth, truth.has_label | (truth.is_other & options.others), watcher)
    if wanted:
        unlabelled = Outcomes.unpredicted(labels, of_labels(judged.seen.codes, labels))
        gates.check(wanted, build.blank(judged.system("", unlabelled), options.min_confidence))
    loaded = [Classifier.load(model, device, precision=options.precision, tta=options.tta) for model in cards]
    return judged, dict(zip(_names(cards), loaded, strict=True))


def _truth(options: EvaluateOptions, labels: tuple[str, ...]) -> Truth:
    return read_truth(options.source, labels, parse_classes(options.classes, labels), options.table, options.rules)


def _judge(options: EvaluateOptions, truth: Truth, which: NDArray[np.bool_], watcher: Watcher) -> Judged:
    """The images that a mask chooses; the watcher hears how tables matched them."""
    judged = judge(options, truth, which)
    if judged.subject.votes:
        watcher.matched("votes", judged.subject.votes)
    if judged.slices and judged.subject.slices:
        watcher.matched("metadata", judged.subject.slices)
        watcher.left_out(judged.slices.left_out)
    return judged


def _label(
    options: EvaluateOptions, name: str, classifier: Classifier, seen: Truth, writer: Writer | None, watcher: Watcher
) -> Outcomes:
    """What one model says of the images.

    options: the settings of decoding.
    name: what the report calls the model.
    classifier: the model.
    seen: the images.
    writer: takes the rows, where a report folder is written.
    watcher: hears of every row.
    """
    outcomes = Outcomes.unpredicted(seen.labels, of_labels(seen.codes, seen.labels))
    watcher.started(len(seen.images), name, str(classifier.device))
    stream = classifier.stream(
        seen.images,
        Decoding(classifier.card.size, search=options.search),
        Workers(options.workers, isolate=None),
        doubt=Doubt(options.min_confidence),
        batch_size=options.batch_size,
    )
    for batch in stream:
        outcomes.put(batch.first, batch, classifier.card.labels)
        if writer:
            writer.write(batch.largest())
        watcher.progressed(batch)
    watcher.labelled(name)
    return outcomes


def _open_rows(folder: ReportFolder, index: int, labels: tuple[str, ...], stack: ExitStack) -> Writer:
    """The writer for the rows of the model with this index; its file appears when the stack is left."""
    writer = WRITERS["csv"](stack.enter_context(replace_file(folder.file(_labels_file(index)))), labels)
    stack.callback(writer.close)
    return writer


def _failed(system: System) -> int:
    """How many images a model could not label, those aside in which it found no face."""
    every = (system.outcomes, *system.others.values())
    return sum(int((~outcomes.labelled & ~outcomes.faceless).sum()) for outcomes in every)


def _cards(models: tuple[str, ...]) -> dict[str, Card]:
    """The cards by what the models were called on the command line; each once."""
    cards = {model: weights.read_card(model) for model in models}
    first = next(iter(cards.values()))
    for card in cards.values():
        if set(card.labels) != set(first.labels):
            raise UsageError(
                f"{escape(card.name)} labels {listed(card.labels)}, {escape(first.name)} labels"
                f" {listed(first.labels)}: models side by side need the same labels"
            )
    return cards


def _names(cards: Mapping[str, Card]) -> list[str]:
    """A name for each model, with its path where two have the same."""
    names = [escape(card.name) for card in cards.values()]
    return [
        f"{name} ({escape(model)})" if names.count(name) > 1 else name for name, model in zip(names, cards, strict=True)
    ]


def _labels_file(index: int) -> str:
    """The file in the report folder that holds the rows of the model with this index."""
    return f"labels-{index + 1}.csv" if index else "labels.csv"


def _write(folder: ReportFolder, built: Mapping[str, Any], systems: list[System], options: EvaluateOptions) -> None:
    written = pages.write(built, folder.file("report"), _thumbnails(built, systems) if options.thumbnails else None)
    names = [os.path.basename(path) for path in written]
    folder.finish(names if options.predictions else [*names, *map(_labels_file, range(len(systems)))])


def _thumbnails(built: Mapping[str, Any], systems: list[System]) -> dict[str, str]:
    """Pictures of the mistakes that the page shows, by path."""
    boxes = {mistake["path"]: mistake["box"] for result in built["results"] for mistake in result["mistakes"]}
    refs = {ref.path: ref for ref in systems[0].images if ref.path in boxes}
    pictures = {path: pages.thumbnail(ref, boxes[path]) for path, ref in refs.items()}
    return {path: picture for path, picture in pictures.items() if picture}
