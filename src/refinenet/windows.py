"""Windows over an image, and the logits of an image put together from those of its windows, a few rows at a time.

Shape letters: K classes, H height, W width, h and w those of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

SIGMA = 1 / 8
"""Of the Gaussian that weighs a window's pixels, as a share of its side."""

LookAt = Callable[[slice, slice], Tensor]
"""Rows and columns of a window to the logits `(1, K, h, w)` of what is there."""


class Block(NamedTuple):
    """A part of an image of which all is known."""

    rows: slice
    columns: slice
    logits: Tensor
    """`(K, height, width)` float32, averaged over the windows that see it."""


class Axis:
    """Windows along one side of an image, evenly spread from one end to the other.

    Args:
        side: The image's, in pixels.
        window: The windows', in pixels; a window larger than the image is as large as the image.
        overlap: The least share of a window that it has in common with the next one.
    """

    def __init__(self, side: int, window: int, overlap: float) -> None:
        self.side, self.window = side, min(side, window)
        step = max(1, math.floor(self.window * (1 - overlap)))
        count = math.ceil((side - self.window) / step) + 1
        self.starts = [round(index * (side - self.window) / max(count - 1, 1)) for index in range(count)]

    def __len__(self) -> int:
        return len(self.starts)

    def place(self, index: int) -> slice:
        """Where a window lies."""
        return slice(self.starts[index], self.starts[index] + self.window)

    def done(self, index: int) -> int:
        """How many pixels of a window, from its start, no later window sees."""
        return self.window if index + 1 == len(self) else self.starts[index + 1] - self.starts[index]

    def touching(self, part: slice) -> list[int]:
        """The windows that see any of a part of the side."""
        return [
            index for index, start in enumerate(self.starts) if start < part.stop and start + self.window > part.start
        ]

    @property
    def longest_overlap(self) -> int:
        """The most pixels that windows have in common with later ones."""
        return max(self.window - self.done(index) for index in range(len(self)))

    def weights(self, index: int) -> Tensor:
        """What a window's pixels count, `(window,)` float32: a Gaussian around its middle, 1 together with others."""
        return self._gaussian / self._total[self.place(index)]

    @cached_property
    def _gaussian(self) -> Tensor:
        place = torch.arange(self.window) - (self.window - 1) / 2
        return torch.exp(-0.5 * (place / (self.window * SIGMA)) ** 2).clamp(min=1e-4)

    @cached_property
    def _total(self) -> Tensor:
        total = torch.zeros(self.side)
        for index in range(len(self)):
            total[self.place(index)] += self._gaussian
        return total


def blend_windows(look: LookAt, rows: Axis, columns: Axis, part: slice | None = None) -> Iterator[Block]:
    """Average the logits of windows, each pixel weighed by a Gaussian around the middle of its window.

    What windows say of a pixel is added up only while a window is to come that sees it, so that of the image's height
    no more is in memory than what two rows of windows have in common.

    Args:
        look: Asked for each window once, row by row from the top, in a row from the left.
        rows: The windows from top to bottom.
        columns: The windows from left to right.
        part: The columns that are wanted; by default all.

    Yields:
        The blocks that the image, or this part of it, falls into: from the top, and from the left.
    """
    part = part or slice(0, columns.side)
    shared: Tensor | None = None
    for index, top in enumerate(rows.starts):
        done, known = rows.done(index), rows.window - rows.done(index - 1) if index else 0
        for place, band in _blend_row(look, rows.place(index), rows.weights(index), columns, part):
            if shared is None:
                shared = band.new_empty(len(band), rows.longest_overlap, part.stop - part.start)
            within = slice(place.start - part.start, place.stop - part.start)
            band[:, :known] += shared[:, :known, within]
            shared[:, : rows.window - done, within] = band[:, done:]
            yield Block(slice(top, top + done), place, band[:, :done])


def _blend_row(
    look: LookAt, place: slice, row_weights: Tensor, columns: Axis, part: slice
) -> Iterator[tuple[slice, Tensor]]:
    """The sums `(K, h, width)` of one row of windows, for one stretch of columns after the other."""
    shared: Tensor | None = None
    for index in columns.touching(part):
        at, done = columns.place(index), columns.done(index)
        logits = look(place, at)[0].float()
        band = logits * (row_weights[:, None] * columns.weights(index)).to(logits.device)
        if shared is not None:
            band[:, :, : shared.shape[2]] += shared
        shared = band[:, :, done:].clone()
        start, stop = max(at.start, part.start), min(at.start + done, part.stop)
        if start < stop:
            yield slice(start, stop), band[:, :, start - at.start : stop - at.start]
