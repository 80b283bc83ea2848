"""Use case: how fast ferbatch is on this machine, against what the machine could do and against other programs."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ferbatch.commands.bench import peers, processes, rows, samples
from ferbatch.commands.bench.processes import Cores, command
from ferbatch.core.errors import NoImagesError, UsageError
from ferbatch.core.names import escape
from ferbatch.core.options import BATCH_SIZE, EXAMPLE, PACKAGE, BenchOptions, searched_on
from ferbatch.core.records import Decoding, Search
from ferbatch.core.version import __version__
from ferbatch.images import faces, jpeg
from ferbatch.model.devices import choose_device
from ferbatch.sources.listing import Listing, list_images
from ferbatch.stream import pool
from ferbatch.stream.classifier import Classifier
from ferbatch.stream.source import Batches, loader

BENCH_SCHEMA = 1
MOST_INPUTS = 4_096  # decoded images that are kept for the network, which sees them again and again
MOST_FOR_PEERS = 2_000  # images: other programs may be slow
FORWARD = 2.0  # seconds, about, of one measurement of the network alone
CLEARLY = 1.1  # another choice is recommended where it is so many times as fast as the default
OUTPUT = "labels.csv"

Rounds = dict[str, list[float]]  # what was measured -> its value in each round


def run(options: BenchOptions, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure, round after round, and give medians; `note` hears what goes on.

    Raises UsageError, NoImagesError or ModelError before anything is measured, UsageError where a peer does not run.
    """
    _check(options)
    with _images(options, note) as (paths, listing), tempfile.TemporaryDirectory() as folder:
        classifiers = {
            name: Classifier.load(name, options.device, precision=options.precision) for name in options.models
        }
        cores = Cores(torch.get_num_threads())
        try:
            search = searched_on(Search(options.faces), options.faces_on, str(choose_device(options.device)))
            bench = _Bench(options, paths, listing, os.path.join(folder, OUTPUT), cores, note, search)
            return bench.report([bench.model(*one) for one in classifiers.items()])
        finally:
            cores.close()


def _check(options: BenchOptions) -> None:
    for name in options.compare:
        if name not in peers.PEERS:
            raise UsageError(f"no peer called '{escape(name)}' (known: {', '.join(peers.PEERS)})")
    if options.generate not in samples.KINDS:
        raise UsageError(f"no images called '{escape(options.generate)}' (known: {', '.join(samples.KINDS)})")


@contextmanager
def _images(options: BenchOptions, note: Callable[[str], None]) -> Iterator[tuple[Sequence[str], Listing]]:
    """PATHS and the images below, or images that are drawn for as long as they are needed."""
    with tempfile.TemporaryDirectory() as folder:
        paths: Sequence[str] = options.paths
        if not paths:
            note(f"drawing {options.generate}")
            samples.make(options.generate, folder, options.images)
            paths = [folder]
        listing = list_images(paths, ())
        if options.paths and options.images is not None:
            listing = listing.where(np.arange(min(options.images, len(listing))))
        if not listing:
            raise NoImagesError(f"no images found under {', '.join(map(escape, paths))}")
        yield paths, listing


