"""Whether a confidence means what it says: calibration error, and accuracy against coverage.

All that is kept is whole numbers, so that the figures do not depend on the order in which images come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.confusion import divide, one_or_none

BINS = 15
"""Of the reliability curve and of the calibration error, equally wide."""
THRESHOLDS = 1500
"""Steps in which the least confidence is told apart for the coverage curve; a multiple of `BINS`."""
COVERAGE_AT = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Least confidences that accuracy and coverage are told for."""

CALIBRATION_RULE = (
    f"expected calibration error (Guo et al., ICML 2017): pixels in {BINS} bins of equal width by their confidence, "
    "the softmax probability of the class chosen; the mean of |share that is right - mean confidence| over the bins, "
    "weighted by their pixels; pixels without truth, and those without a predicted class, dropped"
)
COVERAGE_RULE = (
    "coverage: the share of pixels with truth whose confidence reaches a threshold; accuracy: the share of them that "
    "is right"
)
_UNIT = 2**24
"""Confidences are added up in units of this fraction, which is what float32 resolves below 1."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Pixels of about one confidence."""

    confidence: float | None
    """Their mean confidence, in [0, 1]; None where there are none."""
    accuracy: float | None
    """The share of them that is right."""
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a threshold on confidence gives."""

    threshold: float
    """The least confidence, in [0, 1]."""
    coverage: float | None
    """Share of the pixels that reach it."""
    accuracy: float | None
    """Share of these that is right."""


class ConfidenceCounts:
    """Pixels by confidence, and how many of them are right."""

    def __init__(self) -> None:
        self.pixels: npt.NDArray[np.int64] = np.zeros((2, THRESHOLDS), np.int64)
        """`(2, THRESHOLDS)`: wrong and right ones, by confidence."""
        self.confidence: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        """`(BINS,)`: sum of the confidences."""

    def add(self, confidence: npt.NDArray[np.float32], is_right: npt.NDArray[np.bool_]) -> None:
        """Count pixels.

        Args:
            confidence: `(n,)` float32 in [0, 1].
            is_right: `(n,)`.
        """
        step = np.minimum((confidence * THRESHOLDS).astype(np.int32), THRESHOLDS - 1)
        found = np.bincount(step + is_right * np.int32(THRESHOLDS), minlength=2 * THRESHOLDS)
        self.pixels += found.reshape(2, THRESHOLDS)
        units = np.rint(confidence * np.float32(_UNIT))
        # Sums below 2 ** 53 of whole numbers are exact in the float64 that bincount adds in.
        sums = np.bincount(step // (THRESHOLDS // BINS), weights=units, minlength=BINS)
        self.confidence += sums.astype(np.int64)

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The reliability curve, from low confidence to high."""
        wrong, right = self.pixels.reshape(2, BINS, -1).sum(-1)
        means, accuracies = divide(self.confidence, (wrong + right) * _UNIT), divide(right, wrong + right)
        return tuple(
            ReliabilityBin(confidence=one_or_none(c), accuracy=one_or_none(a), pixels=int(n))
            for c, a, n in zip(means, accuracies, wrong + right, strict=True)
        )

    def error(self) -> float | None:
        """The expected calibration error, in [0, 1]."""
        total = int(self.pixels.sum())
        gaps = [
            abs(found.accuracy - found.confidence) * found.pixels
            for found in self.reliability()
            if found.accuracy is not None and found.confidence is not None
        ]
        return sum(gaps) / total if total else None

    def coverage(self, pixels: int) -> tuple[Coverage, ...]:
        """Accuracy against coverage.

        Args:
            pixels: All that have a truth, also those without a predicted class.
        """
        wrong, right = np.cumsum(self.pixels[:, ::-1], axis=1)[:, ::-1]
        steps = [round(threshold * THRESHOLDS) for threshold in COVERAGE_AT]
        kept = wrong + right
        return tuple(
            Coverage(
                threshold=threshold,
                coverage=kept[step] / pixels if pixels else None,
                accuracy=one_or_none(divide(right[step], kept[step])),
            )
            for threshold, step in zip(COVERAGE_AT, steps, strict=True)
        )
