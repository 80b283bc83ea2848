"""HEIC and HEIF: read with the extra, said what to install without."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support import FACE, ORIENTATIONS, draw_face, tinted

from ferbatch.core.errors import UnreadableImageError
from ferbatch.images.decode import decode
from ferbatch.images.formats import type_of_bytes, type_of_name

heif = pytest.importorskip("pillow_heif", reason="pillow_heif is installed with ferbatch[heif]")


def written(*pictures: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    made = heif.from_pillow(pictures[0])
    for picture in pictures[1:]:
        made.add_from_pillow(picture)
    made.save(file, quality=95, **options)
    return file.getvalue()


def difference(data: bytes, wanted: Image.Image) -> float:
    decoded = decode(data)
    assert (decoded.width, decoded.height) == wanted.size
    return float(np.abs(np.asarray(decoded.pixels).astype(int) - np.asarray(wanted.convert("L"))).mean())


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_it_comes_out_as_it_is_seen(mode: str) -> None:
    data = written(tinted().convert(mode))
    assert type_of_bytes(data[:64]) == type_of_name(b"a.HEIC") == "HEIF"
    assert difference(data, tinted()) < 3


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_its_orientation_is_applied_once(orientation: int) -> None:
    wide = draw_face(5, 96).crop((0, 0, 96, 60))
    method = ORIENTATIONS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(wide if method is None else wide.transpose(method), exif=exif.tobytes())
    assert difference(data, wide) < 3


def test_transparency_is_laid_over_white_and_more_than_eight_bits_are_scaled() -> None:
    clear = FACE.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(FACE.size))
    seen = Image.alpha_composite(Image.new("RGBA", FACE.size, "white"), clear)
    assert difference(written(clear), seen) < 4
    deep = np.asarray(FACE.convert("RGB")).astype(np.uint16) * 257
    file = BytesIO()
    heif.from_bytes("RGB;16", FACE.size, deep.tobytes()).save(file, quality=95, bit_depth=10)
    assert difference(file.getvalue(), FACE) < 3


@pytest.mark.parametrize("primary", [0, 1])
def test_of_several_images_the_primary_one_counts(primary: int) -> None:
    pictures = FACE, FACE.transpose(Image.Transpose.ROTATE_180)
    assert difference(written(*pictures, primary_index=primary), pictures[primary]) < 3


def test_what_is_cut_or_filled_with_zeros_is_truncated_and_what_is_too_large_refused() -> None:
    data = written(FACE)
    half = len(data) // 2
    for damaged in (data[:half], data[:half] + bytes(len(data) - half), data[:24]):
        with pytest.raises(UnreadableImageError) as raised:
            decode(damaged)
        assert raised.value.kind == "truncated", raised.value
    at = data.index(b"ispe") + 8
    with pytest.raises(UnreadableImageError) as raised:
        decode(data[:at] + (20_000).to_bytes(4) * 2 + data[at + 8 :])
    assert raised.value.kind == "too_large", raised.value


def test_without_the_extra_its_name_is_said(fault: Callable[..., None]) -> None:
    data = written(FACE)
    fault("no_pillow_heif")
    with pytest.raises(UnreadableImageError, match=r"pip install 'ferbatch\[heif\]'") as raised:
        decode(data)
    assert raised.value.kind == "unsupported"


def test_reading_one_leaves_pillow_as_it_was() -> None:
    before = dict(Image.OPEN)
    decode(written(FACE))
    assert before == Image.OPEN
