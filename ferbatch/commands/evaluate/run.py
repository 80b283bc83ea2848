"""Use case: images with known truth -> how good a model's labels are, or those of a labels file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferbatch.commands.evaluate.folder import ReportFolder
from ferbatch.commands.evaluate.labels_file import LabelsFile
from ferbatch.core.errors import UsageError
from ferbatch.core.files import replace_file
from ferbatch.core.names import escape
from ferbatch.core.options import EvaluateOptions
from ferbatch.core.process import importing
from ferbatch.core.records import NONE, Decoding, Prediction, Workers
from ferbatch.core.writers import WRITERS, Writer
from ferbatch.model import weights
from ferbatch.model.weights import Card
from ferbatch.report import build, gates, pages
from ferbatch.report.build import Subject, System
from ferbatch.scoring.agreement import Votes
from ferbatch.scoring.outcomes import Scores
from ferbatch.sources.metadata import Joined, Slices, read_slices, read_votes
from ferbatch.sources.tables import shown
from ferbatch.sources.truth import Truth, of_labels, parse_classes, read_truth


class Watcher(Protocol):
    """What a caller sees of an evaluation while it goes on."""

    def known(self, truth: Truth, others: bool) -> None: ...
    def joined(self, what: str, joined: Joined) -> None: ...
    def left_out(self, columns: tuple[str, ...]) -> None: ...
    def started(self, images: int, name: str, device: str) -> None: ...
    def progressed(self, prediction: Prediction) -> None: ...
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


@dataclass(frozen=True, slots=True)
class _Known:
    """The images whose truth is one of the labels, and what tables say of them."""

    truth: Truth
    votes: Votes | None
    slices: Slices | None

    def system(self, name: str, scores: Scores) -> System:
        return System(name, self.truth.images, scores, votes=self.votes, slices=self.slices)


def run(options: EvaluateOptions, *, overwrite: bool, watcher: Watcher) -> Evaluation:
    """Hold labels against the truth, write the report folder if one is asked for, and try the gates.

    Raises what a wrong option, a bad table or a model that cannot be loaded raises before any image is labelled;
    OutputError where the report cannot be written.
    """
    wanted = gates.parse(options.fail_under)
    if options.report == "":
        raise UsageError("--report is empty")
    folder = ReportFolder(options.report) if options.report is not None else None
    if folder:
        folder.check(overwrite)
        _keep_inputs(options, folder)
    with ExitStack() as stack:  # what the report folder holds is replaced at its end, or not at all
        if options.predictions is not None:
            subject, systems = _of_file(options, LabelsFile.read(options.predictions), wanted, watcher)
            if folder:
                stack.enter_context(folder.held(overwrite))
        else:
            open_folder = partial(_opened, folder, stack, overwrite)
            subject, systems = _of_models(options, wanted, open_folder, watcher)
        built = build.build(subject, systems, options.min_confidence)
        if folder:
            _write(folder, built, systems, options)
    failed = 0  # images of this run
    if options.predictions is None:
        scores = [systems[0].scores, *systems[0].others.values()]
        failed = sum(int((~one.labelled & ~one.faceless).sum()) for one in scores)
    return Evaluation(built, gates.missed(wanted, built["results"]), failed, folder)


def _opened(
    folder: ReportFolder | None, stack: ExitStack, overwrite: bool, at: int, labels: tuple[str, ...]
) -> Writer | None:
    """The writer for the rows of the model with index `at`; its file appears when the stack is left."""
    if not folder:
        return None
    if at == 0:
        stack.enter_context(folder.held(overwrite))
    writer = WRITERS["csv"](stack.enter_context(replace_file(folder.file(_labels_file(at)))), labels)
    stack.callback(writer.close)
    return writer


def _keep_inputs(options: EvaluateOptions, folder: ReportFolder) -> None:
    """UsageError where the report would take a table away that it is made from."""
    for path in filter(None, (options.truth, options.predictions, options.votes, options.slices)):
        inside = os.path.realpath(os.path.dirname(path) or ".") == os.path.realpath(folder.path)
        if inside and os.path.isfile(path):
            raise UsageError(f"{shown(path)} lies in {folder.shown}, which would be replaced: choose another --report")


def _of_file(
    options: EvaluateOptions, file: LabelsFile, wanted: list[gates.Gate], watcher: Watcher
) -> tuple[Subject, list[System]]:
    classes = parse_classes(options.classes, file.labels)
    truth = file.truth(classes) if options.truth is None else read_truth(options.truth, file.labels, classes)
    watcher.known(truth, options.others)
    scores, joined, at = file.scores(truth, options.strip_prefix)
    watcher.joined("labels", joined)
    has_row = np.zeros(len(truth.codes), bool)
    has_row[at] = True
    known, subject = _annotated(options, truth, truth.has_label & has_row, watcher)
    judged = scores.where(scores.truth != NONE)
    system = replace(known.system(shown(file.path), judged), joined=joined)
    system = replace(system, others=_by_class(truth, at, scores) if options.others else {})
    if wanted:
        gates.check(wanted, build.blank(system, options.min_confidence))
    return subject, [system]


def _of_models(
    options: EvaluateOptions,
    wanted: list[gates.Gate],
    open_rows: Callable[[int, tuple[str, ...]], Writer | None],
    watcher: Watcher,
) -> tuple[Subject, list[System]]:
    if options.truth is None:
        raise UsageError("say --truth: class folders, or a table with the columns path and label")
    with importing():  # torch with it: labels given earlier need none
        from ferbatch.model.devices import choose_device
        from ferbatch.stream.classifier import Classifier

    device = choose_device(options.device)
    cards = _cards(options.models)
    labels = next(iter(cards.values())).labels
    truth = read_truth(options.truth, labels, parse_classes(options.classes, labels))
    watcher.known(truth, options.others)
    shown_to_model = truth.has_label | (truth.is_other & options.others)
    known, subject = _annotated(options, truth, truth.has_label, watcher)
    _some_are_there(truth)
    at = np.flatnonzero(shown_to_model)
    chosen = truth.where(shown_to_model)
    if wanted:
        nothing = Scores.unpredicted(labels, np.zeros(0, np.int16))
        others = dict.fromkeys(truth.others(), nothing) if options.others else {}
        unlabelled = known.system("", Scores.unpredicted(labels, of_labels(known.truth.codes, labels)))
        gates.check(wanted, build.blank(replace(unlabelled, others=others), options.min_confidence))
    classifiers = [Classifier.load(model, device, precision=options.precision, tta=options.tta) for model in cards]
    systems: list[System] = []
    for name, classifier in zip(_names(cards), classifiers, strict=True):
        card = classifier.card
        writer = open_rows(len(systems), card.labels)
        watcher.started(len(chosen.images), name, str(classifier.device))
        scores = Scores.unpredicted(labels, of_labels(chosen.codes, labels))
        stream = classifier.stream(
            chosen.images,
            Decoding(card.size, search=options.search),
            Workers(options.workers, isolate=None),
            min_confidence=options.min_confidence,
            batch_size=options.batch_size,
        )
        for place, (_, rows) in enumerate(stream):
            scores.put(place, rows[0])
            if writer:
                writer.write(rows[0])
            watcher.progressed(rows[0])
        watcher.labelled(name)
        system = replace(known.system(name, scores.where(scores.truth != NONE)), card=card, tta=options.tta)
        systems.append(replace(system, others=_by_class(truth, at, scores) if options.others else {}))
    return subject, systems


def _some_are_there(truth: Truth) -> None:
    """UsageError where a look at some images of a table finds none: they are looked for in the wrong place."""
    some = [truth.images[at] for at in range(0, len(truth.images), max(1, len(truth.images) // 100))]
    if not any(os.path.lexists(ref.file) for ref in some):
        raise UsageError(f"none of the images is there: looked for {some[0].path}")


def _cards(models: tuple[str, ...]) -> dict[str, Card]:
    """The cards by what the models were called on the command line; each once."""
    cards = {model: weights.read_card(model) for model in models}
    first = next(iter(cards.values()))
    for card in cards.values():
        if set(card.labels) != set(first.labels):
            raise UsageError(
                f"{escape(card.name)} labels {', '.join(card.labels)}, {escape(first.name)} labels"
                f" {', '.join(first.labels)}: models side by side need the same labels"
            )
    return cards


def _names(cards: Mapping[str, Card]) -> list[str]:
    """A name for each model, with its path where two have the same."""
    names = [escape(card.name) for card in cards.values()]
    return [
        f"{name} ({escape(model)})" if names.count(name) > 1 else name for name, model in zip(names, cards, strict=True)
    ]


def _annotated(
    options: EvaluateOptions, truth: Truth, judged: NDArray[np.bool_], watcher: Watcher
) -> tuple[_Known, Subject]:
    """The images to judge with their votes and slices, and what the report says of them all."""
    chosen = truth.where(judged)
    votes, votes_joined = read_votes(options.votes, chosen) if options.votes is not None else (None, None)
    slices, slices_joined = read_slices(options.slices, chosen) if options.slices is not None else (None, None)
    if votes_joined:
        watcher.joined("votes", votes_joined)
    if slices and slices_joined:
        watcher.joined("metadata", slices_joined)
        watcher.left_out(slices.left_out)
    counts = np.bincount(chosen.codes, minlength=len(truth.labels)).tolist()
    subject = Subject(
        truth=shown(options.truth if options.truth is not None else str(options.predictions)),
        labels=truth.labels,
        images=len(chosen.images),
        per_label=dict(zip(truth.labels, counts, strict=True)),
        others=dict(truth.others().most_common()),
        others_kept=options.others,
        without_truth=int((truth.codes == NONE).sum()),
        conflicts=truth.conflicts,
        votes=votes_joined,
        slices=slices_joined,
        slices_left_out=slices.left_out if slices else (),
        classes=parse_classes(options.classes, truth.labels),
    )
    return _Known(chosen, votes, slices), subject


def _by_class(truth: Truth, at: NDArray[np.int64], scores: Scores) -> dict[str, Scores]:
    """The scores of images of classes that are no label; scores[i] is of image at[i]."""
    codes = truth.codes[at]
    return {
        name: scores.where(codes == code)
        for code, name in enumerate(truth.names)
        if code >= len(truth.labels) and (codes == code).any()
    }


def _labels_file(at: int) -> str:
    """The file in the report folder that holds the rows of the model with index `at`."""
    return f"labels-{at + 1}.csv" if at else "labels.csv"


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
