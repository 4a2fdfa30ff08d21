"""Values that seem to mark pixels without ground truth. H is height, W width, N distinct values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FEW_VALUES = 8
"""Smallest number of distinct values of which one can stand out."""
_STANDS_OUT = 3.0
"""Distance from the nearest other value, relative to the range of all others, from which a value is a marker."""
_FEWEST_MARKED = 8

_MANY_VALUES = 32
"""Smallest number of other values beside which a value at their edge can stand out."""
_SHARE = 0.005
"""Share of the pixels from which a value at the edge covers a part of the file."""
_CONNECTED = 0.5
"""Share of the neighbours to the right that have the same value, in areas."""
_GAP = 0.05
"""Distance of 0 from the nearest other value, relative to the range of 90 % of the others, from which it is apart."""
_REPEATED = 5
"""Ratio of its pixels to those of the most frequent other value, of which measurements have hardly two; files of few
values may have a gap instead that is `_STANDS_OUT` times as wide as those between the others."""


def find_marker(distinct: Floats, counts: npt.NDArray[np.int64]) -> float | None:
    """Return the lowest or highest value if it is frequent and far from the others.

    Args:
        distinct: `(N,)` values, ascending.
        counts: `(N,)` number of pixels that have them.
    """
    if len(distinct) < _FEW_VALUES:
        return None
    for end, gap, rest in (
        (0, distinct[1] - distinct[0], distinct[-1] - distinct[1]),
        (-1, distinct[-1] - distinct[-2], distinct[-2] - distinct[0]),
    ):
        if counts[end] >= _FEWEST_MARKED and gap > _STANDS_OUT * rest:
            return float(distinct[end])
    return None


def find_edge_value(values: Floats, distinct: Floats, counts: npt.NDArray[np.int64], scale: float) -> float | None:
    """Return 0 or -1 as stored if it fills areas and is apart from all others, though less far away than markers.

    Args:
        values: `(H, W)`; NaN without ground truth.
        distinct: `(N,)` values, ascending.
        counts: `(N,)` number of pixels that have them.
        scale: The stored value of one unit.
    """
    if len(distinct) <= _MANY_VALUES:
        return None
    for end, rest, others in ((0, distinct[1:], counts[1:]), (-1, distinct[:-1], counts[:-1])):
        value = float(distinct[end])
        if counts[end] < max(_FEWEST_MARKED, _SHARE * counts.sum()):
            continue
        (low, high), gap = np.quantile(rest, (0.05, 0.95)), np.abs(rest - value).min()
        is_rare = counts[end] > _REPEATED * others.max() or gap > _STANDS_OUT * np.diff(rest).max()
        is_zero = value == 0 and gap > _GAP * (high - low) and is_rare
        is_only_negative = value * scale == -1 and rest.min() >= 0
        if (is_zero or is_only_negative) and _is_connected(values == value):
            return value
    return None


def _is_connected(mask: npt.NDArray[np.bool_]) -> bool:
    return bool((mask[:, 1:] & mask[:, :-1]).sum() > _CONNECTED * mask.sum())
