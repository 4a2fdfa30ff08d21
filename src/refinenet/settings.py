"""Whether the values of settings are numbers, and within their ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping

DEFAULT_SEED = 42
"""The seed of trainings and new networks when nobody says another."""


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_within(value: object, low: float, high: float) -> bool:
    """Whether a value is a number from `low` to `high`."""
    return isinstance(value, int | float) and is_number(value) and low <= value <= high


def find_outside(config: object, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """What is to be said of the fields of a configuration that are no numbers in their ranges, ends included."""
    return [
        f"{name} is a number from {low} to {high}, not {getattr(config, name)!r}"
        for name, (low, high) in ranges.items()
        if not is_within(getattr(config, name), low, high)
    ]
