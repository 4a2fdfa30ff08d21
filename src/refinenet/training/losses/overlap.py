"""The Dice loss.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dice_total(probabilities: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """One minus the soft Dice coefficient, of each image the mean over the classes that its labels hold.

    Source: Milletari et al., V-Net, 2016, with plain sums in the denominator; pixels without a class count nowhere.

    Args:
        probabilities: `(N, K, H, W)` in [0, 1].
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        ignore_index: The id of pixels that do not count.

    Returns:
        A scalar, the sum over the images; an image without labelled pixels adds 0 and zero gradients.
    """
    counted = (labels != ignore_index)[:, None]
    classes = torch.arange(probabilities.shape[1], device=labels.device)[:, None, None]
    truth = (labels[:, None] == classes) & counted
    overlaps, sizes = probabilities.where(truth, 0).sum((2, 3)), truth.sum((2, 3))
    coefficients = 2 * overlaps / (probabilities.where(counted, 0).sum((2, 3)) + sizes).clamp_min(1)
    present = sizes > 0
    return ((1 - coefficients).where(present, 0).sum(1) / present.sum(1).clamp_min(1)).sum()
