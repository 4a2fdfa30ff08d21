"""What training minimises.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

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


def dice(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """One minus the soft Dice coefficient, per image the mean over the classes that its labels hold.

    Source: Milletari et al., V-Net, 2016, with plain sums in the denominator; pixels without a class count nowhere.

    Args:
        logits: `(N, K, H, W)`.
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        ignore_index: The id of pixels that do not count.

    Returns:
        A scalar float32 in [0, 1], the mean over the images that have labelled pixels; 0 where none has.
    """
    counted = (labels != ignore_index)[:, None]
    truth = functional.one_hot(labels.where(counted[:, 0], 0), logits.shape[1]).movedim(-1, 1) * counted
    guess = logits.float().softmax(1) * counted
    overlap, size = (guess * truth).sum((2, 3)), truth.sum((2, 3))
    coefficients = 2 * overlap / (guess.sum((2, 3)) + size).clamp_min(1)
    present = size > 0
    by_image = ((1 - coefficients) * present).sum(1) / present.sum(1).clamp_min(1)
    return by_image.sum() / present.any(1).sum().clamp_min(1)
