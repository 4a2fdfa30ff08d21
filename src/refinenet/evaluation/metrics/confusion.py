"""Confusion matrix over a whole dataset, and the scores computed from it.

Pixels of all images are counted in one int64 matrix, true class by predicted class; pixels labelled with the ignore
index are dropped. The IoU of a class that occurs in ground truth or prediction is TP / (TP + FP + FN). Classes that
occur in neither have no score (None) and are excluded from means. Labelled pixels without a predicted class, where
allowed, are false negatives of the true class and false positives of none.

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
    """Count `(3, K)` from the 1-D ids of hits, of true and of predicted pixels; ids of no class are left out."""
    return np.stack([np.bincount(ids, minlength=ignore_index + 1)[:classes] for ids in (hits, truth, prediction)])


def ious(counts: Counts | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the intersection over union, `(..., K)`; NaN for classes in neither truth nor prediction."""
    hits, truth, prediction = np.moveaxis(counts, -2, 0)
    return divide(hits, truth + prediction - hits)


def divide(parts: npt.ArrayLike, wholes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the ratio, NaN where the denominator is 0."""
    ratio = np.full(np.shape(wholes), np.nan)
    np.divide(parts, wholes, out=ratio, where=np.asarray(wholes) != 0)
    return ratio


def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean over the last axis without NaNs (as nanmean, but silent); NaN where all are NaN."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(-1)
    means = np.full(np.shape(total), np.nan)
    np.divide(total, present.sum(-1), out=means, where=present.any(-1))
    return means


def or_none(values: npt.NDArray[np.float64]) -> tuple[float | None, ...]:
    """Convert values to floats, NaN to None."""
    return tuple(None if np.isnan(value) else float(value) for value in values)


def one_or_none(value: float | npt.NDArray[np.float64]) -> float | None:
    """Convert a value to a float, NaN to None."""
    return None if np.isnan(value) else float(value)


RULE = (
    "one confusion matrix (int64 pixels) over all images; pixels labelled with the ignore index are dropped; IoU = "
    "TP / (TP + FP + FN); means over the classes that occur in ground truth or prediction (IoU), or in the ground "
    "truth (accuracy)"
)


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Scores in [0, 1]; None if undefined."""

    miou: float | None
    """Mean IoU over the classes that occur in truth or prediction."""
    pixel_accuracy: float | None
    """Share of labelled pixels that are correct."""
    mean_accuracy: float | None
    """Mean, over the classes that occur in the truth, of the share of their pixels that are correct."""
    class_iou: tuple[float | None, ...]
    """IoU by class id."""
    classes_averaged: int
    """Number of classes that enter `miou`."""


class ConfusionMatrix:
    """Pixel counts by true and predicted class.

    Args:
        num_classes: K.
        ignore_index: Id of pixels without ground truth.
        may_abstain: Whether predictions may contain the ignore index, for pixels without a predicted class.
    """

    def __init__(self, num_classes: int, ignore_index: int, *, may_abstain: bool = False) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """`(K, K)` int64: rows are true classes, columns predicted ones."""
        self.abstained: npt.NDArray[np.int64] = np.zeros(num_classes, np.int64)
        """`(K,)` int64: pixels of each true class without a predicted class."""
        self._ignore_index, self._may_abstain = ignore_index, may_abstain

    def add(self, truth: LabelMap, prediction: LabelMap) -> Counts:
        """Count the pixels of one image.

        Args:
            truth: `(H, W)` ids below K, or the ignore index.
            prediction: `(H, W)` ids below K, or the ignore index if `may_abstain`.

        Returns:
            `(3, K)`: pixels of this image of each class in both, in the truth and in the prediction.

        Raises:
            ValueError: the two differ in size, or an id is not below K.
        """
        classes = len(self.counts)
        if truth.shape != prediction.shape:
            raise ValueError(f"The truth has the shape {truth.shape}, but the prediction has {prediction.shape}.")
        valid = truth != self._ignore_index
        true, predicted = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
        if self._may_abstain:
            predicted[predicted == self._ignore_index] = classes
        for name, ids, limit in (("truth", true, classes), ("prediction", predicted, classes + self._may_abstain)):
            if ids.size and (ids.min() < 0 or ids.max() >= limit):
                invalid = ids[(ids < 0) | (ids >= limit)]
                raise ValueError(
                    f"The {name} has the id {invalid[0]}, which is not below the number of classes, {classes}."
                )
        # Each pair of ids is one number, so that one bincount fills the matrix; column K counts abstentions.
        pairs = np.bincount(true * (classes + 1) + predicted, minlength=classes * (classes + 1))
        counts = pairs.reshape(classes, classes + 1)
        self.counts += counts[:, :classes]
        self.abstained += counts[:, classes]
        return np.stack([np.diag(counts), counts.sum(1), counts.sum(0)[:classes]])

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return self.counts, self.abstained

    def overlap(self) -> Counts:
        """Return `(3, K)`: all pixels of each class in both, in the truth and in the prediction."""
        return np.stack([np.diag(self.counts), self.counts.sum(1) + self.abstained, self.counts.sum(0)])

    def scores(self) -> SegmentationScores:
        """Compute the scores of all pixels counted so far."""
        hits, true, _ = overlap = self.overlap()
        class_iou = ious(overlap)
        return SegmentationScores(
            miou=one_or_none(mean(class_iou)),
            pixel_accuracy=one_or_none(divide(hits.sum(), true.sum())),
            mean_accuracy=one_or_none(mean(divide(hits, true))),
            class_iou=or_none(class_iou),
            classes_averaged=int((~np.isnan(class_iou)).sum()),
        )
