"""Colours as numbers, and masks that are painted in colours turned into ids.

H is height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.io.image_files import read_colour_mask
from refinenet.labels import Colour


def pack_colours(colours: Sequence[Colour] | npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Colours `(..., 3)` as numbers, red << 16 | green << 8 | blue, of the shape `(...)`."""
    channels = np.asarray(colours)
    packed = channels[..., 0].astype(np.int64)
    for channel in (1, 2):
        packed <<= 8
        packed |= channels[..., channel]
    return packed


def unpack_colour(number: int) -> Colour:
    """The colour of a number."""
    return number >> 16 & 255, number >> 8 & 255, number & 255


def split_palette(values: Sequence[int]) -> list[Colour]:
    """The colours of a palette, which is `[red, green, blue, red, green, ...]`."""
    return [(values[k], values[k + 1], values[k + 2]) for k in range(0, len(values) - 2, 3)]


def read_painted(path: Path, colours: Sequence[Colour], ids: Sequence[int], refusal: str) -> npt.NDArray[np.int64]:
    """Read a mask that is painted in some colours.

    Args:
        path: As `read_colour_mask` takes it.
        colours: Those that may occur, each once.
        ids: What each of them stands for.
        refusal: What a message says of any other colour, after "which".

    Returns:
        `(H, W)` ids.

    Raises:
        ValueError: as `read_colour_mask`, or another colour occurs; it and its place are named.
        OSError: as `read_colour_mask`.
    """
    pixels = read_colour_mask(path)
    packed, known = pack_colours(pixels), pack_colours(colours)
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed)
    np.minimum(place, len(known) - 1, out=place)
    strange = known[order][place] != packed
    if strange.any():
        row, column = np.argwhere(strange)[0]
        raise ValueError(
            f"{path} has the colour {tuple(pixels[row, column].tolist())} at row {row}, column {column} "
            f"({strange.sum()} pixels in all have such colours), which {refusal}"
        )
    return np.asarray(ids, np.int64)[order][place]
