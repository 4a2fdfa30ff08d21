"""Backend that runs another one on large images in windows, so that the network's memory does not grow with the image.

Unlike with `Protocol(window=...)`, windows are blended at the resolution of the maps, a sixteenth of the image's
pixels, and before classes are computed.

Shape letters: N images, C maps, H height, W width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from refinenet.inference.sliding_window import STRIDE, WindowGrid, blend_windows
from refinenet.io.arrays import Array, library, new_array

if TYPE_CHECKING:
    from refinenet.inference.segmenter import Backend

MAP_STRIDE = 4
"""Pixels of the image for each of the maps."""
OVERLAP = 0.25
"""Least share of its side by which a window overlaps the next one."""


class WindowedBackend:
    """A backend that processes images of more than a given number of pixels in overlapping windows.

    Args:
        backend: Runs the network. Its maps have a quarter of the height and width of images, rounded up.
        pixels: Number of pixels, height times width, of the largest image that it is run on as a whole; windows are
            squares of about as many.
    """

    def __init__(self, backend: Backend, pixels: int) -> None:
        self._backend, self._pixels = backend, pixels
        side = math.isqrt(pixels)
        self.side = max(MAP_STRIDE, side - side % (STRIDE if side >= STRIDE else MAP_STRIDE))
        """Side of a window, in pixels."""

    @property
    def device(self) -> object:
        """Device on which images must be."""
        return self._backend.device

    def splits(self, height: int, width: int) -> bool:
        """Return whether images of a size are seen in windows."""
        return height * width > self._pixels

    def __call__(self, images: Array) -> Array:
        """Map float32 images `(N, B, H, W)` in [0, 1] to the maps `(N, C, ceil(H/4), ceil(W/4))` of all outputs."""
        height, width = images.shape[-2:]
        if not self.splits(height, width):
            return self._backend(images)
        return library(images).concatenate([self._blend(images[index : index + 1]) for index in range(len(images))])

    def _blend(self, image: Array) -> Array:
        # Of an image that is thinner than a window, windows are as much longer.
        short = min(*image.shape[-2:], self.side)
        longest = max(self.side, self._pixels // short // STRIDE * STRIDE)
        rows, columns = (
            WindowGrid(-(-side // MAP_STRIDE), longest // MAP_STRIDE, OVERLAP, STRIDE // MAP_STRIDE)
            for side in image.shape[-2:]
        )

        def look(down: slice, across: slice) -> Array:
            return self._backend(image[:, :, _in_image(down), _in_image(across)])

        maps: Array | None = None
        for block in blend_windows(look, rows, columns):
            if maps is None:
                maps = new_array(block.logits, (1, len(block.logits), rows.side, columns.side))
            maps[0, :, block.rows, block.columns] = block.logits
        assert maps is not None
        return maps


def _in_image(part: slice) -> slice:
    """Return the pixels under some rows or columns of maps; those beyond the image are cut off."""
    return slice(part.start * MAP_STRIDE, part.stop * MAP_STRIDE)
