"""Small regions of a label map, merged into their neighbours.

Shape letters: H height, W width.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from refinenet.inference.connected_regions import number_regions
from refinenet.labels import LabelMap


def drop_specks(labels: LabelMap, min_area: int) -> LabelMap:
    """Merge each region smaller than an area into the neighbour with the longest common border.

    The smallest go first, so that a speck inside another one vanishes with it. A region that fills the image stays.

    Args:
        labels: `(H, W)` ids; pixels with the ignore index are regions, too.
        min_area: Number of pixels from which a region stays; 0 or 1 changes nothing.

    Returns:
        `(H, W)` ids of the same type. Regions in it are 4-connected and have `min_area` pixels or more.

    Raises:
        ValueError: `min_area` is negative.
    """
    if min_area < 0:
        raise ValueError(f"min_area must be a number of pixels, 0 or more, not {min_area}.")
    if min_area <= 1 or labels.size == 0:
        return labels
    numbers = number_regions(labels)
    areas = np.bincount(numbers.ravel())
    if areas.min() >= min_area or len(areas) == 1:
        return labels
    first = np.unique(numbers, return_index=True)[1]
    neighbours = _Neighbours(areas.tolist(), labels.ravel()[first].tolist(), _find_borders(numbers))
    kept = np.array(neighbours.absorb_below(min_area))[numbers]
    return kept.astype(np.uint8) if labels.dtype == np.uint8 else kept.astype(np.uint16)


def _find_borders(numbers: npt.NDArray[np.int64]) -> list[dict[int, int]]:
    """Return the neighbours of each region, each with the length of the common border in pixels."""
    count = int(numbers.max()) + 1
    pairs = [
        np.minimum(one, other) * count + np.maximum(one, other)
        for one, other in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1]))
        for one, other in ((one[one != other], other[one != other]),)
    ]
    borders: list[dict[int, int]] = [{} for _ in range(count)]
    keys, lengths = np.unique(np.concatenate(pairs), return_counts=True)
    for key, length in zip(keys.tolist(), lengths.tolist(), strict=True):
        one, other = divmod(key, count)
        borders[one][other] = borders[other][one] = length
    return borders


class _Neighbours:
    """The regions of a label map and their common borders, while small ones are given to their neighbours.

    Args:
        areas: Number of pixels of each region.
        labels: The class of each.
        borders: From `_find_borders`.
    """

    def __init__(self, areas: list[int], labels: list[int], borders: list[dict[int, int]]) -> None:
        self._areas, self._labels, self._borders = areas, labels, borders
        self._owners = list(range(len(areas)))

    def absorb_below(self, min_area: int) -> list[int]:
        """Give all regions below an area to neighbours; return the class of each former region."""
        waiting = [(area, region) for region, area in enumerate(self._areas) if area < min_area]
        heapq.heapify(waiting)
        while waiting:
            area, region = heapq.heappop(waiting)
            borders = self._borders[region]
            if self._owners[region] != region or self._areas[region] != area or not borders:
                continue
            into = max(borders, key=lambda neighbour: (borders[neighbour], -neighbour))
            self._join(region, into)
            while (twin := self._find_twin(into)) is not None:
                self._join(twin, into)
            if self._areas[into] < min_area:
                heapq.heappush(waiting, (self._areas[into], into))
        return [self._labels[self._find(region)] for region in range(len(self._owners))]

    def _find_twin(self, region: int) -> int | None:
        """Return a neighbour of the same class, which a region that vanished had kept apart."""
        label = self._labels[region]
        return next((one for one in self._borders[region] if self._labels[one] == label), None)

    def _join(self, region: int, into: int) -> None:
        self._owners[region] = into
        self._areas[into] += self._areas[region]
        for neighbour, length in self._borders[region].items():
            borders = self._borders[neighbour]
            del borders[region]
            if neighbour != into:
                borders[into] = self._borders[into][neighbour] = borders.get(into, 0) + length
        self._borders[region] = {}

    def _find(self, region: int) -> int:
        while self._owners[region] != region:
            self._owners[region] = self._owners[self._owners[region]]
            region = self._owners[region]
        return region
