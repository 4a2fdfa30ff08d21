"""How sure a figure is: intervals from drawing the images anew, with replacement (Efron, 1979).

Images, not pixels, are drawn: the pixels of one image are not independent of each other.

Shape letters: N images, K classes, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.confusion import Counts, divide, ious, mean

DRAWS = 1000
LEVEL = 0.95
SEED = 42
INTERVAL_RULE = (
    f"{LEVEL:.0%} percentile bootstrap over images: as many images as there are, drawn with replacement {DRAWS} times; "
    "it says how the figure would vary with other images like these, not with another training"
)
_AT_ONCE = 50
"""Draws computed together, which bounds the memory."""

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]


def resample(
    counts: npt.NDArray[np.int64], figure: Callable[[npt.NDArray[np.int64]], Values], draws: int = DRAWS
) -> Values:
    """A figure for each of many draws of the images.

    Args:
        counts: `(N, ...)` whole numbers of each image, which add up over images.
        figure: From sums `(r, ...)` of r draws to figures `(r, ...)`.
        draws: R.

    Returns:
        `(R, ...)`; the same for the same counts.
    """
    return np.concatenate([figure(sums) for sums in _draw_sums(counts, draws)])


def draw_times(images: int, draws: int) -> Iterator[Values]:
    """How often each image is drawn.

    Args:
        images: N.
        draws: R.

    Yields:
        `(r, N)` whole numbers for r draws, until there are R of them; the same for the same N and R.
    """
    random = np.random.default_rng(SEED)
    for first in range(0, draws, _AT_ONCE):
        times = random.multinomial(images, np.full(images, 1 / images), size=min(_AT_ONCE, draws - first))
        yield times.astype(np.float64)


def _draw_sums(counts: npt.NDArray[np.int64], draws: int) -> Iterator[npt.NDArray[np.int64]]:
    # Products of whole numbers are exact in float64 below 2 ** 53, and fast.
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    for times in draw_times(len(counts), draws):
        yield (times @ flat).astype(np.int64).reshape(-1, *counts.shape[1:])


def interval(values: Values) -> Interval | None:
    """The middle 95 % of `(R,)` figures, those that are NaN aside; None where all are."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


SUMMARY = ("miou", "pixel_accuracy", "mean_accuracy")
"""The figures of all classes together."""
LEAST_DRAWS, MOST_DRAWS = 2000, 20_000
PAIRED_RULE = (
    f"paired bootstrap over images, the same draws for both: symmetric bootstrap-t (Hall, 1988) with linearised "
    f"standard errors, {LEVEL:.0%} intervals, p two-sided; as many draws as 100 times the number of classes, from "
    f"{LEAST_DRAWS} to {MOST_DRAWS}; p_corrected: p of classes corrected for their number (Holm, 1979); it "
    "says how the difference would vary with other images like these, not with another training"
)
_ROUNDING = 1e-12
"""Differences and standard errors below it are 0: one pixel of a dataset is more."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of a figure between two models: the second one's less the first one's."""

    value: float | None
    """In [-1, 1]; None where one of them has no such figure."""
    interval: Interval | None
    """95 %; None where nothing can be said of other images: one image, or one that has the class."""
    p: float | None
    """Two-sided: how often a difference as large, in its standard errors, comes by chance. None as for `interval`."""

    @property
    def is_significant(self) -> bool:
        """Whether p is at most 5 %; `interval` then leaves 0 out."""
        return self.p is not None and self.p <= 1 - LEVEL


@dataclass(frozen=True, kw_only=True)
class Differences:
    """All differences between two models."""

    summary: tuple[Difference, ...]
    """Of the figures named by `SUMMARY`."""
    classes: tuple[Difference, ...]
    """Of IoU, by class id."""
    p_corrected: tuple[float | None, ...]
    """p by class id, made larger for the number of classes."""
    draws: int
    """R."""


def compare_counts(first: Counts, second: Counts, draws: int | None = None) -> Differences:
    """What differs between two models, and how sure that is.

    Args:
        first: `(N, 3, K)`: pixels of each image and class in both truth and prediction, in truth, in prediction.
        second: The same of the other model, on the same images.
        draws: R; by default by the number of classes.
    """
    counts = np.stack([first, second], axis=1).astype(np.float64)
    images, classes = len(counts), counts.shape[-1]
    if draws is None:
        draws = min(max(LEAST_DRAWS, 100 * classes), MOST_DRAWS) - 1
    errors = _Errors(counts)
    sums, error = errors.of(np.ones((1, images)))
    values = _differences(sums)
    drawn = [_studentise(errors, values, times) for times in draw_times(images, draws)] if images > 1 else [values]
    found = tuple(map(_judge, values[0], error[0], np.concatenate(drawn).T))
    if images < 2:
        found = tuple(Difference(value=one.value, interval=None, p=None) for one in found)
    summary, by_class = found[: len(SUMMARY)], found[len(SUMMARY) :]
    return Differences(summary=summary, classes=by_class, p_corrected=correct([one.p for one in by_class]), draws=draws)


