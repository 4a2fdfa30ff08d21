"""Mixing of training images: ClassMix, CutMix, copy-paste of rare classes; and cutout.

Shape letters: h and w height and width of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from numpy.random import Generator
from torch import Tensor

from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.augmentation.geometry import MEAN_COLOUR, Fill, Pair, present

Mixing = Literal["cut_mix", "paste_classes", "paste_rare"]
"""Kinds of mixing, named like their probabilities in the configuration, in the order in which they are applied."""


class Partner(NamedTuple):
    """Another sample of which a part is pasted over a sample."""

    kind: Mixing
    sample: int
    """Index of the sample in the dataset."""


def rare_classes(shares: Sequence[float], below: float) -> tuple[int, ...]:
    """Return the ids of the classes whose share of the labelled pixels is smaller than `below`.

    Args:
        shares: Share of each class, in [0, 1], as `ClassCounts.shares`.
        below: Share in [0, 1].
    """
    return tuple(index for index, share in enumerate(shares) if share < below)


def draw_partners(config: AugmentationConfig, random: Generator, index: int, samples: int) -> list[Partner]:
    """Draw the samples of which parts are pasted over a sample.

    Args:
        config: Probabilities.
        random: Generator of the draws.
        index: Index of the sample in the dataset; it is its own partner only if it is alone.
        samples: Number of samples in the dataset.
    """
    return [
        Partner(kind, (index + 1 + int(random.integers(max(1, samples - 1)))) % samples)
        for kind in get_args(Mixing)
        if getattr(config, kind) and random.random() < getattr(config, kind)
    ]


def mix(pair: Pair, other: Pair, kind: Mixing, ignore_index: int, rare: Sequence[int], random: Generator) -> Pair:
    """Paste a part of another image over an image, with its ground truth.

    Args:
        pair: The crop of the image.
        other: That of the other image.
        kind: Kind of mixing, which determines the part.
        ignore_index: Id of void pixels.
        rare: Ids of the rare classes.
        random: Generator of the draws.
    """
    if kind == "cut_mix":
        pasted = _draw_rectangle(other.labels, random)
    elif kind == "paste_classes":
        classes = present(other.labels, ignore_index)
        chosen = random.permutation(classes)[: len(classes) // 2].tolist()
        pasted = _where(other.labels, chosen, ignore_index)
    else:
        pasted = _where(other.labels, rare, ignore_index)
    targets = None
    if pair.targets is not None and other.targets is not None:
        targets = torch.where(pasted, other.targets, pair.targets)
    return Pair(torch.where(pasted, other.image, pair.image), torch.where(pasted, other.labels, pair.labels), targets)


def _where(labels: Tensor, classes: Sequence[int], ignore_index: int) -> Tensor:
    # A lookup table, because `isin` sorts.
    is_chosen = torch.zeros(ignore_index + 1, dtype=torch.bool)
    is_chosen[list(classes)] = True
    return is_chosen.to(labels.device)[labels.int()]


def _draw_rectangle(labels: Tensor, random: Generator) -> Tensor:
    """Draw a rectangle with the image's aspect ratio, its area and centre uniform, clipped to the image."""
    side = math.sqrt(random.uniform())  # a uniform area is that of a side that is the root of a uniform number
    inside = torch.zeros_like(labels, dtype=torch.bool)
    rows, columns = (
        slice(max(0, round(middle - side * length / 2)), max(0, round(middle + side * length / 2)))
        for length, middle in ((length, random.uniform(0, length)) for length in labels.shape)
    )
    inside[rows, columns] = True
    return inside


CUTOUT_SIDES = (0.1, 0.5)
"""Range of the rectangle's sides as shares of the image's."""


def cut_out(pair: Pair, ignore_index: int, random: Generator, fill: Fill = MEAN_COLOUR) -> Pair:
    """Cover a rectangle of an image with the mean colour, without ground truth (DeVries and Taylor, 2017).

    Args:
        pair: The crop of the image.
        ignore_index: Id of void pixels.
        random: Generator of the draws.
        fill: Mean of each band.
    """
    image, labels = pair.image.clone(), pair.labels.clone()
    rows, columns = (_draw_stretch(length, random) for length in labels.shape)
    colour = torch.tensor(fill, dtype=image.dtype, device=image.device)
    image[:, rows, columns], labels[rows, columns] = colour[:, None, None], ignore_index
    if pair.targets is None:
        return Pair(image, labels)
    targets = pair.targets.clone()
    targets[:, rows, columns] = math.nan
    return Pair(image, labels, targets)


def _draw_stretch(length: int, random: Generator) -> slice:
    size = max(1, round(random.uniform(*CUTOUT_SIDES) * length))
    first = int(random.integers(length - size + 1))
    return slice(first, first + size)
