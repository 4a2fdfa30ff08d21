"""Connected regions of equal labels in a label map.

Shape letters: H height, W width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap, LabelSet

Numbers = npt.NDArray[np.int64]


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