def correct(chances: Sequence[float | None]) -> tuple[float | None, ...]:
    """Chances corrected for their number, so that one false alarm among all is as seldom as one would be alone.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    known = sorted((p, index) for index, p in enumerate(chances) if p is not None)
    corrected: list[float | None] = [None] * len(chances)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return tuple(corrected)


def _judge(value: np.float64, error: np.float64, drawn: Values) -> Difference:
    """Interval and p from `(R,)` studentised differences, NaN where a draw has no such figure."""
    if np.isnan(value):
        return Difference(value=None, interval=None, p=None)
    difference = float(value)
    if error < _ROUNDING:
        is_nothing = abs(difference) < _ROUNDING
        return Difference(value=difference, interval=(0.0, 0.0) if is_nothing else None, p=1.0 if is_nothing else None)
    sizes = np.sort(drawn[~np.isnan(drawn)])[::-1]
    p = (1 + np.count_nonzero(sizes >= abs(difference) / error)) / (1 + len(sizes))
    # The difference is significant where fewer than so many draws, and itself, are as large.
    allowed = int((1 - LEVEL) * (1 + len(sizes)) + 1e-9)
    half = float(sizes[allowed - 1] * error) if allowed else 2.0
    return Difference(
        value=difference, interval=(max(difference - half, -1.0), min(difference + half, 1.0)), p=float(p)
    )


def _studentise(errors: _Errors, values: Values, times: Values) -> Values:
    """`(r, F)`: of each draw and figure, how many of its standard errors it is from that of all images."""
    sums, error = errors.of(times)
    off = np.abs(_differences(sums) - values)
    sizes = np.where(off < _ROUNDING, 0.0, np.inf)
    sizes[np.isnan(off)] = np.nan
    np.divide(off, error, out=sizes, where=(error >= _ROUNDING) & ~np.isnan(off))
    return sizes


def _differences(sums: Values) -> Values:
    """`(r, 2, 3, K)` to `(r, F)`: of the figures in `SUMMARY`, then of the IoU of each class."""
    hits, truth = sums[:, :, 0], sums[:, :, 1]
    by_class = ious(sums)
    summary = [mean(by_class), divide(hits.sum(-1), truth.sum(-1)), mean(divide(hits, truth))]
    figures = np.concatenate([np.stack(summary, axis=-1), by_class], axis=-1)
    return np.asarray(figures[:, 1] - figures[:, 0])


class _Errors:
    """Standard errors of differences in draws, but for a factor that is the same in all draws.

    Args:
        counts: `(N, 2, 3, K)` whole numbers of the first and the second model.
    """

    def __init__(self, counts: Values) -> None:
        self._shape = counts.shape[1:]
        self._flat = counts.reshape(len(counts), -1)
        occurs: npt.NDArray[np.bool_] = np.any(counts, axis=(1, 2))
        self._images = [np.flatnonzero(column) for column in occurs.T]
        """By class: the images that have it; the others have no influence on its IoU."""
        self._by_class = [counts[chosen, ..., k].reshape(-1, 6) for k, chosen in enumerate(self._images)]

    def of(self, times: Values) -> tuple[Values, Values]:
        """Sums `(r, 2, 3, K)` and standard errors `(r, F)`; of how often each image is drawn, `(r, N)`."""
        sums = (times @ self._flat).reshape(-1, *self._shape)
        iou = _iou_slopes(sums)
        squares = [
            _add_squares(times, self._flat, _second_less_first(slopes).reshape(len(times), -1))
            for slopes in _summary_slopes(sums, iou)
        ]
        slopes = _second_less_first(iou)
        squares += [
            _add_squares(times[:, chosen], own, slopes[..., k].reshape(-1, 6))
            for k, (chosen, own) in enumerate(zip(self._images, self._by_class, strict=True))
        ]
        return sums, np.sqrt(np.stack(squares, axis=-1))


def _add_squares(times: Values, counts: Values, slopes: Values) -> Values:
    """`(r,)`: the squares of the images' influences, `counts @ slopes`, added up over the images drawn."""
    return np.asarray(np.einsum("rn,nr->r", times, (counts @ slopes.T) ** 2))


def _iou_slopes(sums: Values) -> Values:
    """`(r, 2, 3, K)`: how each class's IoU, H / (T + P - H), moves with its sums H, T and P; 0 where there is none."""
    hits, truth, prediction = np.moveaxis(sums, -2, 0)
    union = truth + prediction - hits
    down = -divide(hits, union**2)
    return np.nan_to_num(np.stack([divide(np.ones_like(union), union) - down, down, down], axis=-2))


def _summary_slopes(sums: Values, iou: Values) -> tuple[Values, Values, Values]:
    """The same of mean IoU, pixel accuracy and mean accuracy."""
    hits, truth, prediction = np.moveaxis(sums, -2, 0)
    present = np.maximum(((truth + prediction) > 0).sum(-1), 1)
    in_truth = np.maximum((truth > 0).sum(-1), 1)
    accuracy = np.stack([divide(np.ones_like(truth), truth), -divide(hits, truth**2), np.zeros_like(truth)], axis=-2)
    right, all_of_them = hits.sum(-1), truth.sum(-1)
    pixels = np.stack([divide(np.ones_like(right), all_of_them), -divide(right, all_of_them**2), 0 * right], axis=-1)
    return (
        iou / present[..., None, None],
        np.nan_to_num(np.broadcast_to(pixels[..., None], sums.shape)),
        np.nan_to_num(accuracy) / in_truth[..., None, None],
    )


def _second_less_first(slopes: Values) -> Values:
    return np.asarray(slopes * np.array([-1.0, 1.0])[:, None, None])
