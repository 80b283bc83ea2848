"""Crops and copies in a store are those of a folder, put as they come, and theirs alone are taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Ended, Forks
from PIL import Image
from store_proxy import Proxy, Wrong
from support import ENVIRONMENT

from ferbatch.core.options import EXAMPLE

pytest.importorskip("s3fs", reason="s3fs is installed with ferbatch[s3]")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

URL, CROPS, SEEN = "s3://bucket/labels.csv", "s3://bucket/faces/crops", "s3://bucket/faces/seen"
Run = Callable[..., Ended]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos with no face, one and two, and what is no photo; the names are as hostile as keys let them be."""
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    with Image.open(EXAMPLE) as photo:
        one = photo.resize((256, 256))
    two = Image.new("RGB", (512, 256))
    two.paste(one, (0, 0))
    two.paste(one, (256, 0))
    one.save(folder / "in/one.jpg")
    one.save(os.fsencode(folder) + b"/odd\xff %41\\?versionId=1.jpg")
    two.save(folder / "two.jpg")
    Image.radial_gradient("L").resize((200, 150)).save(folder / "none.png")
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture
def run(forks: Forks, proxy: Proxy, photos: Path, tmp_path: Path, model: Path) -> Run:
    """`ferbatch label` by a process of its own."""

    def call(*options: str, faults: Any = None, starts: bool = False, **how: Any) -> Any:
        command = ("label", *([] if "-" in options else ["photos"]), "-q", "--model", str(model), *options)
        there = {"address": proxy.address, "tried": 0, "FERBATCH_SPOOL": str(tmp_path / "spools")}
        begin = forks.start if starts else forks
        return begin(tmp_path, *command, faults={"store": there, **(faults or {})}, **how)

    return call


def pictures(bucket: Any) -> dict[str, bytes]:
    """What is in the two folders, but for their markers."""
    found = {one.key: one.get()["Body"].read() for one in bucket.objects.filter(Prefix="faces/")}
    return {key.removeprefix("faces/"): data for key, data in found.items() if not key.endswith("/.ferbatch")}


@pytest.fixture
def local(run: Run, tmp_path: Path) -> dict[str, bytes]:
    """The same of folders of this machine, by the names that keys have for them."""
    assert run("-o", "local.csv", "--crops", "faces/crops", "--annotate", "faces/seen").code == 3
    files = [path for path in (tmp_path / "faces").rglob("*") if path.is_file() and path.name != ".ferbatch"]
    odd = b"odd\xff %41\\?v", "odd%FF %2541%5C%3Fv"
    return {
        os.fsencode(path.relative_to(tmp_path / "faces")).replace(odd[0], odd[1].encode()).decode(): path.read_bytes()
        for path in files
    }


@pytest.mark.parametrize("how", [("--workers", "0"), ("--workers", "2"), ("--isolate", "--workers", "1")])
@pytest.mark.parametrize("output", [URL, "labels.csv"])
def test_pictures_in_a_store_are_those_in_a_folder(
    output: str, how: tuple[str, ...], run: Run, bucket: Any, local: dict[str, bytes], tmp_path: Path
) -> None:
    assert sorted(name for name in local if name.endswith("png")) == [
        "crops/photos/in/one.jpg.face0.png",
        "crops/photos/odd%FF %2541%5C%3FversionId=1.jpg.face0.png",
        *("crops/photos/two.jpg.face0.png", "crops/photos/two.jpg.face1.png"),
    ]
    assert run("-o", output, "--crops", CROPS, "--annotate", f"{SEEN}/", *how).code == 3
    assert pictures(bucket) == local
    owner = output if output == URL else str(tmp_path / output)
    markers = [bucket.Object(f"faces/{name}/.ferbatch").get()["Body"].read() for name in ("crops", "seen")]
    assert markers == [f"faces of {owner}".encode()] * 2
    assert not [path for path in (tmp_path / "spools").glob("*") if path.is_dir()]


