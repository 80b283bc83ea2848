"""ferbatch: label folders of face images with the expression they show.

    >>> import ferbatch
    >>> for prediction in ferbatch.label("images"):
    ...     print(prediction.path, prediction.label, prediction.confidence)
    >>> model = ferbatch.load_model()
    >>> model(Image.open("face.jpg")).label
    'happy'

Importing ferbatch loads no torch; the first call does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ferbatch.core.errors import FerbatchError
from ferbatch.core.names import decode_path
from ferbatch.core.options import BATCH_SIZE, DEFAULT_MODEL, Options, TableOptions
from ferbatch.core.records import MIN_FACE, MOST_TURN, Doubt, Prediction, Rules, Search
from ferbatch.core.version import __version__

if TYPE_CHECKING:
    import pandas

    from ferbatch.stream.classifier import Classifier

__all__ = ["FerbatchError", "Prediction", "__version__", "decode_path", "label", "load_model", "read_labels"]


def label(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str = DEFAULT_MODEL,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    min_confidence: float = 0.0,
    min_score: float = 0.0,
    max_turn: float = MOST_TURN,
    recursive: bool = True,
    hidden: bool = False,
    exclude: str | Iterable[str] = (),
    follow_links: bool = False,
    path_column: str | None = None,
    images: str | None = None,
    tta: bool = False,
    faces: str = "auto",
    min_face: int = MIN_FACE,
    face_margin: float = 0.0,
    largest_face: bool = False,
) -> Iterator[Prediction]:
    """Yield the rows that `ferbatch label` writes for `paths` (folders, files, tables): one per image, or one per face.

    `model` is a shipped model's name or the path of a .safetensors file; `device` is auto, cpu, cuda, cuda:N or mps;
    `precision` is fp32, bf16, or auto for bf16 where the device computes in it; `workers` counts decode processes
    (None: what suits the device); predictions less sure than `min_confidence` (0..1) get the status `uncertain`, as do
    those of faces that the detector is less sure of than `min_score` (0..1), or that are turned by more than `max_turn`
    degrees; `tta` labels each image together with its mirror image. In folders, `recursive` takes those below as well,
    `hidden` what is hidden or kept by other programs, `exclude` leaves out what its patterns match, as in .gitignore,
    `follow_links` follows links to folders. Of tables, `path_column` names the images, which start from `images`, a
    folder or URL, else from the table's folder. `faces` says whether images are taken `whole`, each for one
    cropped face, searched for faces (`detect`), or what suits each (`auto`); faces smaller than `min_face` pixels are
    left out, `face_margin` (-0.25..1) widens their crops, `largest_face` leaves one an image. An image that cannot be
    read is a Prediction with status `error`, one without a face one with `no_face`.
    Raises FerbatchError for a missing path or device, a pattern that is none, or a model that cannot be loaded,
    ValueError for a number out of its range.
    """
    from ferbatch.commands.label import run

    options = Options(
        (paths,) if isinstance(paths, str | os.PathLike) else tuple(paths),
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        doubt=Doubt(min_confidence, min_score, max_turn),
        recursive=recursive,
        rules=Rules(hidden, (exclude,) if isinstance(exclude, str) else tuple(exclude), follow_links),
        table=TableOptions(path_column, images=images),
        tta=tta,
        search=Search(faces, min_face, face_margin, largest_face),
    )
    return run.rows_of(options)


def load_model(
    name: str = DEFAULT_MODEL, device: str = "auto", *, precision: str = "auto", tta: bool = False
) -> Classifier:
    """A model that labels PIL images or uint8 arrays, one or a list of them, in one call.

    Raises FerbatchError if it cannot be loaded or verified, or the device is not there.
    """
    from ferbatch.stream.classifier import Classifier

    return Classifier.load(name, device, precision=precision, tta=tta)


def read_labels(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """A labels file of any format, in a bucket too, or a database's URL, as a DataFrame.

    Text columns hold '' where empty, numbers NaN. A file called `NA.jpg` or a person called `null` stays a text.
    """
    from ferbatch.sources import tables

    return tables.read_labels(os.fspath(path))
