"""Weights, cards and checkpoints that anyone may have made: nothing in them runs, hangs, eats memory or is believed."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save
from support import Ferbatch, draw_face, some
from tiny import ARGUMENTS, STEM, make, tensors
from torch import Tensor

from ferbatch.commands.models import convert
from ferbatch.commands.train import checkpoint
from ferbatch.commands.train.data import Data, Split
from ferbatch.commands.train.recipe import Recipe
from ferbatch.commands.train.trainer import Trainer
from ferbatch.core.errors import ModelError, UsageError
from ferbatch.core.records import NONE
from ferbatch.model import backbones, registry, weights
from ferbatch.model.weights import Card
from ferbatch.sources.labels import LABELS
from ferbatch.stream.classifier import Classifier


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A pair that fits, for a test to spoil."""
    return tiny.make(tmp_path / "mine.safetensors")


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """Half a minute and a GiB of memory on top of what is there; a test that would hang or eat memory fails by it."""

    def stop(_: int, __: FrameType | None) -> NoReturn:
        pytest.fail("it takes too long")  # no exception that code would catch

    there = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, there[1]))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, there)


def refused(path: Path) -> str:
    """The one harmless and short sentence that loading ends with."""
    with pytest.raises(ModelError) as raised:
        Classifier.load(str(path), "cpu")
    said = str(raised.value)
    assert said.isprintable()
    assert len(said) < 1000 + len(str(path))
    return said


def misfit(path: Path) -> str:
    """Why weights and card do not fit: that memory ran out is no reason, for it would have been taken."""
    with pytest.raises(ModelError, match="the weights of 'mine' do not fit their card") as raised:
        Classifier.load(str(path), "cpu")
    return str(raised.value.__cause__)


