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
