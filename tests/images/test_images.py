"""The decoder door: odd images come out as a person sees them, broken ones as a kind and a sentence."""

from __future__ import annotations

import hashlib
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import FACE, ORIENTATIONS, draw_face, saved, tinted

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images.decode import decode, from_memory, read_bytes
from ferbatch.images.formats import IMAGE_TYPES, type_of_bytes, type_of_name
from ferbatch.images.inputs import PREPROCESSING_VERSION, model_input


def gray_of(data: bytes, suffix_type: str | None = None, side: int | None = None) -> np.ndarray:
    """What the door makes of a file; an image that Pillow holds comes out the same."""
    gray = np.asarray(decode(data, suffix_type, side).pixels).astype(int)
    held = Image.open(BytesIO(data))
    if not held.info.get("default_image") and not side:
        before = dict(held.info)
        assert np.abs(np.asarray(from_memory(held).pixels).astype(int) - gray).max() <= 3  # luma or by colour
        assert {name: held.info.get(name) for name in before} == before
    return gray


def assert_looks_like(got: np.ndarray, wanted: Image.Image, tolerance: float = 1.5) -> None:
    assert got.shape == (wanted.height, wanted.width)
    assert np.abs(got - np.asarray(wanted.convert("L")).astype(int)).mean() <= tolerance


def faded(face: Image.Image = FACE) -> tuple[Image.Image, Image.Image]:
    """A face that is transparent to the right, and what is seen of it on white."""
    alpha = Image.fromarray(np.tile(np.linspace(255, 0, face.width).astype(np.uint8), (face.height, 1)))
    return Image.merge("LA", (face, alpha)), Image.composite(face, Image.new("L", face.size, 255), alpha)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "TGA", "PCX", "SGI", "ICO", "DDS", "QOI"])
