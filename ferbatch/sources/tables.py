"""Tables read as pandas DataFrames: labels files, and what people keep about their images."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ferbatch.core import archives
from ferbatch.core.containers import damages
from ferbatch.core.database import database_at, is_url, name_of
from ferbatch.core.errors import UnreadableImageError, UsageError
from ferbatch.core.names import brief, count, decode_path, listed, shown
from ferbatch.core.records import SINCE_2
from ferbatch.core.stores import objects
from ferbatch.core.stores.urls import cleaned, is_remote, without_secret
from ferbatch.core.writers import TEXT_COLUMNS, check_format
from ferbatch.images import pixel_rows
from ferbatch.sources.cells import holds, text_of
from ferbatch.sources.contents import check_is_there, source_of
from ferbatch.sources.kinds import LABEL_COLUMNS, SUFFIXES, TEXTS, suffix_of
from ferbatch.sources.layout import SEPARATORS, Layout, encoding_of, errors_of, is_name, layout_of, plain
from ferbatch.sources.parquet import IN_TABLE, holds_images, read_parquet

# What people call the column that names the image; of several the first counts whose values are names of images.
PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "image", "image_name", "image_path", "file_path", "img"),
    *("img_path", "img_name", "imagepath", "imagename", "pth", "subdirectory_filepath", "fname", "image_id", "img_id"),
    *("url", "uri", "image_url", "img_url", "image_uri", "file_url", "s3_uri", "gcs_uri", "urls"),
)
SPLIT_COLUMNS = ("split", "usage", "subset", "set")
EMOTIONS = {  # what the numbers in a table of pixels mean: FER2013's, and CK+'s last one
    **{"0": "angry", "1": "disgust", "2": "fear", "3": "happy", "4": "sad", "5": "surprise", "6": "neutral"},
    "7": "contempt",
}
LOOKED_AT = 20  # values by which a column is known to hold names of images


@dataclass(frozen=True, slots=True)
class Table:
    """A table about images."""

    path: str
    frame: pd.DataFrame  # every value a string, '' where there is none
    notes: tuple[str, ...] = ()  # how it was read, a sentence each
    held: Mapping[str, str] = field(default_factory=dict)  # columns that hold images themselves -> what they hold
    of_pixels: bool = False  # its images are its own rows, as pixel_rows has them
    of_images: bool = False  # or as an archive has them: the column IN_TABLE names each
    has_header: bool = True

    def column(self, name: str) -> str | None:
        """The column of this name, whatever its case."""
        return next((str(own) for own in self.frame.columns if plain(str(own)) == plain(name)), None)

    def first_of(self, names: Sequence[str]) -> str | None:
        """The first column that goes by one of these names."""
        return next(filter(None, map(self.column, names)), None)

    def path_column(self, asked: str | None = None, *, must: bool = True) -> str:
        """The column that names the images; UsageError where none does.

        asked: by --path-column.
        must: whether a table without that one is refused; else the usual names count in it.
        """
        if asked is not None and (column := self._asked("--path-column", asked, must)):
            return self._text_in(column)
        if self.of_images:
            return IN_TABLE
        known = [column for name in PATH_COLUMNS if (column := self.column(name))]
        known = [*filter(self._names_images, known), *known]
        if free := [column for column in known if column not in self.held]:
            return free[0]
        if len(found := [column for column in self.frame.columns if self._names_images(column)]) == 1:
            return str(found[0])
        if known or self.held:
            return self._text_in(next(iter(known or self.held)))
        raise UsageError(self._without("--path-column", PATH_COLUMNS, "names the image"))

    def label_column(self, asked: str | None = None) -> str:
        """The column that says what each image shows, `asked` for by --label-column; UsageError where none does."""
        if asked is not None and (column := self._asked("--label-column", asked, must=True)):
            return self._text_in(column)
        if found := self.first_of(LABEL_COLUMNS):
            return self._text_in(found)
        if not self.has_header and len(self.frame.columns) == 2:
            return next(str(one) for one in self.frame.columns if one != self.path_column())
        raise UsageError(self._without("--label-column", LABEL_COLUMNS, "holds the label"))

    def paths(self, column: str) -> list[bytes]:
        r"""A column of paths, as bytes; UsageError for a NUL in one.

        `\xNN` is a byte, as in every output of ferbatch's; but in a table with other backslashes, which no such output
        has, each is what it is.
        """
        values = self.frame[column].tolist()
        if any("\\" in value and _BACKSLASH.search(value) for value in values):
            paths = [value.encode("utf-8", "surrogateescape") for value in values]
        else:
            paths = list(map(decode_path, values))
        for row, path in enumerate(paths):
            if b"\0" in path:
                said = f"{brief(values[row], 40)} holds a NUL, which no name of a file can"
                raise UsageError(f"{self._place(row, column)}: {said}")
            if b"://" in path:
                try:
                    paths[row] = cleaned(path.strip())
                except UsageError as error:
                    raise UsageError(f"{self._place(row, column)}: {error}") from None
        return paths

    def _place(self, row: int, column: str) -> str:
        return f"{shown(self.path)}, row {row + 1:,}, column {brief(column, 40)}"

    def _asked(self, option: str, name: str, must: bool) -> str | None:
        found = self.column(name)
        if found is None and must:
            raise UsageError(f"{option}: {shown(self.path)} has no column {brief(name, 40)} ({self._there()})")
        return found

    def _text_in(self, column: str) -> str:
        """The column itself; UsageError where it holds images in place of text."""
        if column in self.held:
            raise UsageError(
                f"the column {brief(column, 40)} of {shown(self.path)} holds {self.held[column]}, which are not read:"
                " write each to a file, and their names to a table"
            )
        return column

    def _names_images(self, column: str) -> bool:
        """Whether the first values are names of images, by their suffixes."""
        some = [value for value in self.frame[column].head(LOOKED_AT) if value]
        return bool(some) and all(map(is_name, some))

    def _without(self, option: str, names: Sequence[str], what: str) -> str:
        return (
            f"{shown(self.path)} has none of the columns {listed(names, 8)} ({self._there()}); {option} NAME says which"
            f" column {what}"
        )

    def _there(self) -> str:
        columns = [brief(str(name), 24) for name in self.frame.columns]
        header = "" if self.has_header else "no header, so they go by their numbers; "
        return f"{header}it has: {brief(listed(columns, 20), 120)}"


_BACKSLASH = re.compile(r"\\(?!x[0-9a-f]{2})")  # one that is not the beginning of a byte's spelling


def read_labels(path: str) -> pd.DataFrame:
    """The rows of a csv, json, jsonl or parquet labels file, in a store too, or of a database.

    '' and NaN stand where nothing applies. A file of schema 1 has the columns that came later too, of each face NaN.

    UsageError where the suffix names no format, or what the format needs is not installed.
    """
    if is_url(path):
        frame = _of_database(path)
    else:
        if (suffix := suffix_of(path)) not in TEXTS:
            check_format(suffix)
        with objects.fetched(path) as file:
            _, frame = _parsed(file, dict.fromkeys(TEXT_COLUMNS, "str"))
    missing = TEXT_COLUMNS - set(frame.columns)
    if missing:
        raise UsageError(f"{name_of(path)} is no labels file: no column {', '.join(sorted(missing))}")
    for name in frame.columns:
        if name in TEXT_COLUMNS:
            frame[name] = frame[name].fillna("").astype("str")
        else:
            with suppress(ValueError):  # a text column of somebody else's stays one
                frame[name] = pd.to_numeric(frame[name])
    if "face_score" in frame.columns:
        frame = frame.reindex(columns=[*frame.columns, *(name for name in SINCE_2 if name not in frame.columns)])
    return frame


def _of_database(url: str) -> pd.DataFrame:
    database_at(url)  # says what is not installed
    from ferbatch.core.label_tables import read_rows  # imports SQLAlchemy, which is an extra

    return read_rows(url)


def read_table(path: str, rows: int | None = None) -> Table:
    """The rows of any table in one of the formats in SUFFIXES; UsageError where it cannot be read.

    rows: how many of a text's at the most; None: all.
    """
    path = without_secret(path)
    check_is_there(path)
    layout, frame = _parsed(path, object, rows)
    if not len(frame.columns):
        raise UsageError(f"{shown(path)} has no columns")
    names = [str(name).strip() for name in frame.columns]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"{shown(path)} has two columns called {brief(twice[0])}")
    texts, held = dict[str, list[str]](), dict[str, str]()
    for name, own in zip(names, frame.columns, strict=True):
        if what := holds(frame[own]):
            held[name] = what
        texts[name] = [""] * len(frame) if what else [text_of(value) for value in frame[own]]
    if of_pixels := bool(layout and layout.of_pixels):
        if is_remote(os.fsencode(path)):
            raise UsageError(f"the images of {shown(path)} are its rows, which are read from files: copy it here")
        texts["path"] = _row_names(texts)
    read = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in texts.items()})
    has_header, of_images = layout is None or layout.header is not None, IN_TABLE in texts
    return Table(path, read, _notes(path, layout), held, of_pixels, of_images, has_header)


def of_images(path: str) -> bool:
    """Whether a Parquet table holds its images itself; UsageError where it cannot be read."""
    check_format("parquet")
    with _reading(path):
        return holds_images(path)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """UsageErrors for what is raised by reading a table."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UnreadableImageError as error:  # of its store
        raise archives.not_had(os.fsencode(path), error) from None
    except damages() as error:  # and pandas's, which are ValueErrors
        why = brief(str(error).splitlines()[0], 120) if str(error) else type(error).__name__
        raise UsageError(f"{shown(path)} cannot be read as a table: {why}") from error


