"""What lies near a pixel: another label, or pixels of a class, found for all pixels and classes at once.

Shape letters: H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap

Bits = TypeVar("Bits", bound=np.unsignedinteger)


def near_other_labels(labels: LabelMap, radii: Sequence[int]) -> Iterator[npt.NDArray[np.bool_]]:
    """Which pixels have a pixel of another label near them.

    Args:
        labels: `(H, W)` ids.
        radii: Rising distances in pixels. Distance is the larger one of rows and columns (chessboard), so that a radius
            r looks at the square of side 2 r + 1 around a pixel, as far as it lies in the image.

    Yields:
        For each radius a mask `(H, W)`.
    """
    reach = radii[-1]
    padded: Any = np.pad(labels, reach, mode="edge")
    smallest = largest = padded  # of the type of `labels`
    done = 0
    for radius in radii:
        while done < radius:
            # Two windows of radius r, one 2 r pixels beside the other, cover one of radius 2 r.
            step = min(radius - done, done or 1)
            smallest, largest = _widen(smallest, step, np.minimum), _widen(largest, step, np.maximum)
            done += step
        margin = reach - done
        inside = slice(margin, margin + labels.shape[0]), slice(margin, margin + labels.shape[1])
        yield smallest[inside] != largest[inside]


def _widen(values: LabelMap, step: int, combine: np.ufunc) -> LabelMap:
    """The extremes of windows whose radius is `step` larger; the result has `step` fewer pixels on each side."""
    rows = combine(combine(values[: -2 * step], values[2 * step :]), values[step:-step])
    widened: LabelMap = combine(combine(rows[:, : -2 * step], rows[:, 2 * step :]), rows[:, step:-step])
    return widened


def contours(labels: LabelMap) -> npt.NDArray[np.bool_]:
    """Which pixels have another label directly above, below, left or right of them, `(H, W)`."""
    edge = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def near_bits(bits: npt.NDArray[Bits], radius: int) -> npt.NDArray[Bits]:
    """The union of all bit sets that lie within a radius, by Euclidean distance between the pixels' centres.

    Args:
        bits: `(H, W)` unsigned: for each pixel a set of classes, one bit each.
        radius: In pixels.
    """
    height, width = bits.shape
    found = np.zeros_like(bits)
    row_wise, reached = bits.copy(), 0
    for down in range(min(radius, height - 1), -1, -1):
        across = min(math.isqrt(radius**2 - down**2), width - 1)
        for step in range(reached + 1, across + 1):
            row_wise[:, step:] |= bits[:, : width - step]
            row_wise[:, : width - step] |= bits[:, step:]
        reached = max(reached, across)
        found[down:] |= row_wise[: height - down]
        found[: height - down] |= row_wise[down:]
    return found
