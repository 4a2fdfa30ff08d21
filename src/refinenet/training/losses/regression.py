"""Losses of quantities, in units of the deviation of each quantity in the training data.

A pixel may have truth for some quantities only. Each value with truth counts the same, whatever its quantity.

Shape letters: N images, D quantities, H height, W width.
"""

from __future__ import annotations

from torch import Tensor

from refinenet.training.losses.errors import TargetLoss, absolute_total, find_errors, gaussian_total, laplace_total

HUBER_LIMIT = 1.0
"""Absolute error, in deviations, from which the Huber loss is linear."""


def squared_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the squared errors of the values with truth.

    Args:
        predicted: `(N, D, H, W)` float32, in deviations.
        target: `(N, D, H, W)` float32, in deviations, NaN where there is no truth.
    """
    errors, _ = find_errors(predicted, target)
    return errors.square().sum()


def huber_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the Huber losses of the values with truth.

    An error e costs e^2 / 2 up to `HUBER_LIMIT`, c, and c (|e| - c / 2) above.

    Source: Huber, Robust Estimation of a Location Parameter, 1964.

    Args:
        predicted: `(N, D, H, W)` float32, in deviations.
        target: `(N, D, H, W)` float32, in deviations, NaN where there is no truth.
    """
    errors = find_errors(predicted, target)[0].abs()
    inner = errors.clamp_max(HUBER_LIMIT)
    return (inner * (errors - inner / 2)).sum()


LOSSES: dict[str, TargetLoss] = {
    "huber": TargetLoss(total=huber_total, is_standardised=True),
    "l1": TargetLoss(total=absolute_total, is_standardised=True),
    "l2": TargetLoss(total=squared_total, is_standardised=True),
    "laplace": TargetLoss(total=laplace_total, is_standardised=True, has_log_scale=True),
    "gaussian": TargetLoss(total=gaussian_total, is_standardised=True, has_log_scale=True),
}
"""Losses of quantities by name; the first is the default."""
