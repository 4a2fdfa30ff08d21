"""Accumulation of all counts of one pass over a dataset, and the metrics computed from them.

Memory is allocated before the first image and does not grow.

Shape letters: H height, W width, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import boundary, calibration, confusion, significance
from refinenet.evaluation.metrics.boundary import BoundaryCounts
from refinenet.evaluation.metrics.calibration import ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.evaluation.metrics.confusion import (
    ConfusionMatrix,
    Counts,
    SegmentationScores,
    divide,
    ious,
    mean,
    one_or_none,
    or_none,
)
from refinenet.evaluation.metrics.significance import Interval
from refinenet.labels import LabelMap

CONFIDENT = 0.9
"""Least confidence of a confident mistake, which is often a fault of the label rather than of the network."""


class MetricAccumulator:
    """Counts of pixels, all integers, so that the sum over several processes equals the counts of one exactly.

    Args:
        num_classes: K.
        ignore_index: Id of pixels without ground truth.
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
            index: Position of the image, below N.
            truth: `(H, W)` ids below K, or the ignore index.
            prediction: `(H, W)` ids below K, or the ignore index where no class is predicted.
            confidence: `(H, W)` float32 in [0, 1], if known.

        Raises:
            ValueError: truth and prediction differ in size, or an id is not below K.
        """
        self.image_regions[index] = self.matrix.add(truth, prediction)
        self.image_boundaries[index] = self.boundaries.add(truth, prediction)
        if confidence is None:
            return
        counts = (truth != self._ignore_index) & (prediction != self._ignore_index)
        known, is_right = confidence[counts], (truth == prediction)[counts]
        self.confidence.add(known, is_right)
        self.confident_mistakes[index] = ((known >= CONFIDENT) & ~is_right).sum()

    def add_up(self, sum_over_processes: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> None:
        """Replace the counts of this process by the sums over all processes.

        Args:
            sum_over_processes: Returns the sum of all processes' arrays, which have one shape. It is passed in so that
                metrics need no PyTorch.
        """
        for counts in self._arrays():
            counts[...] = sum_over_processes(counts)

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


RULES: Mapping[str, str] = {
    "miou, class_iou, pixel_accuracy, mean_accuracy": confusion.RULE,
    "frequency_weighted_iou": "IoU of the classes in the ground truth, weighted by their ground-truth pixels",
    "precision, recall, dice": (
        "from the same matrix: TP / (TP + FP), TP / (TP + FN), 2 TP / (2 TP + FP + FN); mean_dice over the classes "
        "that occur in ground truth or prediction"
    ),
    "boundary_iou, boundary_miou": boundary.BOUNDARY_IOU_RULE,
    "trimap_miou": boundary.TRIMAP_RULE,
    "boundary_f": boundary.BOUNDARY_F_RULE,
    "calibration_error": calibration.CALIBRATION_RULE,
    "coverage": calibration.COVERAGE_RULE,
    "confident_mistakes": (
        f"share of an image's labelled pixels that are wrong with a confidence of {CONFIDENT} or more"
    ),
    "intervals": significance.INTERVAL_RULE,
    "null": "undefined: there was nothing to measure",
}
"""Rule of each metric in words, by the keys of the results file."""


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class, in [0, 1]; None if undefined."""

    iou: float | None
    iou_interval: Interval | None
    precision: float | None
    recall: float | None
    dice: float | None
    boundary_iou: float | None
    boundary_f: float | None
    pixels: int
    """Pixels of the class in the ground truth."""


