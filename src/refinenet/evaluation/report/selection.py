"""Selection of the images that a report shows, by their metrics.

Shape letters: K classes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import ImageMetrics, Metrics

Group = Literal["worst", "best", "class", "mistakes"]

MOST_WORST, MOST_BEST, MOST_CLASSES, MOST_MISTAKES = 8, 4, 20, 8
"""Largest number of images in each group."""
LEAST_SHARE = 0.005
"""Share of an image's labelled pixels from which on it may be shown for a class."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An image to show, and why."""

    index: int
    """Position in the dataset."""
    group: Group
    rank: int
    """Position in its group, from 1."""
    classes: tuple[int, ...] = ()
    """In the group "class": ids of the classes that are worst in this image."""


def choose(metrics: Metrics) -> tuple[Choice, ...]:
    """Return all images to show, group by group in order; an image may be in several groups."""
    return tuple(_choose(metrics))


def _choose(metrics: Metrics) -> Iterator[Choice]:
    worst, best = _extremes([image.miou for image in metrics.images])
    yield from _ranked("worst", worst)
    yield from _ranked("best", best)
    for rank, (index, classes) in enumerate(_worst_of_classes(metrics).items(), start=1):
        yield Choice(index=index, group="class", rank=rank, classes=tuple(classes))
    yield from _ranked("mistakes", _mistaken(metrics.images))


def _ranked(group: Group, indices: Iterable[int]) -> Iterator[Choice]:
    return (Choice(index=index, group=group, rank=rank) for rank, index in enumerate(indices, start=1))


def _extremes(values: Sequence[float | None]) -> tuple[list[int], list[int]]:
    """Return the worst images, worst first, and the best, best first; of few images, two thirds count as worst."""
    known = {index: value for index, value in enumerate(values) if value is not None}
    order = sorted(known, key=lambda index: known[index])
    count = min(MOST_WORST, math.ceil(len(order) * 2 / 3))
    return order[:count], order[count:][: -MOST_BEST - 1 : -1]


def _worst_of_classes(metrics: Metrics) -> dict[int, list[int]]:
    """Return, for the worst classes, the image with the lowest IoU of each: classes by image, as some may share one."""
    known = {k: one.iou for k, one in enumerate(metrics.classes) if one.iou is not None}
    chosen: dict[int, list[int]] = defaultdict(list)
    shown = 0
    for k in sorted(known, key=lambda k: known[k]):
        candidates = {index: iou for index, image in enumerate(metrics.images) if (iou := _iou(image, k)) is not None}
        if candidates and shown < MOST_CLASSES:
            chosen[min(candidates, key=lambda index: candidates[index])].append(k)
            shown += 1
    return dict(chosen)


def _iou(image: ImageMetrics, k: int) -> float | None:
    """Return the IoU of a class in one image, or None if it has too few pixels there."""
    hits, truth, prediction = (int(count) for count in image.regions[:, k])
    enough = truth > 0 and truth >= LEAST_SHARE * image.regions[1].sum()
    return hits / (truth + prediction - hits) if enough else None


def _mistaken(images: Sequence[ImageMetrics]) -> list[int]:
    shares = {index: image.confident_mistakes for index, image in enumerate(images) if image.confident_mistakes}
    return sorted(shares, key=lambda index: -shares[index])[:MOST_MISTAKES]


_SIDE = 8
"""Ratio of the image's shorter side to the side of a spot."""
_AROUND = 4
"""Ratio of the side of the part shown to the side of the spot."""
_SMALLEST = 16
"""Least side of a spot in pixels, unless the image is smaller."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A square in an image, and the larger part around it that is shown."""

    rows: slice
    columns: slice
    shown_rows: slice
    shown_columns: slice


def find_spot(mistakes: npt.NDArray[np.bool_]) -> Spot:
    """Return the square with most mistakes, the first of equal ones.

    Args:
        mistakes: `(H, W)`.
    """
    height, width = mistakes.shape
    shorter = min(height, width)
    side = min(shorter, max(_SMALLEST, shorter // _SIDE))
    # Sums over all squares of one size in O(H W), by the summed-area table.
    sums = np.pad(mistakes.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = (int(position) for position in np.unravel_index(int(boxes.argmax()), boxes.shape))
    return Spot(
        rows=slice(top, top + side),
        columns=slice(left, left + side),
        shown_rows=_around(top, side, height),
        shown_columns=_around(left, side, width),
    )


def _around(first: int, side: int, limit: int) -> slice:
    """Return a longer range centred on a range, moved to lie within the image."""
    length = min(limit, _AROUND * side)
    start = min(max(0, first + side // 2 - length // 2), limit - length)
    return slice(start, start + length)
