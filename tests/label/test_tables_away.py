"""Tables and lists in buckets and on the web stand for the images that they name, as those in files do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from data_sets import laid_out
from stores import Fault, Store, serving
from support import Ferbatch, crossed, face_file, parquet_tools, rows_of

from ferbatch.core.stores import urls

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

LABELS = ("happy", "sad", "neutral", "surprise")
KEYS = sorted(f"set/{LABELS[at % 4]}/{at:03} ü.jpg" for at in range(12))
NAMES = [key.removeprefix("set/") for key in KEYS]
FORMATS = ("csv", "tsv", "txt", "json", "jsonl", "parquet")


@pytest.fixture
def store() -> Iterator[Store]:
    with serving(Store({"faces": {key: face_file(at) for at, key in enumerate(KEYS)}})) as one:
        yield one


@pytest.fixture
def run(store: Store, ferbatch_in: Ferbatch, model: Path, tmp_path: Path, monkeypatch: Any) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def call(*args: str, **options: Any) -> Any:
        return ferbatch_in(*args, "--model", model, faults={"store": {"address": store.address}}, **options)

    return call


def written(kind: str, paths: list[str], **columns: list[str]) -> bytes:
    """A table of this kind, or the paths one a line."""
    frame, stream = pd.DataFrame({"path": paths, **columns}), io.BytesIO()
    if kind == "parquet":
        parquet_tools()
        frame.to_parquet(stream)
    elif kind == "txt":
        stream.write("".join(f"{path}\n" for path in paths).encode())
    elif kind.startswith("json"):
        stream.write(frame.to_json(orient="records", lines=kind == "jsonl").encode())
    else:
        stream.write(frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",").encode())
    return stream.getvalue()


def paths_in(name: str = "labels.csv") -> list[str]:
    return [row["path"] for row in rows_of(Path(name))]


def less_path(name: str) -> list[dict[str, str]]:
    return [{**row, "path": "", "truth": ""} for row in rows_of(Path(name))]


@pytest.mark.parametrize(("kind", "place"), crossed(FORMATS, ["s3://faces", "URL/faces"]))
def test_a_table_in_a_store_names_images_from_its_folder_on(kind: str, place: str, run: Any, store: Store) -> None:
    own = Path("own.jpg").resolve()
    own.write_bytes(store.buckets["faces"][KEYS[11]])
    place = place.replace("URL", store.address)
    named = [*NAMES[:9], f"../set/{NAMES[9]}", f"s3://faces/{KEYS[10]}", str(own)]
    store.buckets["faces"][f"set/list.{kind}"] = written(kind, named)
    assert run("label", "s3://faces", "-o", "bucket.csv").returncode == 0
    store.asked.clear()
    done = run("label", f"{place}/set/list.{kind}", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert less_path("labels.csv") == less_path("bucket.csv")
    found = paths_in()
    assert found[10:] == [f"s3://faces/{KEYS[10]}", str(own)]
    assert all(path.startswith(f"{place}/set/") and ".." not in path for path in found[:10])
    gets = {one: n for one, n in store.asked.items() if one == f"GET /faces/set/list.{kind}"}
    assert kind == "parquet" or [*gets.values()] == [1]
    done = run("label", f"{place}/set/list.{kind}", "-o", "labels.csv", "--incremental", "--verbose")
    assert b"12 images, 0 to label" in done.stderr


@pytest.mark.parametrize(
    ("base", "path", "wanted"),
    [
        ("s3://b/a/c", "../x.jpg", "s3://b/a/x.jpg"),
        ("s3://b/a/", "./../../../x.jpg", "s3://b/x.jpg"),
        ("s3://b", "../x.jpg", "s3://b/x.jpg"),
        ("https://host/a/b?sig=1", "../x y.jpg", "https://host/a/x%20y.jpg?sig=1"),
    ],
)
def test_a_relative_path_climbs_to_the_bucket_at_the_most(base: str, path: str, wanted: str) -> None:
    assert urls.below(base.encode(), path.encode()) == wanted.encode()


def test_images_and_columns_may_be_said_of_it(run: Any, store: Store, faces: Callable[..., Path]) -> None:
    faces("here", 2)
    store.buckets["faces"]["lists/a.csv"] = b"what,which\nx/1.jpg,0000.jpg\nx/2.jpg,0001.jpg\n"
    done = run("label", "s3://faces/lists/a.csv", "--path-column", "which", "--images", "here", "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert paths_in() == ["here/0000.jpg", "here/0001.jpg"]
    store.buckets["faces"]["lists/b.csv"] = written("csv", NAMES)
    done = run("label", "s3://faces/lists/b.csv", "--images", "s3://faces/set", "-o", "b.csv")
    assert done.returncode == 0, done.stderr
    assert paths_in("b.csv") == [f"s3://faces/{key}" for key in KEYS]


def test_a_pattern_stands_for_tables_and_an_image_table_for_its_images(run: Any, store: Store, tmp_path: Path) -> None:
    for at in range(3):
        store.buckets["faces"][f"set/part-{at}.csv"] = written("csv", NAMES[at * 4 : at * 4 + 4])
    for pattern in ("s3://faces/set/*.csv", "s3://faces/set/part-{0..2}.csv"):
        assert run("label", pattern, "-o", "labels.csv", "--overwrite").returncode == 0
        assert paths_in() == [f"s3://faces/{key}" for key in KEYS]
    folder = laid_out(tmp_path / "ds")
    for path in folder.rglob("*.parquet"):
        store.buckets["faces"][f"ds/{path.name}"] = path.read_bytes()
    done = run("label", "s3://faces/ds/*.parquet", "-o", "ds.csv")
    assert done.returncode == 0, done.stderr
    assert len(paths_in("ds.csv")) == 15


def test_a_data_set_in_a_bucket_is_one(run: Any, store: Store, tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ds")
    for path in folder.rglob("*"):
        if path.is_file():
            store.buckets["faces"][f"ds/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    assert run("label", "ds", "-o", "folder.csv").returncode == 0
    accuracy = []
    for source in ("ds", "s3://faces/ds", f"{store.address}/faces/ds/"):
        done = run("label", source, "-o", "labels.csv", "--overwrite")
        assert done.returncode == 0, done.stderr
        assert less_path("labels.csv") == less_path("folder.csv")
        done = run("evaluate", "--truth", source, "--format", "json")
        assert done.returncode == 0, done.stderr
        accuracy.append(json.loads(done.stdout)["results"][0]["accuracy"])
    assert accuracy[0] == accuracy[1] == accuracy[2]
    done = run("label", "s3://faces/ds", "--list", "--exclude", "test-*", "-q")
    assert done.stdout.count(b"taken ") == 11
    done = run("label", f"{store.address}/faces/ds/", "-o", "labels.csv", "--incremental", "--verbose")
    assert b"15 images, 0 to label" in done.stderr


def test_truth_is_taken_from_a_table_in_a_store(run: Any, store: Store, tmp_path: Path) -> None:
    given = [name.partition("/")[0] for name in NAMES]
    for kind in ("csv", "parquet"):
        store.buckets["faces"][f"set/truth.{kind}"] = written(kind, NAMES, label=given)
    store.buckets["faces"]["images.parquet"] = (
        laid_out(tmp_path / "ds") / "data/train-00000-of-00002.parquet"
    ).read_bytes()
    wanted = json.loads(run("evaluate", "--truth", "s3://faces/set", "--format", "json").stdout)["results"]
    for truth in ("s3://faces/set/truth.csv", f"{store.address}/faces/set/truth.parquet"):
        done = run("evaluate", "--truth", truth, "--format", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["results"][0]["accuracy"] == wanted[0]["accuracy"]
    done = run("evaluate", "--truth", "s3://faces/images.parquet", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["subject"]["others"] == {"angry": 2}
    assert run("evaluate", "--truth", "s3://faces/gone.csv").returncode == 2


def test_what_signs_the_table_signs_its_images_and_is_written_nowhere(run: Any, store: Store, tmp_path: Path) -> None:
    store.buckets["faces"]["set/list.csv"] = written("csv", NAMES)
    table = f"{store.address}/faces/set/list.csv"
    for at, more in enumerate((("--log-file", "log"), ("--log-format", "json", "-v"), ("--list",))):
        done = run("label", f"{table}?sv=2024&sig=hush01%3D", *more, "-o", f"{at}.csv")
        assert done.returncode == 0, done.stderr
        assert b"hush" not in (done.stdout + done.stderr).lower()
    done = run("label", f"{table}?sig=hush02", "s3://faces/nowhere.csv", "-o", "none.csv")
    assert done.returncode == 2
    assert b"hush" not in (done.stdout + done.stderr).lower()
    done = run("evaluate", "--truth", f"{table}?sig=hush03")
    assert done.returncode == 2
    assert b"hush" not in (done.stdout + done.stderr).lower()
    assert len(paths_in("0.csv")) == 12
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hush" not in path.read_bytes().lower(), path
    done = run("label", "https://me:hush@example.org/list.csv", "-o", "none.csv")
    assert done.returncode == 2
    assert b"hush" not in done.stderr


def test_a_table_that_cannot_be_had_ends_the_run_with_a_sentence(run: Any, store: Store, tmp_path: Path) -> None:
    store.buckets["faces"]["set/list.csv"] = written("csv", NAMES)
    store.buckets["faces"]["set/broken.parquet"] = b"PAR1"
    store.buckets["faces"]["set/other.csv"] = b"a,b\n1,2\n"
    store.buckets["faces"]["set/fer.csv"] = f"emotion,pixels,Usage\n3,{' '.join(['7'] * 2304)},Training\n".encode()
    store.buckets["faces"]["set/gone.csv"] = b"x"
    store.faults["set/gone.csv"] = Fault(403)
    for name, said in {
        "set/broken.parquet": "s3://faces/set/broken.parquet cannot be read as a table: ",
        "set/other.csv": "s3://faces/set/other.csv has none of the columns path, file,",
        "set/fer.csv": "the images of s3://faces/set/fer.csv are its rows, which are read from files: copy it here",
        "set/gone.csv": "s3://faces/set/gone.csv cannot be read: the store refuses it",
        "set/none.csv": "no such object, and nothing below it: s3://faces/set/none.csv",
    }.items():
        done = run("label", f"s3://faces/{name}", "-o", "labels.csv")
        assert done.returncode == 2, done.stderr
        assert said in done.stderr.decode()
    store.faults["set/list.csv"] = Fault(503, times=3)
    assert run("label", "s3://faces/set/list.csv", "-o", "labels.csv").returncode == 0


def test_a_table_that_is_too_large_is_not_fetched(run: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.buckets["faces"]["set/list.csv"] = bytes(1000)
    answer = store.answer

    def large(method: str, target: str) -> Any:
        return (200, {}, range(2**28 + 1)) if method == "HEAD" else answer(method, target)

    monkeypatch.setattr(store, "answer", large)
    done = run("label", f"{store.address}/faces/set/list.csv", "-o", "labels.csv")
    assert done.returncode == 2
    assert b"list.csv cannot be read: 268,435,457 bytes, the limit is 268,435,456" in done.stderr


def test_among_other_paths_what_is_no_list_is_a_row(run: Any, store: Store) -> None:
    store.buckets["faces"]["set/budget.csv"] = b"a,b\n1,2\n"
    store.buckets["faces"]["set/list.csv"] = written("csv", NAMES[:2])
    paths = ["s3://faces/set/budget.csv", "s3://faces/set/list.csv", f"s3://faces/{KEYS[5]}"]
    done = run("label", *paths, "-o", "labels.csv")
    assert done.returncode == 3, done.stderr
    rows = {row["path"]: row["error_kind"] for row in rows_of(Path("labels.csv"))}
    assert rows == {paths[0]: "unreadable", **{f"s3://faces/{key}": "" for key in (*KEYS[:2], KEYS[5])}}
    assert b"s3://faces/set/list.csv is read as a list of 2 images" in done.stderr
    assert b"s3://faces/set/budget.csv is not read as a list of images" in done.stderr