@dataclass(frozen=True, kw_only=True)
class ImageMetrics:
    """Metrics of one image, in [0, 1]; None if undefined."""

    miou: float | None
    """Mean over the classes that occur in its truth or prediction."""
    pixel_accuracy: float | None
    boundary_miou: float | None
    confident_mistakes: float | None
    """Share of its pixels that are wrong with high confidence; None if confidence is not known."""
    regions: Counts
    """`(3, K)`: pixels of each class in both, in the truth and in the prediction."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well confidence matches accuracy."""

    error: float | None
    """Expected calibration error, in [0, 1]."""
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of all images together, in [0, 1]; None if undefined."""

    scores: SegmentationScores
    frequency_weighted_iou: float | None
    mean_dice: float | None
    boundary_miou: float | None
    boundary_f: float | None
    """Mean over the classes that have an outline."""
    trimap_miou: Mapping[int, float | None]
    """mIoU by the width of the band in pixels."""
    abstained: float | None
    """Share of the labelled pixels without a predicted class."""
    intervals: Mapping[str, Interval | None]
    """95 % intervals of miou, pixel_accuracy, mean_accuracy and boundary_miou."""
    classes: tuple[ClassMetrics, ...]
    """Metrics by class id."""
    confusion: npt.NDArray[np.int64]
    """`(K, K)`: pixels; rows are true classes, columns predicted ones."""
    calibration: Calibration | None
    """None if no confidence is known."""
    images: tuple[ImageMetrics, ...]
    """Metrics of each image, in the order of the dataset."""


def compute_metrics(accumulator: MetricAccumulator, *, has_confidence: bool) -> Metrics:
    """Compute all metrics from the accumulated counts."""
    overlap = accumulator.matrix.overlap()
    hits, truth, prediction = overlap
    dice = divide(2 * hits, truth + prediction)
    in_truth = truth > 0
    pixels = int(truth.sum())
    trimap = or_none(accumulator.boundaries.trimap_miou())
    return Metrics(
        scores=accumulator.matrix.scores(),
        frequency_weighted_iou=float((truth * ious(overlap))[in_truth].sum() / pixels) if pixels else None,
        mean_dice=one_or_none(mean(dice)),
        boundary_miou=one_or_none(mean(accumulator.boundaries.boundary_iou())),
        boundary_f=one_or_none(mean(accumulator.boundaries.boundary_f())),
        trimap_miou=dict(zip(boundary.BANDS, trimap, strict=True)),
        abstained=one_or_none(divide(accumulator.matrix.abstained.sum(), truth.sum())),
        intervals=_intervals(accumulator),
        classes=_class_metrics(accumulator, overlap, dice),
        confusion=accumulator.matrix.counts,
        calibration=_calibration(accumulator, pixels) if has_confidence else None,
        images=_image_metrics(accumulator, has_confidence=has_confidence),
    )


def _intervals(accumulator: MetricAccumulator) -> dict[str, Interval | None]:
    both = np.concatenate([accumulator.image_regions, accumulator.image_boundaries], axis=1)
    drawn = significance.resample(both, _summary)
    names = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_miou")
    return {name: significance.interval(values) for name, values in zip(names, drawn.T, strict=True)}


def _summary(sums: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute the four metrics `(r, 4)` from sums `(r, 6, K)`: of regions, then of boundary regions."""
    regions, edges = sums[:, :3], sums[:, 3:]
    hits, truth = regions[:, 0], regions[:, 1]
    return np.stack(
        [mean(ious(regions)), divide(hits.sum(-1), truth.sum(-1)), mean(divide(hits, truth)), mean(ious(edges))], axis=1
    )


def _class_metrics(
    accumulator: MetricAccumulator, overlap: Counts, dice: npt.NDArray[np.float64]
) -> tuple[ClassMetrics, ...]:
    hits, truth, prediction = overlap
    drawn = significance.resample(accumulator.image_regions, ious)
    columns = (
        ious(overlap),
        divide(hits, prediction),
        divide(hits, truth),
        dice,
        accumulator.boundaries.boundary_iou(),
        accumulator.boundaries.boundary_f(),
    )
    rows = zip(*map(or_none, columns), drawn.T, truth, strict=True)
    return tuple(
        ClassMetrics(
            iou=iou,
            iou_interval=significance.interval(draws),
            precision=precision,
            recall=recall,
            dice=one_dice,
            boundary_iou=boundary_iou,
            boundary_f=boundary_f,
            pixels=int(pixels),
        )
        for iou, precision, recall, one_dice, boundary_iou, boundary_f, draws, pixels in rows
    )


def _calibration(accumulator: MetricAccumulator, pixels: int) -> Calibration:
    counts = accumulator.confidence
    return Calibration(error=counts.error(), reliability=counts.reliability(), coverage=counts.coverage(pixels))


def _image_metrics(accumulator: MetricAccumulator, *, has_confidence: bool) -> tuple[ImageMetrics, ...]:
    hits, truth = accumulator.image_regions[:, 0].sum(-1), accumulator.image_regions[:, 1].sum(-1)
    mistakes = divide(accumulator.confident_mistakes, truth)
    columns = (
        mean(ious(accumulator.image_regions)),
        divide(hits, truth),
        mean(ious(accumulator.image_boundaries)),
        mistakes if has_confidence else np.full(len(truth), np.nan),
    )
    return tuple(
        ImageMetrics(miou=miou, pixel_accuracy=accuracy, boundary_miou=edges, confident_mistakes=wrong, regions=regions)
        for miou, accuracy, edges, wrong, regions in zip(*map(or_none, columns), accumulator.image_regions, strict=True)
    )
