"""What is taken for what: in words, and as a picture where a table would be too large.

Shape letters: K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics import Figures
from refinenet.labels import LabelMap, LabelSet

RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion, which the colour-blind tell apart. Source: Okabe and Ito, Color Universal Design, 2008."""
LEAST_SHARE = 1e-4
"""Of all labelled pixels, which a class has whose confusions are told: of a handful of pixels, any share is chance."""
_SIDE = 720
"""Of the picture, in pixels, about."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Pixels of one class that are called another one."""

    truth: int
    prediction: int
    pixels: int
    share: float
    """Of the labelled pixels of the true class, in [0, 1]; of one image (`mixups`), of all that it has labelled."""


def row_shares(figures: Figures) -> npt.NDArray[np.float64]:
    """`(K, K)`: of the pixels of each true class, the share called each class; rows of absent classes are 0."""
    totals = np.array([found.pixels for found in figures.classes], np.int64)
    shares: npt.NDArray[np.float64] = figures.confusion / np.maximum(totals, 1)[:, np.newaxis]
    return shares


def largest(figures: Figures, count: int) -> list[Confusion]:
    """The confusions that take the largest share of a class, largest first; very rare classes are left out."""
    shares = row_shares(figures)
    np.fill_diagonal(shares, 0)
    totals = np.array([found.pixels for found in figures.classes], np.int64)
    shares[totals < LEAST_SHARE * totals.sum()] = 0
    return _ordered(figures.confusion, shares, count)


def mixups(truth: LabelMap, prediction: LabelMap, label_set: LabelSet, count: int) -> list[Confusion]:
    """Of one image, or of some of its pixels: the confusions with most pixels, those without a class left out.

    Args:
        truth: Ids of any shape.
        prediction: The same.
        label_set: What they mean.
        count: How many, at most.
    """
    labelled = truth != label_set.ignore_index
    wrong = labelled & (truth != prediction) & (prediction != label_set.ignore_index)
    pairs = np.stack([truth[wrong], prediction[wrong]]).astype(np.int64)
    codes, counts = np.unique(pairs[0] * len(label_set) + pairs[1], return_counts=True)
    total = max(1, int(labelled.sum()))
    return [
        Confusion(
            truth=int(codes[k]) // len(label_set),
            prediction=int(codes[k]) % len(label_set),
            pixels=int(counts[k]),
            share=int(counts[k]) / total,
        )
        for k in np.argsort(-counts, kind="stable")[:count]
    ]


def draw_matrix(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The matrix as a picture: what is right in blue, what is wrong in vermilion, by the square root of the share.

    Args:
        shares: `(K, K)` in [0, 1]; of very many classes, several share a pixel, which shows the largest.

    Returns:
        `(S, S, 3)` uint8 RGB, on white.
    """
    count = len(shares)
    is_right = np.eye(count, dtype=bool)
    right, wrong = (_pool(np.where(where, shares, 0)) for where in (is_right, ~is_right))
    scale = max(1, _SIDE // len(right))
    strength = np.sqrt(np.clip(np.stack([right, wrong]), 0, 1)).repeat(scale, 1).repeat(scale, 2)[..., np.newaxis]
    colours = np.where(strength[0] >= strength[1], np.array(RIGHT), np.array(WRONG))
    painted: npt.NDArray[np.uint8] = np.rint(255 + strength.max(0) * (colours - 255.0)).astype(np.uint8)
    return painted


def _ordered(pixels: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], count: int) -> list[Confusion]:
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, shares.shape), strict=True)
    return [
        Confusion(truth=int(row), prediction=int(column), pixels=int(pixels[row, column]), share=float(share))
        for row, column in places
        if (share := shares[row, column]) > 0
    ]


def _pool(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The largest value of each block, so that no more than `_SIDE` blocks are left in a row."""
    block = -(-len(shares) // _SIDE)
    padding = -len(shares) % block
    padded = np.pad(shares, (0, padding))
    side = len(padded) // block
    pooled: npt.NDArray[np.float64] = padded.reshape(side, block, side, block).max((1, 3))
    return pooled
