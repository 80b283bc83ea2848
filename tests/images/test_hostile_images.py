"""Images made to do harm, and broken ones: each is a kind and a line, at little cost; all are built here."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support import FACE, ROOT, SHARED, TESTS, draw_face, rows_of, saved

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.records import ERROR_KINDS
from ferbatch.images.decode import decode, read_bytes
from ferbatch.images.formats import IMAGE_TYPES, type_of_name
from ferbatch.images.inputs import model_input

SMALL = draw_face(3, 24)
COLOUR = ImageOps.colorize(SMALL, (20, 0, 60), (255, 240, 220))
CLEAR = Image.merge("RGBA", (*COLOUR.split(), SMALL))


def outcome(data: bytes, suffix_type: str | None = None) -> str:
    """`ok`, or the error's kind; nothing else gets through the door."""
    try:
        decoded = decode(data, suffix_type, 4 * 48)
    except UnreadableImageError as error:
        return error.kind if error.kind in ERROR_KINDS and str(error) and str(error).isprintable() else repr(error)
    assert decoded.pixels.mode == "L"
    assert model_input(decoded.pixels, 48).shape == (48, 48)
    return "ok"


def big(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def little(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def chunk(name: bytes, data: bytes) -> bytes:
    return big(len(data)) + name + data + big(zlib.crc32(name + data))


PIXELS, END = chunk(b"IDAT", zlib.compress(b"\0\1\2\0\3\4")), chunk(b"IEND", b"")  # 2 x 2 grays


def png(*chunks: bytes, size: tuple[int, int] = (2, 2), kind: bytes = b"\x08\0\0\0\0") -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", big(*size) + kind) + b"".join(chunks)


def tiff(*tags: tuple[int, int, int, int], rest: bytes = b"", big: bool = False) -> bytes:
    """A TIFF of 2 x 2 grays, with these tags (number, type, count, value) in place of its own or beside them."""
    own = {256: 2, 257: 2, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2}
    given = {number: (number, 4, 1, value) for number, value in own.items()} | {tag[0]: tag for tag in tags}
    entries = [struct.pack("<HHQQ" if big else "<HHII", *given[number]) for number in sorted(given)]
    head = (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(entries))
        if big
        else b"II*\0" + little(8) + struct.pack("<H", len(entries))
    )
    return head + b"".join(entries) + bytes(8 if big else 4) + rest


def jpeg(*segments: tuple[int, bytes], width: int = 64) -> bytes:
    """A JPEG with these segments (marker, data) after its beginning."""
    data = saved(draw_face(0, width), "JPEG")
    return data[:2] + b"".join(b"\xff" + bytes([n]) + struct.pack(">H", len(d) + 2) + d for n, d in segments) + data[2:]


def scans(count: int) -> bytes:
    """A progressive JPEG that goes over its pixels again and again, in ten bytes each time."""
    data = saved(Image.effect_noise((512, 512), 50), "JPEG", progressive=True)
    return data[:-2] + b"\xff\xda\0\x08\1\1\0\0\0\0" * count + data[-2:]


def codestream(width: int, height: int, tiles: int = 64) -> bytes:
    """A JPEG 2000 that says to be this large."""
    data = saved(SMALL, "JPEG2000", no_jp2=True)
    return data[:8] + big(width, height, 0, 0, tiles, tiles) + data[32:]


def resized(kind: str, mark: bytes, at: int, size: bytes, **options: object) -> bytes:
    """A picture of this kind with other bytes for its size, `at` bytes after a mark."""
    data = saved(COLOUR, kind, **options)
    start = data.index(mark) + at
    return data[:start] + size + data[start + len(size) :]


def icon(picture: bytes, *, size: int | None = None, offset: int = 22, bits: int = 32) -> bytes:
    size = len(picture) if size is None else size
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 2, 2, 0, 0, 1, bits, size, offset) + picture


def dib(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)


def bmp(header: bytes, pixels: bytes = b"") -> bytes:
    return b"BM" + little(0, 0, 14 + len(header)) + header + pixels


def apple(name: bytes, picture: bytes) -> bytes:
    return b"icns" + big(16 + len(picture)) + name + big(8 + len(picture)) + picture


