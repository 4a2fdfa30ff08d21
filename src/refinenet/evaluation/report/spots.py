"""Where in an image mistakes lie densest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SIDE = 8
"""The spot's side is this part of the image's shorter one."""
_AROUND = 4
"""The part to be shown around a spot is so many times as wide and high."""
_SMALLEST = 16
"""Pixels of a spot's side, where the image has them."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A square in an image, and the part of the image around it that is worth a look."""

    rows: slice
    columns: slice
    shown_rows: slice
    shown_columns: slice


def find_spot(mistakes: npt.NDArray[np.bool_]) -> Spot:
    """The square with most mistakes, the first of equal ones.

    Args:
        mistakes: `(H, W)`.
    """
    height, width = mistakes.shape
    shorter = min(height, width)
    side = min(shorter, max(_SMALLEST, shorter // _SIDE))
    sums = np.pad(mistakes.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = (int(place) for place in np.unravel_index(int(boxes.argmax()), boxes.shape))
    return Spot(
        rows=slice(top, top + side),
        columns=slice(left, left + side),
        shown_rows=_around(top, side, height),
        shown_columns=_around(left, side, width),
    )


def _around(first: int, side: int, limit: int) -> slice:
    """A longer stretch around one, within the image."""
    length = min(limit, _AROUND * side)
    start = min(max(0, first + side // 2 - length // 2), limit - length)
    return slice(start, start + length)
