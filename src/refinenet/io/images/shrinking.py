"""Reduction of large images to the size that a model works at, alike in training and wherever the model is used.

Shape letters: H height, W width, B bands, D channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.io.images.sample_values import Pixels


def find_factor(size: tuple[int, ...], longest_side: int | None) -> float:
    """Return the factor, at most 1, that reduces the longer side of a size (height, width, ...) to `longest_side`.

    None stands for no limit.
    """
    return 1.0 if longest_side is None else min(1.0, longest_side / max(size[:2]))


def shrink_image(pixels: Pixels, factor: float) -> Pixels:
    """Reduce an image by a factor: bilinearly, with antialiasing (Pillow's), each band by itself.

    Args:
        pixels: `(H, W, 3)` uint8, or `(H, W, B)` float32.
        factor: Above 0; 1 and more returns the image itself.

    Returns:
        `(h, w, ...)` of the same type, h and w rounded, at least 1.
    """
    if factor >= 1:
        return pixels
    size = _reduced(pixels.shape, factor)[::-1]
    if pixels.dtype == np.uint8:
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))  # writable, for PyTorch
    bands = [Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in range(pixels.shape[2])]
    return np.stack([np.asarray(band.resize(size, Image.Resampling.BILINEAR)) for band in bands], -1)


def shrink_map(values: npt.NDArray[Any], factor: float, *, channels_first: bool = False) -> npt.NDArray[Any]:
    """Reduce ids or measured values by a factor: each new pixel gets the value at its centre, none are mixed.

    Args:
        values: `(H, W)`, or `(D, H, W)` with `channels_first`.
        factor: As for `shrink_image`.
        channels_first: Whether channels precede height and width.
    """
    if factor >= 1:
        return values
    before = values.shape[1:] if channels_first else values.shape[:2]
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for old, new in zip(before, _reduced(before, factor), strict=True)
    )
    return np.ascontiguousarray(values[..., rows[:, np.newaxis], columns])


def _reduced(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
