"""YuNet's ONNX file as the same network in fewer layers, for gray pictures of any size.

Its first layer sees three equal channels: one with the sum of their weights gives the same. Its last ones are four
pairs of narrow convolutions on each level: one pair with all their weights gives the same. That saves a quarter of the
time.
The file is read as the protocol buffers that it is made of (https://protobuf.dev/programming-guides/encoding, ONNX's
onnx.proto); the package onnx would be larger than all else that finds faces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADS = ("cls", "obj", "bbox", "kps")  # the outputs of a level: is it a face, is it one here, its box, its landmarks
LEVELS = {"256": "faces_8", "246": "faces_16", "236": "faces_32"}  # what the last layers of each take -> our output
INPUT_NAME, OUTPUTS = "input", list(LEVELS.values())
VALUES = 16  # of a place on a level: 1 + 1 + 4 + 10
FIRST, HEAD = "420", b"bbox_head"  # the weights of the first layer, and what those of the last are called by
AFTER = (b"Transpose", b"Reshape", b"Sigmoid")  # what the file does to its outputs, and does not matter any more
FLOAT, INT, INTS = 1, 2, 7  # ONNX's types of elements, and of attributes

# The numbers of the fields that are needed, by message.
GRAPH = 7  # Model
NODE, INITIALIZER, INPUT, OUTPUT, KNOWN_SHAPE = 1, 5, 11, 12, 13  # Graph
DIMS, DATA_TYPE, TENSOR_NAME, RAW = 1, 2, 8, 9  # Tensor
OP_TYPE, ATTRIBUTE = 4, 5  # Node, and its inputs and outputs, 1 and 2
ATTRIBUTE_NAME, ONE_INT, SOME_INTS = 1, 3, 8  # Attribute

# Where the network can be run in two parts: what it makes of EIGHTH pixels a side; each depends on no pixel that is
# further than REACH from these.
MIDDLE, WIDTH, EIGHTH, REACH = "206", 64, 8, 24

Field = tuple[int, int | bytes]
Shape = tuple[int | None, ...]


class Layer(NamedTuple):
    """A layer of a network: what it does, of which values and weights, and what the result is called."""

    does: str  # Conv, Relu, MaxPool, Resize or Add
    inputs: list[str]
    output: str
    attributes: dict[str, list[int]]  # those that are whole numbers


def simplified(file: bytes) -> bytes:
    """The network of the file with one input, (N, 1, H, W), and three OUTPUTS, (N, VALUES, H / 8, W / 8) etc."""
    return _message(*((number, _graph(value) if number == GRAPH else value) for number, value in _fields(file)))


def parsed(network: bytes) -> tuple[list[Layer], dict[str, NDArray[np.float32]]]:
    """A simplified network's layers, in the order in which they run, and its weights by name."""
    (graph,) = (value for number, value in _fields(network) if number == GRAPH)
    fields = _fields(graph)
    return [_layer(value) for number, value in fields if number == NODE], dict(
        _array(value) for number, value in fields if number == INITIALIZER
    )


def _layer(node: int | bytes) -> Layer:
    fields = _fields(node)
    inputs, outputs = ([_bytes(name).decode() for of, name in fields if of == part] for part in (1, 2))
    attributes: dict[str, list[int]] = {}
    for attribute in (_fields(value) for of, value in fields if of == ATTRIBUTE):
        name = _bytes(dict(attribute)[ATTRIBUTE_NAME]).decode()
        attributes[name] = [n for of, n in attribute if of in (ONE_INT, SOME_INTS) and isinstance(n, int)]
    return Layer(_bytes(dict(fields)[OP_TYPE]).decode(), inputs, outputs[0], attributes)


def halves(network: bytes) -> tuple[bytes, bytes]:
    """A simplified network in two: from the input to MIDDLE, and from there to OUTPUTS."""
    stem = _part(network, {INPUT_NAME: (None, 1, None, None)}, {MIDDLE: (None, WIDTH, None, None)})
    outputs: dict[str, Shape] = dict.fromkeys(OUTPUTS, (None, VALUES, None, None))
    return stem, _part(network, {MIDDLE: (None, WIDTH, None, None)}, outputs)


