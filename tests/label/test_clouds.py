"""The stores of Google and Azure are read and written as S3 is, through servers that stand for them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clouds import CLOUDS, Cloud
from forks import Ended, Forks
from PIL import Image
from store_proxy import Proxy, Wrong, standing_before
from support import face_file

from ferbatch.core.options import EXAMPLE

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

FACES = {
    **{f"happy/{at}.jpg": face_file(at) for at in range(4)},
    **{f"sad/deep/{at}.jpg": face_file(at) for at in range(4, 7)},
    "odd ä %41 #1?x.jpg": face_file(7),
    "noname": face_file(8),
    "broken.jpg": b"broken",
    "notes.txt": b"no image",
    ".hidden.jpg": face_file(9),
}
Run = Callable[..., Ended]


@pytest.fixture(scope="module", params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """A store that holds FACES in the folder `faces`, and archives of them."""
    with CLOUDS[request.param]() as one:
        for name, data in FACES.items():
            one.put(f"faces/{name}", data)
        for kind in ("zip", "tar", "tar.gz"):
            one.put(f"in.{kind}", packed(kind))
        yield one


def packed(kind: str) -> bytes:
    """FACES as an archive."""
    if kind == "zip":
        with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
            for name, data in FACES.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        return stream.getvalue()
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w:gz" if kind == "tar.gz" else "w") as tar:
        for name, data in FACES.items():
            (info := tarfile.TarInfo(name)).size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[Proxy]:
    """What stands before it."""
    with standing_before(cloud.address) as one:
        yield one


@pytest.fixture
def run(forks: Forks, cloud: Cloud, proxy: Proxy, tmp_path: Path, model: Path) -> Run:
    """`ferbatch label`, or another command, by a process of its own in a folder that has FACES in `faces` as well."""
    for name, data in FACES.items():
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(data)
    for kind in ("zip", "tar", "tar.gz"):
        (tmp_path / f"in.{kind}").write_bytes(packed(kind))

    def call(*options: str, **how: Any) -> Ended:
        command = options if options[0] == "evaluate" else ("label", *options)
        there = {"address": "", "FERBATCH_SPOOL": str(tmp_path / "spools"), **cloud.environment(proxy.address)}
        return forks(tmp_path, *command, "--model", str(model), faults={"store": there, "plain_charts": {}}, **how)

    return call


def gets(proxy: Proxy) -> int:
    """How often the content of an image was asked for."""
    return sum(n for name, n in proxy.asked.items() if name.startswith("GET") and name.endswith(".jpg"))


def test_a_folder_there_has_the_rows_of_a_folder_here(run: Run, cloud: Cloud, proxy: Proxy, tmp_path: Path) -> None:
    assert run("faces", "-o", "here.csv", "-q").code == 3
    command = (f"{cloud.scheme}://bucket/faces", "-o", "there.csv", "-q", "--incremental")
    assert run(*command).code == 3

    def same() -> bool:
        there = (tmp_path / "there.csv").read_text().replace(f'"{cloud.scheme}://bucket/', '"')
        return there == (tmp_path / "here.csv").read_text()

    assert same()
    proxy.asked.clear()
    ended = run(*command)
    assert (ended.code, ended.stderr, gets(proxy)) == (0, "", 0)
    changed = {"happy/1.jpg": face_file(20), "new.jpg": face_file(21)}
    for name, data in changed.items():
        cloud.put(f"faces/{name}", data)
        (tmp_path / "faces" / name).write_bytes(data)
    assert run(*command).code == 0
    assert gets(proxy) == len(changed)
    assert run("faces", "-o", "here.csv", "-q", "--overwrite").code == 3
    assert same()
    cloud.put("faces/happy/1.jpg", FACES["happy/1.jpg"])


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_there_has_the_rows_of_one_here(
    kind: str, run: Run, cloud: Cloud, proxy: Proxy, tmp_path: Path
) -> None:
    assert run(f"in.{kind}", "-o", "here.csv", "-q").code == 3
    command = (f"{cloud.scheme}://bucket/in.{kind}", "-o", "there.csv", "-q", "--incremental")
    assert run(*command).code == 3
    there = (tmp_path / "there.csv").read_text().replace(f'"{cloud.scheme}://bucket/', '"')
    assert there == (tmp_path / "here.csv").read_text()
    ended = run(*command)
    assert (ended.code, ended.stderr) == (0, "")


def test_what_fails_is_a_row_of_its_kind(run: Run, cloud: Cloud, proxy: Proxy, tmp_path: Path) -> None:
    there = f"{cloud.scheme}://bucket/faces"
    names = ["happy/0.jpg", "none.jpg", "happy/2.jpg", "happy/3.jpg", "odd ä %41 #1?x.jpg"]
    listed = "".join(f"{there}/{name}\n" for name in names) + f"{cloud.scheme}://nowhere/x.jpg\n"
    proxy.wrong += [Wrong("GET", "happy/2.jpg", status=403), Wrong("GET", "happy/3.jpg", status=503, times=1)]
    command = ("-", "-o", "there.csv", "-q", "--incremental")
    assert run(*command, stdin=listed.encode()).code == 3
    rows = [line.split(",") for line in (tmp_path / "there.csv").read_text().splitlines()[1:]]
    kinds = [(row[8], row[9]) for row in rows]
    assert kinds == [
        *(("ok", ""), ("error", "not_found"), ("error", "permission")),
        *(("ok", ""), ("ok", ""), ("error", "not_found")),
    ]
    proxy.asked.clear()
    proxy.wrong.clear()
    assert run(*command, "--retry-failed", stdin=listed.encode()).code == 3
    asked = {name.rpartition("/")[2] for name in proxy.asked if name.startswith("GET") and "download" in name}
    assert asked <= {"2.jpg", "none.jpg", "x.jpg"}  # of Azure's paths nothing tells a look from a GET


def test_a_listing_that_fails_is_asked_for_again_or_said(run: Run, cloud: Cloud, proxy: Proxy) -> None:
    there = f"{cloud.scheme}://bucket/faces"
    proxy.wrong[:] = [Wrong("GET", cloud.listing, status=503, times=1)]
    assert run(there, "-o", "-", "-q").code == 3
    proxy.wrong[:] = [Wrong("GET", cloud.listing, status=403)]
    ended = run(there, "-o", "-", "-q")
    assert (ended.code, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert f"{there} cannot be listed: the store refuses it" in ended.stderr
    assert "(credentials come from " in ended.stderr
    proxy.wrong.clear()
    for path in ("bucket/none", "nowhere", "nowhere/x"):
        ended = run(f"{cloud.scheme}://{path}", "-o", "-", "-q")
        assert (ended.code, "cannot be listed: there is no such" in ended.stderr) == (2, True), ended.stderr


def test_what_is_written_there_is_what_is_written_here(run: Run, cloud: Cloud, proxy: Proxy, tmp_path: Path) -> None:
    with Image.open(EXAMPLE) as photo:
        photo.resize((300, 300)).save(tmp_path / "faces/happy/photo.png")
    beside = {"-o": "labels.csv", "--crops": "crops", "--annotate": "seen"}
    there = f"{cloud.scheme}://bucket/out"
    (tmp_path / "here").mkdir()
    for at in ("here", there):
        options = [word for option, path in beside.items() for word in (option, f"{at}/{path}")]
        assert run("faces", "-q", *options).code == 3
    for path in ("labels.csv", "crops/faces/happy/photo.png.face0.png", "seen/faces/happy/photo.png.faces.jpg"):
        assert cloud.get(f"out/{path}") == (tmp_path / "here" / path).read_bytes()
    proxy.asked.clear()
    assert run(there, "-o", "-", "-q").code == 4  # all of it is ferbatch's own
    for options in ((), ("--overwrite",)):
        ended = run("evaluate", "--truth", "faces", "--report", f"{there}/report", "-q", *options)
        assert ended.code == 0, ended.stderr
    assert run("evaluate", "--truth", "faces", "--report", "here/report", "-q").code == 0
    for name in ("report.json", "labels.csv", ".ferbatch"):
        assert cloud.get(f"out/report/{name}") == (tmp_path / "here/report" / name).read_bytes()
