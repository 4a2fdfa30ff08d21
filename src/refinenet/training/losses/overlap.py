"""The Dice loss.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

import numpy as np
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


def lovasz_total(probabilities: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """The Lovasz extension of the Jaccard loss, of each image the mean over the classes that its labels hold.

    Where all probabilities are 0 or 1 it is one minus the mean intersection over union of these classes.

    Args:
        probabilities: `(N, K, H, W)` in [0, 1].
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        ignore_index: The id of pixels that do not count.

    Returns:
        A scalar, the sum over the images; an image without labelled pixels adds 0 and zero gradients.
    """
    void = (labels == ignore_index).flatten(1)
    labels, probabilities = labels.flatten(1).where(~void, probabilities.shape[1]), probabilities.flatten(2)
    present = void.new_zeros(len(labels), probabilities.shape[1] + 1).scatter_(1, labels, True)[:, :-1]
    total = 0 * probabilities[:, :, :0].sum()
    for image, classes in enumerate(torch.split(present.nonzero()[:, 1], present.sum(1).tolist())):
        if len(classes):
            guess, belongs = probabilities[image, classes], labels[image] == classes[:, None]
            errors = torch.where(belongs, 1 - guess, guess)
            total = total + (errors * _slopes(errors.detach(), belongs, void[image])).sum() / len(classes)
    return total


@torch.no_grad()
def _slopes(errors: Tensor, belongs: Tensor, void: Tensor) -> Tensor:
    """What the Jaccard loss of a class grows by with each pixel, when pixels err in the order of their errors.

    Args:
        errors: `(C, P)`.
        belongs: `(C, P)` bool, whether the pixel is of the class.
        void: `(P,)` bool, pixels that do not count.
    """
    order = _largest_first(errors.masked_fill(void, -1))
    belongs = belongs.gather(1, order)
    misses = belongs.cumsum(1, dtype=errors.dtype)
    size = misses[:, -1:]
    ranks = torch.arange(1, errors.shape[1] + 1, dtype=errors.dtype, device=errors.device)
    intersection, union = size - misses, size + ranks - misses
    # Differences of neighbouring Jaccard losses, written out so that close numbers need not be subtracted.
    slopes = torch.where(belongs, 1 / union, intersection / (union * (union - 1)))
    return torch.empty_like(errors).scatter_(1, order, slopes)


def _largest_first(values: Tensor) -> Tensor:
    """Indices that sort each row of `(C, P)` from its largest value to its smallest."""
    if values.device.type != "cpu":
        return values.argsort(dim=1, descending=True)
    return torch.from_numpy(np.argsort(-values.numpy(), axis=1))  # several times as fast as PyTorch's sort there
