"""Numbers between two polynomials in N, H and W, and tensors whose sides are such numbers; see `memory_bound`.

Shape letters: N batch, H and W height and width of the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Powers = tuple[int, int, int]
"""Of N, H and W in a product."""
Sizes = npt.NDArray[np.object_]
"""An array of `Size`."""

MAX_VALUES = 64
"""Elements of a tensor that sizes are computed from; larger ones are weights or feature maps."""


class UnprovenError(Exception):
    """A graph whose need of memory cannot be bounded."""


@dataclass(frozen=True)
class Size:
    """A whole or real number between two polynomials in N, H and W, all of which are 1 or more."""

    terms: Mapping[Powers, tuple[float, float]]
    """Least and greatest coefficient of each product."""

    def __add__(self, other: Size) -> Size:
        keys = {**self.terms, **other.terms}
        return Size({key: _plus(self.terms.get(key, _ZERO), other.terms.get(key, _ZERO)) for key in keys})

    def __sub__(self, other: Size) -> Size:
        return self + other.times(-1)

    def __mul__(self, other: Size) -> Size:
        terms: dict[Powers, tuple[float, float]] = {}
        for first, (low, high) in self.terms.items():
            for second, (least, most) in other.terms.items():
                ends = (low * least, low * most, high * least, high * most)
                key = (first[0] + second[0], first[1] + second[1], first[2] + second[2])
                # The products are positive, so that the ends of each coefficient are reached at its own ends.
                terms[key] = _plus(terms.get(key, _ZERO), (min(ends), max(ends)))
        return Size(terms)

    def times(self, factor: float) -> Size:
        """The number times a constant."""
        return self * constant(factor)

    def plus(self, low: float, high: float) -> Size:
        """The number plus an unknown one from `low` to `high`."""
        return self + Size({_ONE: (low, high)})

    def or_else(self, other: Size) -> Size:
        """One of two numbers, which of them is not known: also their minimum and maximum."""
        keys = {**self.terms, **other.terms}
        pairs = {key: (self.terms.get(key, _ZERO), other.terms.get(key, _ZERO)) for key in keys}
        return Size({key: (min(a[0], b[0]), max(a[1], b[1])) for key, (a, b) in pairs.items()})

    @property
    def constant(self) -> float | None:
        """The number, if it does not depend on the image; else None."""
        if any(ends != _ZERO for powers, ends in self.terms.items() if powers != _ONE):
            return None
        low, high = self.terms.get(_ONE, _ZERO)
        return low if low == high else None


_ONE: Powers = (0, 0, 0)
_ZERO = (0.0, 0.0)


def _plus(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] + second[0], first[1] + second[1]


def constant(number: float) -> Size:
    """A number that is known."""
    return Size({_ONE: (float(number), float(number))})


@dataclass(frozen=True)
class Bounded:
    """A tensor of which the sides are bounded, and of small tensors of numbers the values, too."""

    shape: tuple[Size, ...]
    values: Sizes | None = None

    @classmethod
    def of(cls, values: Sizes) -> Bounded:
        """A tensor whose values are bounded."""
        return cls(tuple(constant(side) for side in values.shape), values if values.size <= MAX_VALUES else None)

    @classmethod
    def known(cls, numbers: npt.NDArray[Any]) -> Bounded:
        """A constant tensor of few numbers."""
        values = np.empty(numbers.shape, dtype=object)
        for place in np.ndindex(numbers.shape):
            values[place] = constant(float(numbers[place]))
        return cls.of(values)

    @property
    def is_constant(self) -> bool:
        """Whether its size is the same for every image, so that the test run has shown the memory it needs."""
        return all(side.constant is not None for side in self.shape)

    def elements(self) -> Size:
        """Their number."""
        return math.prod(self.shape, start=constant(1))
