"""Choice of the images whose labels help most together: uncertain, different from each other, and with all classes.

Shape letters: N images, M representatives of them, L labelled images, K classes, F features.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.datasets import spread
from refinenet.labelling.ranking.measures import Measures

REPRESENTATIVES = 2000
"""Largest number of images, spread over all, that the chosen ones must represent; it bounds time and memory."""
LEAST_WEIGHT = 0.25
"""Weight of the image of which the model is most certain; that of the least certain one is 1."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Measures of images in arrays."""

    measures: Floats
    """`(N, 3)`: doubt, doubt at outlines, disagreement."""
    shares: Floats
    """`(N, K)`: foreseen share of each class."""
    features: npt.NDArray[np.float16]
    """`(N, F)`."""

    @classmethod
    def of(cls, found: Sequence[Measures]) -> Pool:
        """Return the arrays of measures of at least one image."""
        return cls(
            measures=np.array([(one.doubt, one.outlines, one.disagreement) for one in found], np.float32),
            shares=np.array([one.shares for one in found], np.float32),
            features=np.stack([one.features for one in found]),
        )


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images that have labels."""

    shares: Floats
    """`(L, K)`: share of each class in their labels."""
    features: npt.NDArray[np.float16]
    """`(L, F)`."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A chosen image, with the reasons."""

    index: int
    """Among all images."""
    gain: float
    """What it adds to those chosen before it: the sum of two parts, each of which is 1 for the best first choice."""
    unsureness: float
    """Mean rank of its three measures among all images, in [0, 1]; 1 for the least certain one."""
    novelty: float
    """Distance to the most similar image that is labelled or was chosen before, in [0, 1]; 1 for none."""
    nearest: int | None
    """That image if it was chosen before it; None if it is a labelled one, or there is none."""
    classes: tuple[tuple[int, float], ...]
    """Classes that it shows more of than the images on average: id and ratio, the largest first."""


def choose(pool: Pool, count: int, labelled: Labelled | None = None) -> list[Chosen]:
    """Choose images greedily, each for what it adds to the labelled ones and to those before it.

    What an image adds is the product of its weight (`LEAST_WEIGHT` to 1, by how unsure the model is of it) and the sum
    of two parts: how much more like a labelled or chosen image the others become (facility location: mean over the
    images of the similarity to the most similar one), and how much of each class it adds (mean over classes of
    log(1 + amount), where an amount of 1 is the mean of an image), times its distance to the most similar labelled or
    chosen image: the classes of a copy are known. Both parts only shrink as images are chosen, so a gain once computed
    is a bound of later ones, by which most images are never looked at twice (Minoux, 1978).

    Args:
        pool: The images.
        count: How many to choose; all if there are fewer.
        labelled: Images that have labels.
    """
    state = _State(pool, labelled)
    queue = [(-gain, index) for index, gain in enumerate(state.first_gains())]
    heapq.heapify(queue)
    chosen: list[Chosen] = []
    while queue and len(chosen) < count:
        _, index = heapq.heappop(queue)
        gain = state.gain(index)
        if queue and gain < -queue[0][0] - 1e-9:
            heapq.heappush(queue, (-gain, index))
            continue
        chosen.append(state.describe(index, gain))
        state.add(index)
    return chosen


def rank_shares(values: Floats) -> Floats:
    """Return the mean rank of each row over the columns, in [0, 1]; equal values share the mean of their ranks."""
    if len(values) < 2:
        return np.ones(len(values), np.float32)
    ranks = []
    for column in values.T:
        ordered = np.sort(column)
        low, high = np.searchsorted(ordered, column, "left"), np.searchsorted(ordered, column, "right")
        ranks.append((low + high - 1) / 2 / (len(values) - 1))
    shares: Floats = np.mean(ranks, axis=0).astype(np.float32)
    return shares


