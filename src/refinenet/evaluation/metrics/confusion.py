"""Figures of merit, from one confusion matrix over a whole dataset.

The rule: one int64 matrix of pixels over all images, true class by predicted class; pixels whose truth is the ignore
index are dropped first. A class counts when it occurs in the truth or in the prediction; its IoU is
TP / (TP + FP + FN). Classes that occur in neither have no figure (None) and do not enter a mean. Pixels that have a
truth and no predicted class, where that is allowed, are misses of the true class and found for none.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap

Counts = npt.NDArray[np.int64]
"""`(..., 3, K)` int64: pixels of each class in both (hits), in the truth, and in the prediction."""


def count_classes(hits: LabelMap, truth: LabelMap, prediction: LabelMap, classes: int, ignore_index: int) -> Counts:
    """`(3, K)` from the labels, 1-D, of hits, of true and of predicted pixels; those without a class are left out."""
    return np.stack([np.bincount(ids, minlength=ignore_index + 1)[:classes] for ids in (hits, truth, prediction)])


def ious(counts: Counts | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union, `(..., K)`; NaN for classes in neither truth nor prediction."""
    hits, truth, prediction = np.moveaxis(counts, -2, 0)
    return divide(hits, truth + prediction - hits)


def divide(parts: npt.ArrayLike, wholes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The ratio of whole numbers, NaN where the whole is 0."""
    ratio = np.full(np.shape(wholes), np.nan)
    np.divide(parts, wholes, out=ratio, where=np.asarray(wholes) != 0)
    return ratio


def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(-1)
    found = np.full(np.shape(total), np.nan)
    np.divide(total, present.sum(-1), out=found, where=present.any(-1))
    return found


def or_none(values: npt.NDArray[np.float64]) -> tuple[float | None, ...]:
    """Figures by class, None where there is none."""
    return tuple(None if np.isnan(value) else float(value) for value in values)


def one_or_none(value: float | npt.NDArray[np.float64]) -> float | None:
    """A figure, None where there is none."""
    return None if np.isnan(value) else float(value)


RULE = (
    "one confusion matrix (int64 pixels) over all images; pixels with the ignore index in the truth dropped; "
    "IoU = TP / (TP + FP + FN); means over the classes that occur in truth or prediction (IoU) or in truth (accuracy)"
)


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Figures in [0, 1]; None where nothing was there to measure."""

    miou: float | None
    """Mean IoU over the classes that occur in truth or prediction."""
    pixel_accuracy: float | None
    """Share of pixels that are right."""
    mean_accuracy: float | None
    """Mean, over the classes that occur in the truth, of the share of their pixels that are right."""
    class_iou: tuple[float | None, ...]
    """IoU by class id."""
    classes_averaged: int
    """Number of classes that `miou` is the mean of."""


class ConfusionMatrix:
    """Pixels by true and predicted class.

    Args:
        num_classes: K.
        ignore_index: Truth of pixels that do not count.
        may_abstain: Whether a prediction may leave pixels without a class, too, by the ignore index.
    """

    def __init__(self, num_classes: int, ignore_index: int, *, may_abstain: bool = False) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """`(K, K)` int64: row the true class, column the predicted one."""
        self.abstained: npt.NDArray[np.int64] = np.zeros(num_classes, np.int64)
        """`(K,)` int64: pixels of each true class that no class was predicted for."""
        self._ignore_index, self._may_abstain = ignore_index, may_abstain

    def add(self, truth: LabelMap, prediction: LabelMap) -> Counts:
        """Count the pixels of one image.

        Args:
            truth: `(H, W)` ids below K, or the ignore index.
            prediction: `(H, W)` ids below K; or the ignore index, where the matrix allows it.

        Returns:
            `(3, K)`: this image's pixels of each class in both, in the truth and in the prediction.

        Raises:
            ValueError: the two differ in size, or an id is not below K.
        """
        classes = len(self.counts)
        if truth.shape != prediction.shape:
            raise ValueError(f"Truth has the shape {truth.shape}, the prediction {prediction.shape}.")
        valid = truth != self._ignore_index
        true, predicted = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
        if self._may_abstain:
            predicted[predicted == self._ignore_index] = classes
        for name, ids, limit in (("truth", true, classes), ("prediction", predicted, classes + self._may_abstain)):
            if ids.size and (ids.min() < 0 or ids.max() >= limit):
                strange = ids[(ids < 0) | (ids >= limit)]
                raise ValueError(
                    f"The {name} has the id {strange[0]}, which is not below the number of classes, {classes}."
                )
        found = np.bincount(true * (classes + 1) + predicted, minlength=classes * (classes + 1))
        counts = found.reshape(classes, classes + 1)
        self.counts += counts[:, :classes]
        self.abstained += counts[:, classes]
        return np.stack([np.diag(counts), counts.sum(1), counts.sum(0)[:classes]])

    def overlap(self) -> Counts:
        """`(3, K)`: all pixels of each class in both, in the truth and in the prediction."""
        return np.stack([np.diag(self.counts), self.counts.sum(1) + self.abstained, self.counts.sum(0)])

    def scores(self) -> SegmentationScores:
        """The figures of all pixels counted so far."""
        hits, true, _ = overlap = self.overlap()
        class_iou = ious(overlap)
        return SegmentationScores(
            miou=one_or_none(mean(class_iou)),
            pixel_accuracy=one_or_none(divide(hits.sum(), true.sum())),
            mean_accuracy=one_or_none(mean(divide(hits, true))),
            class_iou=or_none(class_iou),
            classes_averaged=int((~np.isnan(class_iou)).sum()),
        )