def dds(width: int, height: int, flags: int = 0x41, code: bytes = bytes(4), bits: int = 32) -> bytes:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    return (
        b"DDS "
        + little(124, 0x1007, height, width, *[0] * 14, 32, flags)
        + code
        + little(bits, *masks, 0x1000, 0, 0, 0, 0)
    )


def sgi(width: int, height: int, bands: int = 3, packed: int = 0) -> bytes:
    return struct.pack(">HBBHHHH", 474, packed, 1, 3 if bands > 1 else 2, width, height, bands) + bytes(500)


def tga(width: int, height: int, kind: int = 2, bits: int = 24) -> bytes:
    return bytes([0, 0, kind, *[0] * 9]) + struct.pack("<HHBB", width, height, bits, 0)


def pcx(right: int, bottom: int) -> bytes:
    return bytes([10, 5, 1, 8]) + struct.pack("<HHHH", 0, 0, right, bottom) + bytes(53) + b"\3" + bytes(62)


GIF = b"GIF89a\2\0\2\0\0\0\0"
GIF_PIXELS = b"\2\2\x44\x0a\0;"


def gif_frame(*box: int) -> bytes:
    return b"," + struct.pack("<HHHH", *box) + b"\0"


def heif_of(side: int) -> bytes:
    """A HEIC that says it is so many pixels wide and high."""
    file = BytesIO()
    pillow_heif.from_pillow(FACE).save(file)
    data = file.getvalue()
    at = data.index(b"ispe") + 8
    return data[:at] + side.to_bytes(4) * 2 + data[at + 8 :]


