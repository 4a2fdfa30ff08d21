"""Segmentation metrics: counts accumulated over images, and the metrics computed from them."""

from refinenet.evaluation.metrics.accumulator import (
    Calibration,
    ClassMetrics,
    ImageMetrics,
    MetricAccumulator,
    Metrics,
    compute_metrics,
)
from refinenet.evaluation.metrics.calibration import CONFIDENT, ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.evaluation.metrics.confusion import RULE, ConfusionMatrix, SegmentationScores
from refinenet.evaluation.metrics.overall import METRICS, RULES, Metric
from refinenet.evaluation.metrics.significance import PAIRED_RULE, Difference, Differences, Interval, compare_counts

__all__ = [
    "CONFIDENT",
    "METRICS",
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
    "Metric",
    "MetricAccumulator",
    "Metrics",
    "ReliabilityBin",
    "SegmentationScores",
    "compare_counts",
    "compute_metrics",
]
