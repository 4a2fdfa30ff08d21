"""Sliding windows over an image, and the blending of their logits, a few rows at a time.

Shape letters: K classes, H height, W width, h and w those of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.io.arrays import Array, copy_array, like, new_array

SIGMA = 1 / 8
"""Standard deviation of the Gaussian that weighs a window's pixels, as a share of the window's side."""

STRIDE = 32
"""Stride of the network's coarsest feature maps, in pixels."""
_SNAPPED = 8
"""Strides in the least side of windows that begin at multiples of the stride; smaller ones would lose too much of their
overlap."""

Weights = npt.NDArray[np.float32]
LookAt = Callable[[slice, slice], Array]
"""From the rows and columns of a window to its logits `(1, K, h, w)`."""


class Block(NamedTuple):
    """A part of an image that no later window overlaps."""

    rows: slice
    columns: slice
    logits: Array
    """`(K, height, width)` float32, the weighted mean over the windows that overlap the block."""


class WindowGrid:
    """Windows along one side of an image, evenly spread from one end to the other.

    Windows of eight strides and more begin at multiples of the stride: the prediction of a network that halves its maps
    five times depends on where a pixel lies in the grid of strides, so seams would be visible otherwise.
    The last window may then be smaller by less than a stride.

    Args:
        side: Side of the image, in pixels.
        window: Side of the windows, in pixels; limited to that of the image.
        overlap: Least overlap of neighbouring windows, as a share of a window.
        stride: Stride of the network, in pixels.
    """

    def __init__(self, side: int, window: int, overlap: float, stride: int = STRIDE) -> None:
        self.side, self.window = side, min(side, window)
        unit = stride if self.window >= _SNAPPED * stride else 1
        step = max(unit, math.floor(self.window * (1 - overlap)) // unit * unit)
        last = math.ceil((side - self.window) / unit) * unit
        count = math.ceil(last / step) + 1
        places = (index * last / max(count - 1, 1) for index in range(count))
        self.starts: list[int] = [round(place) if unit == 1 else math.floor(place / unit) * unit for place in places]
        self.starts[-1] = last

    def __len__(self) -> int:
        return len(self.starts)

    def place(self, index: int) -> slice:
        """Return the pixels of a window."""
        return slice(self.starts[index], min(self.side, self.starts[index] + self.window))

    def next_start(self, index: int) -> int:
        """Return the start of the next window, or the end of the image: no later window overlaps rows before it."""
        return self.side if index + 1 == len(self) else self.starts[index + 1]

    def touching(self, part: slice) -> list[int]:
        """Return the windows that overlap a part of the side."""
        places = [self.place(index) for index in range(len(self))]
        return [index for index, place in enumerate(places) if place.start < part.stop and place.stop > part.start]

    @property
    def longest_overlap(self) -> int:
        """Most pixels that a window shares with later ones."""
        ends = (self.place(index).stop for index in range(len(self)))
        return max(int(end) - self.next_start(index) for index, end in enumerate(ends))

    def weights(self, index: int) -> Weights:
        """Return the weights of a window's pixels, float32: a Gaussian, normalised over all windows."""
        place = self.place(index)
        weights: Weights = self._gaussian[: place.stop - place.start] / self._total[place]
        return weights

    @cached_property
    def _gaussian(self) -> Weights:
        place = np.arange(self.window, dtype=np.float32) - np.float32((self.window - 1) / 2)
        # The border is four sigmas away (3e-4). The floor keeps the total away from 0, by which it is divided.
        weights: Weights = np.maximum(np.exp(-0.5 * (place / np.float32(self.window * SIGMA)) ** 2), np.float32(1e-4))
        return weights

    @cached_property
    def _total(self) -> Weights:
        total = np.zeros(self.side, np.float32)
        for index in range(len(self)):
            place = self.place(index)
            total[place] += self._gaussian[: place.stop - place.start]
        return total


def blend_windows(look: LookAt, rows: WindowGrid, columns: WindowGrid, part: slice | None = None) -> Iterator[Block]:
    """Average the logits of overlapping windows, weighted by a Gaussian around the middle of each window.

    Pixels near a window's border lack context, so they count less. A sum is kept only while a later window
    overlaps its pixels: memory holds the overlap of two rows of windows, not the whole height of the image.

    Args:
        look: Called once for each window, row by row from the top, in a row from the left.
        rows: The windows from top to bottom.
        columns: The windows from left to right.
        part: The columns to return; by default all.

    Yields:
        The blocks of the image, or of this part of it, from top left to bottom right.
    """
    part = part or slice(0, columns.side)
    shared: Array | None = None
    for index in range(len(rows)):
        at, end = rows.place(index), rows.next_start(index)
        done, known = end - at.start, rows.place(index - 1).stop - at.start if index else 0
        for place, band in _blend_row(look, at, rows.weights(index), columns, part):
            if shared is None:
                shared = new_array(band, (len(band), rows.longest_overlap, part.stop - part.start))
            within = slice(place.start - part.start, place.stop - part.start)
            band[:, :known] += shared[:, :known, within]
            shared[:, : at.stop - end, within] = band[:, done:]
            yield Block(slice(at.start, end), place, band[:, :done])


def _blend_row(
    look: LookAt, place: slice, row_weights: Weights, columns: WindowGrid, part: slice
) -> Iterator[tuple[slice, Array]]:
    """Yield the weighted sums `(K, h, width)` of one row of windows, a stretch of columns at a time."""
    shared: Array | None = None
    for index in columns.touching(part):
        at, done = columns.place(index), columns.next_start(index) - columns.starts[index]
        logits = look(place, at)[0]
        band = logits * like(row_weights[:, None] * columns.weights(index), logits)
        if shared is not None:
            band[:, :, : shared.shape[2]] += shared
        shared = copy_array(band[:, :, done:])
        start, stop = max(at.start, part.start), min(at.start + done, part.stop)
        if start < stop:
            yield slice(start, stop), band[:, :, start - at.start : stop - at.start]
