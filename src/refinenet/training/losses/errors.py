"""Common parts of losses of dense targets: errors where there is ground truth, likelihoods, and descriptions of losses.

Shape letters: N images, D channels of a target, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LOG_SCALES = (-10.0, 10.0)
"""Least and largest predicted log scale; others are moved to these. exp(10) is about 22,000."""


@dataclass(frozen=True, kw_only=True)
class TargetLoss:
    """A loss of a dense target."""

    total: Callable[[Tensor, Tensor], Tensor]
    """Function of a prediction and a target, `(N, D, H, W)` float32 each, NaN in the target where there is no truth.
    It returns a scalar, the sum over what `divisor` counts, whose gradients are 0 where there is no truth."""
    divisor: Literal["values", "pixels", "images"] = "values"
    """What the sum is over: values with truth; pixels with truth in all channels; images with truth, each of which
    contributes a mean over its pixels."""
    is_standardised: bool = False
    """Whether prediction and target are divided by the deviations of the training data first."""
    has_log_scale: bool = False
    """Whether the prediction has D further channels: the logarithms of the scales of its errors. Such a loss has the
    name of a likelihood in `outputs.LIKELIHOODS`."""


def find_errors(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the errors of a prediction and where there is truth.

    Args:
        predicted: `(N, D, H, W)` float32.
        target: `(N, D, H, W)` float32, NaN where there is no truth.

    Returns:
        `(N, D, H, W)` float32, prediction minus target, 0 with zero gradients where there is no truth; and
        `(N, D, H, W)` bool, whether there is.
    """
    has_truth = ~target.isnan()
    # Before anything but a difference is computed, whose slopes are 1 everywhere: others would be NaN at NaN.
    return (predicted - target).where(has_truth, 0), has_truth


def absolute_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the absolute errors of the values with truth, in the unit of the target.

    Args:
        predicted: `(N, D, H, W)` float32.
        target: `(N, D, H, W)` float32, NaN where there is no truth.
    """
    errors, _ = find_errors(predicted, target)
    return errors.abs().sum()


def laplace_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the negative log likelihood of the values with truth under Laplace distributions around the predictions.

    It is |e| / b + log(2 b) for an error e and a predicted scale b, the expected absolute error.

    Source: Kendall and Gal, What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?, 2017.

    Args:
        predicted: `(N, 2 D, H, W)` float32: D means, then D values of log b, moved to `LOG_SCALES`.
        target: `(N, D, H, W)` float32, NaN where there is no truth.

    Returns:
        A scalar, the sum in nats; it may be negative.
    """
    errors, log_scales, has_truth = _split_scales(predicted, target)
    return (errors.abs() * torch.exp(-log_scales) + log_scales + math.log(2)).where(has_truth, 0).sum()


def gaussian_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the negative log likelihood of the values with truth under normal distributions around the predictions.

    It is e^2 / (2 s^2) + log(s) + log(2 pi) / 2 for an error e and a predicted standard deviation s.

    Source: Nix and Weigend, Estimating the Mean and Variance of the Target Probability Distribution, 1994.

    Args:
        predicted: `(N, 2 D, H, W)` float32: D means, then D values of log s, moved to `LOG_SCALES`.
        target: `(N, D, H, W)` float32, NaN where there is no truth.

    Returns:
        A scalar, the sum in nats; it may be negative.
    """
    errors, log_scales, has_truth = _split_scales(predicted, target)
    scaled = errors * torch.exp(-log_scales)
    return (scaled.square() / 2 + log_scales + math.log(2 * math.pi) / 2).where(has_truth, 0).sum()


def _split_scales(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the errors, the predicted log scales and where there is truth, `(N, D, H, W)` each."""
    means, log_scales = predicted[:, : target.shape[1]], predicted[:, target.shape[1] :]
    errors, has_truth = find_errors(means, target)
    return errors, log_scales.where(has_truth, 0).clamp(*LOG_SCALES), has_truth