def _row_names(texts: Mapping[str, list[str]]) -> list[str]:
    """Names for rows that are images: their part, as the column Usage says it, and their number."""
    columns = {plain(name): values for name, values in texts.items()}
    parts = next((columns[name] for name in SPLIT_COLUMNS if name in columns), None)
    rows = len(next(iter(texts.values())))
    return [os.path.join(parts[row].strip() if parts else "", pixel_rows.NAME.format(row)) for row in range(rows)]


def _notes(path: str, layout: Layout | None) -> tuple[str, ...]:
    """What is said of how a table was read."""
    if layout is None:
        return ()
    said = []
    if layout.separator != "," and layout.width > 1:
        said.append(f"{shown(path)}: {SEPARATORS[layout.separator]} separate the values")
    if layout.header is None:
        columns = f"{count(layout.width, 'column')} {'goes' if layout.width == 1 else 'go'}"
        said.append(f"{shown(path)}: no header; the {columns} by number, from 1 on")
    return tuple(said)


def _parsed(path: str, texts: Any, rows: int | None = None) -> tuple[Layout | None, pd.DataFrame]:
    """A text table's layout, and the rows of any table; UsageError where it cannot be read."""
    if (suffix := suffix_of(path)) not in SUFFIXES:
        raise UsageError(f"{shown(path)} is no table: tables are {', '.join(SUFFIXES)}")
    with _reading(path):
        if suffix in TEXTS:
            return _read_text(path, texts, rows)
        if suffix == "parquet":
            check_format(suffix)
            return None, read_parquet(path)
        encoding = encoding_of(path)
        lines: dict[str, Any] = {"lines": True, "nrows": rows} if suffix == "jsonl" else {}
        frame = pd.read_json(source_of(path), dtype=False, precise_float=True, encoding=encoding, **lines)
        return None, pd.DataFrame(frame)


def _read_text(path: str, texts: Any, rows: int | None) -> tuple[Layout, pd.DataFrame]:
    """A text table; `texts` says which columns stay text."""
    known = {pixel_rows.COLUMN, *PATH_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *TEXT_COLUMNS}
    layout = layout_of(path, known)
    wanted = [name for name in layout.header or () if plain(name) != pixel_rows.COLUMN]
    with warnings.catch_warnings():  # a comma at the end of every row is no column
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        frame = pd.read_csv(
            source_of(path),
            sep=layout.separator,
            header=0 if layout.header else None,
            names=layout.names,
            usecols=wanted if layout.of_pixels else None,
            dtype=texts,
            nrows=rows,
            index_col=False,
            keep_default_na=False,
            skipinitialspace=layout.separator == " ",
            encoding=layout.encoding,
            encoding_errors=errors_of(layout.encoding),
        )
    return layout, frame
