"""Suspects in one image: regions where a model that never saw the image confidently contradicts the label.

Shape letters: H height, W width, K classes, R regions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.inference import number_regions
from refinenet.labels import LabelMap, LabelSet

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float32]

LEAST_AREA = 0.001
"""Least area of a suspect, as a share of the image's pixels."""
OUTLINE = 0.006
"""Width of the outlines of objects, as a share of the image's diagonal: smaller differences between labels and
predictions are normal variation between annotators."""
LEAST_DOUBT = 0.3
"""Least difference between the probabilities of the predicted class and of the labelled one."""
MOST = 40
"""Largest number of suspects of an image."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A region of an image whose label is likely wrong."""

    number: int
    """Its value in the map of regions, from 1."""
    label: int
    """Id that the label map has there; the ignore index for void."""
    prediction: int
    """Id that the model predicts on most of it."""
    pixels: int
    share: float
    """Its area as a share of the image."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels; right and bottom are the first outside."""
    doubt: float
    """Mean difference between the probabilities of the predicted and the labelled class, in [0, 1]."""
    confidence: float
    """Mean probability of the predicted class, in [0, 1]."""
    width: float
    """Greatest distance of its pixels from its outline, in widths of an outline."""
    share_of_object: float
    """Share of the pixels with its label, in the labelled region around it, that belong to it, in [0, 1]."""


def find_suspects(labels: LabelMap, probabilities: Shares, label_set: LabelSet) -> tuple[list[Suspect], Numbers]:
    """Find the suspects of an image.

    A pixel is in doubt if the predicted class is more probable than the labelled one by `LEAST_DOUBT` or more. A
    suspect is a connected region of such pixels with one label, without parts thinner than an outline. Void has no
    probability of its own: there, the doubt is the margin of the predicted class over all others together.

    Args:
        labels: `(H, W)` ids.
        probabilities: `(K, H, W)` in [0, 1], of a model that was not trained on the image.
        label_set: Names of the ids.

    Returns:
        The suspects, the largest sum of doubt first; and the map of regions, `(H, W)` int64, with 0 outside of them.
    """
    ids = labels.astype(np.int64)
    is_void = ids == label_set.ignore_index
    prediction, confidence = probabilities.argmax(0), probabilities.max(0)
    labelled = np.take_along_axis(probabilities, np.where(is_void, 0, ids)[None], 0)[0]
    doubt = confidence - np.where(is_void, 1 - confidence, labelled)
    in_doubt = (prediction != ids) & (doubt >= LEAST_DOUBT)
    reach = max(1, round(OUTLINE * math.hypot(*labels.shape)))
    regions = _choose_regions(np.where(_open(in_doubt, reach), ids, -1), doubt)
    depth, objects = _depth(regions), number_regions(labels)
    areas = np.bincount(objects.ravel())
    suspects = []
    for number in range(1, int(regions.max()) + 1):
        inside = regions == number
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        pixels = int(inside.sum())
        suspects.append(
            Suspect(
                number=number,
                label=int(ids[inside][0]),
                prediction=int(np.bincount(prediction[inside]).argmax()),
                pixels=pixels,
                share=pixels / labels.size,
                box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
                doubt=float(doubt[inside].mean()),
                confidence=float(confidence[inside].mean()),
                width=float(depth[inside].max() / reach),
                share_of_object=float(pixels / areas[np.bincount(objects[inside]).argmax()]),
            )
        )
    return suspects, regions


def _choose_regions(marked: Any, doubt: Shares) -> Numbers:
    """Number the regions of equal ids `(H, W)`, -1 for none, that are large enough, the largest sum of doubt first."""
    numbers = number_regions(marked)
    areas, values = np.bincount(numbers.ravel()), np.zeros(numbers.max() + 1, np.int64)
    values[numbers] = marked
    kept = np.flatnonzero((values >= 0) & (areas >= LEAST_AREA * marked.size))
    totals = np.bincount(numbers.ravel(), doubt.ravel())
    kept = kept[np.argsort(-totals[kept], kind="stable")][:MOST]
    order = np.zeros(len(values), np.int64)
    order[kept] = np.arange(1, len(kept) + 1)
    chosen: Numbers = order[numbers]
    return chosen


def _open(mask: Mask, reach: int) -> Mask:
    """Return a mask without the parts that are at most `2 * reach` pixels thin."""
    core = mask
    for _ in range(reach):
        core = ~_widen(~core)
    for _ in range(2 * reach):  # twice, as a step goes up, down, left and right, and corners are two steps away
        core = _widen(core) & mask
    return core


def _widen(mask: Mask) -> Mask:
    """Return a mask with the pixels above, below, left and right of it; the image ends do not shrink its opposite."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide


def _depth(regions: Numbers) -> Numbers:
    """Return the distance of each pixel from the outline of its region, in steps up, down, left and right."""
    inside = regions > 0
    depth = np.zeros(regions.shape, np.int64)
    while inside.any():
        depth += inside
        inside = ~_widen(~inside)
    return depth
