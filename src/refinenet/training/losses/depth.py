"""Losses of depth: in metres, relative to the scale of an image, and of the steps between neighbouring pixels.

Predictions are those of the network's layers, before they are clipped to the range of the output, so they may be
negative. Logarithms go on as straight lines below `LEAST_DEPTH`, which keeps gradients finite and pointing upwards.

Shape letters: N images, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from refinenet.training.losses.errors import TargetLoss, absolute_total, find_errors, gaussian_total, laplace_total

LEAST_DEPTH = 0.01
"""Depth in metres below which a logarithm is continued by its tangent."""
LINEAR_SHARE = 0.2
"""Share of the largest absolute error up to which the inverse Huber loss is linear."""
SCALE_INVARIANCE = 0.5
"""Share of the mean log error that the scale-invariant loss forgives (lambda): 0 none, 1 all of it."""
GRADIENT_SCALES = 4
"""Resolutions of gradient matching: all pixels, every second, every fourth, every eighth."""


def inverse_huber_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the inverse Huber losses (berHu) of the pixels with truth, in metres.

    An error e costs |e| up to c and (e^2 + c^2) / (2 c) above; c is a fifth of the largest |e| of all pixels with truth
    that are passed, and a constant for the gradients. The parts of a batch therefore each have their own c.

    Source: Laina et al., Deeper Depth Prediction with Fully Convolutional Residual Networks, 2016.

    Args:
        predicted: `(N, 1, H, W)` float32, in metres.
        target: `(N, 1, H, W)` float32, in metres, NaN where there is no truth.
    """
    errors = find_errors(predicted, target)[0].abs()
    if not errors.numel():
        return errors.sum()
    # If all errors are 0, c must not be: 0 / 0 would be NaN.
    limit = (LINEAR_SHARE * errors.detach().max()).clamp_min(torch.finfo(errors.dtype).tiny)
    # The same as above: (e^2 + c^2) / (2 c) = |e| + (|e| - c)^2 / (2 c).
    excess = (errors - limit).clamp_min(0)
    return (errors + excess * (excess / (2 * limit))).sum()


def scale_invariant_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum over images of the scale-invariant log error.

    For the differences d of the log depths of the n pixels of an image with truth: mean(d^2) - lambda mean(d)^2, with
    `SCALE_INVARIANCE` as lambda and no square root. It is not a sum over pixels: each image counts as one, whatever its
    number of pixels with truth, so the loss of a batch is the mean over its images.

    Source: Eigen, Puhrsch, Fergus, Depth Map Prediction from a Single Image, 2014, equation 4.

    Args:
        predicted: `(N, 1, H, W)` float32, in metres.
        target: `(N, 1, H, W)` float32, in metres, NaN where there is no truth.

    Returns:
        A scalar; an image without truth adds 0 and zero gradients.
    """
    differences, has_truth = _log_differences(predicted, target)
    pixels = _sum_images(has_truth).clamp_min(1)
    means = _sum_images(differences) / pixels
    # mean(d^2) is the variance plus mean(d)^2; subtracting the two directly would lose digits.
    deviations = (differences - means[:, None, None, None]).where(has_truth, 0)
    variances = _sum_images(deviations.square()) / pixels
    return (variances + (1 - SCALE_INVARIANCE) * means.square()).sum()


def gradient_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum over images of the differences in the steps between neighbours, of log depth, at four scales.

    For the map of differences of log depths, at each of `GRADIENT_SCALES` resolutions: the sum of the absolute steps
    between horizontal and vertical neighbours that both have truth, divided by the number of pixels with truth at this
    resolution; the resolutions are added.

    Source: Li and Snavely, MegaDepth, 2018.

    Args:
        predicted: `(N, 1, H, W)` float32, in metres.
        target: `(N, 1, H, W)` float32, in metres, NaN where there is no truth.

    Returns:
        A scalar; an image without truth adds 0 and zero gradients.
    """
    differences, has_truth = _log_differences(predicted, target)
    total = differences.new_zeros(len(differences))
    for step in (2**scale for scale in range(GRADIENT_SCALES)):
        coarse, is_known = differences[..., ::step, ::step], has_truth[..., ::step, ::step]
        steps = _sum_steps(coarse, is_known, 2) + _sum_steps(coarse, is_known, 3)
        total = total + steps / _sum_images(is_known).clamp_min(1)
    return total.sum()


def _sum_steps(values: Tensor, is_known: Tensor, dim: int) -> Tensor:
    """Sum, for each image, the absolute steps between neighbours along a dimension that are both known."""
    size = values.shape[dim]
    both = is_known.narrow(dim, 0, size - 1) & is_known.narrow(dim, 1, size - 1)
    return _sum_images(values.diff(dim=dim).abs().where(both, 0))


def _log_differences(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences of log depths, 0 where there is no truth, and where there is; `(N, 1, H, W)` each."""
    has_truth = ~target.isnan()
    return _log(predicted.where(has_truth, 1)) - _log(target.where(has_truth, 1)), has_truth


def _log(depths: Tensor) -> Tensor:
    """Return the logarithm, and below `LEAST_DEPTH` the tangent that continues it."""
    bounded = depths.clamp_min(LEAST_DEPTH)
    return bounded.log() + (depths - bounded) / LEAST_DEPTH


def _sum_images(values: Tensor) -> Tensor:
    """Sum all values of each image; `(N,)`."""
    return values.flatten(1).sum(1)


LOSSES: dict[str, TargetLoss] = {
    "inverse_huber": TargetLoss(total=inverse_huber_total, is_standardised=True),
    "l1": TargetLoss(total=absolute_total, is_standardised=True),
    "silog": TargetLoss(total=scale_invariant_total, divisor="images"),
    "gradient": TargetLoss(total=gradient_total, divisor="images"),
    "laplace": TargetLoss(total=laplace_total, is_standardised=True, has_log_scale=True),
    "gaussian": TargetLoss(total=gaussian_total, is_standardised=True, has_log_scale=True),
}
"""Losses of depth by name; the first is the default."""
