"""Rectangles of training images, and cutout, which hides one.

Shape letters: h and w height and width of the crop.
"""

from __future__ import annotations

import torch
from numpy.random import Generator

from refinenet.training.augmentation.geometry import MEAN_COLOUR, Pair

CUTOUT_SIDES = (0.1, 0.5)
"""From which part of the image's side to which part those of the rectangle are drawn."""


def cut_out(pair: Pair, ignore_index: int, random: Generator) -> Pair:
    """Cover a rectangle of an image with the mean colour; its labels become void (DeVries and Taylor, 2017).

    Args:
        pair: `(3, h, w)` uint8 and `(h, w)` ids.
        ignore_index: The id of void.
        random: Where draws come from.
    """
    image, labels = pair[0].clone(), pair[1].clone()
    rows, columns = (_draw_stretch(length, random) for length in labels.shape)
    colour = torch.tensor(MEAN_COLOUR, dtype=image.dtype, device=image.device)
    image[:, rows, columns], labels[rows, columns] = colour[:, None, None], ignore_index
    return image, labels


def _draw_stretch(length: int, random: Generator) -> slice:
    size = max(1, round(random.uniform(*CUTOUT_SIDES) * length))
    first = int(random.integers(length - size + 1))
    return slice(first, first + size)
