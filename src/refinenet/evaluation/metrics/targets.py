"""Metrics of outputs other than classes, by their kind."""

from __future__ import annotations

from refinenet.evaluation.metrics.depth import DepthAccumulator
from refinenet.evaluation.metrics.normals import NormalAccumulator
from refinenet.evaluation.metrics.regression import RegressionAccumulator
from refinenet.evaluation.metrics.target_accumulator import TargetAccumulator

TARGET_METRICS: dict[str, type[TargetAccumulator]] = {
    "depth": DepthAccumulator,
    "normals": NormalAccumulator,
    "regression": RegressionAccumulator,
}
"""Accumulator of each kind: `TARGET_METRICS[spec.kind].for_output(spec)`."""
