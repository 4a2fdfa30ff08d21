"""Tables of class areas: pixels, shares, regions and square metres.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap, LabelSet

AREA_COLUMNS = ("id", "class", "pixels", "share", "regions", "square_metres")
"""Columns of a table of class areas."""

Numbers = npt.NDArray[np.int64]


def area_rows(
    areas: Mapping[str, float],
    size: int,
    regions: Mapping[str, int] | None = None,
    pixel_area: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each class, with `AREA_COLUMNS`.

    Args:
        areas: Share of the pixels with data by class name, in the order of ids.
        size: Number of pixels with data.
        regions: Number of regions by class name; None if they were not counted.
        pixel_area: Ground area of a pixel in square metres; None if it is not known.
    """
    for label, (name, share) in enumerate(areas.items()):
        pixels = round(share * size)
        yield {
            "id": label,
            "class": name,
            "pixels": pixels,
            "share": share,
            "regions": None if regions is None else regions.get(name),
            "square_metres": None if pixel_area is None else pixels * pixel_area,
        }


def count_regions(labels: LabelMap, label_set: LabelSet) -> dict[str, int]:
    """Return how many regions of 4-connected pixels each class has, by its name; as many as GeoJSON has polygons.

    Args:
        labels: `(H, W)` ids; pixels with the ignore index belong to no region.
        label_set: Names of the ids.
    """
    if labels.size == 0:
        return dict.fromkeys(label_set.names, 0)
    _, classes = find_regions(labels)
    counts = np.bincount(classes, minlength=len(label_set))
    return {name: int(count) for name, count in zip(label_set.names, counts[: len(label_set)], strict=True)}


def find_regions(labels: npt.NDArray[Any]) -> tuple[Numbers, Numbers]:
    """Number the regions of 4-connected pixels with equal values.

    Args:
        labels: `(H, W)` whole numbers, with at least one pixel.

    Returns:
        `(H, W)` int64: the region of each pixel, from 0 in the order of their first pixels; and `(R,)` int64: the value
        of each region.
    """
    is_start = np.ones(labels.shape, bool)
    is_start[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = np.cumsum(is_start.ravel()).reshape(labels.shape) - 1
    # Runs of the same value in neighbouring rows touch; the first column that they share stands for all.
    touches = (labels[1:] == labels[:-1]) & (is_start[1:] | is_start[:-1])
    roots = _find_roots(int(runs[-1, -1]) + 1, runs[:-1][touches], runs[1:][touches])
    is_root = roots == np.arange(len(roots))
    numbers = np.cumsum(is_root) - 1
    return numbers[roots][runs], labels[is_start][is_root].astype(np.int64)


def _find_roots(count: int, first: Numbers, second: Numbers) -> Numbers:
    """Return the least node that each node of a graph is connected to, `(count,)`.

    Both ends of each edge take the lesser of their roots, and roots that of theirs, until nothing changes; the number
    of rounds grows with the logarithm of the longest path (Zhang, Azad, Hu, "FastSV", 2020).
    """
    roots = np.arange(count)
    while True:
        before = roots.copy()
        least = np.minimum(roots[first], roots[second])
        for nodes in (first, second):
            np.minimum.at(roots, before[nodes], least)
            np.minimum.at(roots, nodes, least)
        roots = roots[roots]
        if np.array_equal(roots, before):
            return roots
