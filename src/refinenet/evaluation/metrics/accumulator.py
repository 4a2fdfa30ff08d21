"""All that one pass over a dataset counts; what it takes in memory is known before the first image.

Shape letters: H height, W width, N images, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.boundary import BoundaryCounts
from refinenet.evaluation.metrics.calibration import ConfidenceCounts
from refinenet.evaluation.metrics.confusion import ConfusionMatrix
from refinenet.evaluation.metrics.regions import Counts
from refinenet.labels import LabelMap

if TYPE_CHECKING:  # figures that are read from a file need no torch
    from refinenet.distributed import Processes

CONFIDENT = 0.9
"""From this confidence on a mistake is a confident one: seldom the network's fault, often the label's."""


class Tally:
    """Counts, whole numbers all of them: of several processes they add up to those of one, to the last digit.

    Args:
        num_classes: K.
        ignore_index: Truth of pixels that do not count.
        images: N.
    """

    def __init__(self, num_classes: int, ignore_index: int, images: int) -> None:
        self.matrix = ConfusionMatrix(num_classes, ignore_index, may_abstain=True)
        self.boundaries = BoundaryCounts(num_classes, ignore_index)
        self.confidence = ConfidenceCounts()
        self.image_regions: Counts = np.zeros((images, 3, num_classes), np.int64)
        """`(N, 3, K)`: pixels of each image."""
        self.image_boundaries: Counts = np.zeros((images, 3, num_classes), np.int64)
        """`(N, 3, K)`: pixels of each image in boundary regions."""
        self.confident_mistakes: npt.NDArray[np.int64] = np.zeros(images, np.int64)
        """`(N,)`: pixels of each image that are wrong with a confidence of `CONFIDENT` or more."""
        self._ignore_index = ignore_index

    def add(
        self, index: int, truth: LabelMap, prediction: LabelMap, confidence: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Count the pixels of one image.

        Args:
            index: Its number, below N.
            truth: `(H, W)` ids below K, or the ignore index.
            prediction: The same; the ignore index where no class is predicted.
            confidence: `(H, W)` float32 in [0, 1], where it is known.

        Raises:
            ValueError: truth and prediction differ in size, or an id is not below K.
        """
        self.image_regions[index] = self.matrix.add(truth, prediction)
        self.image_boundaries[index] = self.boundaries.add(truth, prediction)
        if confidence is None:
            return
        counts = (truth != self._ignore_index) & (prediction != self._ignore_index)
        sure, is_right = confidence[counts], (truth == prediction)[counts]
        self.confidence.add(sure, is_right)
        self.confident_mistakes[index] = ((sure >= CONFIDENT) & ~is_right).sum()

    def add_up(self, processes: Processes) -> None:
        """Make the counts of all processes those of each."""
        import torch

        for counts in self._arrays():
            counts[...] = processes.add_up(torch.from_numpy(counts)).numpy()

    def _arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        return (
            self.matrix.counts,
            self.matrix.abstained,
            self.boundaries.regions,
            self.boundaries.bands,
            self.boundaries.outlines,
            self.confidence.pixels,
            self.confidence.confidence,
            self.image_regions,
            self.image_boundaries,
            self.confident_mistakes,
        )
