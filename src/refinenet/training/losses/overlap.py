"""Losses on the overlap of predicted and labelled regions: Dice and Lovasz-Softmax.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def dice_total(probabilities: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return one minus the soft Dice coefficient, for each image the mean over the classes in its labels.

    Source: Milletari et al., V-Net, 2016, with plain sums instead of squares in the denominator.

    Args:
        probabilities: `(N, K, H, W)` in [0, 1].
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        ignore_index: Id of pixels that do not count.

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
    """Return the Lovasz extension of the Jaccard loss, for each image the mean over the classes in its labels.

    If all probabilities are 0 or 1, it is one minus the mean intersection over union of these classes.

    Source: Berman et al., The Lovasz-Softmax Loss, 2018.

    Args:
        probabilities: `(N, K, H, W)` in [0, 1].
        labels: `(N, H, W)` int64 ids below K, or `ignore_index`.
        ignore_index: Id of pixels that do not count.

    Returns:
        A scalar, the sum over the images; an image without labelled pixels adds 0 and zero gradients.
    """
    void = (labels == ignore_index).flatten(1)
    # Void pixels get the class K, which is cut off again below: an ignore index of 255 would not fit into the table.
    labels, probabilities = labels.flatten(1).where(~void, probabilities.shape[1]), probabilities.flatten(2)
    present = void.new_zeros(len(labels), probabilities.shape[1] + 1).scatter_(1, labels, True)[:, :-1]
    total = 0 * probabilities[:, :, :0].sum()  # keeps a gradient, of zero, for a batch without labels
    for image, classes in enumerate(torch.split(present.nonzero()[:, 1], present.sum(1).tolist())):
        if len(classes):
            predicted, is_class = probabilities[image, classes], labels[image] == classes[:, None]
            errors = torch.where(is_class, 1 - predicted, predicted)
            # The extension is piecewise linear: the errors times its gradient, which is constant on each piece.
            total = total + (errors * _lovasz_gradient(errors.detach(), is_class, void[image])).sum() / len(classes)
    return total


@torch.no_grad()
def _lovasz_gradient(errors: Tensor, is_class: Tensor, void: Tensor) -> Tensor:
    """Return by how much the Jaccard loss of a class grows with each pixel, added in the order of decreasing errors.

    With the r largest errors wrong, of which m are pixels of the class, the class keeps |class| - m pixels of
    intersection, and its union is |class| + r - m. (Algorithm 1 of Berman et al.)

    Args:
        errors: `(C, P)`, P pixels of an image for each of C classes.
        is_class: `(C, P)` bool, whether the pixel is of the class.
        void: `(P,)` bool, pixels that do not count.
    """
    # Errors are at least 0, so -1 puts void pixels behind all others, where they change nothing before them.
    order = _largest_first(errors.masked_fill(void, -1))
    is_class = is_class.gather(1, order)
    misses = is_class.cumsum(1, dtype=errors.dtype)
    size = misses[:, -1:]
    ranks = torch.arange(1, errors.shape[1] + 1, dtype=errors.dtype, device=errors.device)
    intersection, union = size - misses, size + ranks - misses
    # Differences of neighbouring Jaccard losses, simplified because subtracting close numbers would lose digits: a
    # missed pixel leaves the union as it is, a false alarm makes it one larger.
    gradient = torch.where(is_class, 1 / union, intersection / (union * (union - 1)))
    return torch.empty_like(errors).scatter_(1, order, gradient)


def _largest_first(values: Tensor) -> Tensor:
    """Return indices that sort each row of `(C, P)` in descending order."""
    if values.device.type != "cpu":
        return values.argsort(dim=1, descending=True)
    return torch.from_numpy(np.argsort(-values.numpy(), axis=1))  # several times as fast as PyTorch's sort on a CPU
