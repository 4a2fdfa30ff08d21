"""Upsampling of logits from a quarter of an image's size to its full size, and the argmax over classes.

NumPy computes it on the CPU, so that exported graphs need no PyTorch; tensors are passed on to `tensors`.

Shape letters: N batch, K classes, h and w height and width of the logits, H and W those of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.io.arrays import Array

VALUES_AT_ONCE = 2**16
"""Number of resized logits that are computed at a time: few enough to stay in the processor's cache."""
MOSTLY_UNCLEAR = 0.25
"""Share of unclear places above which it is faster to resize all logits."""

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


def resize(logits: Array, size: tuple[int, ...]) -> Array:
    """Resize logits `(N, K, h, w)` bilinearly to `(N, K, H, W)`, channels last in memory."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    if not isinstance(logits, np.ndarray):
        from refinenet.inference import tensors

        return tensors.resize(logits, size)
    resized = np.empty((len(logits), *size, logits.shape[1]), np.float32)
    for together, target in zip(_classes_together(logits), resized, strict=True):
        for _ in _resize_rows(together, (size[0], size[1]), target):
            pass
    return resized.transpose(0, 3, 1, 2)


def resize_image(images: Array, size: tuple[int, int]) -> Array:
    """Resize images `(N, B, H, W)` float32 in [0, 1] bilinearly with antialiasing, to `size`, height and width."""
    if not isinstance(images, np.ndarray):
        from refinenet.inference import tensors

        return tensors.resize_image(images, size)
    resized = np.empty((len(images), *size, images.shape[1]), np.float32)
    for image, target in zip(images, resized, strict=True):
        for band, values in enumerate(image):
            picture = Image.fromarray(np.ascontiguousarray(values))
            target[..., band] = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    # Rounding can exceed the range [0, 1] in the last digit.
    return resized.clip(0, 1, out=resized).transpose(0, 3, 1, 2)


def largest_class(logits: Array, size: tuple[int, int]) -> Array:
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
    if not isinstance(logits, np.ndarray):
        from refinenet.inference import tensors

        return tensors.largest_class(logits, size)
    (together,) = _classes_together(logits[None])
    largest: Places = together.argmax(-1)
    if largest.shape == tuple(size):
        return largest
    differs = _differs_from_neighbours(largest)
    if np.count_nonzero(differs) > MOSTLY_UNCLEAR * differs.size:
        labels = np.empty(size, np.intp)
        for part, block in _resize_rows(together, size):
            labels[part] = block.argmax(-1)
        return labels
    rows, columns = (_Axis(*sides) for sides in zip(largest.shape, size, strict=True))
    labels = largest[rows.first[:, None], columns.first]
    unclear = np.flatnonzero(differs[rows.first[:, None], columns.first])
    step = max(1, VALUES_AT_ONCE // len(logits))
    for start in range(0, len(unclear), step):
        places = unclear[start : start + step]
        unmixed = _interpolate(together, rows, columns, *np.divmod(places, size[1]))
        labels.reshape(-1)[places] = unmixed.argmax(-1)
    return labels


def largest_share(logits: Array, size: tuple[int, int], temperature: float | None) -> Array:
    """Return the probability of the largest class after bilinear resizing to the image's size, `(H, W)` float32.

    Args:
        logits: `(K, h, w)` float32: logits, or probabilities at the image's size.
        size: H and W.
        temperature: Divisor of the logits before the softmax; None if they are probabilities.
    """
    if not isinstance(logits, np.ndarray):
        from refinenet.inference import tensors

        return tensors.largest_share(logits, size, temperature)
    if temperature is None:
        return resize(logits[None], size)[0].max(0)
    shares = np.empty(size, np.float32)
    (together,) = _classes_together(logits[None])
    for rows, block in _resize_rows(together, size):
        # The softmax of the largest logit is 1 / sum(exp(logit - largest)); those of the others are not needed.
        shares[rows] = (1 / _exponentials(block, temperature).sum(0)).reshape(block.shape[:2])
    return shares


def softmax(logits: Array) -> Array:
    """Return the probabilities of classes from their logits, `(K, H, W)`, which may be overwritten."""
    if not isinstance(logits, np.ndarray):
        return logits.softmax(0)
    together = logits.transpose(1, 2, 0)
    step = max(1, VALUES_AT_ONCE // max(1, logits[:, :1].size))
    for start in range(0, len(together), step):
        rows = together[start : start + step]
        apart = _exponentials(rows, 1)
        apart /= apart.sum(0)
        rows[:] = apart.T.reshape(rows.shape)
    return logits


def _exponentials(scores: Floats, temperature: float) -> Floats:
    """Return exp((score - largest) / temperature) of each class, `(h, w, K)` to `(K, h * w)`.

    Class by class in memory, maxima and sums over classes are those of whole rows, which is several times as fast.
    """
    apart = scores.reshape(-1, scores.shape[-1]).T.copy()
    apart -= apart.max(0)
    apart *= np.float32(1 / temperature)
    exponentials: Floats = np.exp(apart, out=apart)
    return exponentials


def _classes_together(logits: Floats) -> Floats:
    """Return `(N, K, h, w)` as `(N, h, w, K)`, contiguous; engines return them in this order, so nothing is copied."""
    return np.ascontiguousarray(logits.transpose(0, 2, 3, 1))


class _Axis:
    """Neighbours and weights of bilinear resizing along one side, as in PyTorch with `align_corners=False`."""

    def __init__(self, known: int, wanted: int) -> None:
        # Pixels are areas: centre i + 0.5 of the large grid lies at (i + 0.5) * known / wanted of the small one.
        ratio, half = np.float32(known / wanted), np.float32(0.5)
        place = np.maximum((np.arange(wanted, dtype=np.float32) + half) * ratio - half, 0)
        self.first: Places = np.minimum(place.astype(np.intp), known - 1)
        self.second: Places = np.minimum(self.first + 1, known - 1)
        self.share: Floats = place - self.first.astype(np.float32)
        """Weight of the second neighbour, in [0, 1)."""


def _resize_rows(
    together: Floats, size: tuple[int, int], target: Floats | None = None
) -> Iterator[tuple[slice, Floats]]:
    """Resize `(h, w, K)` bilinearly, and yield a few rows of the result at a time, `(rows, W, K)`.

    They are parts of the target `(H, W, K)`, if there is one.
    """
    rows, columns = (_Axis(*sides) for sides in zip(together.shape[:2], size, strict=True))
    step = max(1, VALUES_AT_ONCE // (size[1] * together.shape[2]))
    for start, end in pairwise((*range(0, size[0], step), size[0])):
        part = slice(start, end)
        narrow = _mix(together[rows.first[part]], together[rows.second[part]], rows.share[part, None, None])
        left, right = narrow.take(columns.first, 1), narrow.take(columns.second, 1)
        yield part, _mix(left, right, columns.share[:, None], None if target is None else target[part])


def _interpolate(together: Floats, rows: _Axis, columns: _Axis, row: Places, column: Places) -> Floats:
    """Return resized logits `(P, K)` at P places of the image, from logits `(h, w, K)`."""
    _, width, classes = together.shape
    flat = together.reshape(-1, classes)
    left, right, share = columns.first[column], columns.second[column], columns.share[column, None]
    above, below = (
        _mix(flat.take(line[row] * width + left, 0), flat.take(line[row] * width + right, 0), share)
        for line in (rows.first, rows.second)
    )
    return _mix(above, below, rows.share[row, None])


def _mix(first: Floats, second: Floats, share: Floats, target: Floats | None = None) -> Floats:
    """Return the weighted mean of two arrays, which are overwritten; `share` is the weight of the second."""
    second -= first
    second *= share
    mixed: Floats = np.add(second, first, out=second if target is None else target)
    return mixed


def _differs_from_neighbours(largest: Places) -> npt.NDArray[np.bool_]:
    """Return `(h, w)` bool: whether a place differs from its right, lower or diagonal neighbour."""
    differs = np.zeros(largest.shape, np.bool_)
    differs[:, :-1] |= largest[:, :-1] != largest[:, 1:]
    differs[:-1] |= largest[:-1] != largest[1:]
    differs[:-1, :-1] |= largest[:-1, :-1] != largest[1:, 1:]
    return differs
