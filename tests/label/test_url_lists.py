"""Tables and texts that name images by URLs: labelled as the same images are in their bucket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
from stores import Fault, Store, serving
from support import Ferbatch, crossed, face_file, parquet_tools, rows_of

from ferbatch.core.errors import UsageError
from ferbatch.core.stores import urls
from ferbatch.sources.listing import list_images

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

LABELS = ("happy", "sad", "neutral", "surprise")
KEYS = [f"{LABELS[at % 4]}/{at:03} ü+&{'%20' * (at % 2)}.jpg" for at in range(24)]
WAYS = [(), ("--isolate", "--workers", "2"), ("--workers", "0")]


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of drawn faces."""
    with serving(Store({"faces": {key: face_file(at) for at, key in enumerate(KEYS)}})) as one:
        yield one


@pytest.fixture
def run(store: Store, ferbatch_in: Ferbatch, model: Path) -> Callable[..., Any]:
    """A command where the store is S3's: run("label", "t.csv") -> CompletedProcess."""

    def call(*args: str, more: dict[str, Any] | None = None, **options: Any) -> Any:
        faults = {"store": {"address": store.address}} | (more or {})
        return ferbatch_in(*args, "--model", model, faults=faults, **options)

    return call


def paths_in(path: Path) -> list[str]:
    return [row["path"] for row in rows_of(path)]


def less_path(path: Path) -> list[dict[str, str]]:
    return [{**row, "path": "", "truth": ""} for row in rows_of(path)]


def written(name: str, frame: pd.DataFrame) -> str:
    if name.endswith((".csv", ".tsv")):
        frame.to_csv(name, index=False, sep="\t" if name.endswith(".tsv") else ",")
    elif name.endswith(".parquet"):
        parquet_tools()
        frame.to_parquet(name)
    elif name.endswith(".txt"):
        Path(name).write_text("".join(f"{path}\n" for path in frame["url"]))
    else:
        frame.to_json(name, orient="records", lines=name.endswith("jsonl"))
    return name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "way"), crossed(["t.csv", "t.tsv", "t.json", "t.jsonl", "t.parquet", "t.txt", "-"], WAYS)
)
def test_a_column_of_urls_is_labelled_as_their_bucket_is(
    name: str, way: tuple[str, ...], run: Any, store: Store, tmp_path: Path
) -> None:
    assert run("label", "s3://faces", "-o", "bucket.csv").returncode == 0
    keys = sorted(KEYS)
    given = [f"s3://faces/{key}" if at % 3 else f"{store.address}/faces/{quote(key)}" for at, key in enumerate(keys)]
    Path("own.jpg").write_bytes(store.buckets["faces"].pop(keys[4]))
    given[4] = "own.jpg"
    table = written(name.replace("-", "t.txt"), pd.DataFrame({"id": range(len(given)), "url": given, "note": "a, b"}))
    done = run("label", "-" if name == "-" else table, "-o", "labels.csv", *way, input=Path(table).read_bytes())
    assert done.returncode == 0, done.stderr
    assert paths_in(tmp_path / "labels.csv") == given
    assert less_path(tmp_path / "labels.csv") == less_path(tmp_path / "bucket.csv")
    assert max(n for one, n in store.asked.items() if one.startswith("GET /faces/") and one.endswith(".jpg")) <= 2


def test_what_cannot_be_had_is_a_row_that_says_why(run: Any, store: Store, tmp_path: Path) -> None:
    store.faults[KEYS[1]] = Fault(403)
    wanted = {
        f"s3://faces/{KEYS[0]}": "",
        f"s3://faces/{KEYS[1]}": "permission",
        "s3://faces/gone.jpg": "not_found",
        "s3://nowhere/1.jpg": "not_found",
        f"{store.address}/faces/gone.jpg": "not_found",
        **{f"http://127.0.0.1:9/{at}.jpg": "unreachable" for at in range(6)},
        "https://nobody.invalid/x.jpg": "unreachable",
        f"{store.address}/faces/{quote(KEYS[2])}": "",
    }
    written("t.csv", pd.DataFrame({"url": [*wanted]}))
    done = run("label", "t.csv", "-o", "labels.csv")
    assert done.returncode == 3, done.stderr
    found = {row["path"]: row["error_kind"] for row in rows_of(tmp_path / "labels.csv")}
    assert found == wanted