def test_a_folder_is_treated_as_one_of_files_is(run: Run, bucket: Any, local: dict[str, bytes]) -> None:
    mine = {"crops/mine.png": b"mine", "crops/photos/in/one.jpg.face9.png": b"old", "crops/a.faces.jpg/mine": b"mine"}
    for key, data in mine.items():
        bucket.put_object(Key=f"faces/{key}", Body=data)
    ended = run("-o", URL, "--crops", CROPS)
    assert (ended.code, f"{CROPS} is not empty and no folder of faces" in ended.stderr) == (2, True), ended.stderr
    bucket.put_object(Key="faces/crops/.ferbatch", Body=b"labels.csv\n")  # that of a report
    assert run("-o", URL, "--crops", CROPS, "--overwrite").code == 2
    bucket.put_object(Key="faces/crops/.ferbatch", Body=b"faces of s3://bucket/others.csv")
    ended = run("-o", URL, "--crops", CROPS)
    assert (ended.code, "holds faces of s3://bucket/others.csv; --overwrite" in ended.stderr) == (2, True), ended.stderr
    assert run("-o", URL, "--crops", CROPS, "--incremental").code == 2
    assert pictures(bucket) == mine
    assert run("-o", URL, "--crops", CROPS, "--overwrite").code == 3
    kept = {name: data for name, data in mine.items() if data == b"mine"}
    assert pictures(bucket) == kept | {name: data for name, data in local.items() if name.endswith("png")}
    ended = run("-o", URL, "--crops", CROPS)
    assert (ended.code, "labels.csv exists" in ended.stderr or "an earlier run" in ended.stderr) == (2, True)


def test_what_changes_and_goes_takes_its_pictures_along(
    run: Run, bucket: Any, photos: Path, proxy: Proxy, tmp_path: Path
) -> None:
    command = ("--crops", CROPS, "--annotate", SEEN, "--incremental", "-o", URL)
    assert run(*command).code == 3
    asked = {name for name in proxy.asked if name.endswith(".png") and not name.startswith("PUT")}
    assert not asked  # nothing of an earlier run can be there
    before = pictures(bucket)
    (photos / "two.jpg").write_bytes((photos / "in/one.jpg").read_bytes())
    (photos / "in/one.jpg").unlink()
    (photos / "new.jpg").write_bytes(b"broken")
    assert run(*command).code == 3
    assert run("-o", "local.csv", "--crops", "faces/crops", "--annotate", "faces/seen").code == 3
    gone = {"crops/photos/in/one.jpg.face0.png", "seen/photos/in/one.jpg.faces.jpg", "crops/photos/two.jpg.face1.png"}
    assert set(pictures(bucket)) == set(before) - gone
    for name in ("crops/photos/two.jpg.face0.png", "seen/photos/two.jpg.faces.jpg"):
        assert pictures(bucket)[name] == (tmp_path / "faces" / name).read_bytes()
    for one in bucket.objects.filter(Prefix="faces/crops"):
        one.delete()
    ended = run(*command)
    assert (ended.code, "s3://bucket/faces/crops is gone, with the faces of" in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("HEAD", "/in/one.jpg.face2.png", status=503, times=1),
        Wrong("DELETE", "/in/one.jpg.face2.png", status=503, times=1),
    ],
)
def test_crops_that_are_too_many_all_go_though_the_store_fails_amid_them(
    wrong: Wrong, run: Run, bucket: Any, local: dict[str, bytes], proxy: Proxy, photos: Path
) -> None:
    command = ("--crops", CROPS, "--annotate", SEEN, "--incremental", "-o", URL)
    assert run(*command).code == 3
    for number in (1, 2, 3):
        bucket.put_object(Key=f"faces/crops/photos/in/one.jpg.face{number}.png", Body=b"old")
    os.utime(photos / "in/one.jpg", (1, 1))
    proxy.wrong.append(wrong)
    assert run(*command).code == 0
    assert (wrong.times, pictures(bucket)) == (0, local)


def test_crops_that_may_not_be_taken_away_end_the_run(run: Run, bucket: Any, proxy: Proxy) -> None:
    assert run("-o", URL, "--crops", CROPS).code == 3
    denied = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    proxy.wrong.append(Wrong("POST", "/bucket", status=200, body=denied))
    ended = run("-o", URL, "--crops", CROPS, "--overwrite")
    assert (ended.code, "could not be taken away: the store refuses to delete it" in ended.stderr) == (74, True)
    proxy.wrong[:] = [Wrong("POST", "/bucket", status=200, body=denied.replace(b"AccessDenied", b"SlowDown"), times=1)]
    assert run("-o", URL, "--crops", CROPS, "--overwrite").code == 3
    assert not proxy.wrong[0].times


