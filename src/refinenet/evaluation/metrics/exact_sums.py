"""Sums of floating-point numbers that do not depend on the order in which they are added."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

_BITS = 32
_LOWEST = -320
"""Power of two of the last digit: below the square of the least positive float32, 2**-298."""
_DIGITS = 19
LIMIT = 2.0 ** (_LOWEST + _DIGITS * _BITS)
"""Limit of the absolute value of a number, 2**288: above the square of the largest float32 of 2**32 pixels."""


class ExactSums:
    """Sums of float64 numbers as integers, so that sums over several processes equal those of one exactly.

    A number is split into digits of 32 bits with a fixed position, and each digit is summed. The numbers are exact
    except for what lies below 2**-320. Up to 2**31 numbers can be added to each sum.

    Args:
        count: Number of sums, S.
    """

    def __init__(self, count: int) -> None:
        self.digits: npt.NDArray[np.int64] = np.zeros((_DIGITS, count), np.int64)
        """`(19, S)`: sum of the digits, from the last, of weight 2**-320, to the first, of weight 2**256."""

    def add(self, values: npt.ArrayLike) -> None:
        """Add a number to each sum.

        Args:
            values: `(S,)` float64, finite, with absolute values below `LIMIT`.

        Raises:
            ValueError: A value is not finite or too large.
        """
        rest = np.array(values, np.float64)
        if not (np.abs(rest) < LIMIT).all():
            raise ValueError(f"Values to add up must be finite and below 2**288, not {rest.tolist()}.")
        for position in reversed(range(_DIGITS)):
            weight = 2.0 ** (_LOWEST + position * _BITS)
            # All steps are exact: weights are powers of two, and the rest is what remains of the same 53 bits.
            digit = np.trunc(rest / weight)
            self.digits[position] += digit.astype(np.int64)
            rest -= digit * weight

    def fractions(self) -> list[Fraction]:
        """Return the sums without rounding, S of them."""
        return [
            Fraction(sum(int(digit) << (position * _BITS) for position, digit in enumerate(column)), 2**-_LOWEST)
            for column in self.digits.T
        ]

    def totals(self) -> npt.NDArray[np.float64]:
        """Return the sums, `(S,)`, rounded once."""
        return np.array([float(total) for total in self.fractions()], np.float64)