@pytest.mark.parametrize("base", ["s3://faces", "URL/faces/"])
def test_images_says_from_which_url_relative_paths_start(base: str, run: Any, store: Store, tmp_path: Path) -> None:
    base = base.replace("URL", store.address)
    Path("own.jpg").write_bytes(face_file(0))
    own, away = str(tmp_path / "own.jpg"), f"s3://faces/{KEYS[2]}"
    written("t.csv", pd.DataFrame({"path": [f"./{KEYS[0]}", KEYS[1], own, away]}))
    done = run("label", "t.csv", "--images", base, "-o", "labels.csv")
    assert done.returncode == 0, done.stderr
    spelled = quote if base.startswith("http") else str
    wanted = [*(f"{base.rstrip('/')}/{spelled(key)}" for key in KEYS[:2]), own, away]
    assert paths_in(tmp_path / "labels.csv") == wanted
    listed = "\n".join(KEYS[:2])
    done = run("label", "-", "--images", base, "-o", "list.csv", input=listed.encode())
    assert done.returncode == 0, done.stderr
    assert paths_in(tmp_path / "list.csv") == wanted[:2]
    done = run("label", "t.csv", "--images", base, "-o", "labels.csv", "--incremental", "--verbose")
    assert b"4 images, 0 to label" in done.stderr


def test_evaluate_takes_the_truth_of_urls_from_a_table(run: Any, store: Store, tmp_path: Path) -> None:
    keys = sorted(KEYS)
    rows = {"url": [f"s3://faces/{key}" for key in keys], "emotion": [key.partition("/")[0] for key in keys]}
    written("t.csv", pd.DataFrame(rows))
    written("relative.csv", pd.DataFrame({**rows, "url": keys}))
    said = []
    for more in (("s3://faces",), ("t.csv",), ("relative.csv", "--images", "s3://faces")):
        done = run("evaluate", "--truth", *more, "--format", "json")
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout)["results"])
    assert said[0] == said[1] == said[2]
    assert run("label", "t.csv", "-o", "labels.csv").returncode == 0
    done = run("evaluate", "--truth", "s3://faces", "--predictions", "labels.csv", "--format", "json")
    assert done.returncode == 2  # a model is named, too
    store.faults[KEYS[0]] = Fault(404)
    assert run("evaluate", "--truth", "t.csv").returncode == 3


def test_a_signed_url_is_a_row_without_what_signs_it(run: Any, store: Store, tmp_path: Path) -> None:
    name = f"{store.address}/faces/{quote(KEYS[0])}"
    signed = [
        f"{name}?X-Amz-Credential=AKIDHUSH%2Fx&X-Amz-Signature=hush01",
        f"{name}?version=2&sv=2024&sig=hush02%3D",
        f"{store.address}/faces/gone.jpg?Expires=1&Signature=hush03",
    ]
    written("t.csv", pd.DataFrame({"url": signed, "label": "happy"}))
    for more in ((), ("--incremental", "--verbose"), ("--overwrite", "--isolate", "--log-format", "json")):
        done = run("label", "t.csv", "-o", "labels.csv", "--log-file", "log", *more)
        assert done.returncode == (0 if "--incremental" in more else 3), done.stderr
        assert b"hush" not in (done.stdout + done.stderr).lower()
    assert paths_in(tmp_path / "labels.csv") == [name, f"{name}?version=2", f"{store.address}/faces/gone.jpg"]
    done = run("evaluate", "--truth", "t.csv", "--report", "report")
    assert b"hush" not in (done.stdout + done.stderr).lower()
    base = f"{store.address}/faces?sv=2024&sig=hush04"
    written("relative.csv", pd.DataFrame({"path": KEYS[:2]}))
    done = run("label", "relative.csv", "--images", base, "-o", "based.csv", "--verbose")
    assert done.returncode == 0, done.stderr
    assert paths_in(tmp_path / "based.csv") == [f"{store.address}/faces/{quote(key)}" for key in KEYS[:2]]
    assert b"hush" not in (done.stdout + done.stderr).lower()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "t.csv"]
    assert len(files) > 8
    for path in files:
        assert b"hush" not in path.read_bytes().lower(), path


@pytest.mark.parametrize("command", ["label", "evaluate"])
def test_a_url_with_a_password_is_refused_by_its_row(command: str, run: Any, tmp_path: Path) -> None:
    given = [f"s3://faces/{KEYS[0]}", "https://me:hush@example.org/x.jpg"]
    written("t.csv", pd.DataFrame({"url": given, "label": "happy"}))
    done = run(command, *(["--truth"] if command == "evaluate" else []), "t.csv")
    assert done.returncode == 2
    assert b"t.csv, row 2, column url: a https:// path holds a name, a password or keys" in done.stderr
    assert b"hush" not in done.stderr


