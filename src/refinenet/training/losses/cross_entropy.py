"""Cross-entropy of pixels: weighted by class, smoothed, focal, or over hard pixels only.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_DOUBT = 1e-12
"""Lower bound of 1 - probability in the focal factor, whose slope is infinite at 0 for a gamma below 1."""


def cross_entropy_total(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None,
    ignore_index: int,
    *,
    label_smoothing: float,
    focal_gamma: float,
    hard_pixels: float,
) -> Tensor:
    """Return the sum of the cross-entropies of the pixels that count; `counted_mass` is its divisor.

    Sources: Szegedy et al., Rethinking the Inception Architecture, 2016 (smoothing); Lin et al., Focal Loss, 2017;
    Shrivastava et al., OHEM, 2016.

    Args:
        logits: `(N, K, H, W)` float32 or float64.
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        ignore_index: Id of pixels that do not count.
        label_smoothing: Share of the target that is spread over all classes, each by its weight, as in PyTorch.
        focal_gamma: Power of (1 - probability of the pixel's class) by which its cross-entropy is multiplied.
        hard_pixels: Share of the labelled pixels of each image that count, those with the largest loss.

    Returns:
        A scalar; 0 with zero gradients if no pixel has a class.
    """
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    if focal_gamma:
        losses = _focal(logits, labels, weights, ignore_index, focal_gamma)
    else:
        losses = functional.cross_entropy(
            logits, labels, weights, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
        )
    if hard_pixels == 1:
        return losses.sum()
    # `topk` takes one k for all images: it is that of an image without void, and each image then uses its own part.
    counted = count_hard((labels != ignore_index).flatten(1).sum(1), hard_pixels)
    losses = losses.flatten(1)
    largest = losses.topk(int(count_hard(torch.tensor(losses.shape[1]), hard_pixels)), dim=1).values
    is_hard = torch.arange(largest.shape[1], device=counted.device) < counted[:, None]
    return largest.where(is_hard, 0).sum()


def counted_mass(labels: Tensor, class_weights: Tensor | None, ignore_index: int, hard_pixels: float) -> Tensor:
    """Return the divisor of `cross_entropy_total`: the weight of the pixels that count.

    Which pixels are hard depends on the network, but the divisor has to follow from the labels alone: each hard pixel
    gets the mean weight of the labelled pixels of its image.

    Args:
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        ignore_index: Id of pixels that do not count.
        hard_pixels: Share of the labelled pixels of each image that count.

    Returns:
        `(N,)` float64, one per image.
    """
    counted = labels != ignore_index
    pixels = counted.flatten(1).sum(1)
    mass = pixels.double()
    if class_weights is not None:
        mass = class_weights.double()[labels.where(counted, 0)].where(counted, 0).flatten(1).sum(1)
    return mass * count_hard(pixels, hard_pixels) / pixels.clamp_min(1)


def count_hard(pixels: Tensor, hard_pixels: float) -> Tensor:
    """Return how many of a number of pixels are hard: the share `hard_pixels`, rounded, but at least one; int64."""
    return (pixels.double() * hard_pixels).round().long().clamp_min(1)


def _focal(logits: Tensor, labels: Tensor, weights: Tensor | None, ignore_index: int, gamma: float) -> Tensor:
    losses = functional.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    # 1 - p = 1 - exp(-loss), by expm1 because the difference loses all digits when p is close to 1.
    doubt = -torch.expm1(-losses)
    losses = doubt.clamp_min(_LEAST_DOUBT) ** gamma * losses
    return losses if weights is None else losses * weights[labels.where(labels != ignore_index, 0)]
