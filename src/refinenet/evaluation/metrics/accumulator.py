"""Accumulation of all counts of one pass over a dataset, and the metrics computed from them.

Shape letters: H height, W width, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import significance
from refinenet.evaluation.metrics.boundary import BoundaryCounts
from refinenet.evaluation.metrics.calibration import ConfidenceCounts, Coverage, ReliabilityBin
from refinenet.evaluation.metrics.confusion import (
    ConfusionMatrix,
    Counts,
    SegmentationScores,
    divide,
    ious,
    mean,
    or_none,
)
from refinenet.evaluation.metrics.counters import (
    BoundaryCounter,
    ConfidenceCounter,
    Counter,
    ImagePixels,
    RegionCounter,
)
from refinenet.evaluation.metrics.overall import METRICS, WITH_INTERVAL, Totals, dice_by_class
from refinenet.evaluation.metrics.significance import Interval
from refinenet.labels import LabelMap

COUNTERS: tuple[type[Counter], ...] = (RegionCounter, BoundaryCounter, ConfidenceCounter)
"""What is counted, in this order."""

Kind = TypeVar("Kind", bound=Counter)


class MetricAccumulator:
    """All counts of a dataset.

    Args:
        num_classes: K.
        ignore_index: Id of pixels without ground truth.
        images: N.
    """

    def __init__(self, num_classes: int, ignore_index: int, images: int) -> None:
        self._counters = {kind: kind(num_classes, ignore_index, images) for kind in COUNTERS}

    def of(self, kind: type[Kind]) -> Kind:
        """Return the counter of one of `COUNTERS`."""
        counter = self._counters[kind]
        assert isinstance(counter, kind)
        return counter

    @property
    def matrix(self) -> ConfusionMatrix:
        """Pixels by true and predicted class."""
        return self.of(RegionCounter).matrix

    @property
    def boundaries(self) -> BoundaryCounts:
        """Pixels near outlines."""
        return self.of(BoundaryCounter).counts

    @property
    def confidence(self) -> ConfidenceCounts:
        """Pixels by confidence."""
        return self.of(ConfidenceCounter).counts

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
        pixels = ImagePixels(index=index, truth=truth, prediction=prediction, confidence=confidence)
        for counter in self._counters.values():
            counter.add(pixels)

    def add_up(self, sum_over_processes: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> None:
        """Replace the counts of this process by the sums over all processes.

        Args:
            sum_over_processes: Returns the sum of all processes' arrays, which have one shape. It is passed in so that
                metrics need no PyTorch.
        """
        for counts in self.arrays():
            counts[...] = sum_over_processes(counts)

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return tuple(counts for counter in self._counters.values() for counts in counter.arrays())


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
    overall: Mapping[str, float | None]
    """The metrics in `METRICS` that are a single number, by key."""
    by_width: Mapping[str, Mapping[int, float | None]]
    """The others, by key and by width in pixels."""
    intervals: Mapping[str, Interval | None]
    """95 % intervals of the metrics that have one, by key."""
    classes: tuple[ClassMetrics, ...]
    """Metrics by class id."""
    confusion: npt.NDArray[np.int64]
    """`(K, K)`: pixels; rows are true classes, columns predicted ones."""
    calibration: Calibration | None
    """None if no confidence is known."""
    images: tuple[ImageMetrics, ...]
    """Metrics of each image, in the order of the dataset."""

    @property
    def frequency_weighted_iou(self) -> float | None:
        """Mean IoU of the classes in the truth, weighted by their pixels."""
        return self.overall["frequency_weighted_iou"]

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes that occur in truth or prediction."""
        return self.overall["mean_dice"]

    @property
    def boundary_miou(self) -> float | None:
        """Mean over the classes that have a boundary region."""
        return self.overall["boundary_miou"]

    @property
    def boundary_f(self) -> float | None:
        """Mean over the classes that have an outline."""
        return self.overall["boundary_f"]

    @property
    def trimap_miou(self) -> Mapping[int, float | None]:
        """Mean IoU by the width of the band in pixels."""
        return self.by_width["trimap_miou"]

    @property
    def abstained(self) -> float | None:
        """Share of the labelled pixels without a predicted class."""
        return self.overall["abstained"]


def compute_metrics(accumulator: MetricAccumulator, *, has_confidence: bool) -> Metrics:
    """Compute all metrics from the accumulated counts."""
    totals = Totals(regions=accumulator.matrix.overlap(), edges=accumulator.boundaries.regions, counts=accumulator)
    return Metrics(
        scores=accumulator.matrix.scores(),
        overall={
            metric.key: metric.measure(totals) if has_confidence or not metric.needs_confidence else None
            for metric in METRICS
            if not metric.at
        },
        by_width={metric.key: metric.measure_at(totals) for metric in METRICS if metric.at},
        intervals=_intervals(accumulator),
        classes=_class_metrics(accumulator, totals.regions),
        confusion=accumulator.matrix.counts,
        calibration=_calibration(accumulator, int(totals.regions[1].sum())) if has_confidence else None,
        images=_image_metrics(accumulator, has_confidence=has_confidence),
    )


def _intervals(accumulator: MetricAccumulator) -> dict[str, Interval | None]:
    regions, edges = accumulator.of(RegionCounter).images, accumulator.of(BoundaryCounter).images

    def summarise(sums: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Compute the metrics that have an interval, `(r, F)`, from sums `(r, 6, K)`."""
        drawn = Totals(regions=sums[:, :3], edges=sums[:, 3:], counts=accumulator)
        return np.stack([metric.compute(drawn) for metric in WITH_INTERVAL], axis=1)

    drawn = significance.resample(np.concatenate([regions, edges], axis=1), summarise)
    return {metric.key: significance.interval(values) for metric, values in zip(WITH_INTERVAL, drawn.T, strict=True)}


def _class_metrics(accumulator: MetricAccumulator, overlap: Counts) -> tuple[ClassMetrics, ...]:
    hits, truth, prediction = overlap
    drawn = significance.resample(accumulator.of(RegionCounter).images, ious)
    columns = (
        ious(overlap),
        divide(hits, prediction),
        divide(hits, truth),
        dice_by_class(overlap),
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
    all_regions, all_edges = accumulator.of(RegionCounter).images, accumulator.of(BoundaryCounter).images
    hits, truth = all_regions[:, 0].sum(-1), all_regions[:, 1].sum(-1)
    mistakes = divide(accumulator.of(ConfidenceCounter).mistakes, truth)
    columns = (
        mean(ious(all_regions)),
        divide(hits, truth),
        mean(ious(all_edges)),
        mistakes if has_confidence else np.full(len(truth), np.nan),
    )
    return tuple(
        ImageMetrics(miou=miou, pixel_accuracy=accuracy, boundary_miou=edges, confident_mistakes=wrong, regions=regions)
        for miou, accuracy, edges, wrong, regions in zip(*map(or_none, columns), all_regions, strict=True)
    )
