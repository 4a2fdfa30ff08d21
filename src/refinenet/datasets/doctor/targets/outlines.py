"""Comparison of outlines in images and their measurements: whether they belong together and have the same orientation.

An object's outline is seen in its image and in its depth. Each is summed up by a grid of `GRID` x `GRID` cells with
the mean strength of the outlines in them; the correlation of two grids is high if they show the same scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FLIPS: Mapping[str, Any] = {
    "upside down": np.s_[::-1],
    "mirrored from left to right": np.s_[:, ::-1],
    "turned by 180 degrees": np.s_[::-1, ::-1],
}
"""How all maps may be stored by mistake, and the part of a grid that undoes it."""
GRID = 24
_FEWEST = 8
"""Smallest number of samples that are compared with each other."""
_BLOCK = 1024
"""Number of samples, in the order of their names, that are compared with each other."""
_BETTER = 0.12
"""Difference of correlations from which a grid fits one image better than another."""
_GAIN = 0.5
"""Mean gain in strength, in standard deviations, from which flipped values fit better."""
_CERTAIN = 6.0
"""The gain times the square root of the number of samples from which it is no chance: gains of unrelated outlines have
a deviation of about 1.4."""
_STEADY = 5.0
"""Ratio of the mean gain to its own standard error from which it is not that of a few samples."""
_GAINING = 0.7
"""Share of the samples that fit better."""
_FEWEST_FLIPPED = 16
_SPARSE = 0.5
"""Share of pixels with ground truth below which outlines are those of the gaps."""


def find_image_outlines(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the grid of an image `(H, W, 3)`; empty if it is small, or shows no outline."""
    return _sum_up(pixels.astype(np.float32).mean(2, keepdims=True))


def find_outlines(values: npt.NDArray[np.float64], kind: str) -> bytes:
    """Return the grid of values `(H, W, D)`, NaN where unknown; empty if it is small, sparse or shows no outline."""
    known = ~np.isnan(values)
    if known.mean() < _SPARSE:
        return b""
    if kind == "depth":
        # Unknown depths, such as those of the sky, count as infinite.
        return _sum_up(np.where(known, 1 / (1 + values / np.nanmedian(values)), 0).astype(np.float32))
    if kind == "normals":
        return _sum_up(np.where(known, values, 0).astype(np.float32))
    low, middle, high = np.nanquantile(values, (0.05, 0.5, 0.95), axis=(0, 1)) if known.any((0, 1)).all() else [0] * 3
    spread = np.maximum(np.subtract(high, low), 1e-12)
    return _sum_up(np.clip(np.where(known, (values - middle) / spread, 0), -1, 1).astype(np.float32))


