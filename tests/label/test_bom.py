"""--bom: labels that Excel shows rightly are the same labels."""

from __future__ import annotations

import codecs
import shutil
from pathlib import Path

from support import Ferbatch, linked

import ferbatch as package


def test_a_mark_begins_the_same_labels(
    ferbatch_here: Ferbatch, ferbatch_in: Ferbatch, tmp_path: Path, model: Path
) -> None:
    linked(tmp_path / "images", 5)
    arguments = ("label", "images", "--model", model, "-q")

    def label(output: str, *options: str, code: int = 0) -> bytes:
        done = ferbatch_here(*arguments, "-o", output, *options)
        assert done.returncode == code, done.stderr.decode()
        return done.stderr if code else (tmp_path / output).read_bytes()

    plain, marked = label("plain.csv"), label("marked.csv", "--bom")
    assert marked == codecs.BOM_UTF8 + plain
    assert package.read_labels(tmp_path / "marked.csv").equals(package.read_labels(tmp_path / "plain.csv"))
    done = ferbatch_in(*arguments, "-o", "-", "--bom")
    assert done.stdout == marked
    # What is labelled stays so, whichever way it is to be written.
    assert label("plain.csv", "--bom", "--resume") == marked
    assert label("plain.csv", "--bom", "--incremental") == marked
    assert label("plain.csv", "--incremental") == plain
    assert label("plain.csv", "--resume") == plain
    assert b"is for csv" in label("labels.json", "--bom", code=2)
    assert b"is for csv" in label("labels.parquet", "--bom", code=2)


def test_an_unfinished_run_goes_on_to_either(ferbatch_in: Ferbatch, tmp_path: Path, model: Path) -> None:
    linked(tmp_path / "images", 3)
    ferbatch_in("label", "images", "--model", model, "-q")
    shutil.copy(tmp_path / "labels.csv.run.jsonl", tmp_path / "again.csv.journal")  # as if it had been stopped
    again = ferbatch_in("label", "images", "--model", model, "-o", "again.csv", "--bom", "--resume")
    assert b"going on with an unfinished run" in again.stderr
    assert (tmp_path / "again.csv").read_bytes() == codecs.BOM_UTF8 + (tmp_path / "labels.csv").read_bytes()
