"""The life of a decode process: spans of images in, an Answer for each."""

from __future__ import annotations

import os
import signal
import stat
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferbatch.core.errors import FerbatchError, OutputError
from ferbatch.core.process import ONE_CORE, STOPPING, end_with_parent
from ferbatch.core.records import Box, Decoding, Failure, ImageRef, Version
from ferbatch.stream.read import NOTHING, Decoded, Scored, read

MEMORY = 4 * 2**30  # bytes a worker may take; an image that needs more is too large
Compute = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Scored]]

# What travels back for a span: the model inputs of its images on end or, if the worker computes, what the model says of
# them; and for each image why it is not readable, whether it is a whole picture, its file's size and mtime_ns, and its
# faces. Tuples travel, not the records they are made from, which take twenty times as long to pickle: longer than a
# small image takes to decode.
Boxes = Sequence[tuple[int, int, int, int, float]]
Answer = tuple[bytes, Sequence[Scored], Sequence[tuple[Failure | None, bool, tuple[int, int] | None, Boxes | None]]]


def pack(images: Sequence[Decoded], compute: Compute | None) -> Answer:
    """The images of a span, for the way back; the inputs go through `compute` if there is one."""
    said = [
        (
            image.error,
            image.whole_picture,
            (image.version.size, image.version.mtime_ns) if image.version else None,
            None if image.boxes is None else [(b.x, b.y, b.width, b.height, b.score) for b in image.boxes],
        )
        for image in images
    ]
    if compute:
        return b"", compute([pixels for image in images for pixels in image.inputs]), said
    return b"".join(image.inputs.tobytes() for image in images), (), said


def unpack(answer: Answer, refs: Sequence[ImageRef], size: int) -> list[Decoded]:
    """The images that were packed, their references and the size of an input given."""
    data, scored, said = answer
    pixels = np.frombuffer(data, np.uint8).reshape(-1, size, size)
    images, start = [], 0
    for ref, (error, whole_picture, file, boxes) in zip(refs, said, strict=True):
        end = start + (0 if error else 1 if boxes is None else len(boxes))
        inputs = pixels[start:end] if data else NOTHING
        version = Version(*file) if file else None
        faces = None if boxes is None else [Box(*box) for box in boxes]
        images.append(Decoded(ref, inputs, error, whole_picture, version, faces, scored[start:end]))
        start = end
    return images


def work(
    pipe: Connection,
    current: Any,
    decoding: Decoding,
    timeout: float | None,
    compute: Compute | None,
    forked: bool,
) -> None:
    """A worker's life: spans in, an Answer for each, until the pipe closes.

    pipe: to the process that hands out the images.
    current: shared with it, the index of the image that is decoded just now, -1 for none.
    decoding: how files become model inputs.
    timeout: seconds that one image may take; then the process ends.
    compute: makes of model inputs what a model says of them; None: the inputs themselves are answered.
    forked: whether the process holds the files that its parent has open.
    """
    for number in STOPPING:  # whoever stops the run ends its workers, too, and in order
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    os.environ[ONE_CORE] = "1"
    if forked:
        _let_go_of_files()
    _limit_memory()
    with suppress(EOFError, OSError):
        while True:
            images = _decode(pipe, current, decoding, timeout)
            try:
                pipe.send(pack(images, compute))
            except FerbatchError as error:
                pipe.send(error)
            except Exception:  # a bug: let it be one in the main process
                pipe.send(RuntimeError(traceback.format_exc()))


def _decode(pipe: Connection, current: Any, decoding: Decoding, timeout: float | None) -> list[Decoded]:
    """The images of the next span, with a watch on each."""
    images = []
    for index, file, path in pipe.recv():
        current.value = index
        if timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, timeout)  # SIGALRM ends the process, whatever it is doing
        try:
            images.append(read(ImageRef(path, file), decoding))
        except OutputError as error:  # of crops; anything else ends the process, as a crash of the decoder does
            pipe.send(error)
    if timeout is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
    current.value = -1
    return images


def _let_go_of_files() -> None:
    """Close the run's files that a forked process holds as well: with its lock it would outlive the run."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(int(name)).st_mode):
                os.close(int(name))


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # not everywhere
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = MEMORY + _data()
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash of a decoder is no news to keep


def _data() -> int:
    """Bytes that this process has already, of what RLIMIT_DATA counts; 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    return 0
