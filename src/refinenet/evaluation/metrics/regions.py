"""What all figures of overlap come from: how many pixels a thing has in truth, in prediction, and in both.

Shape letters: K classes.
"""

from __future__ import annotations

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
