"""Figures of merit, from one confusion matrix over a whole dataset.

The rule: one int64 matrix of pixels over all images, true class by predicted class; pixels whose truth is the ignore
index are dropped first. A class counts when it occurs in the truth or in the prediction; its IoU is
TP / (TP + FP + FN). Classes that occur in neither have no figure (None) and do not enter a mean.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap

RULE = (
    "one confusion matrix (int64 pixels) over all images; pixels with the ignore index in the truth dropped; "
    "IoU = TP / (TP + FP + FN); means over the classes that occur in truth or prediction (IoU) or in truth (accuracy)"
)


@dataclass(frozen=True, kw_only=True)
class Scores:
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
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """`(K, K)` int64: row the true class, column the predicted one."""
        self._ignore_index = ignore_index

    def add(self, truth: LabelMap, prediction: LabelMap) -> None:
        """Count the pixels of one image.

        Args:
            truth: `(H, W)` ids below K, or the ignore index.
            prediction: `(H, W)` ids below K.

        Raises:
            ValueError: the two differ in size, or an id is not below K.
        """
        classes = len(self.counts)
        if truth.shape != prediction.shape:
            raise ValueError(f"Truth has the shape {truth.shape}, the prediction {prediction.shape}.")
        valid = truth != self._ignore_index
        true, predicted = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
        for name, ids in (("truth", true), ("prediction", predicted)):
            strange = ids[(ids < 0) | (ids >= classes)]
            if strange.size:
                raise ValueError(
                    f"The {name} has the id {strange[0]}, which is not below the number of classes, {classes}."
                )
        self.counts += np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)

    def scores(self) -> Scores:
        """The figures of all pixels counted so far."""
        hits, true, predicted = np.diag(self.counts), self.counts.sum(1), self.counts.sum(0)
        class_iou = _divide(hits, true + predicted - hits)
        accuracies = _divide(hits, true)
        return Scores(
            miou=_mean(class_iou),
            pixel_accuracy=_divide([hits.sum()], [true.sum()])[0],
            mean_accuracy=_mean(accuracies),
            class_iou=class_iou,
            classes_averaged=sum(value is not None for value in class_iou),
        )


def _divide(
    parts: Sequence[int] | npt.NDArray[np.int64], wholes: Sequence[int] | npt.NDArray[np.int64]
) -> tuple[float | None, ...]:
    return tuple(int(part) / int(whole) if whole else None for part, whole in zip(parts, wholes, strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