SEQUENTIAL = [
    {"kind": "conv", "inputs": 1, "outputs": 3, "kernel": [2, 2], "stride": [1, 1], "pad": [0, 1, 0, 1], "bias": True},
    {"kind": "batch_norm_2d", "features": 3, "eps": 0.001},
    {"kind": "max_pool", "size": [3, 3], "stride": [2, 2], "pad": [0, 1, 0, 1]},
    {"kind": "average_pool", "size": [2, 2], "stride": [2, 2]},
    {"kind": "elu", "alpha": 1.0},
    {"kind": "flatten"},
    {"kind": "dense", "inputs": 432, "outputs": 4, "bias": False},
]


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("cnn", {"labels": 4}),
        ("cnn-lite", ARGUMENTS),
        ("sequential", {"parts": SEQUENTIAL}),
        *some([("efficientnetv2_b2", {"side": 64, "hidden": 8}), ("resnet101", {"labels": 4, "hidden": 8})], 1),
    ],
)
def test_a_model_that_is_loaded_says_to_the_bit_what_the_saved_one_did(
    architecture: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = registry.build(architecture, arguments)
    changes = {"architecture": architecture, "arguments": arguments, "parameters": registry.parameters(network)}
    card = weights.save(
        tmp_path / "a.safetensors",
        Card(**{**tiny.card(), **changes, "labels": tuple(tiny.card()["labels"])}),
        network.state_dict(),
    )
    loaded = Classifier.load(str(tmp_path / "a.safetensors"), "cpu")
    faces = np.stack([np.asarray(draw_face(seed)) for seed in range(3)])
    assert np.array_equal(loaded.probabilities(faces), Classifier(card, network, "cpu").probabilities(faces))
    assert loaded.card == dataclasses.replace(card, scores=list(card.scores))


def fits(there: Any, value: Any) -> bool:
    """Whether a card's value may be of this kind, where another is there."""
    return isinstance(value, type(there)) and not isinstance(value, bool) and there is not ARGUMENTS


def with_arguments(**arguments: Any) -> dict[str, Any]:
    return {"arguments": {**ARGUMENTS, **arguments}}


def sequential(*parts: Any) -> dict[str, Any]:
    return {"architecture": "sequential", "arguments": {"parts": list(parts)}}


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {name: value}
            for name, there in tiny.card().items()
            for value in (None, True, "a", [1], {"a": 1})
            if not fits(there, value)
        ),
        {"name": "\ud800"},
        {"name": "x" * 1000},
        {"architecture": "x" * 10_000},
        {"\x1b[31m" * 1000: 1},
        {"labels": "abcd"},
        {"labels": [1, 2, 3, 4]},
        {"labels": dict.fromkeys(tiny.card()["labels"], 1)},
        {"labels": ["happy", "happy", "sad", "neutral"]},
        {"labels": ["happy", "sad", "neutral", "path"]},
        {"labels": ["happy", "sad", "neutral", "x" * 10**5]},
        {"labels": [f"x{at}" for at in range(1001)]},
        {"size": 48.0},
        {"size": 10**4},
        {"size": 10**400},
        {"size": -1},
        {"mean": 1e300},
        {"std": 1e-300},
        {"std": float("inf")},
        {"temperature": 5e-324},
        {"temperature": 10**400},
        {"parameters": 1},
        {"data": {"a": float("nan")}},
        {"data": {"a": "\udfff"}},
        {"data": {"\udfff": 1}},
        {"data": {"a": 10**300}},
        with_arguments(labels=-1),
        with_arguments(labels="4"),
        with_arguments(labels=5),
        with_arguments(dropout=2),
        with_arguments(dropout="a"),
        with_arguments(strides=[0, 0]),
        with_arguments(strides=[2**70, 1]),
        with_arguments(channels=[4]),
        with_arguments(blocks=[]),
        with_arguments(self=1),
        {"architecture": "vgg16", "arguments": {"name": "x"}},
        {"architecture": "cnn", "arguments": {"dropout": []}},
        sequential(),
        sequential("lambda"),
        sequential({"kind": "lambda", "code": "print()"}),
        sequential({"kind": []}, {"kind": "flatten"}),
        sequential({"kind": "flatten"}, {"kind": "dense", "inputs": 0, "outputs": 4, "bias": True}),
        sequential({"kind": "elu", "alpha": "a"}, {"kind": "flatten"}),
        sequential({"kind": "average_pool", "size": 0, "stride": 0}, {"kind": "flatten"}),
        sequential({"kind": "max_pool", "size": 2, "stride": 2, "pad": "abcd"}, {"kind": "flatten"}),
        {"architecture": "sequential", "arguments": {"parts": {"kind": "flatten"}}},
    ],
    ids=lambda changes: f"{changes}"[:60].encode(errors="backslashreplace").decode(),
)
def test_a_card_whose_values_cannot_be_true_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    refused(make(tmp_path / "mine.safetensors", **changes))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'"card"',
        b"null",
        b"1" * 5000,
        b"[" * 100_000,
        b'{"labels":' * 100_000,
        b"\xff\xfe",
        json.dumps(tiny.card()).encode("utf-16"),
        b'{"name": "\x1b[31m"}',
        json.dumps({**tiny.card(), "data": {"a": "x" * 2**23}}).encode(),
        json.dumps(tiny.card()).replace('"data": {', '"data": {"x": ' + "[" * 100 + "]" * 100 + ", ").encode(),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_card_is_refused(text: bytes, mine: Path) -> None:
    mine.with_suffix(".json").write_bytes(text)
    assert "mine.json is no model card: " in refused(mine)


def wide(part: dict[str, Any]) -> dict[str, Any]:
    return sequential(part, {"kind": "flatten"})


@pytest.mark.parametrize(
    "changes",
    [
        with_arguments(stem=10**9),
        with_arguments(channels=[20_000, 20_000]),
        with_arguments(labels=10**9),
        with_arguments(blocks=[10**9, 1]),
        with_arguments(blocks=[10**9, -(10**9)]),
        {"architecture": "cnn", "arguments": {"channels": [1] * 200_000}},
        {"architecture": "cnn", "arguments": {"channels": [50_000] * 5}},
        {"architecture": "efficientnet_lite0", "arguments": {"hidden": 10**9}},
        sequential(*[{"kind": "tanh"}] * 50_000, {"kind": "flatten"}),
        sequential({"kind": "flatten"}, {"kind": "dense", "inputs": 50_000, "outputs": 50_000, "bias": True}),
        wide({"kind": "conv", "inputs": 10**9, "outputs": 10**9, "kernel": 9, "stride": 1, "pad": [], "bias": True}),
    ],
    ids=lambda changes: f"{changes}"[:60],
)
def test_a_gigantic_network_is_refused_before_it_takes_memory(changes: dict[str, Any], tmp_path: Path) -> None:
    why = misfit(make(tmp_path / "mine.safetensors", **changes))
    assert re.search("other tensors|layers are more than 1,000|overflow", why), why


