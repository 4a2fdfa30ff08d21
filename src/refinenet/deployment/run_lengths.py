"""Label maps as run lengths in the manner of COCO: for each class where its pixels begin and end, column by column.

Source: `rleEncode`, `rleToString` and `rleToBbox` in COCO's maskApi.c, https://github.com/cocodataset/cocoapi, written
anew for NumPy: all classes in one pass over the image.

Shape letters: H height, W width, R runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.labels import LabelMap

Lengths = npt.NDArray[np.int64]

_BITS, _SIGN, _MORE, _FIRST = 5, 0x10, 0x20, 48
"""Bits of a character, which of them carries the sign, what tells that more characters follow, the first character."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """All pixels of one class."""

    label: int
    area: int
    """Its pixels."""
    box: tuple[int, int, int, int]
    """x and y of its upper left corner, width and height, in pixels."""
    counts: Lengths
    """`(R,)` int64: pixels outside, inside, outside, ..., down the columns from left to right; together H times W."""

    def to_coco(self, size: tuple[int, ...]) -> dict[str, Any]:
        """COCO's `segmentation` in its compressed form, as pycocotools reads it; `size` is height and width."""
        return {"size": list(size), "counts": compress(self.counts)}


def find_regions(labels: LabelMap, void: int) -> Iterator[Region]:
    """The pixels of each class that occurs, in the order of their ids.

    Args:
        labels: `(H, W)` ids.
        void: The id of pixels without a class, which are left out.
    """
    height = labels.shape[0]
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.int64)
    ends = np.append(starts[1:], flat.size)
    run_labels = flat[starts]
    for label in np.unique(run_labels):
        if label != void:
            chosen = run_labels == label
            yield _region(int(label), starts[chosen], ends[chosen], flat.size, height)


def _region(label: int, starts: Lengths, ends: Lengths, pixels: int, height: int) -> Region:
    counts = np.empty(2 * len(starts), np.int64)
    counts[0::2] = starts - np.concatenate([[0], ends[:-1]])
    counts[1::2] = ends - starts
    if ends[-1] < pixels:
        counts = np.append(counts, pixels - ends[-1])
    first, last = starts // height, (ends - 1) // height
    spans = bool((first != last).any())  # a run over two columns reaches the image's lower and upper side
    top = 0 if spans else int((starts % height).min())
    bottom = height - 1 if spans else int(((ends - 1) % height).max())
    left, right = int(first.min()), int(last.max())
    box = (left, top, right - left + 1, bottom - top + 1)
    return Region(label=label, area=int((ends - starts).sum()), box=box, counts=counts)


def compress(counts: Lengths) -> str:
    """Run lengths as COCO's text: from the fourth on as differences to the last but one, five bits to a character."""
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    characters = np.zeros((len(rest), 1 + 64 // _BITS), np.uint8)
    unfinished = np.ones(len(rest), bool)
    for place in range(characters.shape[1]):
        bits = rest & (_MORE - 1)
        rest >>= _BITS
        more = np.where(bits & _SIGN, rest != -1, rest != 0)
        characters[:, place] = np.where(unfinished, bits + _MORE * more + _FIRST, 0)
        unfinished &= more
        if not unfinished.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")
