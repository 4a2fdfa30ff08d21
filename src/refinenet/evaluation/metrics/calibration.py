"""Calibration of confidence: expected calibration error, and accuracy against coverage.

All counts are integers, so that results do not depend on the order of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.confusion import divide, one_or_none

BINS = 15
"""Bins of equal width, of the reliability curve and the calibration error."""
THRESHOLDS = 1500
"""Steps of confidence that the coverage curve resolves; a multiple of `BINS`, so that bins are whole steps."""
COVERAGE_AT = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Confidence thresholds for which accuracy and coverage are reported."""
CONFIDENT = 0.9
"""Least confidence of a confident mistake, which is often a fault of the label rather than of the network."""

CALIBRATION_RULE = (
    f"expected calibration error (Guo et al., ICML 2017): pixels in {BINS} bins of equal width by their confidence, "
    "the softmax probability of the predicted class; mean of |accuracy - mean confidence| over the bins, weighted by "
    "their pixels; pixels without ground truth or without a predicted class are dropped"
)
COVERAGE_RULE = (
    "coverage: the share of labelled pixels whose confidence reaches a threshold; accuracy: the share of these that is "
    "correct"
)
_UNIT = 2**24
"""Confidences are summed as integers in units of 1 / 2**24, the resolution of float32 just below 1."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Pixels with a confidence in one bin."""

    confidence: float | None
    """Their mean confidence, in [0, 1]; None for an empty bin."""
    accuracy: float | None
    """Share of them that is correct."""
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Coverage and accuracy at one confidence threshold."""

    threshold: float
    """Confidence threshold, in [0, 1]."""
    coverage: float | None
    """Share of the labelled pixels that reach it."""
    accuracy: float | None
    """Share of these pixels that is correct."""


class ConfidenceCounts:
    """Histogram of wrong and correct pixels by confidence."""

    def __init__(self) -> None:
        self.pixels: npt.NDArray[np.int64] = np.zeros((2, THRESHOLDS), np.int64)
        """`(2, THRESHOLDS)`: wrong and correct pixels, by confidence."""
        self.confidence: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        """`(BINS,)`: sum of confidences in units of 2**-24."""

    def add(self, confidence: npt.NDArray[np.float32], is_right: npt.NDArray[np.bool_]) -> None:
        """Count pixels.

        Args:
            confidence: `(n,)` float32 in [0, 1].
            is_right: `(n,)`: whether the predicted class is correct.
        """
        step = np.minimum((confidence * THRESHOLDS).astype(np.int32), THRESHOLDS - 1)
        # One bincount for both rows: correct pixels are counted `THRESHOLDS` places further on.
        counts = np.bincount(step + is_right * np.int32(THRESHOLDS), minlength=2 * THRESHOLDS)
        self.pixels += counts.reshape(2, THRESHOLDS)
        units = np.rint(confidence * np.float32(_UNIT))
        # bincount sums weights in float64, which is exact for integers as long as the sums stay below 2**53.
        sums = np.bincount(step // (THRESHOLDS // BINS), weights=units, minlength=BINS)
        self.confidence += sums.astype(np.int64)

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return self.pixels, self.confidence

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Return the reliability curve, from low confidence to high."""
        wrong, right = self.pixels.reshape(2, BINS, -1).sum(-1)
        means, accuracies = divide(self.confidence, (wrong + right) * _UNIT), divide(right, wrong + right)
        return tuple(
            ReliabilityBin(confidence=one_or_none(c), accuracy=one_or_none(a), pixels=int(n))
            for c, a, n in zip(means, accuracies, wrong + right, strict=True)
        )

    def error(self) -> float | None:
        """Return the expected calibration error, in [0, 1]; None without pixels."""
        total = int(self.pixels.sum())
        gaps = [
            abs(bin_.accuracy - bin_.confidence) * bin_.pixels
            for bin_ in self.reliability()
            if bin_.accuracy is not None and bin_.confidence is not None
        ]
        return sum(gaps) / total if total else None

    def coverage(self, pixels: int) -> tuple[Coverage, ...]:
        """Return accuracy against coverage.

        Args:
            pixels: Number of labelled pixels, including those without a predicted class.
        """
        # Cumulative sums from the right: pixels whose confidence reaches each step.
        wrong, right = np.cumsum(self.pixels[:, ::-1], axis=1)[:, ::-1]
        steps = [round(threshold * THRESHOLDS) for threshold in COVERAGE_AT]
        covered = wrong + right
        return tuple(
            Coverage(
                threshold=threshold,
                coverage=covered[step] / pixels if pixels else None,
                accuracy=one_or_none(divide(right[step], covered[step])),
            )
            for threshold, step in zip(COVERAGE_AT, steps, strict=True)
        )