DENSE = {"kind": "dense", "inputs": 1, "outputs": 4, "bias": True}
POOL = {"kind": "global_average_pool"}
PAD = {"kind": "max_pool", "size": 1, "stride": 1}


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ([{"kind": "flatten"}, POOL, {**PAD, "pad": [10**9] * 2}, POOL, DENSE], 48),  # 8 GB, by way of all rows' mean
        ([{**PAD, "pad": [10_000] * 4}, POOL, DENSE], 48),  # 1.6 GB
        ([{**PAD, "pad": [10**8] * 4}, POOL, DENSE], 48),
        ([{**PAD, "pad": [10**18] * 4}, POOL, DENSE], 48),
        ([{"kind": "max_pool", "size": 500, "stride": 1, "pad": [0] * 4}, POOL, DENSE], 1024),  # 69 billion values
        (
            [
                {"kind": "conv", "inputs": 1, "outputs": 900, "kernel": 1, "stride": 1, "pad": [0], "bias": False},
                POOL,
                {**DENSE, "inputs": 900},
            ],
            1024,
        ),  # 3.8 GB
    ],
    ids=["one for all", "large", "gigantic", "endless", "slow", "wide"],
)
def test_a_modest_file_that_would_cost_much_memory_or_time_to_run_is_refused(
    parts: list[dict[str, Any]], size: int, tmp_path: Path
) -> None:
    network = registry.build("sequential", {"parts": parts})
    changes = {**sequential(*parts), "size": size, "parameters": registry.parameters(network)}
    path = make(tmp_path / "mine.safetensors", network.state_dict(), **changes)
    assert re.search("too large to run|overflow|something of no image", misfit(path))


def test_a_side_that_images_are_scaled_to_has_its_bound_too(tmp_path: Path) -> None:
    network = registry.build("efficientnet_lite0", {})
    changes = {"architecture": "efficientnet_lite0", "parameters": registry.parameters(network)}
    make(tmp_path / "good.safetensors", network.state_dict(), arguments={"side": 64}, **changes)
    assert Classifier.load(str(tmp_path / "good.safetensors"), "cpu")
    for side in (10_000, 10**6):
        bad = make(tmp_path / "bad.safetensors", network.state_dict(), arguments={"side": side}, **changes)
        assert misfit(bad) == "it is too large to run"


