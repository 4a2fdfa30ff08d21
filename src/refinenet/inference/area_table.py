"""Tables of class areas: pixels, shares, regions and square metres.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap, LabelSet

Numbers = npt.NDArray[np.int64]

GROUND_COLUMN = "square_metres"
"""Column that has values for georeferenced images only."""
AREA_COLUMNS = ("id", "class", "pixels", "share", "regions", GROUND_COLUMN)
"""Columns of a table of class areas."""


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
        pixel_area: Ground area of a pixel in square metres; None if it is not known, as is `GROUND_COLUMN` then.
    """
    for label, (name, share) in enumerate(areas.items()):
        pixels = round(share * size)
        yield {
            "id": label,
            "class": name,
            "pixels": pixels,
            "share": share,
            "regions": None if regions is None else regions.get(name),
            GROUND_COLUMN: None if pixel_area is None else pixels * pixel_area,
        }


def count_regions(labels: LabelMap, label_set: LabelSet) -> dict[str, int]:
    """Return how many regions of 4-connected pixels each class has, by its name; as many as GeoJSON has polygons.

    Args:
        labels: `(H, W)` ids; pixels with the ignore index belong to no region.
        label_set: Names of the ids.
    """
    if labels.size == 0:
        return dict.fromkeys(label_set.names, 0)
    is_start, _, roots = _join_runs(labels)
    classes = labels[is_start][roots == np.arange(len(roots))]
    counts = np.bincount(classes, minlength=len(label_set))
    return {name: int(count) for name, count in zip(label_set.names, counts[: len(label_set)], strict=True)}


def number_regions(labels: LabelMap) -> Numbers:
    """Number the regions of 4-connected pixels of equal labels in the order of their first pixels.

    Args:
        labels: `(H, W)` ids, at least one pixel.

    Returns:
        `(H, W)` int64: the number of each pixel's region, from 0.
    """
    _, runs, roots = _join_runs(labels)
    numbers: Numbers = np.unique(roots, return_inverse=True)[1].reshape(roots.shape)
    return numbers[runs]


def _join_runs(labels: LabelMap) -> tuple[npt.NDArray[np.bool_], Numbers, Numbers]:
    """Return where runs of equal labels in a row start, the number of each pixel's run, and each run's first run."""
    is_start = np.ones(labels.shape, bool)
    is_start[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = np.cumsum(is_start.ravel()).reshape(labels.shape) - 1
    # Runs of the same class in neighbouring rows touch; the first column that they share stands for all.
    touches = (labels[1:] == labels[:-1]) & (is_start[1:] | is_start[:-1])
    return is_start, runs, _find_roots(int(runs[-1, -1]) + 1, runs[:-1][touches], runs[1:][touches])


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