def test_a_scheme_that_nothing_reads_is_said_before_the_run(
    ferbatch_here: Ferbatch, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(scheme: str) -> None:
        raise UsageError(urls.not_installed(scheme))

    monkeypatch.setattr(urls, "check_installed", check)
    urls.check_once.cache_clear()
    written("t.csv", pd.DataFrame({"url": ["hf://datasets/a/b/1.jpg"]}))
    done = ferbatch_here("label", "t.csv", "--model", model, "-o", "labels.csv")
    assert done.returncode == 2
    assert b"hf:// paths need huggingface_hub: pip install 'ferbatch[hf]'" in done.stderr
    with pytest.raises(UsageError, match="hf:// paths need huggingface_hub"):
        list_images(["-"], (), listed=[b"hf://datasets/a/b/1.jpg"])
    assert not [*tmp_path.glob("labels*")]


@pytest.mark.parametrize("etags", [True, False])
def test_an_incremental_run_follows_the_table_and_the_store(
    etags: bool, run: Any, store: Store, tmp_path: Path
) -> None:
    store.etags = etags

    def again(keys: list[str], *more: str) -> Any:
        there = (
            f"s3://faces/{key}" if at % 2 else f"{store.address}/faces/{quote(key)}" for at, key in enumerate(keys)
        )
        written("t.csv", pd.DataFrame({"url": [*there]}))
        return run("label", "t.csv", "-o", "labels.csv", *more)

    store.faults[KEYS[3]] = Fault(503, times=6)
    assert again(KEYS[:12], "--incremental").returncode == 3
    store.faults.clear()
    store.asked.clear()
    store.buckets["faces"][KEYS[5]] = face_file(500) + (b"" if etags else b"\0")
    done = again([*KEYS[:10], KEYS[20]], "--incremental")
    assert done.returncode == 0, done.stderr
    fetched = {one.removeprefix("GET /faces/") for one in store.asked if one.startswith("GET") and one.endswith(".jpg")}
    assert fetched == {KEYS[3], KEYS[5], KEYS[20]}
    assert len(rows_of(tmp_path / "labels.csv")) == 11
    assert again(KEYS[:11], "--resume").returncode == 0


def test_a_run_of_a_table_that_was_stopped_goes_on(run: Any, store: Store, tmp_path: Path) -> None:
    written("t.csv", pd.DataFrame({"url": [f"s3://faces/{key}" for key in KEYS]}))
    assert run("label", "t.csv", "-o", "whole.csv").returncode == 0
    store.faults[KEYS[16]] = Fault(503, times=6)
    stopped = run("label", "t.csv", "-o", "labels.csv", "--on-error", "stop", "--batch-size", "8")
    assert stopped.returncode == 3
    store.asked.clear()
    done = run("label", "t.csv", "-o", "labels.csv", "--resume", "--batch-size", "8")
    assert done.returncode == 0, done.stderr
    assert 0 < sum(n for one, n in store.asked.items() if one.startswith("GET")) < len(KEYS)
    assert (tmp_path / "labels.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_table_that_names_nothing_is_refused_and_another_file_is_a_row(run: Any, tmp_path: Path) -> None:
    Path("notes.txt").write_text("nothing about images\n")
    Path("t.csv").write_text("a,b\n1,2\n")
    Path("empty.csv").write_text("path,b\n,2\n")
    Path("lost.csv").write_text("path\nx/1.jpg\n")
    assert run("label", "notes.txt", "-o", "labels.csv").returncode == 3
    assert [row["error_kind"] for row in rows_of(tmp_path / "labels.csv")] == ["unreadable"]
    for args, said in {
        ("t.csv",): "t.csv has none of the columns path, file,",
        ("empty.csv",): "row 1 of empty.csv names no image",
        ("lost.csv",): "none of the 1 image of lost.csv is there: looked for x/1.jpg",
        ("lost.csv", "--path-column", "url"): "--path-column: lost.csv has no column url",
        ("lost.csv", "--images", "nowhere"): "--images: no folder nowhere",
        (".", "--images", "s3://faces"): "--images needs a list among the PATHS",
    }.items():
        done = run("label", *args, "-o", "none.csv")
        assert done.returncode == 2
        assert said in done.stderr.decode()


def test_a_server_that_leads_nowhere_or_hardly_sends_is_a_row(run: Any, store: Store, tmp_path: Path) -> None:
    url = f"{store.address}/faces"
    names = ["circle.jpg", "away.jpg", "drips.jpg", "moved.jpg"]
    store.buckets["faces"] |= {name: face_file(0) for name in names}
    store.faults = {
        "circle.jpg": Fault(302, location=f"{url}/circle.jpg"),
        "away.jpg": Fault(302, location="file:///etc/passwd"),
        "drips.jpg": Fault(drips=0.01),
        "moved.jpg": Fault(302, location=f"{store.address}/faces/{quote(KEYS[0])}?X-Amz-Signature=hush"),
    }
    written("t.csv", pd.DataFrame({"url": [f"{url}/{name}" for name in names]}))
    faults = {"store": {"address": store.address, "read": 1}, "slowest": {"rate": 1000}}
    done = run("label", "t.csv", "-o", "labels.csv", more=faults)
    assert done.returncode == 3, done.stderr
    rows = [(row["error_kind"], row["error"]) for row in rows_of(tmp_path / "labels.csv")]
    nowhere = "its server leads on to nowhere: in a circle, or away from the web"
    slow = "the store sends less than 1000 bytes a second"
    assert rows == [("unreadable", nowhere)] * 2 + [("unreachable", slow), ("", "")]
    assert store.asked["GET /faces/circle.jpg"] < 25  # a circle is no failure that passes
    assert b"hush" not in b"".join(path.read_bytes() for path in tmp_path.glob("labels*")) + done.stderr