class Bomb:
    """Leaves a folder behind where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("exploded",)


def bomb() -> bytes:
    return pickle.dumps(Bomb())


def test_a_pickle_under_another_name_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({STEM: Bomb()}, "bomb.pt")
    for content in (bomb(), Path("bomb.pt").read_bytes()):
        assert "mine.safetensors holds no tensors" in refused(make(tmp_path / "mine.safetensors", content))
        Path("mine.json").write_bytes(content)
        assert "is no model card" in refused(tmp_path / "mine.safetensors")
    assert not Path("exploded").exists()
    pickle.loads(bomb())
    assert Path("exploded").exists(), "the bomb would go off"


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A .safetensors file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        lambda: save(tensors())[:-1],
        lambda: save(tensors())[:100],
        lambda: save(tensors()) + b"x",
        raw({}, length=2**63),
        raw({}, length=2**64 - 1),
        raw({}, length=3),
        raw(b"\x80\x04"),
        raw(b"[" * 100_000),
        raw([]),
        raw({"a": None}),
        raw({STEM: entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),  # overlapping
        raw({STEM: entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)),  # a hole
        raw({STEM: entry(0, 2**62, [2**60])}, bytes(12)),
        raw({STEM: entry(-4, 4, [2])}, bytes(4)),
        raw({STEM: entry(8, 0, [2])}, bytes(8)),
        raw({STEM: entry(0, 4, [2])}, bytes(4)),
        raw({STEM: entry(0, 0, [0, 2**63])}),
        raw({STEM: entry(0, 0, [0, 2**62, 2**62])}),
        raw({STEM: entry(0, 4, [1], "PICKLE")}, bytes(4)),
        raw({STEM: entry(0, 4, [8], "F4")}, bytes(4)),
        raw({STEM: entry(0, 3, [4], "F6_E2M3")}, bytes(3)),
        raw({"\x1b[31m" * 1000: entry(0, 4, [2])}, bytes(4)),
        lambda: save(tensors(), {"padding": "x" * 2**21}),
    ],
    ids=lambda content: f"{len(content)} {content[8:48]!r}" if isinstance(content, bytes) else None,
)
def test_a_file_that_is_no_safetensors_is_refused(content: bytes | Callable[[], bytes], tmp_path: Path) -> None:
    content = content() if callable(content) else content
    assert "safetensors" in refused(make(tmp_path / "mine.safetensors", content)) or content[8:10] == b"{}"


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors().items() if key != name}


MISFITS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "none": dict,
    "one fewer": lambda: without(STEM),
    "one more": lambda: {**tensors(), "extra": torch.zeros(1)},
    "another shape": lambda: {**tensors(), STEM: tensors()[STEM].reshape(-1)},
    "nothing in it": lambda: {**tensors(), STEM: torch.zeros(0)},
    "another length": lambda: {**tensors(), "features.1.running_mean": torch.zeros(1)},
    **{
        f"of {dtype}": lambda dtype=dtype: {**tensors(), STEM: tensors()[STEM].to(dtype)}
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool, torch.float8_e4m3fn)
    },
    "half a batch": lambda: {**tensors(), "features.1.num_batches_tracked": torch.tensor(1.5)},
    **{
        f"{value} in {name}": lambda name=name, value=value: {
            **tensors(),
            name: torch.full_like(tensors()[name], value),
        }
        for name in (STEM, "features.1.running_var", "head.1.bias")
        for value in (float("nan"), float("inf"))
    },
    "variance below zero": lambda: {
        **tensors(),
        "features.1.running_var": torch.full_like(tensors()["features.1.running_var"], -1.0),
    },
}


@pytest.mark.parametrize("name", MISFITS)
def test_tensors_that_are_not_those_of_the_card_are_refused(name: str, tmp_path: Path) -> None:
    path = make(tmp_path / "mine.safetensors", MISFITS[name]())
    assert refused(path) == "the weights of 'mine' do not fit their card"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    os.chdir(path.parent)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize(
    "spoil",
    [
        fifo,
        listening,
        sparse,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: None,
    ],
    ids=["FIFO", "socket", "1 TB", "folder", "device", "loop", "gone"],
)
def test_what_is_no_regular_file_is_refused(
    spoil: Callable[[Path], None], suffix: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    mine.with_suffix(suffix).unlink()
    spoil(mine.with_suffix(suffix))
    assert "mine" in refused(mine)


def test_a_name_too_long_for_any_file_is_no_file() -> None:
    assert "no file" in refused(Path("x" * 5000 + ".safetensors"))


@pytest.mark.parametrize("command", [("label", "images"), ("evaluate", "--truth", "images")])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: make(path, name="\ud800"),
        lambda path: make(path, **with_arguments(blocks=[10**9, 1])),
        lambda path: make(path, **with_arguments(stem=0)),
        lambda path: make(path, {**tensors(), "\x1b[31m\n": torch.zeros(1)}),
        lambda path: make(path, raw({"\x1b[31m\n": entry(0, 4, [2])}, bytes(4))),
        lambda path: path.with_suffix(".json").write_bytes(b"[" * 100_000),
    ],
    ids=["name", "depth", "width", "tensor's name", "header", "nesting"],
)
def test_a_hostile_model_ends_a_command_with_6_and_one_line(
    command: tuple[str, ...],
    spoil: Callable[[Path], object],
    mine: Path,
    faces: Callable[..., Path],
    ferbatch_here: Ferbatch,
) -> None:
    faces("images/happy", 1)
    faces("images/sad", 1)
    spoil(mine)
    done = ferbatch_here(*command, "--model", "mine.safetensors", "--device", "cpu")
    assert (done.returncode, done.stdout) == (6, b"")
    assert done.stderr.decode().rstrip("\n").isprintable()
    assert not (mine.parent / "labels.csv").exists()


def test_pytorch_warns_nobody_of_a_hostile_card(mine: Path, faces: Callable[..., Path], ferbatch_in: Ferbatch) -> None:
    faces("images", 1)
    make(mine, **with_arguments(stem=0))  # "Initializing zero-element tensors is a no-op"
    done = ferbatch_in("label", "images", "--model", "mine.safetensors")
    assert done.returncode == 6
    assert done.stderr == b"ferbatch: the weights of 'mine' do not fit their card\n"


def test_a_name_that_is_no_utf8_still_makes_a_card_that_can_be_read(tmp_path: Path) -> None:
    card = Card(**{**tiny.card(), "labels": tuple(tiny.card()["labels"]), "name": os.fsdecode(b"n\xff")})
    weights.save(tmp_path / "mine.safetensors", card, tensors())
    assert Classifier.load(str(tmp_path / "mine.safetensors"), "cpu").card.name == "n?"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor[0],
        lambda tensor: Bomb(),
    ],
    ids=["sparse", "meta", "shape", "pickle"],
)
def test_imagenet_weights_that_do_not_fit_are_one_sentence(
    spoil: Callable[[Tensor], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = backbones.Backbone("efficientnet_lite0", side=32)
    tensors = network.pretrainable.state_dict()
    torch.save({**tensors, "conv_stem.weight": spoil(tensors["conv_stem.weight"])}, "w.pth")
    with pytest.raises(UsageError, match=r"w\.pth (does not fit this network|holds no tensors)"):
        backbones.load_pretrained(network, tmp_path / "w.pth")
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: Bomb(),
        lambda state: {**state, "scaler": Bomb()},
        lambda state: {"format": state["format"]},
        lambda state: {**state, "network": {}},
        lambda state: {**state, "optimizer": 1},
        lambda state: {**state, "best": None},
        lambda state: [],
    ],
    ids=["pickle", "pickle inside", "no fingerprint", "no tensors", "no optimizer", "no best", "list"],
)
def test_a_checkpoint_runs_no_code_and_one_that_is_damaged_is_said(
    spoil: Callable[[dict[str, Any]], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.stack([np.asarray(draw_face(seed)) for seed in range(4)])
    part = Split(
        pixels[np.newaxis], np.arange(4), np.zeros((4, 4), np.float32), np.full(4, NONE), np.zeros(4, np.int64)
    )
    card = Card(**{**tiny.card(), "labels": LABELS, "recipe": {"start": "scratch"}})
    data = Data(part, part, card.mean, card.std, (), ())
    trainer = Trainer(data, Recipe(model="cnn-lite"), registry.build("cnn-lite", ARGUMENTS), card, torch.device("cpu"))
    file = tmp_path / "m.checkpoint"
    checkpoint.save(file, trainer, "of this run")
    checkpoint.restore(file, trainer, "of this run")
    torch.save(spoil(torch.load(file)), file)
    with pytest.raises(ModelError, match=r"m\.checkpoint is damaged; --overwrite begins anew"):
        checkpoint.restore(file, trainer, "of this run")
    assert not Path("exploded").exists()


def keras_lambda(path: Path) -> None:
    """A Keras model that leaves a file behind when its function runs, as it does while it is made."""
    pytest.importorskip("keras", reason="keras is installed with ferbatch[test]")
    import keras

    function = keras.layers.Lambda(lambda x: os.open("exploded", os.O_CREAT) and x)
    keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten(), function]).save(path)
    Path("exploded").unlink()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_runs_no_code(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.chdir(tmp_path)
    source = tmp_path / f"theirs{suffix}"
    keras_lambda(source)
    with pytest.raises(UsageError, match=r"Lambda 'lambda.*': it is Python code, which ferbatch does not run"):
        convert.run(source, tmp_path / "mine", labels="happy,sad", scale="0,1", overwrite=False)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (lambda weights: weights * np.nan, {}, "numbers that are none"),
        (lambda weights: weights, {"labels": "happy,path"}, "'path' can be no label"),
        (lambda weights: weights, {"scale": "0,1e30"}, "say LOW,HIGH"),
    ],
    ids=["no numbers", "a column's name", "scale"],
)
def test_what_could_not_be_loaded_again_is_not_converted(
    spoil: Callable[[Any], Any],
    options: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="keras is installed with ferbatch[test]")
    model = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.set_weights([spoil(one) for one in model.get_weights()])
    model.save(tmp_path / "theirs.keras")
    wanted = {"labels": "happy,sad", "scale": "0,1", **options}
    with pytest.raises(UsageError, match=said):
        convert.run(tmp_path / "theirs.keras", tmp_path / "mine", overwrite=False, **wanted)
    assert os.listdir(tmp_path) == ["theirs.keras"]


def test_weights_that_overflow_on_some_images_end_the_run_and_label_nothing(
    faces: Callable[..., Path], ferbatch_here: Ferbatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    huge = {
        name: torch.randn(tensor.shape) * 1e30
        if tensor.ndim == 4
        else torch.zeros_like(tensor)
        if "bias" in name
        else tensor
        for name, tensor in tensors().items()
    }
    make(tmp_path / "mine.safetensors", huge)
    faces("images", 3)
    done = ferbatch_here("label", "images", "--model", "mine.safetensors")
    assert (done.returncode, done.stderr.count(b"\n")) == (6, 1)
    assert b"gives no numbers for some images" in done.stderr
    assert not (tmp_path / "labels.csv").exists()
