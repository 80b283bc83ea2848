"""`ferbatch bench`: what it measures is real, and hangs together."""

from __future__ import annotations

import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from forks import Forks
from PIL import Image
from support import ROOT, Depth, Ferbatch, depth, some

from ferbatch.commands.bench import console, peers, processes, run, samples
from ferbatch.core.options import DEFAULT_MODEL, EXAMPLE

QUICK = ("--repeat", "1", "--no-recommend")


@pytest.fixture
def bench(ferbatch_here: Ferbatch, forks: Forks, monkeypatch: pytest.MonkeyPatch) -> Ferbatch:
    """`ferbatch bench` in a hurry: what it runs as a command of its own is forked, and the network runs shortly.

    In a thorough run all of it is measured as users have it.
    """

    def command(argv: list[str], *, watched: bool = False, stdin: bytes = b"") -> processes.Command:
        if argv[1:3] != ["-m", "ferbatch"]:  # an import, or a peer
            return processes.Command(1.0, 0, "", "", 1.0 if watched else None)
        begun = time.perf_counter()
        ended = forks(Path.cwd(), *argv[3:], stdin=stdin)
        seconds = time.perf_counter() - begun
        return processes.Command(seconds, ended.code, ended.stdout.decode(), ended.stderr, 1.0 if watched else None)

    if not Depth.thorough:
        monkeypatch.setattr(run, "command", command)
        monkeypatch.setattr(run, "FORWARD", 0.1)
    return partial(ferbatch_here, "bench")


