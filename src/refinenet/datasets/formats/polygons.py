"""Regions given as outlines or run lengths, filled into label maps exactly as COCO's own tools fill them.

COCO counts in fifths of a pixel: an outline is walked in steps of one fifth, and a pixel belongs to the region where,
going down the middle of its column, the outline was crossed an odd number of times. This is the rule of pycocotools
(`rleFrPoly` and `rleFrString` in its maskApi.c), written anew for NumPy: the same pixels, without a compiled library.

Shape letters: H height, W width, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FIFTHS = 5
"""Steps for each pixel."""
TOLERANCE = 0.1
"""How far outside the image a point may lie, as a share of its side; two pixels are always allowed."""

Outline = npt.NDArray[np.int32]
"""`(2 P,)` int32 `x0, y0, x1, y1, ...` in fifths of a pixel, the pixel's corner at 0."""


def to_outline(points: Sequence[float], size: tuple[int, int]) -> Outline:
    """A polygon in fifths of a pixel.

    Args:
        points: `[x0, y0, x1, y1, ...]` in pixels, three points or more; (0, 0) is the image's upper left corner.
        size: Height and width of the image.

    Raises:
        ValueError: `points` is no such list, or a point is no number or far outside the image.
    """
    if not isinstance(points, list | tuple):
        raise ValueError(f"a polygon is a list [x0, y0, x1, y1, ...], not {str(points)[:60]!r}.")
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"a polygon has {len(points)} numbers: [x0, y0, x1, y1, ...] are an even number, six or more.")
    if not {type(value) for value in points} <= {int, float}:
        strange = next(value for value in points if type(value) not in (int, float))
        raise ValueError(f"a polygon has {str(strange)[:60]!r} among its coordinates, which is no number.")
    # Python's own numbers have no bounds; NumPy's do.
    values = np.array([min(max(value, -1e9), 1e9) for value in points], np.float64).reshape(-1, 2)
    limits = np.array([size[1], size[0]], np.float64)
    slack = np.maximum(limits * TOLERANCE, 2)
    with np.errstate(invalid="ignore"):
        inside = (values >= -slack) & (values <= limits + slack)
    if not inside.all():  # NaN and infinities are nowhere inside.
        x, y = values[~inside.all(axis=1)][0]
        raise ValueError(
            f"a polygon has the point ({x:g}, {y:g}), outside of an image of {size[1]}x{size[0]} pixels "
            "(width x height). Coordinates are pixels of the image at its full size."
        )
    # Truncated as a cast in C does it, which rounds up to two fifths outside the image towards it.
    return np.trunc(FIFTHS * values + 0.5).astype(np.int32).ravel()


def fill_outline(outline: Outline, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which pixels lie inside a polygon; `size` is height and width.

    Returns:
        `(H, W)` bool.
    """
    height, width = size
    x, y = _walk(outline.reshape(-1, 2).astype(np.int64))
    step = np.flatnonzero(x[1:] != x[:-1])
    left = np.minimum(x[step], x[step + 1])
    top = np.minimum(y[step], y[step + 1])
    # Only steps across a column's middle count: two fifths and a half right of its left side.
    column, fifth = np.divmod(left, FIFTHS)
    crosses = (fifth == FIFTHS // 2) & (column >= 0) & (column < width)
    region = np.zeros((width, height), bool)
    if crosses.any():
        column = column[crosses]
        row = np.clip(np.ceil((top[crosses] + 0.5) / FIFTHS - 0.5), 0, height).astype(np.int64)
        # An outline is closed: each column is crossed an even number of times, so columns can be counted apart.
        first, last = int(column.min()), int(column.max()) + 1
        crossings = np.bincount((column - first) * height + row, minlength=(last - first) * height + 1)
        is_odd = np.cumsum(crossings[:-1], dtype=np.uint8) % 2 == 1
        region[first:last] = is_odd.reshape(last - first, height)
    return region.T


def _walk(corners: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All the places that an outline passes, a fifth at a time, edge after edge, both ends of an edge included."""
    start, end = corners, np.roll(corners, -1, axis=0)
    span = np.abs(end - start)
    is_flat = span[:, 0] >= span[:, 1]
    length = span.max(axis=1)
    edge = np.repeat(np.arange(len(corners)), length + 1)
    first = np.cumsum(length + 1) - (length + 1)
    done = np.arange(len(edge)) - first[edge]
    # An edge is always computed from its left or upper end, so that neighbours share it to the fifth.
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
    """The region of run lengths that `read_runs` has read; `size` is height and width.

    Returns:
        `(H, W)` bool.
    """
    height, width = size
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(width, height).T


def read_runs(counts: Any, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Run lengths as int32, from what a file holds.

    Args:
        counts: Numbers of pixels outside, inside, outside, ... by turns, going down one column after the other; or
            the same compressed into a string, as pycocotools does it.
        size: Height and width.

    Raises:
        ValueError: the runs are no such thing, or do not sum up to H times W.
    """
    if isinstance(counts, str):
        counts = _decompress(counts)
    elif isinstance(counts, list | tuple) and any(type(run) is float for run in counts):
        counts = [int(run) if type(run) is float and run.is_integer() else run for run in counts]
    if not isinstance(counts, list | tuple) or not all(type(run) is int for run in counts):
        raise ValueError("its run lengths (counts) are neither a list of whole numbers nor a compressed string.")
    if any(run < 0 for run in counts):
        raise ValueError(f"its run lengths (counts) have the negative number {min(counts)}.")
    height, width = size
    if sum(counts) != height * width:
        raise ValueError(
            f"its run lengths (counts) sum up to {sum(counts)} pixels, but its size is {height} rows of {width} "
            f"pixels, which are {height * width}."
        )
    return np.array(counts, np.int32)


def _decompress(text: str) -> list[int]:
    """Numbers in groups of five bits, each a character from "0" on, the lowest first.

    A sixth bit says that more follow, the fifth of the last one is the sign. From the fourth number on they are
    differences to the number before the last.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"its compressed run lengths have {character!r} where none can be: they are damaged.")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (bits & 16) << (shift - 4)
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("its compressed run lengths end in the middle of a number: they are cut off.")
    return runs
