"""Segmentation metrics: counts accumulated over images, and the metrics computed from them."""

from refinenet.evaluation.metrics.accumulator import (
    CONFIDENT,
    RULES,
    Calibration,
    ClassMetrics,
    ImageMetrics,
    MetricAccumulator,
    Metrics,
    compute_metrics,
)
from refinenet.evaluation.metrics.calibration import ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.evaluation.metrics.confusion import RULE, ConfusionMatrix, SegmentationScores
from refinenet.evaluation.metrics.significance import PAIRED_RULE, Difference, Differences, Interval, compare_counts

__all__ = [
    "CONFIDENT",
    "PAIRED_RULE",
    "RULE",
    "RULES",
    "Calibration",
    "ClassMetrics",
    "ConfidenceCounts",
    "ConfusionMatrix",
    "Coverage",
    "Difference",
    "Differences",
    "ImageMetrics",
    "Interval",
    "MetricAccumulator",
    "Metrics",
    "ReliabilityBin",
    "SegmentationScores",
    "compare_counts",
    "compute_metrics",
]
