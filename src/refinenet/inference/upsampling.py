"""Logits, a quarter of an image's size, at the image's own size: all of them, or only which class is largest.

Shape letters: N batch, K classes, h and w height and width of the logits, H and W those of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

VALUES_AT_ONCE = 2**20
"""That are interpolated together where the class is not plain: bounds memory."""
MOSTLY_UNCLEAR = 0.25
"""Share of places without a plain class from which on it is faster to resize all logits."""


def resize(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Logits `(N, K, h, w)` bilinearly to `(N, K, H, W)`, the classes of a pixel beside each other in memory."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return functional.interpolate(_classes_together(logits), size, mode="bilinear", align_corners=False)


def _classes_together(logits: Tensor) -> Tensor:
    """`(N, K, h, w)`, channels last in memory.

    Strides of a batch of one can be anything for PyTorch, which then takes another, several times slower way to resize:
    they are made the usual ones.
    """
    if len(logits) == 1:
        return logits[0].permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    return logits.contiguous(memory_format=torch.channels_last)


def largest_class(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class whose logit, resized bilinearly to an image's size, is largest; of equal ones the first.

    On the CPU, K maps of the image's size are not made. A resized logit is a mean of its four neighbours: where the
    same class is largest in all four, it is so between them, too, and only what is left, along the borders of objects,
    is interpolated; but if that is a good part of the image, all is.

    Args:
        logits: `(K, h, w)` float32, finite.
        size: H and W.

    Returns:
        `(H, W)` int64.
    """
    together = logits.permute(1, 2, 0).contiguous()
    largest = together.argmax(-1)
    if tuple(largest.shape) == size:
        return largest
    differs = _differs_from_neighbours(largest)
    if logits.device.type != "cpu" or differs.sum() > MOSTLY_UNCLEAR * differs.numel():
        return resize(logits[None], size)[0].permute(1, 2, 0).argmax(-1)
    rows, columns = (_Axis(*sides) for sides in zip(largest.shape, size, strict=True))
    labels = largest[rows.first][:, columns.first]
    unclear = differs[rows.first][:, columns.first]
    flat = together.view(-1, together.shape[-1])
    for places in torch.split(unclear.view(-1).nonzero()[:, 0], max(1, VALUES_AT_ONCE // len(logits))):
        row, column = places // size[1], places % size[1]
        above, below = (
            torch.lerp(
                flat.index_select(0, line[row] * largest.shape[1] + columns.first[column]),
                flat.index_select(0, line[row] * largest.shape[1] + columns.second[column]),
                columns.share[column][:, None],
            )
            for line in (rows.first, rows.second)
        )
        labels.view(-1)[places] = torch.lerp(above, below, rows.share[row][:, None]).argmax(-1)
    return labels


class _Axis:
    """Between which two of `known` values along a side each of `wanted` ones lies, as PyTorch's bilinear resizing."""

    def __init__(self, known: int, wanted: int) -> None:
        place = ((torch.arange(wanted, dtype=torch.float32) + 0.5) * (known / wanted) - 0.5).clamp(min=0)
        self.first = place.to(torch.int64).clamp(max=known - 1)
        self.second = (self.first + 1).clamp(max=known - 1)
        self.share = place - self.first
        """What the second counts, in [0, 1)."""


def _differs_from_neighbours(largest: Tensor) -> Tensor:
    """`(h, w)`: whether a place, the next one, the one below or the one diagonally below differ."""
    down = torch.cat([largest[1:], largest[-1:]])
    right, diagonal = (torch.cat([maps[:, 1:], maps[:, -1:]], dim=1) for maps in (largest, down))
    return (largest != down) | (largest != right) | (largest != diagonal)