def _part(network: bytes, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> bytes:
    """What of a network leads from these inputs to these outputs."""
    (graph,) = (value for number, value in _fields(network) if number == GRAPH)
    fields, needed = _fields(graph), set(outputs)
    kept = list[Field]()
    for number, value in reversed(fields):  # layers stand in the order in which they run
        names = {part: [_bytes(name).decode() for of, name in _fields(value) if of == part] for part in (1, 2)}
        if number == NODE and needed.intersection(names[2]) - set(inputs):
            needed.update(names[1])
            kept.insert(0, (number, value))
    kept += [(number, value) for number, value in fields if number == INITIALIZER and _array(value)[0] in needed]
    kept += [(INPUT, _described(name, shape)) for name, shape in inputs.items()]
    kept += [(OUTPUT, _described(name, shape)) for name, shape in outputs.items()]
    kept += [one for one in fields if one[0] not in (NODE, INITIALIZER, INPUT, OUTPUT)]
    return _message(*((number, _message(*kept) if number == GRAPH else value) for number, value in _fields(network)))


def _graph(graph: int | bytes) -> bytes:
    kept: list[Field] = []
    weights: dict[str, NDArray[np.float32]] = {}
    for number, value in _fields(graph):
        if number == INITIALIZER:
            name, array = _array(value)
            weights[name] = array
            if HEAD in _bytes(value):
                continue
            if name == FIRST:
                value = _tensor(name, array.sum(1, keepdims=True))
        elif number in (INPUT, OUTPUT, KNOWN_SHAPE) or (
            number == NODE and (HEAD in _bytes(value) or dict(_fields(value))[OP_TYPE] in AFTER)
        ):
            continue
        kept.append((number, value))
    kept.append((INPUT, _described(INPUT_NAME, (None, 1, None, None))))
    for level, (source, output) in enumerate(LEVELS.items()):
        kept += _last_layers(weights, level, source, output)
        kept.append((OUTPUT, _described(output, (None, VALUES, None, None))))
    return _message(*kept)


def _last_layers(weights: dict[str, NDArray[np.float32]], level: int, source: str, output: str) -> list[Field]:
    """A pointwise and a depthwise convolution with the weights of the four heads of a level, one above the other."""
    found: list[Field] = []
    for layer in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            of_heads = [weights[f"bbox_head.multi_level_{head}.{level}.{layer}.{kind}"] for head in HEADS]
            found.append((INITIALIZER, _tensor(f"{output}.{layer}.{kind}", np.concatenate(of_heads))))
    between = f"{output}.between"
    found.append((NODE, _convolution([source, f"{output}.conv1"], between, side=1, groups=1)))
    found.append((NODE, _convolution([between, f"{output}.conv2"], output, side=3, groups=VALUES)))
    return found


def _convolution(inputs: list[str], output: str, side: int, groups: int) -> bytes:
    source, layer = inputs
    return _message(
        *((1, name.encode()) for name in (source, f"{layer}.weight", f"{layer}.bias")),
        (2, output.encode()),
        (OP_TYPE, b"Conv"),
        *((5, _ints(name, values)) for name, values in (("kernel_shape", [side] * 2), ("pads", [side // 2] * 4))),
        (5, _message((1, b"group"), (3, groups), (20, INT))),
    )


def _ints(name: str, values: list[int]) -> bytes:
    return _message((1, name.encode()), *((8, value) for value in values), (20, INTS))


def _described(name: str, shape: Shape) -> bytes:
    """What the graph says of an input or output; None: any length."""
    sides = [_message((2, f"{name}_{at}".encode()) if side is None else (1, side)) for at, side in enumerate(shape)]
    tensor = _message((1, FLOAT), (2, _message(*((1, side) for side in sides))))
    return _message((1, name.encode()), (2, _message((1, tensor))))


def _array(tensor: int | bytes) -> tuple[str, NDArray[np.float32]]:
    """A tensor's name and values; of those that hold no float32, none."""
    parts = _fields(tensor)
    of = dict(parts)
    shape = [length for number, length in parts if number == DIMS and isinstance(length, int)]
    name = _bytes(of[TENSOR_NAME]).decode()
    values = np.frombuffer(_bytes(of[RAW]), np.float32) if of[DATA_TYPE] == FLOAT else np.empty(0, np.float32)
    return name, values.reshape(shape if values.size else -1)


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    dims = [(DIMS, length) for length in values.shape]
    raw = values.astype(np.float32).tobytes()
    return _message(*dims, (DATA_TYPE, FLOAT), (TENSOR_NAME, name.encode()), (RAW, raw))


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""


# Protocol buffers, as far as the file has them: numbers, and what has a length.


def _fields(message: int | bytes) -> list[Field]:
    data, at = _bytes(message), 0
    found: list[Field] = []
    while at < len(data):
        key, at = _number(data, at)
        value, at = _number(data, at)
        if key & 7 == 2:
            found.append((key >> 3, data[at : at + value]))
            at += value
        else:
            found.append((key >> 3, value))
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins here, and where what follows it begins."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def _message(*fields: Field) -> bytes:
    return b"".join(
        _encoded(number << 3) + _encoded(value)
        if isinstance(value, int)
        else _encoded(number << 3 | 2) + _encoded(len(value)) + value
        for number, value in fields
    )


def _encoded(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
