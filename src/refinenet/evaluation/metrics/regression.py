"""Errors of predicted quantities, each in its unit.

Shape letters: D quantities, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

import numpy as np

from refinenet.evaluation.metrics.exact_sums import ExactSums
from refinenet.evaluation.metrics.target_accumulator import Integers, TargetAccumulator, Values, check_image, show
from refinenet.outputs import OutputSpec

LEAST_VARIATION = 1e-6
"""Standard deviation of true values, as a share of their root mean square, below which they count as all the same:
about what float32 can tell apart."""
_SUMS = 5


@dataclass(frozen=True, kw_only=True)
class QuantityMetrics:
    """Errors of one quantity over the pixels of all images; None without pixels."""

    name: str
    unit: str
    pixels: int
    """Number of pixels with truth for this quantity."""
    mae: float | None
    """Mean absolute error, in the unit."""
    rmse: float | None
    """Root of the mean squared error, in the unit."""
    bias: float | None
    """Mean of prediction minus truth, in the unit."""
    r2: float | None
    """Coefficient of determination, at most 1; None if all true values are the same."""


@dataclass(frozen=True, kw_only=True)
class RegressionMetrics:
    """Errors of all quantities of an output."""

    quantities: tuple[QuantityMetrics, ...]
    """Errors of each quantity, in the order of the output's channels."""


class RegressionAccumulator(TargetAccumulator):
    """Errors of quantities.

    Args:
        names: Names of the quantities, D of them.
        units: Their units; empty for none.

    Raises:
        ValueError: There is no quantity, or the number of units is another.
    """

    rules: ClassVar[Mapping[str, str]] = {
        "mae, rmse, bias": "mean of |p - t|, root of the mean of (p - t)^2, mean of p - t, over all pixels with truth",
        "r2": (
            "1 - sum of (p - t)^2 / sum of (t - m)^2 over the pixels of all images, with m the mean of all t (Draper, "
            "Smith, Applied Regression Analysis); undefined if the t vary by less than a millionth of their size"
        ),
        "null": "undefined: there was nothing to measure",
    }

    def __init__(self, names: Sequence[str], units: Sequence[str] = ()) -> None:
        self.names, self.units = tuple(names), tuple(units) or ("",) * len(names)
        if not self.names or len(self.units) != len(self.names):
            raise ValueError(
                f"A regression must have quantities, each with a unit, not {self.names!r} and {self.units!r}."
            )
        self._sums = ExactSums(len(self.names) * _SUMS)
        """For each quantity the sums of errors, absolute errors, squared errors, true values and their squares."""
        self._pixels: Integers = np.zeros(len(self.names), np.int64)

    @classmethod
    def for_output(cls, spec: OutputSpec) -> Self:
        """Return an accumulator for the quantities of an output."""
        return cls(spec.channels, spec.units)

    def add(self, predicted: Values, target: Values) -> None:
        """Add the errors of one image.

        Args:
            predicted: `(D, H, W)` float32, finite.
            target: `(D, H, W)` float32, NaN where there is no truth, which may differ between quantities.

        Raises:
            ValueError: The shapes differ or are not `(D, H, W)`, or a value is infinite.
        """
        check_image(predicted, target, channels=len(self.names))
        if np.isinf(target).any():
            raise ValueError("True values must be finite; mark missing ones as NaN.")
        sums, pixels = [], []
        for guess, truth in zip(predicted, target, strict=True):
            has_truth = ~np.isnan(truth)
            known = truth[has_truth].astype(np.float64)
            errors = guess[has_truth].astype(np.float64) - known
            parts = (errors, np.abs(errors), errors**2, known, known**2)
            sums += [part.sum() for part in parts]
            pixels.append(known.size)
        self._sums.add(sums)
        self._pixels += pixels

    def arrays(self) -> tuple[Integers, ...]:
        """Return all sums, int64 arrays that may be changed in place; those of several processes are to be added."""
        return self._sums.digits, self._pixels

    def summary(self) -> Mapping[str, float | None]:
        """Return the errors of each quantity that logs have."""
        found = self.result().quantities
        return {f"{item.name}_rmse": item.rmse for item in found} | {f"{item.name}_r2": item.r2 for item in found}

    def summary_units(self) -> Mapping[str, str]:
        """Return the units of the metrics of `summary` that have one, by name."""
        return {f"{name}_rmse": unit for name, unit in zip(self.names, self.units, strict=True) if unit}

    def score(self) -> float:
        """Return the mean coefficient of determination of the quantities, of each at least 0."""
        found = self.result().quantities
        return sum(max(item.r2 or 0.0, 0.0) for item in found) / len(found)

    def tables(self) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Yield the table of the errors of all quantities."""
        rows = [
            [item.name, item.unit or "-", *map(show, (item.mae, item.rmse, item.bias, item.r2))]
            for item in self.result().quantities
        ]
        yield "errors of quantities", ["quantity", "unit", "MAE", "RMSE", "bias", "R2"], rows

    def result(self) -> RegressionMetrics:
        """Compute the metrics of all images added so far."""
        totals = self._sums.fractions()
        rows = zip(self.names, self.units, self._pixels.tolist(), strict=True)
        quantities = [
            _compute_metrics(name, unit, pixels, totals[position * _SUMS : (position + 1) * _SUMS])
            for position, (name, unit, pixels) in enumerate(rows)
        ]
        return RegressionMetrics(quantities=tuple(quantities))


def _compute_metrics(name: str, unit: str, pixels: int, totals: Sequence[Fraction]) -> QuantityMetrics:
    if not pixels:
        return QuantityMetrics(name=name, unit=unit, pixels=0, mae=None, rmse=None, bias=None, r2=None)
    error, absolute, squared, true, true_squared = totals
    variation = true_squared - true**2 / pixels
    varies = variation > true_squared * Fraction(LEAST_VARIATION) ** 2
    return QuantityMetrics(
        name=name,
        unit=unit,
        pixels=pixels,
        mae=float(absolute / pixels),
        rmse=math.sqrt(squared / pixels),
        bias=float(error / pixels),
        r2=float(1 - squared / variation) if varies else None,
    )
