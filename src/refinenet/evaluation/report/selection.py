"""Which images a report shows, from the figures of all of them.

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
"""Images of each group, at most."""
LEAST_SHARE = 0.005
"""Of an image's labelled pixels, which a class has in it where the image is shown for that class."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An image, and what it is shown for."""

    index: int
    """In the dataset."""
    group: Group
    rank: int
    """In its group, from 1 on."""
    classes: tuple[int, ...] = ()
    """In the group "class": those that are nowhere worse than here."""


def choose(figures: Metrics) -> tuple[Choice, ...]:
    """All images to show, group by group, each in its order; an image may be in several groups."""
    return tuple(_choose(figures))


def _choose(figures: Metrics) -> Iterator[Choice]:
    worst, best = _extremes([found.miou for found in figures.images])
    yield from _ranked("worst", worst)
    yield from _ranked("best", best)
    for rank, (index, classes) in enumerate(_worst_of_classes(figures).items(), start=1):
        yield Choice(index=index, group="class", rank=rank, classes=tuple(classes))
    yield from _ranked("mistakes", _mistaken(figures.images))


def _ranked(group: Group, indices: Iterable[int]) -> Iterator[Choice]:
    return (Choice(index=index, group=group, rank=rank) for rank, index in enumerate(indices, start=1))


def _extremes(values: Sequence[float | None]) -> tuple[list[int], list[int]]:
    """The worst from the worst on, and the best from the best on; of few, two thirds are the worst."""
    known = {index: value for index, value in enumerate(values) if value is not None}
    order = sorted(known, key=lambda index: known[index])
    count = min(MOST_WORST, math.ceil(len(order) * 2 / 3))
    return order[:count], order[count:][: -MOST_BEST - 1 : -1]


def _worst_of_classes(figures: Metrics) -> dict[int, list[int]]:
    """For the worst classes, the image in which each has its lowest IoU; by image, as several may have the same."""
    known = {k: found.iou for k, found in enumerate(figures.classes) if found.iou is not None}
    chosen: dict[int, list[int]] = defaultdict(list)
    shown = 0
    for k in sorted(known, key=lambda k: known[k]):
        found = {index: iou for index, image in enumerate(figures.images) if (iou := _iou(image, k)) is not None}
        if found and shown < MOST_CLASSES:
            chosen[min(found, key=lambda index: found[index])].append(k)
            shown += 1
    return dict(chosen)


def _iou(image: ImageMetrics, k: int) -> float | None:
    """Of a class in one image, where it has enough pixels there."""
    hits, truth, prediction = (int(count) for count in image.regions[:, k])
    enough = truth > 0 and truth >= LEAST_SHARE * image.regions[1].sum()
    return hits / (truth + prediction - hits) if enough else None


def _mistaken(images: Sequence[ImageMetrics]) -> list[int]:
    shares = {index: found.confident_mistakes for index, found in enumerate(images) if found.confident_mistakes}
    return sorted(shares, key=lambda index: -shares[index])[:MOST_MISTAKES]


_SIDE = 8
"""The spot's side is this part of the image's shorter one."""
_AROUND = 4
"""The part to be shown around a spot is so many times as wide and high."""
_SMALLEST = 16
"""Pixels of a spot's side, where the image has them."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A square in an image, and the part of the image around it that is worth a look."""

    rows: slice
    columns: slice
    shown_rows: slice
    shown_columns: slice


def find_spot(mistakes: npt.NDArray[np.bool_]) -> Spot:
    """The square with most mistakes, the first of equal ones.

    Args:
        mistakes: `(H, W)`.
    """
    height, width = mistakes.shape
    shorter = min(height, width)
    side = min(shorter, max(_SMALLEST, shorter // _SIDE))
    sums = np.pad(mistakes.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = (int(place) for place in np.unravel_index(int(boxes.argmax()), boxes.shape))
    return Spot(
        rows=slice(top, top + side),
        columns=slice(left, left + side),
        shown_rows=_around(top, side, height),
        shown_columns=_around(left, side, width),
    )


def _around(first: int, side: int, limit: int) -> slice:
    """A longer stretch around one, within the image."""
    length = min(limit, _AROUND * side)
    start = min(max(0, first + side // 2 - length // 2), limit - length)
    return slice(start, start + length)