@dataclass(frozen=True, slots=True)
class _Bench:
    """One run of the benchmark on one set of images."""

    options: BenchOptions
    paths: Sequence[str]  # given to `ferbatch label`
    listing: Listing  # every image under `paths`, or as many as were asked for
    output: str  # the labels file that `ferbatch label` writes, again and again
    cores: Cores
    note: Callable[[str], None]  # hears what goes on
    search: Search

    @property
    def files(self) -> Sequence[bytes]:
        return self.listing.references(range(len(self.listing))).files

    def model(self, name: str, classifier: Classifier) -> dict[str, Any]:
        """What one model comes to: medians over the rounds, and of ratios the medians of each round's."""
        card, inputs = classifier.card, self._inputs(classifier.card.size)
        rounds: Rounds = {}
        for number in range(self.options.repeat):
            self.note(f"{escape(card.name)}: round {number + 1} of {self.options.repeat}")
            for what, value in self._round(name, classifier, inputs).items():
                rounds.setdefault(what, []).append(value)
        return {
            "model": card.name,
            "device": str(classifier.device),
            "precision": classifier.precision,
            "block": classifier.block,
            "median": {what: statistics.median(values) for what, values in rounds.items()},
            "rounds": rounds,
            "peak_memory": self._command(name, [], watched=True).peak,
            "recommended": self._recommended(name) if self.options.recommend else None,
        }

    def _round(self, name: str, classifier: Classifier, inputs: NDArray[np.uint8]) -> dict[str, float]:
        """Everything once: images/s of each part, of the whole and of other programs, and their ratios."""
        size, labels, folder = classifier.card.size, classifier.card.labels, os.path.dirname(self.output)
        found = {
            "read": self.cores.rate("read", self.files, size),
            "decode": self.cores.rate("decode", self.files, size, self.search),
            "forward": _forward(classifier, inputs),
            "rows": rows.rate(self.listing, labels, folder),
        }
        if importlib.util.find_spec("pyarrow"):
            found["rows_parquet"] = rows.rate(self.listing, labels, folder, "parquet")
        found["limit"] = self._limit(found, classifier.device.type)
        found["end_to_end"], found["command_seconds"] = self._label(name, [])
        found |= {peer: self._peer(peer, name) for peer in self.options.compare}
        for other in ("limit", "decode", *self.options.compare):
            found[f"end_to_end / {other}"] = found["end_to_end"] / found[other]
        return found | (self._with_cores(name, size, found["end_to_end"]) if self.search.device else {})

    def _with_cores(self, name: str, size: int, end_to_end: float) -> dict[str, float]:
        """images/s where the cores look for faces, as far as that makes a difference, and what a device makes of it."""
        on_cores = Search(self.options.faces)
        found = {
            "looks": self.cores.looks(self.files, self.search),
            "cores_look": self.cores.looks(self.files, on_cores),
        }
        found["decode_on_cores"] = self.cores.rate("decode", self.files, size, on_cores)
        found["end_to_end_on_cores"], _ = self._label(name, ["--faces-on", "cores"])
        found["looks / cores_look"] = found["looks"] / (found["cores_look"] or 1.0)  # where nothing is looked for
        found["end_to_end / end_to_end_on_cores"] = end_to_end / found["end_to_end_on_cores"]
        return found

    def _limit(self, found: Mapping[str, float], device: str) -> float:
        """images/s that no program can pass: the cores do all of it, but what a GPU does, which goes on beside."""
        of_cores = 1 / found["decode"] + 1 / (found["rows"] * self.cores.n)
        return 1 / (of_cores + 1 / found["forward"]) if device == "cpu" else min(1 / of_cores, found["forward"])

    def _inputs(self, size: int) -> NDArray[np.uint8]:
        some = self.listing.where(np.arange(min(MOST_INPUTS, len(self.listing))))
        usable = [batch.inputs for batch in loader(Batches(some, Decoding(size), BATCH_SIZE))]
        if not any(map(len, usable)):
            raise NoImagesError("none of the images can be read")
        return np.concatenate(usable)

    def _label(self, model: str, more: Sequence[str]) -> tuple[float, float]:
        """images/s of the streaming, and seconds in all, of `ferbatch label`."""
        done = self._command(model, more)
        sidecar = json.loads(Path(f"{self.output}.run.json").read_text())
        return sidecar["images_per_second"], done.seconds

    def _command(self, model: str, more: Sequence[str], *, watched: bool = False) -> processes.Command:
        """`ferbatch label` with the options of the benchmark and some more; UsageError where it fails."""
        listed = self.options.paths and self.options.images is not None
        argv = [*_ferbatch("label"), "-o", self.output, "--model", model, "--no-truth", "-q", "--overwrite"]
        argv += ["--device", self.options.device, "--precision", self.options.precision]
        argv += ["--faces", self.options.faces, "--faces-on", self.options.faces_on, *more]
        argv += ["-0", "-"] if listed else ["--", *self.paths]
        done = command(argv, stdin=b"\0".join(self.files) if listed else b"", watched=watched)
        if done.exit_code not in (0, 3):
            raise UsageError(f"ferbatch label failed: {done.stderr.strip()}")
        return done

    def _peer(self, name: str, model: str) -> float:
        """images/s of another program, its start-up aside."""
        python = sys.executable if name == "naive" else self.options.peer_python or sys.executable
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        if name == "naive":
            environment["PYTHONPATH"] = str(PACKAGE.parent)
        files = self.files[:: max(1, len(self.files) // MOST_FOR_PEERS)]
        done = command([python, peers.__file__, name, model], stdin=b"\0".join(files), environment=environment)
        if done.exit_code:
            last = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
            raise UsageError(f"the peer {name} failed: {last[0]}")
        return float(done.stdout.split()[-1])

    def _recommended(self, model: str) -> dict[str, Any]:
        """The --workers and --batch-size to take: the defaults, unless a run with others is clearly quicker."""
        n = self.cores.n
        choices = {"": (n if pool.pays_for(self.listing, self.search) else 0, BATCH_SIZE)}
        choices |= {f"--isolate --workers {k}": (k, BATCH_SIZE) for k in sorted({1, n, 2 * n})}
        choices |= {f"--isolate --batch-size {size}": (n, size) for size in (32, 1_024)}
        choices |= {"--no-isolate": (0, BATCH_SIZE)}
        tried = {}
        for options in choices:
            self.note(f"{escape(model)}: trying {options or 'the defaults'}")
            tried[options] = self._label(model, options.split())[0]
        best = max(tried, key=lambda options: tried[options])
        best = best if tried[best] > CLEARLY * tried[""] else ""
        workers, batch_size = choices[best]
        return {"options": best, "workers": workers, "batch_size": batch_size, "tried": tried}

    def report(self, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Everything that was measured, the models as `model` gives them; start-up and memory are measured here."""
        self.note("start-up")
        start = self._start_up()
        torch_alone = command([sys.executable, "-c", "import torch, time; time.sleep(0.2)"], watched=True).peak
        return {
            "schema": BENCH_SCHEMA,
            "ferbatch": __version__,
            "torch": torch.__version__,
            "decoder": jpeg.decoders()[0],
            "faces": self.options.faces,
            "faces_on": self.options.faces_on,
            "detector": faces.version(self.search),
            "machine": processes.machine() | {"cores": self.cores.n, "gpu": _gpu()},
            "images": {
                "n": len(self.files),
                "bytes": sum(os.path.getsize(file) for file in self.files if os.path.exists(file)),
                "drawn": None if self.options.paths else self.options.generate,
            },
            "rounds": self.options.repeat,
            "seconds": start,
            "memory_of_torch_alone": torch_alone,
            "models": list(models),
        }

    def _start_up(self) -> dict[str, float]:
        """Seconds of short commands, and how many times longer help takes than its import; medians over the rounds."""
        commands = {
            "one_image": [*_ferbatch("label"), "-o", self.output, "--no-truth", "-q", "--overwrite", EXAMPLE],
            "help": [*_ferbatch(), "--help"],
            "import_typer": [sys.executable, "-c", "import typer"],
            "import_torch": [sys.executable, "-c", "import torch"],
        }
        rounds: Rounds = {}
        for _ in range(self.options.repeat):
            for name, argv in commands.items():
                rounds.setdefault(name, []).append(command(argv).seconds)
            rounds.setdefault("help / import_typer", []).append(rounds["help"][-1] / rounds["import_typer"][-1])
        return {name: statistics.median(values) for name, values in rounds.items()}


def _forward(classifier: Classifier, inputs: NDArray[np.uint8]) -> float:
    """images/s of the network alone, on all cores or the GPU."""
    pixels = inputs[: len(inputs) // classifier.block * classifier.block or None]
    classifier.probabilities(pixels[: 4 * classifier.block])
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < FORWARD:
        n += len(classifier.probabilities(pixels))
    return n / (time.perf_counter() - start)


def _ferbatch(*words: str) -> list[str]:
    return [sys.executable, "-m", "ferbatch", *words]


def _gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
