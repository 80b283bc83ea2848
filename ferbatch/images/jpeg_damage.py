"""What is missing or damaged of a JPEG, told from what libjpeg warns of though all pixels are there.

Where data are missing or damaged, libjpeg fills in pixels of its own, and merely warns. It says its first warning
alone, so that what is harmless is taken out before it is asked again.
"""

from __future__ import annotations

import re

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images.jpeg import BEGINNING, SCAN, warning

END = b"\xff\xd9"  # the marker after the pixels
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of how pixels are coded
SEQUENTIAL = {0xC0, 0xC1, 0xC9}  # frames in which each scan holds whole coefficients
NEEDED = FRAMES | {0xC4, 0xCC, 0xDB, 0xDD, SCAN}  # what pixels are decoded by
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # but those amid the pixels
WHOLE_SCAN = b"\0\x3f\0"  # the coefficients of a sequential scan: all of them
MISSING = "premature end"  # in its warnings of missing data
ENDED = re.compile(f"(?i:{MISSING})|found marker 0xd9")  # in those of an image that ends early
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")
SCAN_BEGINNING = bytes([0xFF, SCAN, 0])
SCAN_LENGTHS = (8, 10, 12, 14)  # bytes, with 1 to 4 components
ALL_COEFFICIENTS = 2**64 - 1  # of a block, a bit each
RESTART = re.compile(rb"(\xff[\xd0-\xd7])")  # a marker amid pixels
FEW = 4  # bytes that no pixel is made of, as cameras leave them; damage leaves more, mostly
MAX_SEGMENTS = 2**16  # of a JPEG, that are looked at one by one


def closed(data: bytes) -> bytes:
    """The JPEG with a marker at its end, in place of any zeros; whether no more than that was missing, `check` says."""
    kept = _without_zeros(data)
    return data if kept.endswith(END) else kept + END


def check(data: bytes, *, ended: bool = True) -> None:
    """UnreadableImageError where libjpeg fills in what is missing of a JPEG, or makes something up of what is damaged.

    What it merely warns of, with all pixels there, is no damage. What it gives up on is left for Pillow to say.

    data: the JPEG, `closed`.
    ended: whether it was before; if not, the last scans of a progressive one may be missing without a warning.
    """
    if (warning(data) is None and (ended or _is_complete(data))) or len(parts := _bare(data)) < 2:
        return
    words = warning(b"".join(parts))
    if (extra := EXTRANEOUS.search(words or "")) and int(extra[1]) <= FEW * (1 + len(RESTART.findall(data))):
        words = warning(_without_few(parts))
    if words:
        raise UnreadableImageError("truncated" if ENDED.search(words) else "unreadable", f"JPEG: {words}")
    if not _is_complete(b"".join(parts)):
        raise UnreadableImageError("truncated", "JPEG: the last of its scans are missing")


def _is_complete(data: bytes) -> bool:
    """Whether the scans of a JPEG hold all coefficients of their components, to the last bit."""
    held: dict[int, int] = {}
    at = data.find(SCAN_BEGINNING)
    while at >= 0:
        length = int.from_bytes(data[at + 2 : at + 4])
        if length in SCAN_LENGTHS:
            *components, first, last, bits = data[at + 5 : at + 2 + length]
            for component in components[::2]:
                held[component] = held.get(component, 0) | (0 if bits & 15 else max(0, (2 << last) - (1 << first)))
        at = data.find(SCAN_BEGINNING, at + 1)
    return all(coefficients == ALL_COEFFICIENTS for coefficients in held.values())


def _without_zeros(data: bytes) -> bytes:
    """The data less the zeros at its end; but amid pixels, 0xff is written with one after it."""
    kept = data.rstrip(b"\0")
    return kept + b"\0" if kept.endswith(b"\xff") else kept


def _bare(data: bytes) -> list[bytes]:
    """The JPEG without what no pixel depends on, but libjpeg warns of: headers and the pixels after each, in turn.

    It lacks segments of programs' own, bytes between segments, and zeros after the pixels; it has an end marker, and
    numbers of a sequential scan that are ignored are as they should be. One part, where it ends before any pixels.
    """
    parts, header, at, sequential = list[bytes](), BEGINNING[:2], 2, False
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, at)
        if not found or found[0] == END:
            break
        marker, at = found[0][1], found.end()
        segment = data[at : at + int.from_bytes(data[at : at + 2])]
        if len(segment) < max(2, int.from_bytes(segment[:2])):
            break
        at += len(segment)
        if marker in FRAMES:
            sequential = marker in SEQUENTIAL
        if marker == SCAN and sequential:
            segment = segment[: -len(WHOLE_SCAN)] + WHOLE_SCAN
        if marker in NEEDED:
            header += found[0] + segment
        if marker == SCAN:
            after = MARKER.search(data, at)
            pixels = data[at : after.start() if after else len(data)]
            parts += header, _without_zeros(pixels)
            header, at = b"", at + len(pixels)
    return [*parts, END]


def _without_few(parts: list[bytes]) -> bytes:
    """What `_bare` gives, less the few bytes before restart markers and ends that no pixel is made of."""
    kept = b""
    for header, pixels in zip(parts[:-1:2], parts[1::2], strict=True):
        *intervals, last = RESTART.split(pixels)
        intervals[::2] = [_needed(kept + header, interval) for interval in intervals[::2]]
        kept += header + b"".join(intervals)
        kept += _needed(kept, last)
    return kept + END


def _needed(before: bytes, interval: bytes) -> bytes:
    """The part of a piece of pixels that is decoded; all of it, where more than FEW bytes are not.

    before: what the piece can be decoded after.
    interval: what stands before a restart marker, or the end.
    """
    for extra in range(FEW + 1):
        if MISSING in (warning(before + interval[: len(interval) - extra - 1] + END) or ""):
            return interval[: len(interval) - extra]
    return interval
