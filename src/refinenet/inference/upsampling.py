"""Upsampling of logits from a quarter of an image's size to its full size, and the argmax over classes.

Shape letters: N batch, K classes, h and w height and width of the logits, H and W those of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

VALUES_AT_ONCE = 2**20
"""Number of logits that are interpolated at a time, which bounds memory."""
MOSTLY_UNCLEAR = 0.25
"""Share of unclear places above which it is faster to resize all logits."""


def resize(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize logits `(N, K, h, w)` bilinearly to `(N, K, H, W)`, channels last in memory."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return functional.interpolate(_classes_together(logits), size, mode="bilinear", align_corners=False)


def _classes_together(logits: Tensor) -> Tensor:
    """Return `(N, K, h, w)`, channels last in memory.

    With a batch of one, a tensor of unusual strides counts as channels last, too, but PyTorch resizes it by a path
    that is several times slower; so the usual strides are made explicitly.
    """
    if len(logits) == 1:
        return logits[0].permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
    return logits.contiguous(memory_format=torch.channels_last)


def largest_class(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class of the largest logit after bilinear resizing to the image's size; of equal ones the first.

    On the CPU this avoids K maps of the image's size. A resized logit is a weighted mean of its four neighbours, with
    the same weights for every class: a class that is largest at all four is largest between them. Only the other
    pixels, along the borders of objects, are interpolated, unless they are a large share of the image.

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
    """Neighbours and weights of bilinear resizing along one side, as in PyTorch with `align_corners=False`."""

    def __init__(self, known: int, wanted: int) -> None:
        # Pixels are areas: centre i + 0.5 of the large grid lies at (i + 0.5) * known / wanted of the small one.
        place = ((torch.arange(wanted, dtype=torch.float32) + 0.5) * (known / wanted) - 0.5).clamp(min=0)
        self.first = place.to(torch.int64).clamp(max=known - 1)
        self.second = (self.first + 1).clamp(max=known - 1)
        self.share = place - self.first
        """Weight of the second neighbour, in [0, 1)."""


def _differs_from_neighbours(largest: Tensor) -> Tensor:
    """Return `(h, w)` bool: whether a place differs from its right, lower or diagonal neighbour."""
    down = torch.cat([largest[1:], largest[-1:]])
    right, diagonal = (torch.cat([maps[:, 1:], maps[:, -1:]], dim=1) for maps in (largest, down))
    return (largest != down) | (largest != right) | (largest != diagonal)
