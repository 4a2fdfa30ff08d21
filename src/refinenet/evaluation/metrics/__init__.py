"""Metrics of classes and of targets (depth, normals, quantities), without PyTorch.

`accumulator` sums `counters` over images for classes (regions, `confusion`, `boundary`, `calibration`), `overall`
lists the metrics over all classes, and `significance` compares results. `targets` lists the accumulators of other
outputs: `depth`, `normals`, `regression`.
"""

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
from refinenet.evaluation.metrics.depth import DepthAccumulator, DepthMetrics, DepthProtocol, DepthScores
from refinenet.evaluation.metrics.normals import NormalAccumulator, NormalMetrics
from refinenet.evaluation.metrics.overall import METRICS, RULES, Metric
from refinenet.evaluation.metrics.regression import QuantityMetrics, RegressionAccumulator, RegressionMetrics
from refinenet.evaluation.metrics.significance import PAIRED_RULE, Difference, Differences, Interval, compare_counts
from refinenet.evaluation.metrics.target_accumulator import TargetAccumulator
from refinenet.evaluation.metrics.targets import TARGET_METRICS

__all__ = [
    "CONFIDENT",
    "METRICS",
    "PAIRED_RULE",
    "RULE",
    "RULES",
    "TARGET_METRICS",
    "Calibration",
    "ClassMetrics",
    "ConfidenceCounts",
    "ConfusionMatrix",
    "Coverage",
    "DepthAccumulator",
    "DepthMetrics",
    "DepthProtocol",
    "DepthScores",
    "Difference",
    "Differences",
    "ImageMetrics",
    "Interval",
    "Metric",
    "MetricAccumulator",
    "Metrics",
    "NormalAccumulator",
    "NormalMetrics",
    "QuantityMetrics",
    "RegressionAccumulator",
    "RegressionMetrics",
    "ReliabilityBin",
    "SegmentationScores",
    "TargetAccumulator",
    "compare_counts",
    "compute_metrics",
]
