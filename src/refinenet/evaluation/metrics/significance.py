"""Bootstrap intervals of metrics, and paired tests of their differences (Efron, 1979).

Images, not pixels, are resampled: the pixels of one image are not independent of each other.

Shape letters: N images, K classes, R draws, r draws of one batch, F metrics.
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
    "covers variation over similar images, not over training runs"
)
_AT_ONCE = 50
"""Draws computed at once, which bounds memory."""

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]


def resample(
    counts: npt.NDArray[np.int64], metric: Callable[[npt.NDArray[np.int64]], Values], draws: int = DRAWS
) -> Values:
    """Compute a metric for each of many draws of the images.

    Args:
        counts: `(N, ...)` counts of each image, which add up over images.
        metric: Maps sums `(r, ...)` of r draws to values `(r, ...)`.
        draws: R.

    Returns:
        `(R, ...)`; equal for equal counts.
    """
    return np.concatenate([metric(sums) for sums in _draw_sums(counts, draws)])


def draw_times(images: int, draws: int) -> Iterator[Values]:
    """Draw how often each image is in a sample of N images with replacement.

    Args:
        images: N.
        draws: R.

    Yields:
        `(r, N)` counts for batches of draws, R in all; equal for equal N and R.
    """
    # A fixed seed: the same results file always has the same intervals, and two models share their draws.
    random = np.random.default_rng(SEED)
    for first in range(0, draws, _AT_ONCE):
        times = random.multinomial(images, np.full(images, 1 / images), size=min(_AT_ONCE, draws - first))
        yield times.astype(np.float64)


def _draw_sums(counts: npt.NDArray[np.int64], draws: int) -> Iterator[npt.NDArray[np.int64]]:
    # Sums over drawn images are a matrix product; integers in float64 are exact below 2**53, and BLAS is fast.
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    for times in draw_times(len(counts), draws):
        yield (times @ flat).astype(np.int64).reshape(len(times), *counts.shape[1:])


def interval(values: Values) -> Interval | None:
    """Return the central 95 % of `(R,)` values without NaNs; None if all are NaN."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


SUMMARY = ("miou", "pixel_accuracy", "mean_accuracy")
"""Metrics over all classes."""
LEAST_DRAWS, MOST_DRAWS = 2000, 20_000
PAIRED_RULE = (
    f"paired bootstrap over images, the same draws for both: symmetric bootstrap-t (Hall, 1988) with linearised "
    f"standard errors, {LEVEL:.0%} intervals, p two-sided; as many draws as 100 times the number of classes, from "
    f"{LEAST_DRAWS} to {MOST_DRAWS}; p_corrected: p of classes corrected for their number (Holm, 1979); covers "
    f"variation over similar images, not over training runs"
)
_ROUNDING = 1e-12
"""Differences and standard errors below it count as 0: a single pixel of a dataset makes more."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference of a metric between two models, second minus first."""

    value: float | None
    """Difference in [-1, 1]; None if the metric is undefined for one of them."""
    interval: Interval | None
    """95 % interval; None if nothing can be inferred about other images: a single image, or only one with the class."""
    p: float | None
    """Two-sided p value of the studentised difference; None as for `interval`."""

    @property
    def is_significant(self) -> bool:
        """Whether p is at most 5 %; `interval` then excludes 0."""
        return self.p is not None and self.p <= 1 - LEVEL


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Differences of all metrics between two models."""

    summary: tuple[Difference, ...]
    """Differences of the metrics in `SUMMARY`."""
    classes: tuple[Difference, ...]
    """Differences of IoU, by class id."""
    p_corrected: tuple[float | None, ...]
    """p by class id, corrected for the number of classes."""
    draws: int
    """R."""


def compare_counts(first: Counts, second: Counts, draws: int | None = None) -> Differences:
    """Test the differences between two models on the same images.

    Args:
        first: `(N, 3, K)`: pixels of each image and class in both truth and prediction, in truth, in prediction.
        second: The same for the other model.
        draws: R; by default chosen by the number of classes.
    """
    counts = np.stack([first, second], axis=1).astype(np.float64)
    images, classes = len(counts), counts.shape[-1]
    if draws is None:
        draws = min(max(LEAST_DRAWS, 100 * classes), MOST_DRAWS) - 1
    errors = _Errors(counts)
    sums, error = errors.of(np.ones((1, images)))
    values = _differences(sums)
    drawn = [_studentise(errors, values, times) for times in draw_times(images, draws)] if images > 1 else [values]
    differences = tuple(map(_test_difference, values[0], error[0], np.concatenate(drawn).T))
    if images < 2:
        differences = tuple(Difference(value=one.value, interval=None, p=None) for one in differences)
    summary, by_class = differences[: len(SUMMARY)], differences[len(SUMMARY) :]
    return Differences(
        summary=summary, classes=by_class, p_corrected=correct_p_values([one.p for one in by_class]), draws=draws
    )


def correct_p_values(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Correct p values for their number, which bounds the probability of any false positive among them.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0  # corrected values never decrease with p
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return tuple(corrected)


def _test_difference(value: np.float64, error: np.float64, drawn: Values) -> Difference:
    """Compute interval and p from `(R,)` studentised differences, NaN where the metric is undefined in a draw."""
    if np.isnan(value):
        return Difference(value=None, interval=None, p=None)
    difference = float(value)
    if error < _ROUNDING:
        is_zero = abs(difference) < _ROUNDING
        return Difference(value=difference, interval=(0.0, 0.0) if is_zero else None, p=1.0 if is_zero else None)
    sizes = np.sort(drawn[~np.isnan(drawn)])[::-1]
    # The observed difference counts as one more draw, so that p is never 0.
    p = (1 + np.count_nonzero(sizes >= abs(difference) / error)) / (1 + len(sizes))
    # The `allowed`-th largest draw is below the difference exactly if p is at most 5 %: interval and p agree.
    allowed = int((1 - LEVEL) * (1 + len(sizes)) + 1e-9)
    half = float(sizes[allowed - 1] * error) if allowed else 2.0
    return Difference(
        value=difference, interval=(max(difference - half, -1.0), min(difference + half, 1.0)), p=float(p)
    )


def _studentise(errors: _Errors, values: Values, times: Values) -> Values:
    """Return `(r, F)`: distance of each draw's difference from that of all images, in its own standard errors."""
    sums, error = errors.of(times)
    distance = np.abs(_differences(sums) - values)
    sizes = np.where(distance < _ROUNDING, 0.0, np.inf)
    sizes[np.isnan(distance)] = np.nan
    np.divide(distance, error, out=sizes, where=(error >= _ROUNDING) & ~np.isnan(distance))
    return sizes


