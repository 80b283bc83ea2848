"""The quick decoder of plain JPEGs: what Pillow, the reference, says, pixel for pixel and word for word."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ORIENTATIONS, ROOT, depth, draw_face, saved, some, tinted

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images import jpeg
from ferbatch.images.decode import BLANK, decode
from ferbatch.images.inputs import REDUCED_SIDE, input_of, luma_of, model_input

SIZE = 48
LIMIT = 2 * REDUCED_SIDE * SIZE  # pixels; from there on Pillow decodes a reduced image
ASTRONAUT = Image.open(ROOT / "ferbatch/example/astronaut.jpg").crop((166, 62, 284, 180))  # the face
Outcome = tuple[bytes, int, int] | tuple[str, str]

quick = pytest.mark.skipif(jpeg.simplejpeg is None, reason="no simplejpeg here")


def outcome(data: bytes, *, by_pillow: bool) -> Outcome:
    """The pixels and the image's size, or why there are none."""
    try:
        luma = None if by_pillow else luma_of(data, SIZE)
        pixels, width, height = input_of(data, "JPEG", SIZE, luma, by_pillow=by_pillow)
    except UnreadableImageError as error:
        return error.kind, str(error)
    assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE), np.uint8)
    return pixels.tobytes(), width, height


def is_quick(data: bytes) -> bool:
    return jpeg.luma(data, LIMIT) is not None


def assert_equal_and_quick(data: bytes) -> None:
    assert is_quick(data)
    assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True)
    wanted = np.asarray(decode(data, "JPEG", REDUCED_SIDE * SIZE).pixels)
    assert np.array_equal(jpeg.luma(data, LIMIT), wanted)  # type: ignore[arg-type]


def assert_left_to_pillow(data: bytes) -> None:
    assert not is_quick(data)
    assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True)


def picture(colour: bool, size: tuple[int, int], seed: int = 0) -> Image.Image:
    face = draw_face(seed, max(size)).resize(size)
    noise = np.random.default_rng(seed).normal(0, 12, (*reversed(size), 3))
    noisy = Image.fromarray((np.asarray(tinted(face)) + noise).clip(0, 255).astype(np.uint8))
    return noisy if colour else noisy.convert("L")


KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 2},
    "progressive restarts": {"progressive": True, "restart_marker_rows": 1},
}


@quick
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
def test_every_kind_of_plain_jpeg_gives_the_pixels_that_pillow_gives(kind: str, colour: bool) -> None:
    seed = 0
    for size in ((48, 48), (47, 53), (1, 9), (17, 200), (96, 96), (131, 127)):
        for quality in some((20, 50, 75, 90, 95), 3):
            for subsampling in ("4:4:4", "4:2:2", "4:2:0") if colour else (None,):
                chosen = {"subsampling": subsampling} if subsampling else {}
                seed += 1
                data = saved(picture(colour, size, seed), "JPEG", quality=quality, **KINDS[kind], **chosen)
                assert_equal_and_quick(data)


@quick
def test_faces_cut_from_a_photograph_give_the_pixels_that_pillow_gives() -> None:
    chance = random.Random(0)
    for at in range(150):
        side = chance.randrange(8, 118)
        left, top = chance.randrange(ASTRONAUT.width - side), chance.randrange(ASTRONAUT.height - side)
        crop = ASTRONAUT.crop((left, top, left + side, top + side))
        options = {"quality": chance.randrange(20, 96), "subsampling": at % 3, "progressive": at % 2 == 0}
        assert_equal_and_quick(saved(crop.convert("L") if at % 4 == 0 else crop, "JPEG", **options))


@quick
def test_the_real_faces_give_the_pixels_that_pillow_gives(real_faces: Path) -> None:
    files = some(sorted(real_faces.rglob("*.jpg")), depth(1_001, 4_000))
    assert len(files) > 1_000
    for file in files:
        data = file.read_bytes()
        assert is_quick(data), file
        assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True), file


@quick
@pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
def test_just_under_the_size_that_pillow_reduces_the_quick_decoder_is_used_and_from_there_on_pillow(
    colour: bool,
) -> None:
    for size in ((LIMIT - 1, LIMIT - 1), (LIMIT - 1, 100), (30, LIMIT - 1)):
        assert_equal_and_quick(saved(picture(colour, size), "JPEG", quality=40))
    for size in ((LIMIT, LIMIT), (LIMIT, 100), (30, LIMIT + 1), (LIMIT + 1, LIMIT - 1)):
        assert_left_to_pillow(saved(picture(colour, size), "JPEG", quality=40))


