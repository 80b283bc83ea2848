"""How sharp a crop is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.images.inputs import model_input

SIDE = 48  # pixels that a crop is scaled to first, as for the shipped networks: sharpness beyond them is not seen
MIDDLE = slice(8, 40)  # of them, across and down: from above the eyes to the chin, without what is around the face
TAPS = 9  # of the filter that blurs, as in the article


def blur(crop: Image.Image) -> float:
    """How blurred a gray crop is, 0..1, whatever its contrast and size: 0 is sharp, a face of one gray is 1.

    Blurring what is blurred already changes little: the measure is how much of the difference between neighbouring
    pixels is left after an average over TAPS of them, in the direction in which more is left (Crete, Dolmiere, Ladret
    and Nicolas, "The blur effect: perception and estimation with a new no-reference perceptual blur metric", 2007).
    """
    face = model_input(crop, SIDE).astype(np.float64)
    return max(_blur_down(face), _blur_down(face.T))


def _blur_down(face: NDArray[np.float64]) -> float:
    sums = face.cumsum(0)
    averaged = (sums[TAPS:] - sums[:-TAPS]) / TAPS  # from row TAPS // 2 + 1 on
    first = MIDDLE.start - TAPS // 2 - 1
    there = np.abs(np.diff(face, axis=0)[MIDDLE, MIDDLE])
    left = np.abs(np.diff(averaged, axis=0)[first : first + len(there), MIDDLE])
    whole = there.sum()
    return 1.0 if not whole else float(1 - (there - left).clip(0).sum() / whole)
