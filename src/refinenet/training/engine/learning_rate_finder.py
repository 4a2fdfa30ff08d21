"""Finding a learning rate: the range test of Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).

The rate rises from step to step by the same factor; the loss first stays, then falls, then explodes. The suggestion is
the rate at which the smoothed loss falls fastest over the logarithm of the rate, as in Gugger, "How Do You Find A Good
Learning Rate" (2018) and the "steep" rule of fastai.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

EXPLOSION = 4.0
"""The search ends where the smoothed loss is this many times its least value."""
LEAST_FALL = 0.05
"""Share of its first value by which the smoothed loss has to fall for a rate to be suggested."""
SMOOTHING = 0.04
"""Standard deviation of the smoothing, as a share of the steps."""


@dataclass(frozen=True, kw_only=True)
class LearningRateSearch:
    """What a range test saw, to draw and to judge; all tuples are of the same length."""

    rates: tuple[float, ...]
    """Learning rates, rising by the same factor from step to step."""
    losses: tuple[float, ...]
    """The loss of each step."""
    smoothed: tuple[float, ...]
    """The losses under a Gaussian window over neighbouring steps, which shifts nothing to higher rates."""
    suggestion: float
    """The rate of the steepest descent."""


def find_learning_rate(
    step: Callable[[float], float], *, lowest: float = 1e-7, highest: float = 1.0, steps: int = 100
) -> LearningRateSearch:
    """Try learning rates from `lowest` to `highest` on a network in training, and suggest one.

    The network is worse afterwards: the caller restores its weights, and those of the optimiser.

    Args:
        step: Takes a training step at a learning rate and returns the loss before it.
        lowest: The first rate, so low that nothing happens.
        highest: The last rate.
        steps: How many rates to try, from 10 up.

    Raises:
        ValueError: a range that is none, or the loss never fell, so that no rate can be suggested.
    """
    if not 0 < lowest < highest < math.inf or steps < 10:
        raise ValueError(
            "The search takes 10 or more steps between rates 0 < lowest < highest, "
            f"not {steps} steps from {lowest} to {highest}."
        )
    rates = np.geomspace(lowest, highest, steps).tolist()
    width = max(1.0, SMOOTHING * steps)
    losses: list[float] = []
    for rate in rates:
        loss = step(rate)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        if _has_exploded(_smooth(losses, width)):
            break
    smoothed = _smooth(losses, width)
    return LearningRateSearch(
        rates=tuple(rates[: len(losses)]),
        losses=tuple(losses),
        smoothed=tuple(smoothed),
        suggestion=_steepest_descent(rates[: len(losses)], smoothed),
    )


def _smooth(losses: Sequence[float], width: float) -> list[float]:
    """Weighted means over neighbours, with a Gaussian of this standard deviation in steps."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
    smoothed: list[float] = (weights @ np.asarray(losses, dtype=np.float64) / weights.sum(axis=1)).tolist()
    return smoothed


def _has_exploded(smoothed: Sequence[float]) -> bool:
    best = min(smoothed)
    return smoothed[-1] > best + (EXPLOSION - 1) * abs(best)


def _steepest_descent(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """The rate where the loss falls fastest on its way to its least value; the steps are even in the logarithm."""
    bottom = int(np.argmin(smoothed)) if smoothed else 0
    if bottom == 0 or smoothed[0] - smoothed[bottom] < LEAST_FALL * abs(smoothed[0]):
        seen = (
            f"it was {smoothed[0]:.4g} at first and {smoothed[bottom]:.4g} at best" if smoothed else "it is not finite"
        )
        raise ValueError(
            f"No learning rate can be suggested, since the loss did not fall in {len(smoothed)} steps: {seen}. "
            "Name a learning_rate, or see whether the labels fit the images."
        )
    return rates[int(np.argmin(np.gradient(smoothed)[: bottom + 1]))]
