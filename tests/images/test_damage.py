"""Damaged images: a row with the reason, never a label of what a decoder made up; and whole ones are never lost."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from support import ROOT, depth, saved

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images import jpeg
from ferbatch.images.decode import decode
from ferbatch.images.inputs import input_of, luma_of

SIZE = 48
FACE = Image.open(ROOT / "ferbatch/example/astronaut.jpg").convert("RGB").crop((166, 62, 284, 180))
END = b"\xff\xd9"
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 4},
}
MODES = ("L", "RGB", "CMYK")
SIDES = (48, 160, 400)
Damage = Callable[[bytes, int, random.Random], bytes]


def photo(side: int, mode: str, kind: str) -> bytes:
    return saved(FACE.resize((side, side)).convert(mode), "JPEG", quality=92, **KINDS[kind])


def noise(chance: random.Random, length: int) -> bytes:
    return bytes(chance.randrange(255) for _ in range(length))  # no 0xff, which could be a marker


MISSING: dict[str, Damage] = {
    "cut": lambda data, at, chance: data[:at],
    "cut, closed": lambda data, at, chance: data[:at] + END,
    "zeros": lambda data, at, chance: data[:at] + bytes(len(data) - at),
    "zeros, closed": lambda data, at, chance: data[:at] + bytes(len(data) - 2 - at) + END,
}
DAMAGED: dict[str, Damage] = {
    "noise": lambda data, at, chance: data[:at] + noise(chance, len(data) - 2 - at) + END,
    "a sector lost": lambda data, at, chance: data[:at] + data[at + (len(data) - at) // 2 :],
}


def outcomes(data: bytes) -> list[str]:
    """What becomes of a JPEG: as a crop and as a photo, by the quick decoder, by Pillow, and without simplejpeg."""
    found = []

    def try_all() -> None:
        for by_pillow in (False, True):
            luma = None if by_pillow else luma_of(data, SIZE)
            found.append(kind_of(lambda luma=luma, by=by_pillow: input_of(data, "JPEG", SIZE, luma, by_pillow=by)))
            found.append(kind_of(lambda by=by_pillow: decode(data, "JPEG", by_pillow=by)))

    try_all()
    if jpeg.simplejpeg is not None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jpeg, "simplejpeg", None)
            try_all()
    return found


def kind_of(decoded: Callable[[], object]) -> str:
    try:
        decoded()
    except UnreadableImageError as error:
        return error.kind
    return "ok"


def places(data: bytes, chance: random.Random) -> list[int]:
    """Where the pixels of a JPEG are damaged: from a tenth of them on to nearly their end."""
    first = data.index(b"\xff\xda") + 14
    return [first + (len(data) - first) * chance.randrange(10, 98) // 100 for _ in range(depth(1, 20))]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MISSING)
def test_a_jpeg_of_which_a_part_is_missing_is_truncated(name: str, kind: str, side: int) -> None:
    chance = random.Random(f"{name} {kind} {side}")
    for mode in MODES:
        data = photo(side, mode, kind)
        for at in places(data, chance):
            kinds = set(outcomes(MISSING[name](data, at, chance)))
            assert len(kinds) == 1, "the decoders disagree"
            # Of what zeros stand for amid a scan of several, it may be said that it is damaged.
            assert kinds <= ({"truncated", "unreadable"} if kind == "progressive" else {"truncated"}), at


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_with_noise_in_it_gets_no_label(kind: str, side: int) -> None:
    chance = random.Random(f"{kind} {side}")
    for mode in MODES:
        data = photo(side, mode, kind)
        first = data.index(b"\xff\xda") + 14
        noisy = DAMAGED["noise"](data, first + (len(data) - first) // 2, chance)
        assert set(outcomes(noisy)) <= {"truncated", "unreadable"}
        lost = DAMAGED["a sector lost"](data, first + (len(data) - first) // 2, chance)
        assert len(set(outcomes(lost))) == 1


def spelled_oddly(data: bytes) -> dict[str, bytes]:
    """The same pixels, as cameras and programs write them now and then."""
    scan, table = data.index(b"\xff\xda"), data.index(b"\xff\xdb")
    odd = {
        "no end marker": data[:-2],
        "zeros in its place": data[:-2] + bytes(4096),
        "zeros before it": data[:-2] + bytes(4096) + END,
        "one byte before it": data[:-2] + b"\x55" + END,
        "a few bytes before it": data[:-2] + b"\x12\x34\x56" + END,
        "bytes after it": data + b"trailer" * 9,
        "zeros after it": data + bytes(4096),
        "a second image after it": data + data,
        "bytes before a table": data[:table] + b"\x01\x02\x03" + data[table:],
        "many bytes before the pixels": data[:scan] + b"\x01" * 60 + data[scan:],
        "a byte before each restart": data[:scan] + re.sub(rb"\xff([\xd0-\xd7])", rb"a\g<0>", data[scan:]),
        "another version of JFIF": data.replace(b"JFIF\0\1", b"JFIF\0\7"),
    }
    if b"\xff\xc0" in data:
        last = scan + 2 + data[scan + 3] - 2
        odd["a scan whose last coefficient is 0"] = data[:last] + b"\0" + data[last + 1 :]
    return odd


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_whose_pixels_are_all_there_keeps_them_however_oddly_it_is_spelled(kind: str, side: int) -> None:
    data = photo(side, MODES[(len(kind) + side) % 3], kind)
    wanted = np.asarray(decode(data).pixels)
    for name, odd in spelled_oddly(data).items():
        assert set(outcomes(odd)) == {"ok"}, name
        assert np.array_equal(np.asarray(decode(odd).pixels), wanted), name


def test_a_large_photo_that_is_reduced_is_checked_as_well() -> None:
    data = saved(FACE.resize((2_600, 2_600)), "JPEG", quality=80, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    assert decode(data, side=1_280).pixels.size == (1_300, 1_300)
    for at in (len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(UnreadableImageError, match="premature end") as raised:
            decode(data[:at] + END, side=1_280)
        assert raised.value.kind == "truncated"
    assert decode(data[:-2], side=1_280).pixels.size == (1_300, 1_300)


def test_what_is_printed_while_opencv_is_asked_is_printed_still(capfd: pytest.CaptureFixture[str]) -> None:
    assert "premature end" in str(jpeg._printed_warning(photo(48, "L", "baseline")[:900] + END))
    assert jpeg._printed_warning(photo(48, "L", "baseline")) is None
    assert capfd.readouterr().err == ""


def png_with(data: bytes, change: Callable[[bytes], bytes], *, checksum: bool) -> bytes:
    """A PNG with one IDAT chunk whose content is changed, and its checksum with it or not."""
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at])
    old, crc = data[at + 4 : at + 4 + length], data[at + 4 + length : at + 8 + length]
    new = change(old)
    crc = zlib.crc32(b"IDAT" + new).to_bytes(4) if checksum else crc
    return data[: at - 4] + len(new).to_bytes(4) + b"IDAT" + new + crc + data[at + 8 + length :]


GRAY = FACE.resize((160, 160)).convert("L")


def half_zeros(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of which the second half is zeros": (
        lambda: (data := saved(GRAY, "PNG"))[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        "truncated",
    ),
    "a PNG whose checksum is wrong": (
        lambda: png_with(
            saved(GRAY, "PNG", compress_level=0), lambda old: old[:900] + b"\x99" * 99 + old[999:], checksum=False
        ),
        "unreadable",
    ),
    "a PNG whose pixels are cut, well closed": (
        lambda: png_with(saved(GRAY, "PNG"), lambda old: old[: len(old) // 2], checksum=True),
        "truncated",
    ),
    "a TIFF with a damaged JPEG in it": (
        lambda: (data := saved(GRAY, "TIFF", compression="jpeg"))[:1500] + bytes(600) + data[2100:],
        "truncated",
    ),
    "a TIFF with a damaged strip": (
        lambda: (data := saved(GRAY, "TIFF", compression="tiff_adobe_deflate"))[:1500] + bytes(600) + data[2100:],
        "unreadable",
    ),
    "an AVIF of which the second half is zeros": (lambda: half_zeros(saved(GRAY, "AVIF")), "truncated"),
    "a WebP of which the second half is zeros": (lambda: half_zeros(saved(GRAY, "WEBP")), "truncated"),
    "a lossless WebP of which the second half is zeros": (
        lambda: half_zeros(saved(GRAY, "WEBP", lossless=True)),
        "truncated",
    ),
    "a QOI of which the second half is zeros": (lambda: half_zeros(saved(GRAY.convert("RGB"), "QOI")), "truncated"),
    "a GIF of which the second half is zeros": (lambda: half_zeros(saved(GRAY, "GIF")), "truncated"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_damage_of_other_types_gets_no_label(name: str) -> None:
    make, kind = OTHERS[name]
    with pytest.raises(UnreadableImageError) as raised:
        decode(make())
    assert raised.value.kind == kind


@pytest.mark.parametrize("compression", ["raw", "jpeg", "tiff_adobe_deflate", "tiff_lzw", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_whole_tiffs_are_none_the_worse(compression: str, mode: str) -> None:
    assert decode(saved(GRAY.convert(mode), "TIFF", compression=compression)).width == 160


def test_an_animated_png_is_checked_and_kept() -> None:
    data = saved(GRAY, "PNG", save_all=True, append_images=[GRAY.rotate(90)], default_image=True)
    assert decode(data).width == 160
    at = data.index(b"fdAT") + 200
    with pytest.raises(UnreadableImageError):
        decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
