"""What training minimises.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, ignore_index: int) -> Tensor:
    """Mean cross-entropy over the pixels that have a class, weighted by class.

    Args:
        logits: `(N, K, H, W)`.
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        weights: `(K,)` or None for equal weights; the mean is over weights, as PyTorch's `cross_entropy` takes it.
        ignore_index: The id of pixels that do not count.

    Returns:
        A scalar float32; 0 where no pixel has a class (PyTorch's own mean would be nan).
    """
    total = functional.cross_entropy(logits.float(), labels, weights, ignore_index=ignore_index, reduction="sum")
    valid = labels[labels != ignore_index]
    mass = weights[valid].sum() if weights is not None else valid.numel()
    return total / mass if valid.numel() else total


def log_weights(class_pixels: Sequence[int]) -> Tensor:
    """Class weights 1 / log(1.02 + p) for the frequency p of each class, scaled to a mean of 1.

    Source: Paszke et al., ENet, 2016, which bounds them to 1 to 50 before scaling.

    Args:
        class_pixels: Number of pixels of each class.

    Returns:
        `(K,)` float32.
    """
    counts = torch.tensor(class_pixels, dtype=torch.float64)
    weights = 1 / torch.log(1.02 + counts / counts.sum().clamp(min=1))
    return (weights / weights.mean()).float()
