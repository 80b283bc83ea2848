"""The search plan: which looks at a photo find the faces that are asked for.

What a look at a picture of a photo can add, measured with 150 faces of RAF-DB on drawn people:

    a face's shorter side, in pixels of the picture     found
    less than 16                                        almost none
    16 / 20 / 24 / 32                                   0.2 / 0.5 / 0.8 / 0.96
    CLEAR to LARGE                                      0.99 and more
    400 / 600                                           0.95 / 0.8

So a look at the photo as large as it is, FINEST at the most, sees all but the faces above LARGE. Those are CLEAR in a
second picture, MUCH_COARSER times as small, whose look comes first and costs a tenth. What is CLEAR there is of that
look, whatever the other says, so that a face has the same row whether the other is needed or not. What it shows besides
are faces that are half covered: of 373 faces in crowds, the first look alone misses 8.

Of a photo so small that the second picture would be less than COARSEST, its look would cost a quarter. There it is
taken only where the other finds nothing. Of 444 crops of RAF-DB, scaled to 350 to 440 pixels, the other sees the face
where it is in 0.94, and nothing in the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.images import looks, yunet
from ferbatch.images.looks import Looking
from ferbatch.images.yunet import MOST_FACES, Rows

FINEST = 1_280  # pixels of a picture's longer side, at the most
CLEAR, LARGE = 48, 320  # pixels of a face's shorter side from which, and up to which, it is found if it ever is
MUCH_COARSER = 3.5
COARSEST = 160  # pixels of the coarse picture's longer side, at the least
ENLARGED = 160  # pixels that a smaller photo is scaled up to
COARSER = 2.5  # times as small is a photo without a face when it is turned; with 2 no more are found, with 3 fewer
SAME = 0.4  # two boxes of two looks whose intersection is more than this share of their union are of one face
INSIDE = 0.7  # two boxes of which one lies in the other by more than this share of itself are of one face
VERSION = "search 5"  # raised whenever other faces are found: images are then searched again


def faces_in(photo: Image.Image, least: float, *, largest: bool) -> Looking[Rows]:
    """The faces in a gray photo, each once: rows as the detector gives them, in the photo's pixels.

    What has its middle beyond the photo's border is no face of it.

    least: pixels on a face's shorter side; smaller faces need not be found.
    largest: no face but the largest is asked for.
    """
    longest = max(photo.size)
    fine = max(ENLARGED, min(FINEST, longest))
    if fine <= LARGE:
        return (yield from _look_at(photo, fine / longest))
    if fine < COARSEST * MUCH_COARSER:
        rows = yield from _look_at(photo, fine / longest)
        shown = (rows[:, 2:4].min(1) >= least).any()
        return rows if shown else (yield from _look_at(photo, COARSEST / longest))
    coarse = int(fine / MUCH_COARSER) / longest
    rows = yield from _look_at(photo, coarse)
    clear: NDArray[np.bool_] = coarse * rows[:, 2:4].min(1) >= CLEAR
    if coarse * least >= CLEAR or (largest and clear.any()):  # a larger one would have been found as well
        return rows[clear]
    finer = yield from _look_at(photo, fine / longest)
    return _one_after_the_other(rows[clear], finer, rows[~clear])


def coarse(photo: Image.Image) -> Image.Image:
    """The photo as it is turned round and round to see whether a face lies or hangs in it: COARSER times as small."""
    longest = max(photo.size)
    return _scaled(photo, max(ENLARGED, min(FINEST, longest) / COARSER) / longest)


def surest_score(picture: Image.Image) -> Looking[float]:
    """How sure a look at a picture is of the surest face that it shows, 0..1; 0 without one."""
    (rows,) = yield np.asarray(picture)[None]
    return float(rows[:, 14].max(initial=0))


def _one_after_the_other(*looks: Rows) -> Rows:
    """The rows of the first, those of each further one that are of other faces than all before."""
    found = looks[0]
    for rows in looks[1:]:
        fresh = np.array([not yunet.alike(row, found, SAME, INSIDE).any() for row in rows], np.bool_)
        found = np.concatenate((found, rows[fresh]))
    return found[:MOST_FACES]


def _look_at(photo: Image.Image, scale: float) -> Looking[Rows]:
    """What one look at the photo finds, in the photo's pixels, but what has its middle beyond the border."""
    (rows,) = yield from looks.faces_in(np.asarray(_scaled(photo, scale))[None])
    rows[:, :14] /= scale
    middles = rows[:, :2] + rows[:, 2:4] / 2
    inside = ((middles >= 0) & (middles <= photo.size)).all(1)
    return yunet.surest(rows[inside], SAME, INSIDE, MOST_FACES)


def _scaled(photo: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, round(side * scale)) for side in photo.size)
    if (width, height) == photo.size:
        return photo
    averaged = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return photo.resize((width, height), averaged, reducing_gap=2.0)
