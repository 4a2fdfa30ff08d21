"""Metrics over all images and classes: the table from which results, printed tables, reports and definitions are made.

A new metric is a function and a row of `METRICS`.

Shape letters: K classes, r draws of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import boundary, calibration, confusion, significance
from refinenet.evaluation.metrics.confusion import Counts, divide, ious, mean, one_or_none, or_none

if TYPE_CHECKING:
    from refinenet.evaluation.metrics.accumulator import MetricAccumulator

Value = float | npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Totals:
    """Counts over all images, or over r draws of them, from which metrics are computed."""

    regions: Counts
    """`(3, K)`, or `(r, 3, K)` for draws: pixels of each class."""
    edges: Counts
    """`(3, K)`, or `(r, 3, K)` for draws: pixels of each class in boundary regions."""
    counts: MetricAccumulator
    """All counts over all images; those of draws are not known."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric over all images and classes, in [0, 1]."""

    key: str
    """Its key in results files."""
    title: str
    """Its name in the report."""
    rules: Mapping[str, str]
    """Definitions to list in results and reports, by the keys that they define; rows may share them."""
    compute: Callable[[Totals], Value]
    """Returns a number, `(r,)` of draws, or one number for each element of `at`; NaN if undefined."""
    has_interval: bool = False
    """Whether it gets a 95 % interval; `compute` then uses `regions` and `edges` alone."""
    at: tuple[int, ...] = ()
    """Widths in pixels at which it is computed; empty for a single number."""
    printed: str | None = None
    """Its name in printed tables, "" to leave it out; by default as `title`. `{classes}` stands for the number of
    classes averaged, `{at}` for the width."""
    printed_at: tuple[int, ...] = ()
    """Elements of `at` that are printed."""
    needs_confidence: bool = False
    """Whether it is only known if predictions have a confidence."""
    only_above_zero: bool = False
    """Whether it is shown only if it is above 0."""
    unit: str = "%"
    """What follows its number in the report."""

    def measure(self, totals: Totals) -> float | None:
        """Return its number; None if undefined."""
        return one_or_none(np.float64(self.compute(totals)))

    def measure_at(self, totals: Totals) -> dict[int, float | None]:
        """Return its numbers by width."""
        return dict(zip(self.at, or_none(np.asarray(self.compute(totals))), strict=True))


def _pixel_accuracy(totals: Totals) -> Value:
    hits, truth = totals.regions[..., 0, :], totals.regions[..., 1, :]
    return divide(hits.sum(-1), truth.sum(-1))


def _mean_accuracy(totals: Totals) -> Value:
    return mean(divide(totals.regions[..., 0, :], totals.regions[..., 1, :]))


def _frequency_weighted_iou(totals: Totals) -> Value:
    _, truth, _ = totals.regions
    pixels = int(truth.sum())
    return float((truth * ious(totals.regions))[truth > 0].sum() / pixels) if pixels else np.nan


def dice_by_class(regions: Counts) -> npt.NDArray[np.float64]:
    """Return the Dice coefficient, `(K,)`; NaN for classes in neither truth nor prediction."""
    hits, truth, prediction = regions
    return divide(2 * hits, truth + prediction)


def _calibration_error(totals: Totals) -> Value:
    error = totals.counts.confidence.error()
    return np.nan if error is None else error


def _abstained(totals: Totals) -> Value:
    return divide(totals.counts.matrix.abstained.sum(), totals.regions[1].sum())


_OVERLAP_RULES = {"miou, class_iou, pixel_accuracy, mean_accuracy": confusion.RULE}
_BOUNDARY_RULES = {
    "boundary_iou, boundary_miou": boundary.BOUNDARY_IOU_RULE,
    "trimap_miou": boundary.TRIMAP_RULE,
    "boundary_f": boundary.BOUNDARY_F_RULE,
}

METRICS: tuple[Metric, ...] = (
    Metric(
        key="miou",
        title="mIoU",
        rules=_OVERLAP_RULES,
        compute=lambda totals: mean(ious(totals.regions)),
        has_interval=True,
        printed="mIoU over {classes} classes",
    ),
    Metric(
        key="pixel_accuracy",
        title="pixel accuracy",
        rules=_OVERLAP_RULES,
        compute=_pixel_accuracy,
        has_interval=True,
    ),
    Metric(
        key="mean_accuracy",
        title="mean accuracy",
        rules=_OVERLAP_RULES,
        compute=_mean_accuracy,
        has_interval=True,
    ),
    Metric(
        key="frequency_weighted_iou",
        title="frequency-weighted IoU",
        rules={
            "frequency_weighted_iou": "IoU of the classes in the ground truth, weighted by their ground-truth pixels"
        },
        compute=_frequency_weighted_iou,
        printed="",
    ),
    Metric(
        key="mean_dice",
        title="mean Dice",
        rules={
            "precision, recall, dice": (
                "from the same matrix: TP / (TP + FP), TP / (TP + FN), 2 TP / (2 TP + FP + FN); mean_dice over the "
                "classes that occur in ground truth or prediction"
            )
        },
        compute=lambda totals: mean(dice_by_class(totals.regions)),
        printed="",
    ),
    Metric(
        key="boundary_miou",
        title="boundary mIoU",
        rules=_BOUNDARY_RULES,
        compute=lambda totals: mean(ious(totals.edges)),
        has_interval=True,
    ),
    Metric(
        key="boundary_f",
        title="boundary F-score",
        rules=_BOUNDARY_RULES,
        compute=lambda totals: mean(totals.counts.boundaries.boundary_f()),
    ),
    Metric(
        key="trimap_miou",
        title="mIoU within {at} pixels of outlines",
        rules=_BOUNDARY_RULES,
        compute=lambda totals: totals.counts.boundaries.trimap_miou(),
        at=boundary.BANDS,
        printed_at=(2, 8),
    ),
    Metric(
        key="calibration_error",
        title="calibration error",
        rules={"calibration_error": calibration.CALIBRATION_RULE, "coverage": calibration.COVERAGE_RULE},
        compute=_calibration_error,
        needs_confidence=True,
    ),
    Metric(
        key="abstained",
        title="no class predicted",
        rules={},
        compute=_abstained,
        printed="pixels without a predicted class",
        only_above_zero=True,
        unit="% of the pixels",
    ),
)
"""All metrics, in the order of results files and printed tables."""

WITH_INTERVAL = tuple(metric for metric in METRICS if metric.has_interval)

RULES: Mapping[str, str] = {
    **{keys: rule for metric in METRICS for keys, rule in metric.rules.items()},
    "confident_mistakes": (
        f"share of an image's labelled pixels that are wrong with a confidence of {calibration.CONFIDENT} or more"
    ),
    "intervals": significance.INTERVAL_RULE,
    "null": "undefined: there was nothing to measure",
}
"""Rule of each metric in words, by the keys of the results file."""