HOSTILE: list[tuple[str, str, Callable[[], bytes], str]] = [
    # type, what is wrong, the file, the kind of error
    (
        "JPEG",
        "65,500 x 65,500",
        lambda: jpeg().replace(b"\0\x40\0\x40", struct.pack(">HH", 65500, 65500), 1),
        "too_large",
    ),
    ("JPEG", "10,000 scans", partial(scans, 10_000), "too_large"),
    ("JPEG", "300 segments of EXIF", lambda: jpeg(*[(0xE1, b"Exif\0\0" + bytes(10))] * 300), "too_large"),
    ("JPEG", "no pixels", lambda: jpeg()[: jpeg().index(b"\xff\xda")], "truncated"),
    ("JPEG", "no tables", lambda: jpeg().replace(b"\xff\xdb", b"\xff\xe5"), "unreadable"),
    ("JPEG", "two sizes", lambda: jpeg((0xC0, b"\x08\1\0\1\0\1\1\x11\0")), "unreadable"),
    ("JPEG", "blank", lambda: saved(Image.new("RGB", (99, 9), "red"), "JPEG"), "blank"),
    ("PNG", "2**31 - 1 pixels wide", lambda: png(PIXELS, END, size=(2**31 - 1, 2**31 - 1)), "too_large"),
    ("PNG", "over the limit", lambda: png(PIXELS, END, size=(14_000, 14_000)), "too_large"),
    ("PNG", "a line of 20 million pixels", lambda: png(PIXELS, END, size=(20_000_000, 1)), "too_large"),
    ("PNG", "a large hidden picture", lambda: png(chunk(b"acTL", big(1, 0)), PIXELS, size=(9000, 9000)), "too_large"),
    (
        "PNG",
        "a text that swells",
        lambda: png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21))), PIXELS),
        "too_large",
    ),
    (
        "PNG",
        "a profile that swells",
        lambda: png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**21))), PIXELS),
        "too_large",
    ),
    (
        "PNG",
        "international text that swells",
        lambda: png(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**21))), PIXELS),
        "too_large",
    ),
    ("PNG", "more pixels than data", lambda: png(PIXELS, END, size=(2000, 2000)), "truncated"),
    ("PNG", "a chunk longer than the file", lambda: png(big(2**31) + b"IDAT"), "truncated"),
    (
        "PNG",
        "a frame larger than the canvas",
        lambda: png(chunk(b"acTL", big(1, 0)), chunk(b"fcTL", big(0, 9000, 9000, 0, 0) + bytes(6)), PIXELS, END),
        "unreadable",
    ),
    ("PNG", "a bad checksum", lambda: png(b"\0\0\0\4gAMAabcdefgh", PIXELS, END), "unreadable"),
    ("PNG", "no pixels", lambda: png(END), "unreadable"),
    ("PNG", "frames announced, none there", lambda: png(chunk(b"acTL", big(9, 0)), PIXELS, END), "truncated"),
    (
        "WEBP",
        "16,383 x 16,383",
        lambda: resized("WEBP", b"VP8X", 12, b"\xfe\x3f\0\xfe\x3f\0", save_all=True, append_images=[CLEAR]),
        "too_large",
    ),
    (
        "WEBP",
        "9,000 x 9,000",
        lambda: resized("WEBP", b"VP8X", 12, b"\x27\x23\0\x27\x23\0", save_all=True, append_images=[CLEAR]),
        "too_large",
    ),
    (
        "WEBP",
        "a canvas smaller than its picture",
        lambda: resized("WEBP", b"VP8X", 12, bytes(6), save_all=True, append_images=[CLEAR]),
        "unreadable",
    ),
    ("WEBP", "longer than its file", lambda: resized("WEBP", b"RIFF", 4, b"\xff\xff\xff\x7f"), "truncated"),
    ("WEBP", "nothing in it", lambda: b"RIFF\x04\0\0\0WEBP" + bytes(20), "unreadable"),
    (
        "GIF",
        "a canvas of 65,535 x 65,535",
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0" + gif_frame(0, 0, 2, 2) + GIF_PIXELS,
        "too_large",
    ),
    ("GIF", "a frame far outside its canvas", lambda: GIF + gif_frame(65535, 65535, 2, 2) + GIF_PIXELS, "too_large"),
    ("GIF", "a frame of 65,535 x 65,535", lambda: GIF + gif_frame(0, 0, 65535, 65535) + GIF_PIXELS, "too_large"),
    ("GIF", "no frame", lambda: GIF + b"!\xfe\1a\0;", "unreadable"),
    ("GIF", "cut in a comment", lambda: GIF + b"!\xfe\x09abc", "truncated"),
    ("GIF", "code words of 200 bits", lambda: GIF + gif_frame(0, 0, 2, 2) + b"\xc8\2\x44\x0a\0;", "unreadable"),
    ("BMP", "over the limit", lambda: bmp(dib(14_000, 14_000)), "too_large"),
    ("BMP", "2**31 - 1 high", lambda: bmp(dib(2**31 - 1, 2**31 - 1)), "too_large"),
    ("BMP", "run lengths of 9 megapixels", lambda: bmp(dib(3000, 3000, 8, 1), b"\1\1\0\0"), "too_large"),
    ("BMP", "pixels missing", lambda: bmp(dib(20, 20), bytes(100)), "truncated"),
    ("BMP", "no such depth", lambda: bmp(dib(20, 20, 7), bytes(9999)), "unreadable"),
    ("BMP", "no width", lambda: bmp(dib(0, 20), bytes(9999)), "unreadable"),
    ("TIFF", "2**31 pixels wide", lambda: tiff((256, 4, 1, 2**31)), "too_large"),
    ("TIFF", "half a million strips", lambda: tiff((273, 4, 2**19 + 1, 118), rest=bytes(2**21 + 99)), "too_large"),
    (
        "TIFF",
        "half a million values in its EXIF",
        lambda: tiff((34665, 4, 1, 122), rest=struct.pack("<HHHII", 1, 0x9000, 3, 2**19 + 1, 200) + bytes(2**20 + 99)),
        "too_large",
    ),
    ("TIFF", "a million tags", lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**20) + bytes(99), "too_large"),
    (
        "TIFF",
        "a tile of 1.6 gigapixels",
        lambda: tiff((259, 4, 1, 8), (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 8)),
        "too_large",
    ),
    ("TIFF", "higher than its strips", lambda: tiff((257, 4, 1, 60_000)), "truncated"),
    ("TIFF", "its directory after its end", lambda: b"II*\0" + little(9999) + bytes(99), "truncated"),
    ("TIFF", "directories in a circle", lambda: tiff((34665, 4, 1, 8)), "ok"),
    ("TIFF", "no such compression", lambda: tiff((259, 4, 1, 77)), "unreadable"),
    ("TIFF", "damaged deflate", lambda: tiff((259, 4, 1, 8), (279, 4, 1, 50)), "unreadable"),
    ("AVIF", "9,000 x 9,000", lambda: resized("AVIF", b"ispe", 8, big(9000, 9000)), "too_large"),
    ("AVIF", "2**31 pixels wide", lambda: resized("AVIF", b"ispe", 8, big(2**31, 2**31)), "unreadable"),
    ("AVIF", "larger than its picture", lambda: resized("AVIF", b"ispe", 8, big(1, 1)), "blank"),
    ("AVIF", "cut", lambda: saved(COLOUR, "AVIF")[:-20], "truncated"),
    ("AVIF", "32 megabytes of nothing", lambda: saved(COLOUR, "AVIF") + bytes(2**25), "too_large"),
    ("JPEG2000", "9,000 x 9,000", partial(codestream, 9000, 9000), "too_large"),
    ("JPEG2000", "2**32 - 1 pixels wide", partial(codestream, 2**32 - 1, 2**32 - 1), "too_large"),
    ("JPEG2000", "4 million tiles", partial(codestream, 2000, 2000, 1), "unreadable"),
    ("JPEG2000", "cut", lambda: saved(COLOUR, "JPEG2000")[:-20], "truncated"),
    (
        "JPEG2000",
        "a box without end",
        lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + big(1) + b"jp2h" + b"\xff" * 8,
        "unreadable",
    ),
    ("PPM", "60,000 x 60,000", lambda: b"P6 60000 60000 255\n", "too_large"),
    ("PPM", "9 megapixels of odd depth", lambda: b"P5 3000 3000 100\n", "too_large"),
    ("PPM", "9 megapixels of text", lambda: b"P2 3000 3000 255\n", "too_large"),
    ("PPM", "half a megabyte of comments", lambda: b"P2 2 2 255\n" + b"#\n" * 2**18 + b"1 2 3 4", "too_large"),
    ("PPM", "a header of comments", lambda: b"P5 #" + b"#" * 999, "truncated"),
    ("PPM", "cut", lambda: b"P5 9 9 255\nabc", "truncated"),
    ("PPM", "a number that is none", lambda: b"P2 2 2 255\n1 2 x 4", "unreadable"),
    ("PPM", "a value over its maximum", lambda: b"P2 2 2 255\n1 2 999 4", "unreadable"),
    ("PPM", "floats that are none", lambda: b"Pf 2 2 -1\n" + b"\0\0\xc0\x7f" * 4, "blank"),
    ("PPM", "one float far below zero", lambda: b"Pf 2 2 -1\n" + struct.pack("<f", -1e30) * 4, "blank"),
    ("QOI", "9 megapixels", lambda: b"qoif" + big(3000, 3000) + b"\4\0" + b"\xfd" * 999, "too_large"),
    ("QOI", "2**32 - 1 pixels wide", lambda: b"qoif" + big(2**32 - 1, 2**32 - 1) + b"\4\0", "too_large"),
    ("QOI", "cut", lambda: saved(COLOUR, "QOI")[:-99], "truncated"),
    ("QOI", "no size", lambda: b"qoif" + bytes(99), "unreadable"),
    ("DDS", "9 megapixels", lambda: dds(3000, 3000), "too_large"),
    ("DDS", "over the limit", lambda: dds(14_000, 14_000, 4, b"DXT1"), "too_large"),
    ("DDS", "pixels of 2**31 bits", lambda: dds(2, 2, bits=2**31) + bytes(99), "truncated"),
    ("DDS", "cut", lambda: saved(COLOUR, "DDS")[:-20], "truncated"),
    ("DDS", "an unknown code", lambda: dds(4, 4, 4, b"ABCD"), "unsupported"),
    ("SGI", "65,535 x 65,535", lambda: sgi(65535, 65535), "too_large"),
    ("SGI", "cut", lambda: sgi(20, 20) + bytes(99), "truncated"),
    ("SGI", "runs outside the file", lambda: sgi(20, 20, packed=1) + b"\x7f" * 999, "unreadable"),
    ("SGI", "five bands", lambda: sgi(20, 20, bands=5) + bytes(9999), "unreadable"),
    ("ICNS", "a PNG over the limit", lambda: apple(b"ic10", png(PIXELS, size=(14_000, 14_000))), "too_large"),
    ("ICNS", "a JPEG 2000 of 9,000 x 9,000", lambda: apple(b"ic10", codestream(9000, 9000)), "too_large"),
    ("ICNS", "16 megabytes of nothing", lambda: apple(b"ic10", png(PIXELS, END)) + bytes(2**24), "too_large"),
    ("ICNS", "words in place of a picture", lambda: apple(b"ic07", b"no picture, but words"), "unreadable"),
    ("ICNS", "blocks without length", lambda: b"icns" + big(9999) + bytes(99), "unreadable"),
    ("ICNS", "cut", lambda: b"icns" + big(9999) + b"ic07" + big(9000), "truncated"),
    ("ICO", "a PNG over the limit", lambda: icon(png(PIXELS, size=(14_000, 14_000))), "too_large"),
    ("ICO", "a BMP over the limit", lambda: icon(dib(14_000, 28_000, 32)), "too_large"),
    ("ICO", "run lengths of 9 megapixels", lambda: icon(dib(3000, 6000, 8, 1)), "too_large"),
    ("ICO", "65,535 pictures, none there", lambda: b"\0\0\1\0\xff\xff", "truncated"),
    ("ICO", "a picture after its end", lambda: icon(b"", offset=2**31), "truncated"),
    ("ICO", "a mask before its beginning", lambda: icon(dib(400, 800, 8), size=0, bits=8), "unreadable"),
    ("ICO", "cut", lambda: icon(dib(20, 40, 32) + bytes(99)), "truncated"),
    ("TGA", "65,535 x 65,535", lambda: tga(65535, 65535), "too_large"),
    ("TGA", "cut", lambda: tga(20, 20) + bytes(99), "truncated"),
    ("TGA", "a run over its row's end", lambda: tga(20, 20, 10) + b"\xffabc" * 99, "unreadable"),
    ("TGA", "no such kind", lambda: tga(20, 20, 99) + bytes(9999), "unreadable"),
    ("PCX", "65,534 x 65,534", lambda: pcx(65533, 65533), "too_large"),
    ("PCX", "cut", lambda: pcx(19, 19) + b"\xff\1", "truncated"),
    ("PCX", "no such depth", lambda: pcx(19, 19).replace(b"\x05\1\x08", b"\x05\1\x07") + bytes(999), "unreadable"),
    ("HEIF", "20,000 x 20,000", lambda: heif_of(20_000), "too_large"),
    ("HEIF", "cut", lambda: heif_of(96)[:-300], "truncated"),
    ("HEIF", "65 MB", lambda: heif_of(96) + bytes(2**26), "too_large"),
    ("HEIF", "an iPhone's", lambda: b"\0\0\0\x18ftypheic" + bytes(99), "truncated"),
    ("camera raw", "a Nikon's", tiff, "unsupported"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "wrong", "build", "expected"), HOSTILE, ids=[f"{kind}, {wrong}" for kind, wrong, *_ in HOSTILE]
)
def test_a_hostile_image_is_a_kind_of_error(kind: str, wrong: str, build: Callable[[], bytes], expected: str) -> None:
    assert outcome(build(), kind) == expected


