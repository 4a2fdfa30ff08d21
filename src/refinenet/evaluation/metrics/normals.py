"""Angles between predicted and true surface normals.

The metrics are those of Fouhey, Gupta, Hebert, Data-Driven 3D Primitives for Single Image Understanding, ICCV 2013.

Shape letters: H height, W width, n pixels with truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from refinenet.evaluation.metrics.exact_sums import ExactSums
from refinenet.evaluation.metrics.target_accumulator import Integers, TargetAccumulator, Values, check_image, show
from refinenet.outputs import OutputSpec

LIMITS = (11.25, 22.5, 30.0)
"""Angles in degrees below which shares of pixels are reported."""
BINS_PER_DEGREE = 100
"""Bins of the histogram from which the median is computed: 0.01 degrees wide."""
_BINS = 180 * BINS_PER_DEGREE


@dataclass(frozen=True, kw_only=True)
class NormalMetrics:
    """Angles between predicted and true normals, over the pixels of all images; None without pixels."""

    pixels: int
    """Number of pixels with truth."""
    mean: float | None
    """Mean angle in degrees."""
    median: float | None
    """Median angle in degrees, within 0.005 degrees."""
    rmse: float | None
    """Root of the mean squared angle, in degrees."""
    within_11_25: float | None
    """Share of pixels with an angle below 11.25 degrees, in [0, 1]; the next two are for 22.5 and 30 degrees."""
    within_22_5: float | None
    within_30: float | None


_NO_METRICS = NormalMetrics(
    pixels=0, mean=None, median=None, rmse=None, within_11_25=None, within_22_5=None, within_30=None
)


class NormalAccumulator(TargetAccumulator):
    """Angles between predicted and true normals."""

    rules: ClassVar[Mapping[str, str]] = {
        "mean, rmse": "mean, and root of the mean square, of the angles between prediction and truth, over all pixels",
        "median": (
            f"from a histogram with bins of {1 / BINS_PER_DEGREE} degrees: the middle of the bin of the median angle, "
            "for an even number of pixels the mean of the middles of the bins of the two"
        ),
        "within_11_25, within_22_5, within_30": "share of pixels with an angle below 11.25, 22.5 and 30 degrees",
        "null": "undefined: there was nothing to measure",
    }

    def __init__(self) -> None:
        self._sums = ExactSums(2)
        """Sums of angles, and of their squares."""
        self._histogram: Integers = np.zeros(_BINS, np.int64)
        self._hits: Integers = np.zeros(len(LIMITS), np.int64)

    @classmethod
    def for_output(cls, spec: OutputSpec) -> Self:  # noqa: ARG003 - the same parameters for all kinds
        """Return an accumulator for normals."""
        return cls()

    def add(self, predicted: Values, target: Values) -> None:
        """Add the angles of one image.

        Args:
            predicted: `(3, H, W)` float32, finite, of any length; one of length 0 counts as 90 degrees off.
            target: `(3, H, W)` float32, of any length above 0; NaN in any channel where there is no truth.

        Raises:
            ValueError: The shapes differ or are not `(3, H, W)`, a prediction or a true normal is not finite, or a true
                normal has length 0.
        """
        check_image(predicted, target, channels=3)
        has_truth = ~np.isnan(target).any(0)
        truth = target[:, has_truth].astype(np.float64)
        if not np.isfinite(truth).all() or not truth.any(0).all():
            raise ValueError("True normals must be finite and longer than 0; mark missing ones as NaN.")
        angles = find_angles(predicted[:, has_truth].astype(np.float64), truth)
        bins = np.minimum((angles * BINS_PER_DEGREE).astype(np.int64), _BINS - 1)
        self._histogram += np.bincount(bins, minlength=_BINS)
        self._hits += [np.count_nonzero(angles < limit) for limit in LIMITS]
        self._sums.add((angles.sum(), (angles**2).sum()))

    def arrays(self) -> tuple[Integers, ...]:
        """Return all sums, int64 arrays that may be changed in place; those of several processes are to be added."""
        return self._sums.digits, self._histogram, self._hits

    def summary(self) -> Mapping[str, float | None]:
        """Return the angles that logs have."""
        result = self.result()
        return {"mean_angle": result.mean, "within_11_25": result.within_11_25}

    def summary_units(self) -> Mapping[str, str]:
        """Return the units of the metrics of `summary` that have one, by name."""
        return {"mean_angle": "degrees"}

    def score(self) -> float:
        """Return the share of pixels whose normal is right within 11.25 degrees."""
        return self.result().within_11_25 or 0.0

    def tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Yield the table of angles and shares."""
        result = self.result()
        rows = [["mean angle", show(result.mean, 2), "degrees"], ["median angle", show(result.median, 2), "degrees"]]
        rows += [["RMSE", show(result.rmse, 2), "degrees"]]
        shares = (result.within_11_25, result.within_22_5, result.within_30)
        rows += [
            [f"within {limit:g} degrees", show(None if share is None else 100 * share, 2), "%"]
            for limit, share in zip(LIMITS, shares, strict=True)
        ]
        yield "angles between predicted and true normals", ["", "", "unit"], rows

    def result(self) -> NormalMetrics:
        """Compute the metrics of all images added so far."""
        pixels = int(self._histogram.sum())
        if not pixels:
            return _NO_METRICS
        mean, square = (self._sums.totals() / pixels).tolist()
        shares = (self._hits / pixels).tolist()
        return NormalMetrics(
            pixels=pixels,
            mean=mean,
            median=self._find_median(pixels),
            rmse=float(np.sqrt(square)),
            within_11_25=shares[0],
            within_22_5=shares[1],
            within_30=shares[2],
        )

    def _find_median(self, pixels: int) -> float:
        ranks = np.array([(pixels - 1) // 2, pixels // 2])
        # The bin of the pixel of a rank, from 0, is the first that more pixels than the rank do not exceed.
        bins = np.searchsorted(self._histogram.cumsum(), ranks, side="right")
        return float((bins + 0.5).mean() / BINS_PER_DEGREE)


def find_angles(first: Values, second: Values) -> Values:
    """Return the angles between vectors, in degrees from 0 to 180; 90 if one of them has length 0.

    By the arctangent of the lengths of cross and dot product: the arccosine of a dot product loses half of the digits
    of small angles.

    Args:
        first: `(3, n)` float64, with components in the range of float32.
        second: The same.

    Returns:
        `(n,)` float64.
    """
    dots = (first * second).sum(0)
    sines = np.linalg.norm(np.cross(first, second, axis=0), axis=0)
    angles: Values = np.degrees(np.arctan2(sines, dots))
    return np.where((sines == 0) & (dots == 0), 90.0, angles)
