"""Polygons and run lengths, rasterised to exactly the same pixels as by COCO's own tools.

COCO works in fifths of a pixel: it walks along an outline in steps of one fifth, and a pixel belongs to the region if,
going down the middle of its column, the outline was crossed an odd number of times. This is the rule of pycocotools
(`rleFrPoly` and `rleFrString` in maskApi.c), rewritten in NumPy because the C code trusts its input: pycocotools 2.0.11
ends the process on a polygon with NaN or very large coordinates.

Shape letters: H height, W width, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FIFTHS = 5
"""Steps per pixel."""
TOLERANCE = 0.1
"""How far a point may be outside the image, as a share of its side; at least two pixels."""

Outline = npt.NDArray[np.int32]
"""`(2 P,)` int32 `x0, y0, x1, y1, ...` in fifths of a pixel, the pixel's corner at 0."""


def to_outline(points: Sequence[float], size: tuple[int, int]) -> Outline:
    """Convert a polygon to fifths of a pixel.

    Args:
        points: `[x0, y0, x1, y1, ...]` in pixels, three points or more; (0, 0) is the image's upper left corner.
        size: Height and width of the image.

    Raises:
        ValueError: `points` is not such a list, has a value that is not a number, or a point far outside the image.
    """
    if not isinstance(points, list | tuple):
        raise ValueError(f"a polygon must be a list [x0, y0, x1, y1, ...], not {str(points)[:60]!r}.")
    if len(points) < 6 or len(points) % 2:
        raise ValueError(
            f"a polygon has {len(points)} numbers; [x0, y0, x1, y1, ...] needs an even number, six or more."
        )
    if not {type(value) for value in points} <= {int, float}:
        invalid = next(value for value in points if type(value) not in (int, float))
        raise ValueError(f"a polygon has {str(invalid)[:60]!r} among its coordinates, which is not a number.")
    # Python's integers may be too large for float64: clamp first.
    values = np.array([min(max(value, -1e9), 1e9) for value in points], np.float64).reshape(-1, 2)
    limits = np.array([size[1], size[0]], np.float64)
    slack = np.maximum(limits * TOLERANCE, 2)
    with np.errstate(invalid="ignore"):
        inside = (values >= -slack) & (values <= limits + slack)
    if not inside.all():  # comparisons with NaN are false, so NaN counts as outside
        x, y = values[~inside.all(axis=1)][0]
        raise ValueError(
            f"a polygon has the point ({x:g}, {y:g}), outside an image of {size[1]}x{size[0]} pixels "
            "(width x height). Coordinates are pixels of the image at its full size."
        )
    # Truncation like the cast in C: left of and above the image this rounds towards it, not to the nearest fifth.
    return np.trunc(FIFTHS * values + 0.5).astype(np.int32).ravel()


def fill_outline(outline: Outline, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Rasterise a polygon; `size` is height and width.

    Returns:
        `(H, W)` bool.
    """
    height, width = size
    x, y = _walk(outline.reshape(-1, 2).astype(np.int64))
    step = np.flatnonzero(x[1:] != x[:-1])
    left = np.minimum(x[step], x[step + 1])
    top = np.minimum(y[step], y[step + 1])
    # A column is sampled at its middle, 2.5 fifths from its left side: only the steps from 2 to 3 fifths cross it.
    column, fifth = np.divmod(left, FIFTHS)
    crosses = (fifth == FIFTHS // 2) & (column >= 0) & (column < width)
    region = np.zeros((width, height), bool)
    if crosses.any():
        column = column[crosses]
        row = np.clip(np.ceil((top[crosses] + 0.5) / FIFTHS - 0.5), 0, height).astype(np.int64)
        # A closed outline crosses each column an even number of times, so one cumulative sum over all columns, column
        # after column, is even again at the top of each.
        first, last = int(column.min()), int(column.max()) + 1
        crossings = np.bincount((column - first) * height + row, minlength=(last - first) * height + 1)
        is_odd = np.cumsum(crossings[:-1], dtype=np.uint8) % 2 == 1
        region[first:last] = is_odd.reshape(last - first, height)
    return region.T


def _walk(corners: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return all positions along an outline in steps of a fifth, edge by edge, including both ends of each edge."""
    start, end = corners, np.roll(corners, -1, axis=0)
    span = np.abs(end - start)
    is_flat = span[:, 0] >= span[:, 1]
    length = span.max(axis=1)
    edge = np.repeat(np.arange(len(corners)), length + 1)
    first = np.cumsum(length + 1) - (length + 1)
    done = np.arange(len(edge)) - first[edge]
    # Always start at the left or upper end, so that neighbouring polygons round their common edge the same way.
    long_axis = np.where(is_flat, 0, 1)
    rows = np.arange(len(corners))
    is_flipped = start[rows, long_axis] > end[rows, long_axis]
    low = np.where(is_flipped[:, None], end, start)
    high = np.where(is_flipped[:, None], start, end)
    slope = (high - low)[rows, 1 - long_axis] / np.maximum(length, 1)
    done = np.where(is_flipped[edge], length[edge] - done, done)
    along = low[rows, long_axis][edge] + done
    across = np.trunc(low[rows, 1 - long_axis][edge] + slope[edge] * done + 0.5).astype(np.int64)
    return np.where(is_flat[edge], along, across), np.where(is_flat[edge], across, along)


def fill_runs(runs: npt.NDArray[np.int32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Rasterise run lengths from `read_runs`; `size` is height and width.

    Returns:
        `(H, W)` bool.
    """
    height, width = size
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(width, height).T


def read_runs(counts: Any, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Parse run lengths of a file as int32.

    Args:
        counts: Numbers of pixels alternately outside and inside, column by column from the top; or the same compressed
            into a string by pycocotools.
        size: Height and width.

    Raises:
        ValueError: The runs are invalid, or do not sum up to H times W.
    """
    if isinstance(counts, str):
        counts = _decompress(counts)
    elif isinstance(counts, list | tuple) and any(type(run) is float for run in counts):
        counts = [int(run) if type(run) is float and run.is_integer() else run for run in counts]
    if not isinstance(counts, list | tuple) or not all(type(run) is int for run in counts):
        raise ValueError("its run lengths (counts) are neither a list of whole numbers nor a compressed string.")
    if any(run < 0 for run in counts):
        raise ValueError(f"its run lengths (counts) contain the negative number {min(counts)}.")
    height, width = size
    if sum(counts) != height * width:
        raise ValueError(
            f"its run lengths (counts) add up to {sum(counts)} pixels, but its size is {height} rows of {width} "
            f"pixels, which makes {height * width}."
        )
    return np.array(counts, np.int32)


def _decompress(text: str) -> list[int]:
    """Decode numbers in groups of five bits, lowest group first, each stored as a character from "0" on.

    A sixth bit marks that more groups follow; the fifth bit of the last group is the sign. From the fourth number on,
    the differences to the last but one number are stored: runs inside and outside alternate, and each resembles the
    previous one of its kind.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"its compressed run lengths have an unexpected {character!r}: they are damaged.")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (bits & 16) << (shift - 4)  # sign extension: minus 2**shift, as C's `x |= -1 << 5 * k`
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("its compressed run lengths end in the middle of a number: they are cut off.")
    return runs