def test_every_type_that_is_decoded_has_hostile_images() -> None:
    counts = [sum(kind == name for kind, *_ in HOSTILE) for name, known in IMAGE_TYPES.items() if known.decoded]
    assert min(counts) >= 3


@pytest.mark.usefixtures("in_turn")
def test_too_much_is_refused_before_memory_is_taken() -> None:
    code = """if True:
        import json, resource, sys, time
        import test_hostile_images as hostile
        sound = [hostile.outcome(hostile.saved(hostile.COLOUR, kind)) for kind in ("AVIF", "JPEG2000", "WEBP")]
        files = [(kind, what, build()) for kind, what, build, expected in hostile.HOSTILE if expected == "too_large"]
        costs = {}
        for kind, what, data in files:
            memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            hostile.outcome(data, kind)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
            megabytes = grown / (2**20 if sys.platform == "darwin" else 2**10)
            costs[f"{kind}, {what}"] = megabytes, time.perf_counter() - start
        print(json.dumps(costs))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS), str(TESTS / "images")])}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    costs = json.loads(done.stdout)
    assert len(costs) == sum(expected == "too_large" for *_, expected in HOSTILE)
    assert {name: cost for name, cost in costs.items() if cost[0] > 64 or cost[1] > 2} == {}  # MB, seconds


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("PNG", png(chunk(b"abCd", b"") * 2000, PIXELS, END)),
        ("GIF", GIF + b"!\xfe" + b"\1a" * 2000 + b"\0" + gif_frame(0, 0, 2, 2) + GIF_PIXELS),
        ("JPEG", jpeg(*[(0xE5, b"")] * 2000)),
        ("JPEG2000", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 2000),
        ("PPM", b"P5 #" + b"a" * 2000 + b"\n2 2 255\nabcd"),
        ("ICNS", b"icns" + big(2**31) + b"".join(big(number, 8) for number in range(2000))),
        ("BMP", bmp(dib(100, 100, 8, 1), b"\0\2\0\0" * 2000)),
    ],
)
def test_a_file_of_countless_pieces_is_given_up(kind: str, data: bytes, fault: Callable[..., None]) -> None:
    fault("few_reads_of_a_file", most=1000)
    assert outcome(data, kind) == "too_large"


def test_a_large_exif_is_not_searched_for_the_orientation(fault: Callable[..., None]) -> None:
    data = png(
        chunk(b"eXIf", b"II*\0" + little(8) + struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + little(0)),
        chunk(b"IDAT", zlib.compress(b"\0\1\2\3\0\4\5\6")),
        END,
        size=(3, 2),
    )
    assert decode(data).pixels.size == (2, 3)
    fault("little_exif", most=10)
    assert decode(data).pixels.size == (3, 2)


def test_strips_that_make_up_the_image_are_enough() -> None:
    for height, rows in ((2, 2), (2, 1), (2, 99)):
        data = tiff((257, 4, 1, height), (278, 4, 1, rows), *[(273, 4, 2, 118)] * (rows == 1), rest=little(8, 9, 8, 9))
        assert outcome(data) == "ok"


def test_no_program_is_started_for_an_image(fault: Callable[..., None]) -> None:
    fault("no_programs")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for kind in (None, *IMAGE_TYPES):
        assert outcome(postscript, kind) in ("unreadable", "unsupported", "truncated")
    for kind, samples in SOUND.items():
        assert {outcome(data, kind) for data in samples} == {"ok"}


@pytest.mark.parametrize(
    "error",
    [
        OSError,
        ValueError,
        SyntaxError,
        MemoryError,
        RuntimeError,
        NotImplementedError,
        struct.error,
        RecursionError,
        EOFError,
        KeyError,
        AssertionError,
        UnicodeDecodeError,
        Image.DecompressionBombError,
        type("Own", (Exception,), {}),
    ],
)
@pytest.mark.parametrize("method", ["open", "new"])
def test_whatever_a_decoder_throws_is_a_kind(error: type[Exception], method: str, fault: Callable[..., None]) -> None:
    words = "odd\x1b[2J\nwords"
    thrown = error("utf-8", b"\xff", 0, 1, words) if error is UnicodeDecodeError else error(words)
    data = saved(COLOUR, "PNG")
    fault("decoder_that_throws", method=method, error=thrown)
    assert outcome(data) in ERROR_KINDS


SOUND = {
    "JPEG": [saved(COLOUR, "JPEG"), saved(SMALL, "JPEG", progressive=True), saved(COLOUR.convert("CMYK"), "JPEG")],
    "PNG": [
        saved(SMALL, "PNG"),
        saved(CLEAR, "PNG"),
        saved(COLOUR.quantize(9), "PNG", bits=4),
        saved(SMALL, "PNG", save_all=True, append_images=[FACE.resize((24, 24))], default_image=True),
    ],
    "WEBP": [
        saved(COLOUR, "WEBP"),
        saved(CLEAR, "WEBP", lossless=True),
        saved(COLOUR, "WEBP", save_all=True, append_images=[CLEAR]),
    ],
    "GIF": [saved(COLOUR, "GIF"), saved(SMALL, "GIF", save_all=True, append_images=[COLOUR])],
    "BMP": [
        saved(SMALL, "BMP"),
        saved(COLOUR, "BMP"),
        bmp(dib(2, 2, 8, 1) + bytes(range(256)) * 4, b"\1\1\1\2\0\0\2\3\0\1"),
    ],
    "TIFF": [
        saved(COLOUR, "TIFF"),
        saved(SMALL, "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(np.asarray(SMALL).astype(np.float32)), "TIFF"),
        tiff(big=True),
    ],
    "AVIF": [saved(COLOUR, "AVIF")],
    "JPEG2000": [saved(COLOUR, "JPEG2000"), saved(SMALL, "JPEG2000", no_jp2=True)],
    "PPM": [saved(SMALL, "PPM"), b"P3 2 1 9 1 2 3 4 5 6", b"P5 2 2 100\nabcd", b"P1 2 2 0 1 1 0"],
    "QOI": [saved(COLOUR, "QOI")],
    "DDS": [saved(COLOUR, "DDS"), saved(CLEAR, "DDS", pixel_format="DXT5")],
    "SGI": [saved(COLOUR, "SGI")],
    "ICNS": [apple(b"icp4", saved(COLOUR.resize((16, 16)), "PNG")), apple(b"is32", bytes(range(256)) * 3)],
    "ICO": [saved(CLEAR, "ICO", sizes=[(24, 24)]), saved(COLOUR, "ICO", sizes=[(24, 24)], bitmap_format="bmp")],
    "TGA": [saved(COLOUR, "TGA"), saved(CLEAR, "TGA", rle=True)],
    "PCX": [saved(COLOUR, "PCX")],
}


@st.composite
def mutated(draw: st.DrawFn, kind: str) -> bytes:
    """A sound file of this type after a few accidents."""
    data = draw(st.sampled_from(SOUND[kind]))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(1, 40))
        accident = draw(st.sampled_from(["flip", "number", "cut", "insert", "double", "drop"]))
        if accident == "flip":
            data = data[:at] + bytes(byte ^ draw(st.integers(1, 255)) for byte in data[at : at + 1]) + data[at + 1 :]
        elif accident == "number":
            value = draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 9000, 2**31 - 1, 2**32 - 1]))
            data = data[:at] + value.to_bytes(4, draw(st.sampled_from(["big", "little"]))) + data[at + 4 :]
        elif accident == "cut":
            data = data[:at]
        elif accident == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=20)) + data[at:]
        elif accident == "double":
            data = data[:at] + data[at : at + length] * draw(st.sampled_from([2, 3, 40])) + data[at + length :]
        else:
            data = data[:at] + data[at + length :]
    return data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SOUND)
def test_no_accident_gets_past_the_door(kind: str) -> None:
    @given(mutated(kind))
    def check(data: bytes) -> None:
        assert outcome(data, kind) in ("ok", *ERROR_KINDS)

    check()


# What each of the collected malformed images is, by looking at it: numbers of files.
COLLECTED = {
    "ok": "229 231 246 247 249 255 263 267 271 273 274 276 282 293 294 298 308 313 315 321",
    "blank": "066 230 248 258 277 279 295 311",  # 258: 33 of 65,535 at most
    "truncated": "016 026 032 034 037 038 039 207 228 320",  # 320: strips for 15 rows of 65,280
    "too_large": "071 206 212",  # 788,529,184 x 32 pixels in an icon; 17 megapixels of slow DDS; a text that swells
    "unsupported": "008 288 290",
    "unreadable": "011 015 020 022 027 042 043 053 055 060 061 065 077 078 087 088 092 097 099 100 102 103 "
    "112 116 122 125 126 127 138 142 147 149 154 160 161 163 164 168 170 174 176 181 187 190 191 194 198 199 201 202 "
    "205 213 215 218 223 224",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    not (SHARED / "bad_images").exists(), reason="the collected malformed images are not beside this checkout"
)
def test_each_collected_image_gets_the_row_a_careful_person_would_give_it() -> None:
    got: dict[str, list[str]] = {}
    for line in rows_of(SHARED / "bad_images" / "manifest.csv"):
        path = bytes(SHARED / "bad_images" / "files" / line["file"])
        got.setdefault(outcome(read_bytes(path), type_of_name(path)), []).append(line["file"][-99:].split("_")[1][:3])
    assert {kind: " ".join(files) for kind, files in sorted(got.items())} == dict(sorted(COLLECTED.items()))