def _differences(sums: Values) -> Values:
    """Compute `(r, F)` from `(r, 2, 3, K)`: differences of the metrics in `SUMMARY`, then of the IoU of each class."""
    hits, truth = sums[:, :, 0], sums[:, :, 1]
    by_class = ious(sums)
    summary = [mean(by_class), divide(hits.sum(-1), truth.sum(-1)), mean(divide(hits, truth))]
    metrics = np.concatenate([np.stack(summary, axis=-1), by_class], axis=-1)
    return np.asarray(metrics[:, 1] - metrics[:, 0])


class _Errors:
    """Standard errors of differences, up to a factor that all draws share and that cancels in the test.

    They are linearised: the influence of an image on a metric is its counts times the slopes of the metric with respect
    to the sums of counts (delta method), and the squared influences of the images drawn add up.

    Args:
        counts: `(N, 2, 3, K)` counts of the first and the second model.
    """

    def __init__(self, counts: Values) -> None:
        self._shape = counts.shape[1:]
        self._flat = counts.reshape(len(counts), -1)
        occurs: npt.NDArray[np.bool_] = np.any(counts, axis=(1, 2))
        self._images = [np.flatnonzero(column) for column in occurs.T]
        """For each class, the images in which it occurs; the others have no influence on its IoU."""
        self._by_class = [counts[chosen, ..., k].reshape(-1, 6) for k, chosen in enumerate(self._images)]

    def of(self, times: Values) -> tuple[Values, Values]:
        """Return sums `(r, 2, 3, K)` and standard errors `(r, F)` for counts of draws `(r, N)`."""
        sums = (times @ self._flat).reshape(-1, *self._shape)
        iou = _iou_slopes(sums)
        squares = [
            _add_squares(times, self._flat, _second_less_first(slopes).reshape(len(times), -1))
            for slopes in _summary_slopes(sums, iou)
        ]
        slopes = _second_less_first(iou)
        squares += [
            _add_squares(times[:, chosen], counts, slopes[..., k].reshape(-1, 6))
            for k, (chosen, counts) in enumerate(zip(self._images, self._by_class, strict=True))
        ]
        return sums, np.sqrt(np.stack(squares, axis=-1))


def _add_squares(times: Values, counts: Values, slopes: Values) -> Values:
    """Return `(r,)`: squared influences, `counts @ slopes`, summed over the images drawn."""
    return np.asarray(np.einsum("rn,nr->r", times, (counts @ slopes.T) ** 2))


def _iou_slopes(sums: Values) -> Values:
    """Return `(r, 2, 3, K)`: slopes of each class's IoU, H / (T + P - H), by its sums H, T and P; 0 if undefined."""
    hits, truth, prediction = np.moveaxis(sums, -2, 0)
    union = truth + prediction - hits
    down = -divide(hits, union**2)
    return np.nan_to_num(np.stack([divide(np.ones_like(union), union) - down, down, down], axis=-2))


def _summary_slopes(sums: Values, iou: Values) -> tuple[Values, Values, Values]:
    """Return the slopes of mean IoU, pixel accuracy and mean accuracy."""
    hits, truth, prediction = np.moveaxis(sums, -2, 0)
    present = np.maximum(((truth + prediction) > 0).sum(-1), 1)
    in_truth = np.maximum((truth > 0).sum(-1), 1)
    accuracy = np.stack([divide(np.ones_like(truth), truth), -divide(hits, truth**2), np.zeros_like(truth)], axis=-2)
    right, labelled = hits.sum(-1), truth.sum(-1)
    pixels = np.stack([divide(np.ones_like(right), labelled), -divide(right, labelled**2), 0 * right], axis=-1)
    return (
        iou / present[..., None, None],
        np.nan_to_num(np.broadcast_to(pixels[..., None], sums.shape)),
        np.nan_to_num(accuracy) / in_truth[..., None, None],
    )


def _second_less_first(slopes: Values) -> Values:
    return np.asarray(slopes * np.array([-1.0, 1.0])[:, None, None])