@quick
def test_a_file_over_the_limit_of_bytes_is_left_to_pillow() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (380, 380), dtype=np.uint8)
    data = saved(Image.fromarray(noise), "JPEG", quality=95)
    assert len(data) > jpeg.QUICK_BYTES
    assert_left_to_pillow(data)
    small = saved(draw_face(0), "JPEG")
    assert is_quick(small + bytes(jpeg.QUICK_BYTES - len(small)))
    assert_left_to_pillow(small + bytes(jpeg.QUICK_BYTES + 1 - len(small)))


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
        % orientation
    )


@pytest.mark.parametrize("said_in", ["exif", "xmp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_orientation_is_pillows_to_apply(said_in: str, orientation: int) -> None:
    wide = draw_face(5, 96).crop((0, 0, 96, 60))
    method = ORIENTATIONS[orientation]
    laid = wide if method is None else wide.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(laid, "JPEG", quality=95, **({"exif": exif} if said_in == "exif" else {"xmp": xmp(orientation)}))
    assert_left_to_pillow(data)
    pixels, width, height = input_of(data, "JPEG", SIZE, luma_of(data, SIZE))
    assert (width, height) == wide.size
    assert np.abs(pixels.astype(int) - model_input(wide, SIZE)).mean() < 2


@pytest.mark.parametrize("space", ["CMYK", "RGB"])
def test_a_colour_space_without_luma_is_left_to_pillow(space: str) -> None:
    colours = tinted(draw_face(3, 60))
    options = {"keep_rgb": True} if space == "RGB" else {}
    data = saved(colours.convert(space), "JPEG", quality=95, **options)
    assert_left_to_pillow(data)
    pixels, *_ = input_of(data, "JPEG", SIZE, luma_of(data, SIZE))
    assert np.abs(pixels.astype(int) - model_input(colours.convert("L"), SIZE)).mean() < 3


@pytest.mark.parametrize("side", [SIZE, 50])
@pytest.mark.parametrize("value", [0, 9, 255])
def test_a_jpeg_of_one_value_is_blank_to_both(side: int, value: int) -> None:
    for mode in ("L", "RGB"):
        data = saved(Image.new("L", (side, side), value).convert(mode), "JPEG")
        assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True) == ("blank", BLANK)


def test_a_face_under_a_black_border_is_not_blank() -> None:
    bordered = draw_face(0)
    bordered.paste(0, (0, 0, SIZE, SIZE // 2))
    data = saved(bordered, "JPEG", quality=95)
    luma = luma_of(data, SIZE)
    assert luma is not None
    assert luma[0].tobytes() == bytes(SIZE)
    assert luma.max() > 0


def sources() -> list[bytes]:
    """Small JPEGs of every kind."""
    chosen = [*KINDS.values(), {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"quality": 30}]
    sizes = ((48, 48), (30, 41), (16, 16))
    return [
        saved(picture(colour, sizes[at % 3], at), "JPEG", **({"quality": 80} | options))
        for at, options in enumerate(chosen)
        for colour in (False, True)
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with a bit flipped, a byte changed, an end or a piece cut off, bytes put in, or a piece doubled."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at, end = chance.randrange(max(1, len(data))), chance.randrange(1, 40)
        within = chance.choice((at, at % 700))  # the headers, as often as not
        match chance.randrange(7):
            case 0 | 1:
                flipped = data[within : within + 1].translate(bytes(n ^ (1 << end % 8) for n in range(256)))
                data = data[:within] + flipped + data[within + 1 :]
            case 2:
                data = data[:within] + chance.randbytes(1) + data[within + 1 :]
            case 3:
                data = data[:at]
            case 4:
                data = data[:within] + data[within + end :]
            case 5:
                data = data[:within] + chance.randbytes(end) + data[within:]
            case 6:
                data = data[:at] + data[within : within + 4 * end] + data[at:]
    return data


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_damage_ends_in_the_same_pixels_or_the_same_words(seed: int) -> None:
    chance = random.Random(seed)
    whole = sources()
    seen = {"quick": 0, "by Pillow": 0, "refused": 0}
    for _ in range(depth(250, 1_000)):
        data = mutated(chance.choice(whole), chance)
        found = outcome(data, by_pillow=False)
        assert found == outcome(data, by_pillow=True), data.hex()
        seen["refused" if isinstance(found[0], str) else "quick" if is_quick(data) else "by Pillow"] += 1
    assert min(seen.values()) >= (depth(8, 40) if jpeg.simplejpeg else 0), seen


def with_segment(marker: int, content: bytes | None, place: bytes = b"\xff\xdb") -> bytes:
    """A JPEG with one segment more, before the first of another marker."""
    data = saved(draw_face(0), "JPEG", quality=90)
    at = data.index(place)
    length = b"" if content is None else (len(content) + 2).to_bytes(2)
    return data[:at] + bytes([0xFF, marker]) + length + (content or b"") + data[at:]


ODD_SEGMENTS = {
    "a marker that stands for nothing": (0x01, None),
    "a short Adobe segment": (0xEE, b"Adobe\0"),
    "a short JFIF segment": (0xE0, b"JFIF\0"),
    "an empty Photoshop segment": (0xED, b"Photoshop 3.0\0"),
    "a Photoshop segment cut short": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0"),
    "a piece of a colour profile": (0xE2, b"ICC_PROFILE\0\1\1abc"),
    "a colour profile without a number": (0xE2, b"ICC_PROFILE\0"),
    "a damaged list of pictures": (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "a list of pictures cut short": (0xE2, b"MPF\0MM\0*"),
    "a FlashPix segment": (0xE2, b"FPXR\0\0\0"),
    "a comment": (0xFE, b"made by hand"),
    "an Adobe segment": (0xEE, b"Adobe\0d\0\0\0\0\1"),
    "damaged EXIF": (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("name", ODD_SEGMENTS)
@pytest.mark.parametrize("place", [b"\xff\xdb", b"\xff\xc4", b"\xff\xda"], ids=["first", "amid", "last"])
@pytest.mark.filterwarnings("ignore")
def test_odd_segments_end_in_the_same_pixels_or_the_same_words(name: str, place: bytes) -> None:
    data = with_segment(*ODD_SEGMENTS[name], place)
    assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True)


@pytest.mark.parametrize("fill", [1, 2, 3])
def test_fill_bytes_before_a_marker_end_in_the_same_pixels_or_the_same_words(fill: int) -> None:
    data = saved(draw_face(0), "JPEG", quality=90)
    for place in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda"):
        filled = data.replace(place, b"\xff" * fill + place, 1)
        assert outcome(filled, by_pillow=False) == outcome(filled, by_pillow=True)


SAMPLINGS = [horizontal << 4 | vertical for horizontal in (1, 2, 3, 4) for vertical in (1, 2, 3, 4)]


@pytest.mark.parametrize("luma", SAMPLINGS, ids=hex)
def test_uncommon_subsampling_ends_in_the_same_pixels_or_the_same_words(luma: int) -> None:
    """The header alone is changed, so that most of these have too much or too little data; the least is to say so."""
    data = saved(picture(True, (40, 40)), "JPEG", subsampling="4:4:4")
    at = data.index(b"\xff\xc0")
    for chroma in (0x11, 0x12, 0x21, 0x22):
        changed = bytearray(data)
        changed[at + 11], changed[at + 14], changed[at + 17] = luma, chroma, 0x11
        assert outcome(bytes(changed), by_pillow=False) == outcome(bytes(changed), by_pillow=True)


def test_without_the_quick_decoder_pillow_does_it_all(fault: Callable[..., None]) -> None:
    data = saved(draw_face(2, 70), "JPEG")
    wanted = outcome(data, by_pillow=True)
    fault("no_simplejpeg")
    assert jpeg.luma(data, LIMIT) is None
    assert outcome(data, by_pillow=False) == wanted
    (only,) = jpeg.decoders()
    assert only.startswith("pillow ")


@quick
def test_the_decoders_are_named_with_their_versions_the_best_first() -> None:
    both, alone = jpeg.decoders()
    assert both.startswith("simplejpeg ")
    assert both.endswith(f", {alone}")
    assert alone == f"pillow {Image.__version__}"
