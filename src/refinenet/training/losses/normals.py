"""Losses of surface normals.

Shape letters: N images, H height, W width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from refinenet.training.losses.errors import TargetLoss

LEAST_LENGTH = 1e-3
"""Length by which a shorter prediction is divided, so that gradients stay below its inverse."""


def cosine_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum over pixels with truth of one minus the cosine of the angle between prediction and target.

    Source: Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
    Convolutional Architecture, 2015: their dot product, subtracted from 1.

    Args:
        predicted: `(N, 3, H, W)` float32, of any length.
        target: `(N, 3, H, W)` float32, normals; NaN in any channel where there is no truth.

    Returns:
        A scalar; each pixel adds between 0 (same direction) and 2 (opposite).
    """
    predicted, target, has_truth = _replace_unknown(predicted, target)
    units = functional.normalize(predicted, dim=1, eps=LEAST_LENGTH)
    cosines = (units * functional.normalize(target, dim=1)).sum(1)
    return (1 - cosines).where(has_truth[:, 0], 0).sum()


def squared_total(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the sum over pixels with truth of the squared distance between prediction and target.

    The prediction is taken as it is, so that its length is drawn to 1; for one of length 1 the distance would be twice
    `cosine_total`.

    Args:
        predicted: `(N, 3, H, W)` float32, of any length.
        target: `(N, 3, H, W)` float32, normals of length 1; NaN in any channel where there is no truth.
    """
    predicted, target, _ = _replace_unknown(predicted, target)
    return (predicted - target).square().sum()


def _replace_unknown(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction and target with zeros where there is no truth, and where there is, `(N, 1, H, W)` bool."""
    has_truth = ~target.isnan().any(1, keepdim=True)
    return predicted.where(has_truth, 0), target.where(has_truth, 0), has_truth


LOSSES: dict[str, TargetLoss] = {
    "cosine": TargetLoss(total=cosine_total, divisor="pixels"),
    "l2": TargetLoss(total=squared_total, divisor="pixels"),
}
"""Losses of normals by name; the first is the default."""
