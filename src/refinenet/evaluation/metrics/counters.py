"""Counters of pixels over the images of a dataset: what is counted, from which the metrics are computed.

A new counter is a subclass of `Counter` and a row of `accumulator.COUNTERS`.

Shape letters: H height, W width, N images, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.boundary import BoundaryCounts
from refinenet.evaluation.metrics.calibration import CONFIDENT, ConfidenceCounts
from refinenet.evaluation.metrics.confusion import ConfusionMatrix, Counts
from refinenet.labels import LabelMap


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePixels:
    """Pixels of one image to count."""

    index: int
    """Position of the image, below N."""
    truth: LabelMap
    """`(H, W)` ids below K, or the ignore index."""
    prediction: LabelMap
    """`(H, W)` ids below K, or the ignore index where no class is predicted."""
    confidence: npt.NDArray[np.float32] | None
    """`(H, W)` float32 in [0, 1], if known."""


class Counter(ABC):
    """Counts of pixels, all integers, so that the sum over several processes equals the counts of one exactly.

    Memory is allocated before the first image and does not grow.

    Args:
        num_classes: K.
        ignore_index: Id of pixels without ground truth.
        images: N.
    """

    @abstractmethod
    def __init__(self, num_classes: int, ignore_index: int, images: int) -> None: ...

    @abstractmethod
    def add(self, pixels: ImagePixels) -> None:
        """Count the pixels of one image."""

    @abstractmethod
    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts, to be added up over processes in place."""


class RegionCounter(Counter):
    """Pixels of each class: the confusion matrix, and the overlap in each image."""

    def __init__(self, num_classes: int, ignore_index: int, images: int) -> None:
        self.matrix = ConfusionMatrix(num_classes, ignore_index, may_abstain=True)
        self.images: Counts = np.zeros((images, 3, num_classes), np.int64)
        """`(N, 3, K)`: pixels of each image."""

    def add(self, pixels: ImagePixels) -> None:
        """Count the pixels of one image."""
        self.images[pixels.index] = self.matrix.add(pixels.truth, pixels.prediction)

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return (*self.matrix.arrays(), self.images)


class BoundaryCounter(Counter):
    """Pixels near outlines: in boundary regions, in bands, and of the outlines themselves."""

    def __init__(self, num_classes: int, ignore_index: int, images: int) -> None:
        self.counts = BoundaryCounts(num_classes, ignore_index)
        self.images: Counts = np.zeros((images, 3, num_classes), np.int64)
        """`(N, 3, K)`: pixels of each image in boundary regions."""

    def add(self, pixels: ImagePixels) -> None:
        """Count the pixels of one image."""
        self.images[pixels.index] = self.counts.add(pixels.truth, pixels.prediction)

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return (*self.counts.arrays(), self.images)


class ConfidenceCounter(Counter):
    """Right and wrong pixels by their confidence."""

    def __init__(self, num_classes: int, ignore_index: int, images: int) -> None:  # noqa: ARG002 - as all counters
        self.counts = ConfidenceCounts()
        self.mistakes: npt.NDArray[np.int64] = np.zeros(images, np.int64)
        """`(N,)`: pixels of each image that are wrong with a confidence of `CONFIDENT` or more."""
        self._ignore_index = ignore_index

    def add(self, pixels: ImagePixels) -> None:
        """Count the pixels of one image."""
        if pixels.confidence is None:
            return
        counts = (pixels.truth != self._ignore_index) & (pixels.prediction != self._ignore_index)
        known, is_right = pixels.confidence[counts], (pixels.truth == pixels.prediction)[counts]
        self.counts.add(known, is_right)
        self.mistakes[pixels.index] = ((known >= CONFIDENT) & ~is_right).sum()

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return (*self.counts.arrays(), self.mistakes)