class _State:
    """What is covered by the labelled images and those chosen so far."""

    def __init__(self, pool: Pool, labelled: Labelled | None) -> None:
        self._pool = pool
        self._unsureness = rank_shares(pool.measures)
        mean = pool.shares.mean(0)
        self._amounts = pool.shares / np.maximum(mean, 1e-6)
        features = pool.features.astype(np.float32)
        self._centre, self._spread = features.mean(0), _typical_distance(features)
        self._places = self._place(pool.features)
        self._representatives = self._places[spread(len(features), REPRESENTATIVES)]
        self._best = np.zeros(len(self._representatives), np.float32)
        self._covered = np.zeros(len(mean), np.float64)
        self._nearest = np.zeros(len(features), np.float32)
        self._chosen: list[int] = []
        self._labelled = None if labelled is None else self._place(labelled.features)
        if labelled is not None and self._labelled is not None:
            self._covered += (labelled.shares / np.maximum(mean, 1e-6)).sum(0)
            for place in self._labelled:
                self._best = np.maximum(self._best, self._alike(place, self._representatives))
                self._nearest = np.maximum(self._nearest, self._alike(place, self._places))
        self._units = np.array([1.0, 1.0])
        parts = np.array([self._parts(index) for index in range(len(features))])
        self._units = np.maximum(parts.max(0), 1e-9)
        self._first = self._weigh(np.arange(len(features))) * (parts / self._units).sum(1)

    def _place(self, features: npt.NDArray[np.float16]) -> Floats:
        placed: Floats = (features.astype(np.float32) - self._centre) / self._spread
        return placed

    @staticmethod
    def _alike(place: Floats, others: Floats) -> Floats:
        alike: Floats = np.exp(-0.5 * ((others - place) ** 2).sum(1) * 4)
        return alike

    def _weigh(self, index: npt.NDArray[np.int64]) -> Floats:
        weights: Floats = LEAST_WEIGHT + (1 - LEAST_WEIGHT) * self._unsureness[index]
        return weights

    def _parts(self, index: int) -> tuple[float, float]:
        alike = self._alike(self._places[index], self._representatives)
        likeness = float(np.maximum(alike - self._best, 0).mean())
        amounts = np.log1p(self._amounts[index] / (1 + self._covered))
        return likeness, float(amounts.mean()) * (1 - self._nearest[index])

    def first_gains(self) -> list[float]:
        """Return the gain of each image before any is chosen."""
        return [float(gain) for gain in self._first]

    def gain(self, index: int) -> float:
        """Return what an image adds now."""
        return float(self._weigh(np.array([index]))[0] * (np.array(self._parts(index)) / self._units).sum())

    def add(self, index: int) -> None:
        """Count an image as chosen."""
        self._best = np.maximum(self._best, self._alike(self._places[index], self._representatives))
        self._nearest = np.maximum(self._nearest, self._alike(self._places[index], self._places))
        self._covered += self._amounts[index]
        self._chosen.append(index)

    def describe(self, index: int, gain: float) -> Chosen:
        """Describe an image that is about to be chosen."""
        place, nearest, likeness = self._places[index], None, 0.0
        if self._labelled is not None and len(self._labelled):
            likeness = float(self._alike(place, self._labelled).max())
        if self._chosen:
            alike = self._alike(place, self._places[self._chosen])
            if alike.max() >= likeness:
                nearest, likeness = self._chosen[int(alike.argmax())], float(alike.max())
        amounts = self._amounts[index]
        order = np.argsort(-amounts)
        return Chosen(
            index=index,
            gain=gain,
            unsureness=float(self._unsureness[index]),
            novelty=1 - likeness,
            nearest=nearest,
            classes=tuple((int(k), float(amounts[k])) for k in order if amounts[k] > 1),
        )


def _typical_distance(features: Floats) -> float:
    """Return the root of the mean squared distance between two images; 1 if all are alike."""
    variance = float(features.var(0).sum())
    return (2 * variance) ** 0.5 or 1.0
