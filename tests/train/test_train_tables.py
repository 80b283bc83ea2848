"""`ferbatch train` on tables as people have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import laid_out
from support import draw_face

from ferbatch.commands.train.data import Data, list_splits, read
from ferbatch.core.errors import UsageError
from ferbatch.core.options import SAYS_ALL, TableOptions, TrainOptions


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def learned(data: str, table: TableOptions = SAYS_ALL) -> Data:
    return read(Path(data), list_splits(TrainOptions(Path(data), Path(), table=table), 0.1, 0))


def test_fer2013_trains_as_it_is_handed_out(tmp_path: Path) -> None:
    rows, path_rows = ["emotion,pixels,Usage"], ["path,label,Usage"]
    names = {3: "happy", 4: "sad", 0: "angry"}
    for n, usage in enumerate(["Training"] * 9 + ["PublicTest"] * 6 + ["PrivateTest"] * 3):
        emotion, face = (3, 4, 0)[n % 3], draw_face(n)
        rows.append(f"{emotion},{' '.join(map(str, face.tobytes()))},{usage}")
        face.save(tmp_path / f"{n}.png")
        path_rows.append(f"{n}.png,{names[emotion]},{usage}")
    Path("fer2013.csv").write_text("\n".join(rows) + "\n")
    Path("files.csv").write_text("\n".join(path_rows) + "\n")
    data, files = learned("fer2013.csv"), learned("files.csv")
    assert data.labels == ("happy", "sad", "angry")
    assert (len(data.train), len(data.validation)) == (9, 6)
    assert "3 images in neither split left out" in data.notes
    assert data.sha256 == files.sha256
    np.testing.assert_array_equal(data.validation.views, files.validation.views)


def test_a_list_of_numbers_trains_with_names_that_are_given(tmp_path: Path) -> None:
    lines = []
    for n in range(8):
        (tmp_path / "aligned").mkdir(exist_ok=True)
        draw_face(n).save(tmp_path / "aligned" / f"train_{n:05}_aligned.png")
        lines.append(f"train_{n:05}.png {4 + n % 2}")
    Path("list.txt").write_text("\n".join(lines) + "\n")
    images = TableOptions(images="aligned")
    splits = list_splits(TrainOptions(Path("list.txt"), Path(), table=images), 0.1, 0)
    assert splits.labels == ("4", "5")
    assert "the labels are numbers: --classes 4=NAME,5=NAME,… gives them names" in splits.notes
    assert splits.notes[0] == "list.txt: spaces separate the values"
    named = TableOptions(images="aligned", classes="4=happy,5=fury,6=awe")
    data = learned("list.txt", named)
    assert data.labels == ("happy", "fury")
    assert "--classes: nothing is called 6" in data.notes
    with pytest.raises(UsageError, match=r"none of the 8 images of list\.txt is there: looked for train_00000\.png"):
        learned("list.txt")
    with pytest.raises(UsageError, match="NAME=LABEL"):
        learned("list.txt", TableOptions(classes="4"))


def test_columns_that_are_named_hold_the_split_and_the_votes_too(tmp_path: Path) -> None:
    lines = ["what,who,Usage,votes_happy,votes_sad"]
    for n in range(8):
        draw_face(n).save(tmp_path / f"{n}.png")
        lines.append(f"{('happy', 'sad')[n % 2]},{n}.PNG,{'Training' if n < 6 else 'PublicTest'},{n},1")
    Path("t.csv").write_text("\n".join(lines) + "\n")
    data = learned("t.csv", TableOptions("who", "what"))
    assert (len(data.train), len(data.validation), data.has_votes) == (6, 2, True)
    assert data.train.votes[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_data_set_trains_by_its_classes_and_splits(tmp_path: Path) -> None:
    laid_out(tmp_path / "ds", {"data/train-00000-of-00001": 9, "data/dev-00000-of-00001": 6, "data/test": 3})
    data = learned("ds")
    assert data.labels == ("happy", "sad", "angry")
    assert data.train.counts == {"angry": 3, "happy": 3, "sad": 3}
    assert data.validation.counts == {"angry": 2, "happy": 2, "sad": 2}
    assert "3 images in neither split left out" in data.notes
    (tmp_path / "ds/data/dev-00000-of-00001.parquet").unlink()
    assert (len(learned("ds").train), len(learned("ds").validation)) == (6, 3)
