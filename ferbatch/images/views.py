"""Other views of a photo, for faces that do not stand upright in it or have no room: turned, with a margin.

What is found in a view is told in the photo's own pixels. The detector finds 0.99 of upright faces, 0.95 of those that
are turned by 30 degrees, and 0.4 by 45: with views at every 45 degrees none is turned by more than 22.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferbatch.images import passes
from ferbatch.images.frames import Points, axes
from ferbatch.images.looks import Looking

STEP = 45  # degrees from one turn to the next
ROUND = 360 // STEP
QUARTERS = {2: Image.Transpose.ROTATE_90, 4: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}
ROOM = 0.25  # the margin round a crop without a face, as a share of its longer side


@dataclass(frozen=True)
class View:
    """A gray photo with a black margin around it, turned counter-clockwise by so many steps."""

    photo: Image.Image
    steps: int = 0  # 0..ROUND - 1
    margin: int = 0  # pixels

    @cached_property
    def pixels(self) -> Image.Image:
        """What is seen."""
        width, height = (side + 2 * self.margin for side in self.photo.size)
        seen = self.photo
        if self.margin:
            seen = Image.new("L", (width, height))
            seen.paste(self.photo, (self.margin, self.margin))
        if self.steps in QUARTERS:
            return seen.transpose(QUARTERS[self.steps])
        return seen.rotate(STEP * self.steps, Image.Resampling.BILINEAR, expand=True) if self.steps else seen

    def turned(self, steps: int) -> View:
        """The view turned by other steps."""
        return View(self.photo, steps, self.margin)

    def with_room(self) -> View:
        """The view with a margin."""
        return View(self.photo, self.steps, round(ROOM * max(self.photo.size)))

    def in_photo(self, points: Points) -> Points:
        """(N, 2) points of the view, in pixels of the photo."""
        return (points - np.array(self.pixels.size) / 2) @ axes(STEP * self.steps) + np.array(self.photo.size) / 2

    def shows(self, points: Points) -> NDArray[np.bool_]:
        """(N,) which points of the view are in the photo."""
        there = self.in_photo(points)
        return np.asarray(((there >= 0) & (there <= self.photo.size)).all(1))


def likely_turns(view: View) -> Looking[list[int]]:
    """The steps by which a view without a face is to be turned for the one that a coarse look is surest of, if any."""
    upright = View(passes.coarse(view.pixels))
    scores = dict[int, float]()
    for first in (upright, upright.turned(1)):
        for quarter in (0, *QUARTERS):  # transposing is quicker than turning
            picture = first.pixels.transpose(QUARTERS[quarter]) if quarter else first.pixels
            if steps := first.steps + quarter:
                scores[steps] = yield from passes.surest_score(picture)
    best = max(sorted(scores), key=lambda steps: scores[steps])
    return [best] if scores[best] else []