@pytest.mark.usefixtures("in_turn")
def test_every_figure_is_measured_and_the_limit_and_ratios_follow_from_them(ferbatch_in: Ferbatch) -> None:
    names = some(["cnn-lite-v1", "cnn-v2"], 1)
    n, repeat = depth(40, 300), depth(1, 2)
    models = [word for name in names for word in ("--model", name)]
    done = ferbatch_in(
        *("bench", "--images", str(n), "--repeat", str(repeat), "--compare", "naive", "--format", "json", *models),
        "--no-recommend",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"]["n"] == n
    assert found["images"]["drawn"] == "faces"
    assert [one["model"] for one in found["models"]] == names
    for one in found["models"]:
        for name, rounds in one["rounds"].items():
            assert len(rounds) == repeat
            assert min(rounds) > 0, name
            assert one["median"][name] == statistics.median(rounds)
        for at in range(repeat):
            value = {name: rounds[at] for name, rounds in one["rounds"].items()}
            of_rows = 1 / (value["rows"] * found["machine"]["cores"])
            assert value["limit"] == pytest.approx(1 / (1 / value["decode"] + 1 / value["forward"] + of_rows))
            for other in ("limit", "decode", "naive"):
                assert value[f"end_to_end / {other}"] == pytest.approx(value["end_to_end"] / value[other])
            assert value["command_seconds"] > n / value["end_to_end"]
    if sys.platform == "linux":
        assert found["memory_of_torch_alone"] > 100
        assert all(one["peak_memory"] > found["memory_of_torch_alone"] for one in found["models"])
    seconds = found["seconds"]
    assert 0 < seconds["help"] < seconds["one_image"]
    # The former is a part of the latter; but the two are measured one after the other, while other tests run.
    assert 0 < seconds["import_torch"] < 3 * seconds["one_image"]


def test_the_table_has_every_figure_and_says_what_was_measured(bench: Ferbatch, faces: Callable[..., Path]) -> None:
    faces("images", 40)
    done = bench("images", *QUICK)
    assert done.returncode == 0, done.stderr
    table = done.stdout.decode()
    assert "40 images" in table
    assert DEFAULT_MODEL in table
    for row in (
        "reading the files",
        "reading and decoding",
        "the network alone",
        "the limit of all three",
        "peak memory",
    ):
        assert row in table
    assert re.search(r"writing rows: [\d.]+ us of CPU an image with csv", table)
    assert b"round 1 of 1" in done.stderr


def test_faces_found_on_a_device_are_measured_beside_those_by_the_cores(
    bench: Ferbatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    with Image.open(EXAMPLE) as portrait:
        for number in range(2):
            portrait.resize((200 + number, 200)).save(tmp_path / "photos" / f"{number}.jpg")
    done = bench("photos", *QUICK, "--device", "cpu", "--faces-on", "device", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert " on cpu, search" in found["detector"]
    value = found["models"][0]["median"]
    for part, other in (("looks", "cores_look"), ("end_to_end", "end_to_end_on_cores")):
        assert value[f"{part} / {other}"] == pytest.approx(value[part] / value[other])
    assert value["decode_on_cores"] > 0
    console.show_bench(found)
    table = capsys.readouterr().out
    assert re.search(
        r"the detector alone, on the device / the detector alone, on the cores +[\d.]+$", table, re.MULTILINE
    )


def test_a_recommendation_tries_other_options_and_names_them(bench: Ferbatch, faces: Callable[..., Path]) -> None:
    faces("images", 20)
    done = bench("images", "--repeat", "1", "--format", "json", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["images"]["n"] == 20
    found = json.loads(done.stdout)["models"][0]["recommended"]
    assert "" in found["tried"]
    assert "--isolate --workers 1" in found["tried"]
    assert {"--isolate --batch-size 32", "--no-isolate"} <= set(found["tried"])
    assert found["options"] in found["tried"]
    if not found["options"]:
        assert (found["workers"], found["batch_size"]) == (0, 256)  # so few images are labelled in one process


def test_only_so_many_images_of_a_folder_are_taken_and_it_is_left_as_it_was(
    bench: Ferbatch, faces: Callable[..., Path]
) -> None:
    folder = faces("images", 30)
    (folder / "broken.jpg").write_bytes(b"no image")
    before = sorted(os.listdir(folder))
    done = bench("images", "--images", "25", "--format", "json", *QUICK)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"]["n"] == 25
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("--compare", "magic"), 2, b"no peer called 'magic' (known: naive, fer)"),
        (("--generate", "cats"), 2, b"no images called 'cats' (known: faces, portraits, frames, photos, mixed)"),
        (("--format", "csv"), 2, b"a table or as json"),
        (("--model", "magic"), 6, b"magic"),
        (("--precision", "fp8"), 2, b"no precision called 'fp8' (known: auto, fp32, bf16)"),
        (("nowhere",), 2, b"nowhere"),
        (("empty",), 4, b"no images found"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(
    arguments: tuple[str, ...], exit_code: int, words: bytes, ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = ferbatch_here("bench", *arguments, "--images", "5")
    assert done.returncode == exit_code
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_peer_that_is_not_installed_is_named(ferbatch_in: Ferbatch, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError('No module named cv2')")
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = ferbatch_in("bench", "--images", "5", "--compare", "fer", *QUICK, env=environment)
    assert done.returncode == 2
    assert b"the peer fer failed: ModuleNotFoundError" in done.stderr


def test_a_peer_labels_every_image_it_is_given(faces: Callable[..., Path]) -> None:
    seen: list[str] = []
    files = sorted(map(str, faces("images", 40).iterdir()))
    label = peers.naive(files, "cnn-lite")
    opened = Image.open

    def watched(path: str) -> Image.Image:
        seen.append(path)
        return opened(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", watched)
        label(files)
    assert seen == files


def test_drawn_images_are_what_they_are_called_and_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        samples.make("faces", tmp_path / name, 30)
    one, two = ([file.read_bytes() for file in sorted((tmp_path / name).rglob("*.jpg"))] for name in ("one", "two"))
    assert one == two
    assert len(set(one)) == 30
    for data in one:
        with Image.open(io.BytesIO(data)) as image:
            assert (image.size, image.mode) == ((48, 48), "L")
    for name, size in (("photos", (4000, 3000)), ("frames", (720, 576)), ("portraits", (350, 350))):
        (tmp_path / name).mkdir()
        samples.make(name, tmp_path / name, 1)
        with Image.open(next((tmp_path / name).iterdir())) as image:
            assert (image.size, image.mode) == (size, "RGB")


def test_a_commands_memory_is_that_of_all_its_processes() -> None:
    holding = "import time; held = b'x' * 60_000_000; time.sleep(0.6)"
    alone = processes.command([sys.executable, "-c", holding], watched=True)
    with_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holding!r}])"
    child = processes.command([sys.executable, "-c", with_child], watched=True)
    if alone.peak is None:
        pytest.skip("the system does not tell")
    assert 60 < alone.peak < 160
    assert child.peak is not None
    assert 60 < child.peak < 200
    assert processes.command([sys.executable, "-c", holding]).peak is None


def test_a_commands_words_and_exit_code_come_back() -> None:
    program = "import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(3)"
    done = processes.command([sys.executable, "-c", program], stdin=b"yes")
    assert (done.stdout.strip(), done.stderr.strip(), done.exit_code) == ("yes", "no", 3)
    assert done.seconds > 0


def test_rates_count_broken_files_as_well(faces: Callable[..., Path]) -> None:
    folder = faces("images", 10)
    (folder / "broken.jpg").write_bytes(b"no image")
    files = [os.fsencode(file) for file in folder.iterdir()] + [b"nowhere"]
    cores = processes.Cores(2)
    try:
        assert cores.rate("read", files, 48) > 0
        assert cores.rate("decode", files, 48) > 0
    finally:
        cores.close()


def test_the_peers_run_without_ferbatch_where_they_need_none(tmp_path: Path) -> None:
    program = f"import runpy, sys; sys.modules['ferbatch'] = None; runpy.run_path({peers.__file__!r})"
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=tmp_path)
