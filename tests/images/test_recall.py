"""What share of faces is found, by their size: the search plan leaves out no look that finds more.

`pytest -m bench -n 0 -s tests/images/test_recall.py` prints the guide's table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from support import depth
from test_faces import BOX, PORTRAIT, landscape

from ferbatch.images import passes, yunet
from ferbatch.images.looks import answered

SIZES = ((350, 350), (720, 576), (1_280, 960))  # of photos, in pixels
SHARES = (1 / 20, 1 / 14, 1 / 10, 1 / 7, 1 / 5, 1 / 3, 1 / 2, 0.7, 0.9, 1.0)  # of the longer side, that a face is high
LEAST = 20  # pixels: narrower faces are not asked for
HALF_A_POINT = 0.005


def scene(rng: np.random.Generator, size: tuple[int, int], share: float) -> tuple[Image.Image, NDArray[np.float64]]:
    """A landscape with the portrait in it, its face so high, and the face's box; no two are alike."""
    height = share * max(size)
    side = round(height * 512 / BOX[3])
    portrait = PORTRAIT.convert("L").resize((side, side), Image.Resampling.BICUBIC)
    box = np.array(BOX) * side / 512
    angle = rng.uniform(-15, 15)
    middle = box[:2] + box[2:] / 2
    turned = portrait.rotate(angle, Image.Resampling.BICUBIC, center=tuple(middle))
    mask = Image.new("L", portrait.size, 255).rotate(angle, center=tuple(middle))
    if rng.integers(2):
        turned, mask = (one.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for one in (turned, mask))
        box[0] = side - box[0] - box[2]
    turned = ImageEnhance.Brightness(turned).enhance(rng.uniform(0.4, 1.3))
    room = np.maximum(np.array(size) - box[2:], 0)
    corner = np.round(rng.uniform(0, 1, 2) * room - box[:2]).astype(int)
    picture = landscape(size, int(rng.integers(6))).convert("L")
    picture.paste(turned, (int(corner[0]), int(corner[1])), mask)
    if rng.integers(2):
        picture = picture.filter(ImageFilter.GaussianBlur(max(size) / 1_000))
    return picture, np.array((*(box[:2] + corner), *box[2:]))


def every_look(photo: Image.Image, look: passes.Look) -> yunet.Rows:
    """All faces by as many looks as may be of use, for comparison: at 1,280 pixels, at 320 and at 160."""
    longest = max(photo.size)
    rows = [answered(passes._look_at(photo, side / longest), look) for side in {min(1_280, longest), 320, 160}]
    return yunet.surest(np.concatenate(rows), passes.SAME, passes.INSIDE)


def hit(rows: yunet.Rows, box: NDArray[np.float64]) -> bool:
    wanted = rows[rows[:, 2:4].min(1) >= LEAST]
    return bool(yunet.alike(box, wanted, 0.4, 1.0).any()) if len(wanted) else False


def recall(size: tuple[int, int], shares: Sequence[float], n: int) -> NDArray[np.float64]:
    """(shares, 2): what share of n faces each is found, by the search plan and by every look."""
    look, rng = yunet.YuNet(), np.random.default_rng(0)
    found = np.zeros((len(shares), 2))
    for at, share in enumerate(shares):
        for _ in range(n):
            picture, box = scene(rng, size, share)
            found[at] += (
                hit(answered(passes.faces_in(picture, LEAST, largest=False), look), box),
                hit(every_look(picture, look), box),
            )
    return found / n


def wide_enough(size: tuple[int, int]) -> list[float]:
    """The shares at which a face is clearly asked for in a photo of this size."""
    return [share for share in SHARES if share * max(size) * BOX[2] / BOX[3] >= 1.3 * LEAST]


def test_faces_of_every_size_are_found_as_by_every_look() -> None:
    for size in SIZES:
        shares = wide_enough(size) if depth(0, 1) else wide_enough(size)[::3]
        found = recall(size, shares, depth(6, 40))
        assert found[:, 0].min() > 0.9
        assert (found[:, 0] >= found[:, 1] - HALF_A_POINT).all(), (size, found)


@pytest.mark.bench
def test_the_table_of_the_guide() -> None:
    print(f"\n| a face's height, of the photo's longer side | {' | '.join(f'{w}x{h}' for w, h in SIZES)} |")
    print("|---|" + "---|" * len(SIZES))
    found = [dict(zip(wide_enough(size), recall(size, wide_enough(size), 60), strict=True)) for size in SIZES]
    for share in SHARES:
        cells = [f"{of[share][0]:.3f} ({of[share][1]:.3f})" if share in of else "not asked for" for of in found]
        print(f"| {share:.2f} | {' | '.join(cells)} |")
    for of in found:
        by_plan, by_every = np.mean(list(of.values()), axis=0)
        assert by_plan >= by_every - HALF_A_POINT
