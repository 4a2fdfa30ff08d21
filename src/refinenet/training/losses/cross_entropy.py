"""Cross-entropy of pixels: weighted by class, smoothed, focal, and over hard pixels only.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_DOUBT = 1e-12
"""Keeps the slope of the focal factor finite where the network is certain and right."""


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
    """Sum of the cross-entropies of the pixels that count; `counted_mass` is what belongs under it.

    Sources: Szegedy et al., Rethinking the Inception Architecture, 2016 (smoothing); Lin et al., Focal Loss, 2017;
    Shrivastava et al., OHEM, 2016.

    Args:
        logits: `(N, K, H, W)` float32 or float64.
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        ignore_index: The id of pixels that do not count.
        label_smoothing: Share of the target that is spread over all classes, each by its weight, as PyTorch does it.
        focal_gamma: Power of (1 - probability of the pixel's class) that its cross-entropy is multiplied by.
        hard_pixels: Share of the labelled pixels of each image that count, those of the largest loss.

    Returns:
        A scalar; 0 with zero gradients where no pixel has a class.
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
    kept = kept_pixels((labels != ignore_index).flatten(1).sum(1), hard_pixels)
    losses = losses.flatten(1)
    largest = losses.topk(int(kept_pixels(torch.tensor(losses.shape[1]), hard_pixels)), dim=1).values
    counts = torch.arange(largest.shape[1], device=kept.device) < kept[:, None]
    return largest.where(counts, 0).sum()


def counted_mass(labels: Tensor, class_weights: Tensor | None, ignore_index: int, hard_pixels: float) -> Tensor:
    """What `cross_entropy_total` is divided by: the weights of the pixels that count.

    Which pixels are hard depends on the network, what they weigh must not: each of them stands for an average labelled
    pixel of its image.

    Args:
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        class_weights: `(K,)`, or None for equal weights.
        ignore_index: The id of pixels that do not count.
        hard_pixels: Share of the labelled pixels of each image that count.

    Returns:
        `(N,)` float64, of each image.
    """
    counted = labels != ignore_index
    pixels = counted.flatten(1).sum(1)
    mass = pixels.double()
    if class_weights is not None:
        mass = class_weights.double()[labels.where(counted, 0)].where(counted, 0).flatten(1).sum(1)
    return mass * kept_pixels(pixels, hard_pixels) / pixels.clamp_min(1)


def kept_pixels(pixels: Tensor, hard_pixels: float) -> Tensor:
    """How many pixels `hard_pixels` leaves of so many, rounded, but at least one; int64."""
    return (pixels.double() * hard_pixels).round().long().clamp_min(1)


def _focal(logits: Tensor, labels: Tensor, weights: Tensor | None, ignore_index: int, gamma: float) -> Tensor:
    surprise = functional.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    doubt = -torch.expm1(-surprise)
    losses = doubt.clamp_min(_LEAST_DOUBT) ** gamma * surprise
    return losses if weights is None else losses * weights[labels.where(labels != ignore_index, 0)]