def test_lossless_types_come_out_as_they_went_in(kind: str) -> None:
    picture = FACE.convert("RGB") if kind in ("ICO", "DDS", "QOI") else FACE
    options = {"sizes": [FACE.size]} if kind == "ICO" else {}
    assert_looks_like(gray_of(saved(picture, kind, **options), kind), FACE)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_types_come_out_close(kind: str) -> None:
    picture = tinted()
    assert_looks_like(
        gray_of(saved(picture, kind, quality=95) if kind != "JPEG2000" else saved(picture, kind)), picture, 3
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    wide = draw_face(5, 96).crop((0, 0, 96, 60))
    laid = wide if ORIENTATIONS[orientation] is None else wide.transpose(ORIENTATIONS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    decoded = decode(saved(laid, kind, exif=exif, **options))
    assert (decoded.width, decoded.height) == wide.size
    assert_looks_like(np.asarray(decoded.pixels).astype(int), wide, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # says Pillow
def test_damaged_exif_does_not_cost_the_image() -> None:
    data = saved(FACE, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert_looks_like(gray_of(data), FACE, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.asarray(FACE).astype(np.uint16) * 257)
    assert deep.mode.startswith("I;16")
    for kind in ("PNG", "TIFF"):
        assert_looks_like(gray_of(saved(deep, kind)), FACE)
    header = f"P5 {FACE.width} {FACE.height} 65535\n".encode()
    assert_looks_like(gray_of(header + np.asarray(deep).astype(">u2").tobytes()), FACE)


def test_other_deep_images_are_scaled_to_their_range() -> None:
    values = np.asarray(FACE).astype(np.float32)
    assert_looks_like(gray_of(saved(Image.fromarray(values / 255), "TIFF")), FACE)
    assert_looks_like(gray_of(saved(Image.fromarray(values), "TIFF")), FACE)
    assert_looks_like(gray_of(saved(Image.fromarray(values.astype(np.int32) * 257), "TIFF")), FACE)
    assert_looks_like(gray_of(saved(Image.fromarray(values / 250), "TIFF")), FACE, 3)  # a little over 1: overshoot
    broken = (values / 255).copy()
    broken[0, :3] = np.inf, -np.inf, np.nan
    assert_looks_like(gray_of(saved(Image.fromarray(broken), "TIFF"))[1:], FACE.crop((0, 1, 96, 96)))
    spread = (values - values.min()) / np.ptp(values)  # below zero: the image's own range
    assert_looks_like(
        gray_of(saved(Image.fromarray(spread * 6 - 3), "TIFF")), Image.fromarray((spread * 255).astype("u1"))
    )


def test_dark_sixteen_bit_pgms_stay_dark() -> None:
    values = np.asarray(FACE).astype(int) * 16
    assert gray_of(b"P5 96 96 65535\n" + values.astype(">u2").tobytes()).max() <= 16


def test_deep_tiffs_where_zero_is_white_are_seen_so() -> None:
    inverted = Image.fromarray(65535 - np.asarray(FACE).astype(np.uint16) * 257)
    assert_looks_like(gray_of(saved(inverted, "TIFF", tiffinfo={262: 0})), FACE)


def test_transparency_is_laid_over_white() -> None:
    gray, seen = faded()
    assert_looks_like(gray_of(saved(gray, "PNG")), seen)
    assert_looks_like(gray_of(saved(gray.convert("RGBA"), "PNG")), seen)
    assert_looks_like(gray_of(saved(gray.convert("RGBA"), "WEBP", lossless=True, exact=True)), seen)


def test_a_transparent_colour_is_white() -> None:
    value = int(np.bincount(np.asarray(FACE).ravel()).argmax())
    seen = FACE.point(lambda v: 255 if v == value else v)
    assert_looks_like(gray_of(saved(FACE, "PNG", transparency=value)), seen, 0.5)
    deep = Image.fromarray(np.asarray(FACE).astype(np.uint16) * 257)
    assert_looks_like(gray_of(saved(deep, "PNG", transparency=value * 257)), seen, 1.5)


def test_palette_cmyk_bilevel_and_lab_look_as_seen() -> None:
    palette = tinted().quantize(64)
    assert_looks_like(gray_of(saved(palette, "PNG")), palette.convert("RGB"))
    assert_looks_like(gray_of(saved(palette, "GIF")), palette.convert("RGB"))
    assert_looks_like(gray_of(saved(tinted().convert("CMYK"), "JPEG", quality=95)), tinted(), 3)
    assert_looks_like(gray_of(saved(tinted().convert("CMYK"), "TIFF")), tinted(), 3)
    bilevel = FACE.convert("1")
    assert_looks_like(gray_of(saved(bilevel, "PNG")), bilevel)


def raw_png(side: int, bits: int, colour: int, transparent: bytes, rows: list[bytes]) -> bytes:
    """A PNG of kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([bits, colour, 0, 0, 0])
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def test_the_transparent_gray_of_a_four_bit_png_is_white() -> None:
    rows = (np.asarray(FACE.resize((16, 16))) // 16).astype(np.uint8)
    value = int(rows[8, 8])
    data = raw_png(16, 4, 0, value.to_bytes(2), [(row[::2] * 16 + row[1::2]).tobytes() for row in rows])
    seen = np.where(rows == value, 255, rows.astype(int) * 17)
    assert np.abs(gray_of(data) - seen).max() == 0


def test_the_transparent_colour_of_a_deep_colour_png_is_white() -> None:
    rows = np.asarray(FACE.resize((16, 16))).astype(int)
    value = int(rows[8, 8])
    deep = np.repeat(rows[:, :, None] * 256, 3, axis=2).astype(">u2")
    data = raw_png(16, 16, 2, (value * 256).to_bytes(2) * 3, [row.tobytes() for row in deep])
    assert np.abs(gray_of(data) - np.where(rows == value, 255, rows)).max() == 0


def test_the_hidden_picture_of_an_animated_png_is_not_the_first_frame() -> None:
    hidden, first, second = draw_face(11, 96), draw_face(12, 96), draw_face(13, 96)
    data = saved(hidden, "PNG", save_all=True, append_images=[first, second], default_image=True)
    assert_looks_like(gray_of(data), first)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    first, second = tinted(), tinted(draw_face(9, 96))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=[second], **options)
    assert_looks_like(gray_of(data), first, 4)


def test_colour_jpegs_give_their_luma() -> None:
    picture = tinted(draw_face(4, 300))
    data = saved(picture, "JPEG", quality=95)
    assert_looks_like(gray_of(data), Image.open(BytesIO(data)).convert("RGB"), 1)


def test_large_jpegs_are_decoded_reduced_without_visible_change() -> None:
    picture = draw_face(2, 48).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = saved(picture, "JPEG", quality=92)
    reduced = decode(data, side=4 * 48)
    assert (reduced.width, reduced.height) == (1600, 1200)
    assert reduced.pixels.size == (400, 300)
    whole = model_input(decode(data).pixels, 48).astype(int)
    assert np.abs(model_input(reduced.pixels, 48) - whole).max() <= 3


def test_the_model_input_keeps_the_aspect_on_a_black_square() -> None:
    tall = draw_face(1, 96).crop((18, 0, 78, 96))
    square = model_input(tall, 48)
    assert not square[:, :9].any()
    assert not square[:, 39:].any()
    assert_looks_like(square[:, 9:39].astype(int), tall.resize((30, 48), Image.Resampling.BILINEAR), 0)


def test_the_model_input_is_antialiased_and_leaves_its_own_size_alone() -> None:
    stripes = np.zeros((480, 480), np.uint8)
    stripes[:, ::2] = 255
    small = model_input(Image.fromarray(stripes), 48)
    assert small.dtype == np.uint8
    assert small.shape == (48, 48)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 8
    exact = draw_face(1)
    assert not model_input(Image.new("L", (1, 9_000), 9), 48)[:, :23].any()
    assert (model_input(exact, 48) == np.asarray(exact)).all()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "truncated"),
        (b"hello, I am a text", "unreadable"),
        (saved(FACE, "JPEG")[:600], "truncated"),
        (saved(FACE, "PNG")[:600], "truncated"),
        (saved(FACE, "PNG")[:20], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "unreadable"),
        (b"\xff\xd8\xff" + bytes(100), "truncated"),
        (b"8BPS\0\1" + bytes(100), "unsupported"),
        (saved(Image.new("L", (48, 48), 7), "PNG"), "blank"),
        (saved(Image.new("RGBA", (48, 48), (9, 9, 9, 0)), "PNG"), "blank"),
        (b"P5 60000 60000 255\n" + bytes(100), "too_large"),
        (b"P5 15000 12000 255\n" + bytes(100), "too_large"),
    ],
)
def test_what_is_no_image_is_a_kind_and_one_line(data: bytes, kind: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data)
    assert caught.value.kind == kind
    assert str(caught.value)
    assert str(caught.value).isprintable()


def test_every_truncation_of_a_jpeg_is_refused_or_whole() -> None:
    data = saved(draw_face(0), "JPEG")
    for length in range(len(data) - 2):
        with pytest.raises(UnreadableImageError):
            decode(data[:length])


def test_files_that_are_not_there_or_no_files_are_said(tmp_path: Path) -> None:
    for name, kind in ((b"missing.jpg", "not_found"), (b"nul\0.jpg", "not_found"), (b"", "unsupported")):
        with pytest.raises(UnreadableImageError) as caught:
            read_bytes(bytes(tmp_path) + b"/" + name if name else b"/dev/null")
        assert caught.value.kind == kind


def test_types_without_a_signature_are_believed_only_by_their_name() -> None:
    data = saved(FACE, "TGA")
    assert_looks_like(gray_of(data, "TGA"), FACE)
    with pytest.raises(UnreadableImageError, match="known type"):
        decode(data, "JPEG")
    with pytest.raises(UnreadableImageError, match="camera raw images are not supported"):
        decode(saved(FACE, "TIFF"), "camera raw")


def test_a_wrong_extension_does_not_matter() -> None:
    assert_looks_like(gray_of(saved(FACE, "PNG"), "JPEG"), FACE)


def test_every_image_type_is_one_that_pillow_reads() -> None:
    Image.init()
    for name, kind in IMAGE_TYPES.items():
        assert all(
            suffix == suffix.lower() and type_of_name(b"X" + suffix.upper().encode()) for suffix in kind.suffixes
        )
        assert not kind.decoded or name in Image.OPEN or name == "HEIF"  # which has a reader of its own
    for text in (
        b"plain text here!",
        b"P1 incident: the printer is on fire",
        b"BM is how this text begins" + bytes(60),
    ):
        assert type_of_bytes(text) is None
    assert type_of_bytes(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert type_of_bytes(b"\0\0\0\x20ftypmif1\0\0\0\0mif1heicmiaf") == "HEIF"


PINNED = {
    1: "b5e1735420812982884cb0fec34771f4a1efebfdde6d51b0f9c91342572212ef",
    2: "b5e1735420812982884cb0fec34771f4a1efebfdde6d51b0f9c91342572212ef",  # damaged images give none any more
}  # PREPROCESSING_VERSION -> what it makes of the images below


def test_the_version_of_the_preprocessing_rises_with_any_change_of_the_model_input() -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (60, 90), dtype=np.uint8)  # not square
    colour = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    alpha = np.dstack([colour, colour[:, :, :1]])
    palette = Image.fromarray(gray % 16).convert("P")
    palette.putpalette(rng.integers(0, 256, 48, dtype=np.uint8).tobytes())
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        saved(Image.fromarray(gray), "PNG"),
        saved(Image.fromarray(gray[:48, :48]), "PNG"),
        saved(Image.fromarray(gray), "PNG", exif=turned),
        saved(Image.fromarray(gray.astype(np.uint16) * 257), "PNG"),
        saved(Image.fromarray(gray.astype(np.float32) / 255), "TIFF"),
        saved(Image.fromarray(colour), "BMP"),
        saved(palette, "PNG"),
        saved(Image.fromarray(alpha), "PNG"),
        saved(Image.fromarray(np.tile(gray, (20, 15))), "PNG"),  # large
    ]
    seen = hashlib.sha256()
    for data in files:
        seen.update(model_input(decode(data).pixels, 48).tobytes())
    assert seen.hexdigest() == PINNED.get(PREPROCESSING_VERSION), (
        "the model input has changed: raise PREPROCESSING_VERSION and record the new value under it"
    )