@pytest.mark.parametrize("how", [("--workers", "0"), ("--workers", "2"), ("--isolate", "--workers", "1")])
@pytest.mark.parametrize("ending", ["/two.jpg.face1.png", "/two.jpg.faces.jpg"])
def test_a_picture_that_cannot_be_put_ends_the_run_and_resume_goes_on(
    ending: str, how: tuple[str, ...], run: Run, bucket: Any, local: dict[str, bytes], proxy: Proxy
) -> None:
    command = ("-o", URL, "--crops", CROPS, "--annotate", SEEN, "--batch-size", "2", *how)
    wrong = Wrong("PUT", ending, status=503, times=3)
    proxy.wrong.append(wrong)
    assert run(*command).code == 3  # it is tried six times
    assert (wrong.times, pictures(bucket)) == (0, local)
    proxy.wrong[:] = [Wrong("PUT", ending, status=403)]
    ended = run(*command, "--overwrite")
    assert (ended.code, ended.stderr.count("\n")) == (74, 1), ended.stderr
    assert f"{ending} could not be written: the store refuses it (403)" in ended.stderr
    assert ended.stderr.endswith("; --resume goes on with what is done\n")
    proxy.wrong.clear()
    assert run(*command, "--resume").code == 3
    assert pictures(bucket) == local


def test_a_store_that_refuses_the_folder_ends_the_run_before_it_labels(run: Run, bucket: Any, proxy: Proxy) -> None:
    proxy.wrong.append(Wrong("PUT", "/.ferbatch", status=403))
    ended = run("-o", "labels.csv", "--crops", CROPS)
    assert (ended.code, "/.ferbatch could not be written: the store refuses it" in ended.stderr) == (74, True)
    proxy.wrong.clear()
    ended = run("-o", "labels.csv", "--crops", "s3://nowhere/crops", "--overwrite")
    assert (ended.code, "there is no such bucket: s3://nowhere" in ended.stderr) == (2, True), ended.stderr
    for url, why in (
        ("s3://bucket", "names no folder: s3://bucket/folder does"),
        ("s3://k:hush@bucket/crops", "holds a name, a password or keys"),
        ("hf://datasets/a/b", "hf:// paths are of images alone"),
        (f"s3://bucket/{'long' * 200}", "is too long for a folder"),
    ):
        ended = run("-o", "labels.csv", "--annotate", url)
        assert (ended.code, why in ended.stderr, "hush" in ended.stderr) == (2, True, False), ended.stderr


@pytest.mark.parametrize("held", [0, None])
def test_pictures_are_put_many_at_once_while_few_bytes_wait(
    held: int | None, run: Run, bucket: Any, proxy: Proxy, photos: Path
) -> None:
    for at in range(10):
        (photos / f"{at}.jpg").hardlink_to(photos / "in/one.jpg")
    proxy.wait = 1.0 if held is None else 0.1
    faults = {"little_is_held": {"size": held}} if held is not None else None
    ended = run("-o", "labels.csv", "--crops", CROPS, "--workers", "0", faults=faults)
    assert ended.code == 3, ended.stderr
    assert len(pictures(bucket)) == 14
    assert (proxy.most_at_once > 2) == (held is None)  # those of one image, else


@pytest.mark.parametrize("path", ["faces", ""])
@pytest.mark.parametrize("absolute", [False, True])
def test_what_was_written_there_is_no_source(
    absolute: bool, path: str, run: Run, bucket: Any, photos: Path, tmp_path: Path
) -> None:
    """Not even what comes before its marker where keys are sorted, as `(root)` does."""
    listed = os.fsencode(photos if absolute else "photos")
    assert run("-", "-o", "labels.csv", "--crops", CROPS, "--annotate", SEEN, stdin=listed + b"\n").code == 3
    assert any(name.startswith("crops/(root)") for name in pictures(bucket)) == absolute
    bucket.put_object(Key="faces/(1).jpg", Body=(photos / "in/one.jpg").read_bytes())
    bucket.put_object(Key="faces/last/(1).jpg", Body=(photos / "in/one.jpg").read_bytes())
    ended = run("-", "-o", "-", "--quiet", stdin=f"s3://bucket/{path}/\n".replace("//\n", "/\n").encode())
    rows = ended.stdout.decode().splitlines()[1:]
    assert [row.split('"')[1] for row in rows] == ["s3://bucket/faces/(1).jpg", "s3://bucket/faces/last/(1).jpg"]
    ended = run("-", "-o", "-", stdin=f"{CROPS}/\n".encode())
    assert (ended.code, "was written by ferbatch and is not read as a source" in ended.stderr) == (2, True)


def test_the_nodes_of_a_cluster_put_their_crops(
    bucket: Any, local: dict[str, bytes], proxy: Proxy, model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="ray is installed with ferbatch[ray]")
    there = {"AWS_ENDPOINT_URL": proxy.address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    ray = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = {**ENVIRONMENT, **there, **ray}
    options = ["--model", str(model), "--crops", CROPS, "--engine", "ray", "-o", "labels.csv", "-q"]
    command = [sys.executable, "-m", "ferbatch", "label", "photos", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=240)
    assert done.returncode == 3, done.stderr
    assert pictures(bucket) == {name: data for name, data in local.items() if name.endswith("png")}
