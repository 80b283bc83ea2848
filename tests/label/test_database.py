"""Labels in a database are those of a file: every value, nothing lost and nothing doubled, whatever ends a run."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import json
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import psycopg
import pytest
from forks import Ended, Forks
from postgres import PASSWORD, programs, server
from sqlalchemy import Engine, event
from support import HOSTILE, LABELS, Ferbatch, depth, draw_face, some

import ferbatch
from ferbatch.core.database import database_at, is_url
from ferbatch.core.options import EXAMPLE
from ferbatch.core.records import columns
from ferbatch.core.writers import type_of

BATCH, N = 12, 40
TINY = "model/tiny.safetensors"
NUMBERS = itertools.count()
KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """The folder of the socket of a server that runs; skips where there is none to start."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    with server(found) as folder:
        with psycopg.connect(f"postgresql://trusted@/postgres?host={folder}", autocommit=True) as connection:
            connection.execute(f"CREATE ROLE ferbatch SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        yield folder


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The URL of an empty database: fresh("sqlite")."""

    def make(kind: str) -> str:
        name = f"labels{next(NUMBERS)}"
        if kind == "sqlite":
            return f"sqlite:///{name}.db"
        folder = request.getfixturevalue("postgres")
        with psycopg.connect(f"postgresql://trusted@/postgres?host={folder}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://trusted@/{name}?host={folder}"

    return make


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, fresh: Callable[[str], str]) -> str:
    return fresh(request.param)


@pytest.fixture
def images(faces: Callable[..., Path], model: Path, tmp_path: Path) -> Path:
    shutil.copytree(model.parent, tmp_path / "model")
    folder = faces("images", N)
    (folder / "0014.jpg").write_bytes(b"broken")
    return folder


Run = Callable[..., Ended]


@pytest.fixture
def run(request: pytest.FixtureRequest, ferbatch_here: Ferbatch, tmp_path: Path) -> Run:
    """`ferbatch label images -q` in batches of BATCH; in a process of its own if anything is to happen to it."""

    def call(*options: str, **how: object) -> Ended:
        command = ("label", "images", "-q", "--model", TINY, "--batch-size", str(BATCH), *options)
        if how:
            forks: Forks = request.getfixturevalue("forks")
            return forks(tmp_path, *command, **how)
        done = ferbatch_here(*command)
        return Ended(done.returncode, 0, done.stdout, done.stderr.decode())

    return call


def asked(url: str, tmp_path: Path, query: str) -> list[tuple[object, ...]]:
    """What a database answers, asked by its own driver; nothing where it has no such table."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(tmp_path / url.removeprefix("sqlite:///"))) as connection, connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise
    with psycopg.connect(url) as server:
        try:
            done = server.execute(query)
            return done.fetchall() if done.description else []
        except psycopg.errors.UndefinedTable:
            return []


def rows_in(url: str, tmp_path: Path, table: str = "labels") -> list[tuple[object, ...]]:
    return sorted(asked(url, tmp_path, f"SELECT * FROM {table}"), key=repr)


def in_csv(path: Path) -> list[dict[str, str]]:
    return sorted(csv.DictReader(io.StringIO(path.read_text())), key=lambda row: (row["path"], row["face"]))


def as_csv(rows: list[tuple[object, ...]]) -> list[dict[str, str]]:
    """Rows of a database as a CSV file spells them."""
    texts = [["" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    found = [dict(zip(columns(LABELS), row, strict=True)) for row in texts]
    return sorted(found, key=lambda row: (row["path"], row["face"]))


def test_every_value_is_that_of_the_file_of_the_same_run(
    url: str, ferbatch_here: Ferbatch, faces: Callable[..., Path], tmp_path: Path
) -> None:
    folder = os.fsencode(faces("images/happy", 3))
    faces("images/sad", 2, first=3)
    for name in HOSTILE:
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(b"broken" if b"e" in name else Path(os.fsdecode(folder), "0000.jpg").read_bytes())
    draw_face(1, 700).save(tmp_path / "images/nobody.png")
    shutil.copy(EXAMPLE, tmp_path / "images/photo.jpg")
    deep = tmp_path.joinpath("images", *["d" * 250] * 11)
    os.makedirs(os.path.relpath(deep, Path.cwd()))
    (deep / "deep.jpg").write_bytes((tmp_path / "images/happy/0000.jpg").read_bytes())
    options = ("label", "images", "--min-confidence", "0.6", "-o")
    for output in (url, "labels.csv", "labels.parquet"):
        assert ferbatch_here(*options, output).returncode == 3
    found = rows_in(url, tmp_path)
    assert as_csv(found) == in_csv(tmp_path / "labels.csv")
    assert {row["status"] for row in as_csv(found)} >= {"ok", "uncertain", "error"}
    assert any(row["face"] == "0" for row in as_csv(found))
    assert not list(tmp_path.glob("*.report.*db*"))
    here = url.replace("sqlite:///", f"sqlite:///{tmp_path}/")
    read, parquet = ferbatch.read_labels(here), ferbatch.read_labels(tmp_path / "labels.parquet")
    pd.testing.assert_frame_equal(read, parquet.sort_values(["path", "face"], ignore_index=True))


def test_the_table_has_the_columns_and_the_types_of_the_schema(
    url: str, images: Path, run: Run, tmp_path: Path
) -> None:
    run("-o", f"{url}{'&' if '?' in url else '?'}table=faces_1")
    kinds = {"string": "TEXT", "int32": "INTEGER", "float64": "DOUBLE PRECISION"}
    wanted = [(name, kinds[type_of(name)]) for name in columns(LABELS)]
    query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'faces_1'"
    query += " ORDER BY ordinal_position"
    if url.startswith("sqlite"):
        query, wanted = "SELECT name, type FROM pragma_table_info('faces_1')", [(n, t.split()[0]) for n, t in wanted]
    assert [(name, str(kind).upper()) for name, kind in asked(url, tmp_path, query)] == wanted
    assert len(rows_in(url, tmp_path, "faces_1")) == N


def steps(run: Run, *options: str) -> int:
    """How many statements and commits a run comes to; in this process."""
    counted = itertools.count()
    step = lambda *_: next(counted)  # noqa: E731
    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, step)
    try:
        assert run(*options).code in (0, 3)
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(Engine, name, step)
    return next(counted)


@contextmanager
def at_each_batch(act: Callable[[], object]) -> Iterator[None]:
    """Have something happen in the transaction of each batch of a run in this process."""

    def step(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE labels_run SET rows"):
            act()

    event.listen(Engine, "before_cursor_execute", step)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", step)


def check_whole_batches(url: str, tmp_path: Path) -> None:
    """Each row that is there has its line in the journal, and the other way round."""
    lines = [json.loads(str(line)) for (line,) in asked(url, tmp_path, "SELECT line FROM labels_journal")]
    done = [path for line in lines for path in line.get("batch", {}).get("paths", [])]
    assert len(set(done)) == len(done)
    assert sorted(done) == sorted(str(row[0]) for row in rows_in(url, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_statement_a_run_goes_on_to_the_same_rows(
    kind: str, fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path
) -> None:
    whole = fresh(kind)
    number = steps(run, "-o", whole)
    wanted = rows_in(whole, tmp_path)
    assert number > 20
    labelled = []
    for at in some(range(1, number + 1), 8):
        url = fresh(kind)
        assert run("-o", url, faults={"killed_at_statement": {"number": at}}).code == -9
        check_whole_batches(url, tmp_path)
        begun = bool(asked(url, tmp_path, "SELECT id FROM labels_run"))
        assert (run("-o", url).code == 2) == begun, at
        ended = run("-o", url, "--resume")
        assert ended.code in (0, 3), (at, ended.stderr)
        assert rows_in(url, tmp_path) == wanted, at
        check_whole_batches(url, tmp_path)
        ((sidecar, rows),) = asked(url, tmp_path, "SELECT sidecar, rows FROM labels_run")
        assert rows == N
        labelled.append(json.loads(str(sidecar))["this_run"]["processed"])
    assert min(labelled) < N
    assert sorted(path.name for path in tmp_path.glob("labels*")) == sorted(
        {p.name for p in tmp_path.glob("labels*.db")}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments_a_run_goes_on_to_the_same_rows(
    kind: str, fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path
) -> None:
    whole, url = fresh(kind), fresh(kind)
    run("-o", whole)
    chance, kills = random.Random(3), 0
    while kills < depth(6, 60):
        ended = run("-o", url, "--resume", kill_after=chance.uniform(0.1, 0.6))
        assert ended.code in (-9, 0, 3), ended.stderr
        kills += ended.code == -9
        check_whole_batches(url, tmp_path)
        if ended.code != -9:
            assert rows_in(url, tmp_path) == rows_in(whole, tmp_path)
            url = fresh(kind)
    assert run("-o", url, "--resume").code in (0, 3)
    assert rows_in(url, tmp_path) == rows_in(whole, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_incremental_run_that_is_killed_and_goes_on_leaves_what_a_new_one_writes(
    kind: str, fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(images, old)
    for gone in ("0003.jpg", "0021.jpg"):
        (images / gone).unlink()
    shutil.copy(EXAMPLE, images / "0005.jpg")
    (images / "0014.jpg").write_bytes((images / "0001.jpg").read_bytes())
    draw_face(900).save(images / "0007a.jpg")
    images.rename(new)

    def turn_to(folder: Path) -> None:
        images.unlink(missing_ok=True)
        images.symlink_to(folder)

    whole = fresh(kind)
    turn_to(new)
    run("-o", whole)
    wanted = rows_in(whole, tmp_path)
    number, at = 0, 0
    while at <= number:
        url = fresh(kind)
        turn_to(old)
        run("-o", url)
        turn_to(new)
        if not at:
            number = steps(run, "-o", url, "--incremental")
        else:
            assert run("-o", url, "--incremental", faults={"killed_at_statement": {"number": at}}).code == -9
        ended = run("-o", url, "--incremental")
        assert ended.code in (0, 3)
        assert rows_in(url, tmp_path) == wanted, at
        assert asked(url, tmp_path, "SELECT count(*), max(rows) FROM labels_run") == [(1, len(wanted))]
        at += max(1, number // depth(5, number or 1))


def test_an_image_that_has_fewer_faces_now_keeps_no_stale_row(url: str, images: Path, run: Run, tmp_path: Path) -> None:
    from PIL import Image

    photo = Image.open(EXAMPLE).convert("RGB")
    two = Image.new("RGB", (photo.width * 2, photo.height))
    two.paste(photo, (0, 0))
    two.paste(photo, (photo.width, 0))
    two.save(images / "0000.jpg")
    run("-o", url)
    count = "SELECT count(*) FROM labels WHERE path = 'images/0000.jpg'"
    assert asked(url, tmp_path, count) == [(2,)]
    photo.save(images / "0000.jpg")
    assert run("-o", url, "--incremental").code == 0
    assert asked(url, tmp_path, count) == [(1,)]
    assert run("-o", url, "--incremental", "--retry-failed").code == 3
    assert len(rows_in(url, tmp_path)) == N


def test_a_table_that_has_rows_is_not_touched_unless_it_is_said(
    url: str, images: Path, run: Run, tmp_path: Path
) -> None:
    run("-o", url)
    before = rows_in(url, tmp_path)
    refused = run("-o", url, "--no-truth")
    assert refused.code == 2
    assert "exists; --overwrite replaces it, --incremental adds what is new, --resume ends" in refused.stderr
    assert run("-o", url, "--resume").code == 0
    other = run("-o", url, "--resume", "--min-confidence", "1")
    assert "--min-confidence was 0.0 and is 1.0" in other.stderr
    assert rows_in(url, tmp_path) == before
    assert run("-o", url, "--overwrite", "--min-confidence", "1").code == 3
    assert {row["status"] for row in as_csv(rows_in(url, tmp_path))} == {"uncertain", "error"}
    asked(url, tmp_path, "DELETE FROM labels WHERE status = 'error'")
    changed = run("-o", url, "--incremental", "--min-confidence", "1")
    assert (changed.code, "is not as ferbatch wrote it" in changed.stderr) == (2, True)
    again = run("-o", url, "--incremental")
    assert again.code == 2, again.stderr
    asked(url, tmp_path, "DROP TABLE labels_run")
    assert "is not ferbatch's or gone" in run("-o", url, "--incremental").stderr
    assert len(rows_in(url, tmp_path)) == N - 1


@pytest.mark.parametrize("mode", ["", "--overwrite", "--incremental", "--resume"])
@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE labels (path TEXT, name TEXT)",
        "CREATE TABLE labels_run (id INTEGER, what TEXT)",
        "CREATE TABLE labels (" + ", ".join(f"{name} TEXT" for name in columns(LABELS)) + ")",
        "CREATE TABLE labels ("
        + ", ".join(f"{n} {'TEXT' if type_of(n) == 'string' else 'INTEGER'}" for n in columns(("angry", "calm")))
        + ")",
    ],
)
def test_somebody_elses_table_is_refused_whatever_is_said(
    made: str, mode: str, fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path
) -> None:
    for kind in KINDS:
        url = fresh(kind)
        asked(url, tmp_path, made)
        ended = run("-o", url, *filter(None, [mode]))
        assert (ended.code, ended.stderr.count("\n")) == (2, 1)
        assert "with other columns: number" in ended.stderr
        assert "?table=NAME" in ended.stderr
        assert run("-o", f"{url}{'&' if '?' in url else '?'}table=mine").code == 3


def test_a_table_of_another_models_labels_is_refused(
    url: str, images: Path, run: Run, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    from tiny import make

    other = make(tmp_path / "other.safetensors", name="other", labels=["angry", "sad", "calm", "happy"])
    assert ferbatch_here("label", "images", "-q", "--model", str(other), "-o", url).returncode == 3
    before = rows_in(url, tmp_path)
    ended = run("-o", url, "--overwrite")
    assert (ended.code, "number 5 is angry" in ended.stderr) == (2, True)
    assert rows_in(url, tmp_path) == before


def test_a_second_run_on_a_table_that_is_held_ends_with_75(url: str, images: Path, run: Run, tmp_path: Path) -> None:
    database = database_at(url.replace("sqlite:///", f"sqlite:///{tmp_path}/"))
    with database.connect() as connection, database.held(connection):
        ended = run("-o", url)
    assert (ended.code, ended.stderr.count("\n")) == (75, 1)
    assert "another run is writing" in ended.stderr
    assert run("-o", url).code == 3


def test_no_transaction_is_open_while_images_are_labelled(
    fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ferbatch.stream.classifier import Classifier

    url, load, seen = fresh("postgresql"), Classifier.load, []

    def looking(*args: object, **options: object) -> Classifier:
        seen.extend(asked(url, tmp_path, "SELECT state FROM pg_stat_activity WHERE application_name = 'ferbatch'"))
        return load(*args, **options)

    monkeypatch.setattr(Classifier, "load", looking)
    for mode in ("--overwrite", "--resume", "--incremental"):
        run("-o", url, mode)
    assert seen == [("idle",)] * 2


def test_a_server_that_goes_away_is_one_sentence_and_the_run_goes_on(
    fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path
) -> None:
    url = fresh("postgresql")

    def end_it() -> None:
        if len(rows_in(url, tmp_path)) == 2 * BATCH:
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ferbatch'"
            asked(url, tmp_path, ends)

    with at_each_batch(end_it):
        ended = run("-o", url)
    assert (ended.code, ended.stderr.count("\n")) == (74, 1)
    assert "terminating connection" in ended.stderr
    assert ended.stderr.endswith("; --resume goes on with what is done\n")
    assert len(rows_in(url, tmp_path)) == 2 * BATCH
    assert run("-o", url, "--resume").code == 3
    assert len(rows_in(url, tmp_path)) == N


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(images: Path, run: Run, tmp_path: Path) -> None:
    ended = run("-o", "sqlite:///labels.db", faults={"small_files": {"most": 80_000}})
    assert (ended.code, ended.stderr.count("\n")) == (74, 1), ended.stderr
    assert "sqlite:///labels.db could not be written" in ended.stderr
    assert run("-o", "sqlite:///labels.db", "--resume").code == 3
    assert len(rows_in("sqlite:///labels.db", tmp_path)) == N


def test_a_password_is_in_nothing_that_is_said_or_kept(
    fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path
) -> None:
    plain = fresh("postgresql")
    url = plain.replace("trusted@", f"ferbatch:{quote(PASSWORD, safe='')}@")
    ended = run("-o", url, "-v", "--log-file", "log.txt", "--log-format", "json", "--crops", "crops")
    assert ended.code == 3, ended.stderr
    again = run("-o", url)
    assert "postgresql://ferbatch:***@" in again.stderr
    asked(plain, tmp_path, "DELETE FROM labels WHERE face IS NULL")
    changed = run("-o", url, "--incremental", "--crops", "crops", "--overwrite")
    wrong = run("-o", url.replace("ferbatch:", "ferbatch:x"))
    assert (wrong.code, "password authentication failed" in wrong.stderr) == (74, True)
    kept = [asked(plain, tmp_path, f"SELECT * FROM {name}") for name in ("labels_run", "labels_journal")]
    files = [path.read_text(errors="replace") for path in (tmp_path / "log.txt", tmp_path / "crops/.ferbatch")]
    for text in (*(one.stderr for one in (ended, again, changed, wrong)), repr(kept), *files):
        assert PASSWORD not in text
        assert quote(PASSWORD, safe="") not in text


@pytest.mark.parametrize(
    "url",
    [
        *(
            "postgresql://u:sek/ret@host/db",
            "postgresql://u:sek@ret@host/db",
            "postgresql://u:sekret",
            "postgresql:/u:sekret@h",
        ),
        *("postgresql://h/db?password=sekret&nonsense=1", "postgres://us/er:sekret@h/db", "postgresql:u:sekret@h/db"),
        *("postgresql://u:%sekret@h/db", "mysql://u:sekret@host/db", "foo://u:sekret@host"),
        *("sqlite:/labels.db", "sqlite://labels.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///a.db?mode=ro"),
        *("sqlite:///a.db?table=", "sqlite:///a.db?table=a;b", "sqlite:///no/such/folder/a.db", "sqlite:///images"),
    ],
)
def test_a_url_that_names_no_table_is_one_sentence(url: str, images: Path, run: Run, tmp_path: Path) -> None:
    assert is_url(url)
    ended = run("-o", url)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "sek" not in ended.stderr
    assert "ret" not in ended.stderr.replace("secret", "")
    assert not list(tmp_path.glob("*.db"))


def test_a_format_and_a_file_that_is_no_database_are_refused(images: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.db").write_text("path,label\n")
    assert "--format is of a file" in run("-o", "sqlite:///labels.db", "--format", "csv").stderr
    assert "no SQLite database" in run("-o", "sqlite:///labels.db", "--overwrite").stderr
    assert (tmp_path / "labels.db").read_text() == "path,label\n"
    assert "--log-file is the output" in run("-o", "sqlite:///other.db", "--log-file", "other.db-wal").stderr


def test_libpqs_environment_counts(
    fresh: Callable[[str], str], images: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, folder = fresh("postgresql").removeprefix("postgresql://trusted@/").partition("?host=")
    for variable, value in {"PGHOST": folder, "PGUSER": "ferbatch", "PGPASSWORD": PASSWORD}.items():
        monkeypatch.setenv(variable, value)
    assert run("-o", f"postgresql:///{name}").code == 3
    monkeypatch.delenv("PGPASSWORD")
    assert run("-o", f"postgresql:///{name}", "--incremental").code == 74
    escaped = PASSWORD.replace(":", "\\:")
    (tmp_path / "pass").write_text(f"*:*:*:ferbatch:{escaped}\n")
    (tmp_path / "pass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pass"))
    assert run("-o", f"postgresql:///{name}", "--incremental").code == 0


@pytest.mark.parametrize(
    ("module", "scheme"), [("sqlalchemy", "sqlite"), ("sqlalchemy", "postgresql"), ("psycopg", "postgres")]
)
def test_what_is_not_installed_is_said(
    module: str, scheme: str, images: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))
    monkeypatch.setitem(sys.modules, module, None)  # to import it fails
    monkeypatch.delitem(sys.modules, "ferbatch.commands.label.database", raising=False)
    ended = run("-o", f"{scheme}:///labels.db")
    assert ended.code == 2
    assert f"needs {module}: pip install 'ferbatch[sql]'" in ended.stderr


def test_a_table_is_evaluated_as_the_file_of_the_same_run_is(
    fresh: Callable[[str], str], ferbatch_here: Ferbatch, faces: Callable[..., Path], tmp_path: Path
) -> None:
    faces("images/happy", 20)
    faces("images/sad", 20, first=20)
    url = fresh("postgresql").replace("trusted@", f"ferbatch:{quote(PASSWORD, safe='')}@")
    said = []
    for output in ("labels.csv", url, "sqlite:///labels.db"):
        assert ferbatch_here("label", "images", "-q", "-o", output).returncode == 0
        done = ferbatch_here("evaluate", "--predictions", output, "--format", "json", "-q", "--report", f"r{len(said)}")
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
        for text in (
            done.stdout,
            done.stderr,
            *(path.read_bytes() for path in (tmp_path / f"r{len(said) - 1}").glob("*.*")),
        ):
            assert PASSWORD.encode() not in text
            assert quote(PASSWORD, safe="").encode() not in text
    figures = [[{**one, "name": "", "predictions": ""} for one in report["results"]] for report in said]
    assert figures[0] == figures[1] == figures[2]
    assert said[1]["subject"]["truth"].startswith("postgresql://ferbatch:***@")
    missing = ferbatch_here("evaluate", "--predictions", "sqlite:///labels.db?table=faces")
    assert (missing.returncode, b"has no table faces" in missing.stderr) == (2, True)


def test_shares_are_merged_to_a_table(
    url: str, images: Path, run: Run, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    parts = []
    for number in (1, 2):
        run("--shard", f"{number}/2", "-o", f"part{number}.csv")
        parts.append(f"part{number}.csv")
    assert ferbatch_here("merge", *parts, "-o", url, "-q").returncode == 3
    run("-o", "labels.csv")
    assert as_csv(rows_in(url, tmp_path)) == in_csv(tmp_path / "labels.csv")
    assert run("-o", url, "--incremental").stderr.count("labelled again") == 0
    refused = ferbatch_here("merge", url, "-o", "whole.csv")
    assert (refused.returncode, b"are files" in refused.stderr) == (2, True)


def test_others_read_the_table_while_it_is_written_and_one_file_is_left(images: Path, run: Run, tmp_path: Path) -> None:
    url = "sqlite:///labels.db"
    read = []
    with at_each_batch(lambda: read.append(len(rows_in(url, tmp_path)))):
        run("-o", url)
    assert read == [0, BATCH, 2 * BATCH, 3 * BATCH]
    number = steps(run, "-o", url, "--overwrite")
    assert run("-o", url, "--overwrite", faults={"killed_at_statement": {"number": number - 8}}).code == -9
    assert run("-o", url, "--resume").code in (0, 3)
    assert asked(url, tmp_path, "PRAGMA journal_mode") == [("delete",)]
    assert [path.name for path in tmp_path.glob("labels*")] == ["labels.db"]
