"""How sure a figure is: intervals from drawing the images anew, with replacement (Efron, 1979).

Images, not pixels, are drawn: the pixels of one image are not independent of each other.

Shape letters: N images, K classes, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

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