def _sum_up(channels: Floats) -> bytes:
    height, width = channels.shape[:2]
    if min(height, width) < GRID:
        return b""
    strength = np.zeros((height, width), np.float32)
    for channel in channels.transpose(2, 0, 1):
        across, down = np.abs(np.diff(channel, axis=1)), np.abs(np.diff(channel, axis=0))
        for part, difference in (
            (np.s_[:, 1:], across),
            (np.s_[:, :-1], across),
            (np.s_[1:], down),
            (np.s_[:-1], down),
        ):
            np.maximum(strength[part], difference, out=strength[part])
    rows, columns = (np.linspace(0, side, GRID + 1).astype(int)[:-1] for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(strength, rows, 0), columns, 1)
    areas = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    grid = np.sqrt(sums / areas)
    if grid.max() - grid.min() <= 1e-6 * max(1.0, float(grid.max())):
        return b""
    stored: bytes = np.rint(grid * (255 / grid.max())).astype(np.uint8).tobytes()
    return stored


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well the values of samples fit their images."""

    swapped: dict[int, int]
    """Samples whose image fits the values of another sample: the index of that one."""
    strength: float
    """Mean difference, in standard deviations, of the correlation with the own image from that with others; NaN if
    there are too few samples."""
    count: int


def compare_outlines(images: Sequence[bytes], values: Sequence[bytes]) -> Fit:
    """Compare images and values of samples, both as grids, none of them empty."""
    swapped: dict[int, int] = {}
    strengths: list[float] = []
    for start, correlations in _correlate_blocks(images, values):
        strengths += _standardise(correlations).diagonal().tolist()
        swapped.update((start + i, start + j) for i, j in _find_better(correlations))
    return Fit(swapped=swapped, strength=float(np.mean(strengths)) if strengths else math.nan, count=len(strengths))


def find_flip(images: Sequence[bytes], values: Sequence[bytes]) -> str:
    """Return how the values of most samples seem to be stored, a key of `FLIPS`; "" if as they should be, or unclear.

    The gain is that of the strength (`Fit`), which compares with other samples: what all scenes have in common, such as
    a sky without outlines, has no effect.

    Args:
        images: Grids of the images, none of them empty.
        values: Grids of their values, likewise.
    """
    stored = _find_strengths(images, values)
    if len(stored) < _FEWEST_FLIPPED:
        return ""
    for words, part in FLIPS.items():
        flipped = [np.frombuffer(grid, np.uint8).reshape(GRID, GRID)[part].tobytes() for grid in values]
        gains = _find_strengths(images, flipped) - stored
        gain, error = gains.mean(), gains.std() / math.sqrt(len(gains))
        is_clear = gain > max(_GAIN, _CERTAIN / math.sqrt(len(gains))) and gain > _STEADY * error
        if is_clear and (gains > 0).mean() > _GAINING:
            return words
    return ""


def _find_strengths(images: Sequence[bytes], values: Sequence[bytes]) -> Floats:
    """Return the strength of each sample, `(N,)`; none if there are too few."""
    blocks = [_standardise(correlations).diagonal() for _, correlations in _correlate_blocks(images, values)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _correlate_blocks(images: Sequence[bytes], values: Sequence[bytes]) -> Iterator[tuple[int, Floats]]:
    """Yield the index of the first sample of a block, and the correlations of all samples of the block."""
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        if len(images[block]) >= _FEWEST:
            yield start, _correlate(images[block], values[block])


def _correlate(images: Sequence[bytes], values: Sequence[bytes]) -> Floats:
    """Return the correlation of each image with the values of each sample, `(N, N)`."""
    sides = []
    for grids in (images, values):
        rows = np.frombuffer(b"".join(grids), np.uint8).reshape(len(grids), -1).astype(np.float32)
        rows -= rows.mean(1, keepdims=True)
        sides.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))
    correlations: Floats = sides[0] @ sides[1].T
    return correlations


def _standardise(correlations: Floats) -> Floats:
    """Express correlations in standard deviations from those of the same image with other samples, by median ranks."""
    count = len(correlations)
    others = correlations[~np.eye(count, dtype=bool)].reshape(count, -1)
    middle = np.median(others, 1, keepdims=True)
    # 1.4826 times the median deviation estimates the standard deviation of normally distributed numbers.
    deviation = 1.4826 * np.median(np.abs(others - middle), 1, keepdims=True)
    standardised: Floats = (correlations - middle) / np.maximum(deviation, 1e-6)
    return standardised


def _find_better(correlations: Floats) -> Iterator[tuple[int, int]]:
    """Yield samples whose image fits the values of another one better than either fits its own partner.

    The largest of N * N correlations of unrelated scenes is about sqrt(2 ln(N * N)) standard deviations from the mean.
    """
    own = correlations.diagonal()
    unlikely = math.sqrt(4 * math.log(len(correlations)))
    better = (correlations > own[:, np.newaxis] + _BETTER) & (correlations > own[np.newaxis] + _BETTER)
    better &= (_standardise(correlations) > unlikely) & (unlikely < _standardise(correlations.T).T)
    for i in np.flatnonzero(better.any(1)).tolist():
        yield i, int(np.argmax(np.where(better[i], correlations[i], -1)))
