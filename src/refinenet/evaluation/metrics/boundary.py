"""Boundary metrics: boundary IoU, mIoU in bands around outlines (trimap), and boundary F-score.

All three treat void in the same way: it is a region like any class, and the prediction is set to void where the ground
truth is void. The border between void and a class is therefore an outline, on which ground truth and prediction agree
wherever both have that class. Datasets that draw void between objects, such as PASCAL VOC, have no other outlines.

Shape letters: H height, W width, K classes, B bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from refinenet.evaluation.metrics.confusion import Counts, count_classes, divide, ious, mean
from refinenet.labels import LabelMap

Bits = TypeVar("Bits", bound=np.unsignedinteger)


def near_other_labels(labels: LabelMap, radii: Sequence[int]) -> Iterator[npt.NDArray[np.bool_]]:
    """Find the pixels that have another label near them.

    Args:
        labels: `(H, W)` ids.
        radii: Increasing distances in pixels, by chessboard distance (the larger of rows and columns): radius r covers
            the square of side 2 r + 1 around a pixel, as far as it lies in the image.

    Yields:
        A mask `(H, W)` for each radius.
    """
    reach = radii[-1]
    padded: Any = np.pad(labels, reach, mode="edge")
    smallest = largest = padded  # of the type of `labels`
    done = 0
    for radius in radii:
        while done < radius:
            # A window whose minimum and maximum differ holds two labels. Windows of radius r at offsets -s, 0 and s
            # cover one of radius r + s if s is at most r: each round may double the radius.
            step = min(radius - done, done or 1)
            smallest, largest = _widen(smallest, step, np.minimum), _widen(largest, step, np.maximum)
            done += step
        margin = reach - done
        inside = slice(margin, margin + labels.shape[0]), slice(margin, margin + labels.shape[1])
        yield smallest[inside] != largest[inside]


def _widen(values: LabelMap, step: int, combine: np.ufunc) -> LabelMap:
    """Return the extremes of windows whose radius is `step` larger; the result loses `step` pixels on each side."""
    rows = combine(combine(values[: -2 * step], values[2 * step :]), values[step:-step])
    widened: LabelMap = combine(combine(rows[:, : -2 * step], rows[:, 2 * step :]), rows[:, step:-step])
    return widened


def contours(labels: LabelMap) -> npt.NDArray[np.bool_]:
    """Return `(H, W)`: pixels with another label directly above, below, left or right of them."""
    edge = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def near_bits(bits: npt.NDArray[Bits], radius: int) -> npt.NDArray[Bits]:
    """Return for each pixel the union of all bit sets within a radius, by Euclidean distance between pixel centres.

    Args:
        bits: `(H, W)` unsigned: a set of classes for each pixel, one bit per class.
        radius: Radius in pixels.
    """
    height, width = bits.shape
    union = np.zeros_like(bits)
    # The disk is a stack of rows: at a vertical distance of `down` it reaches `across` pixels to each side. From
    # the largest `down` to 0 the rows only grow, so one array, widened step by step, serves all of them.
    row_wise, reached = bits.copy(), 0
    for down in range(min(radius, height - 1), -1, -1):
        across = min(math.isqrt(radius**2 - down**2), width - 1)
        for step in range(reached + 1, across + 1):
            row_wise[:, step:] |= bits[:, : width - step]
            row_wise[:, : width - step] |= bits[:, step:]
        reached = max(reached, across)
        union[down:] |= row_wise[: height - down]
        union[: height - down] |= row_wise[down:]
    return union


DILATION_RATIO = 0.02
"""Width of the boundary region of boundary IoU, as a share of the image's diagonal."""
BANDS = (1, 2, 4, 8, 16, 32)
"""Widths in pixels, by chessboard distance, of the B nested bands around the outlines of the truth."""
TOLERANCE_RATIO = 0.0075
"""Tolerance of the boundary F-score between predicted and true outlines, as a share of the image's diagonal."""

BOUNDARY_IOU_RULE = (
    "Boundary IoU (Cheng et al., CVPR 2021): IoU of the pixels of a class within d pixels (chessboard distance) of a "
    f"pixel of another label or of the image border; d = {DILATION_RATIO} of the image diagonal, rounded, at least 1; "
    "pixels summed over all images; where the ground truth is void, so is the prediction; void belongs to no class"
)
TRIMAP_RULE = (
    "mIoU over the pixels with a different ground-truth label (void counts as a label) within this number of pixels "
    "(chessboard distance); void in the ground truth is dropped; pixels summed over all images"
)
BOUNDARY_F_RULE = (
    "Boundary F-score: outline pixels of a class are adjacent to another label (void counts as a label); precision is "
    "the share of predicted outline pixels with a true outline pixel of the class within t pixels (Euclidean "
    f"distance), recall the converse, F = 2 P R / (P + R); t = {TOLERANCE_RATIO} of the image diagonal (Csurka et al., "
    "BMVC 2013), rounded, at least 1; pixels summed over all images; where the ground truth is void, so is the "
    "prediction"
)
_BITS = 64
"""Classes whose outlines are compared at once: one bit each of a uint64."""


def reach(ratio: float, height: int, width: int) -> int:
    """Convert a share of an image's diagonal to pixels, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


class BoundaryCounts:
    """Counts of the boundary metrics, summed over images.

    Args:
        num_classes: K.
        ignore_index: Id of pixels without ground truth.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.regions: Counts = np.zeros((3, num_classes), np.int64)
        """`(3, K)`: pixels in boundary regions."""
        self.bands: Counts = np.zeros((len(BANDS), 3, num_classes), np.int64)
        """`(B, 3, K)`: pixels in bands around the truth's outlines."""
        self.outlines: npt.NDArray[np.int64] = np.zeros((2, 2, num_classes), np.int64)
        """`(2, 2, K)`: for the truth and the prediction, outline pixels matched by the other one, and all of them."""
        self._classes, self._ignore_index = num_classes, ignore_index

    def add(self, truth: LabelMap, prediction: LabelMap) -> Counts:
        """Count the pixels of one image.

        Args:
            truth: `(H, W)` ids below K, or the ignore index.
            prediction: `(H, W)` ids below K, or the ignore index.

        Returns:
            `(3, K)`: pixels of this image in boundary regions.
        """
        seen = np.where(truth == self._ignore_index, truth, prediction)
        regions = self._count_regions(truth, seen)
        self.regions += regions
        self._add_bands(truth, seen)
        self._add_outlines(truth, seen)
        return regions

    def arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Return all counts."""
        return self.regions, self.bands, self.outlines

    def boundary_iou(self) -> npt.NDArray[np.float64]:
        """Return `(K,)`, NaN for classes without a boundary."""
        return ious(self.regions)

    def trimap_miou(self) -> npt.NDArray[np.float64]:
        """Return `(B,)`, NaN if no pixel lies in the band."""
        return mean(ious(self.bands))

    def boundary_f(self) -> npt.NDArray[np.float64]:
        """Return `(K,)`: F = 2 P R / (P + R); 0 if only one of truth and prediction has an outline, NaN if none has."""
        matched, outline = self.outlines.swapaxes(0, 1)
        recall, precision = np.nan_to_num(divide(matched, outline))
        total = precision + recall
        score = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
        return np.where(outline.any(0), score, np.nan)

    def _count_regions(self, truth: LabelMap, seen: LabelMap) -> Counts:
        distance = reach(DILATION_RATIO, *truth.shape)
        true, predicted = (_boundary_region(labels, distance) for labels in (truth, seen))
        both = true & predicted & (truth == seen)
        return self._count(truth[both], truth[true], seen[predicted])

    def _add_bands(self, truth: LabelMap, seen: LabelMap) -> None:
        inside = np.zeros(truth.shape, bool)
        total = np.zeros_like(self.bands[0])
        for band, near in enumerate(near_other_labels(truth, BANDS)):
            # Count only the pixels that this band adds to the previous one; the sums so far are the band's counts.
            added = near & ~inside
            true, predicted = truth[added], seen[added]
            total += self._count(true[true == predicted], true, predicted)
            self.bands[band] += total
            inside = near

    def _add_outlines(self, truth: LabelMap, seen: LabelMap) -> None:
        distance = reach(TOLERANCE_RATIO, *truth.shape)
        edges = [np.nonzero(contours(labels) & (labels != self._ignore_index)) for labels in (truth, seen)]
        ids = [labels[edge].astype(np.intp) for labels, edge in zip((truth, seen), edges, strict=True)]
        shared = np.intersect1d(ids[0], ids[1])
        for side in (0, 1):
            self.outlines[side, 1] += np.bincount(ids[side], minlength=self._classes)
        for first in range(0, len(shared), _BITS):  # classes in only one of them have no matches
            self._add_matched(shared[first : first + _BITS], edges, ids, truth.shape, distance)

    def _add_matched(
        self,
        classes: npt.NDArray[np.intp],
        edges: list[tuple[npt.NDArray[np.intp], ...]],
        ids: list[npt.NDArray[np.intp]],
        shape: tuple[int, ...],
        distance: int,
    ) -> None:
        """Count the outline pixels of up to 64 classes that lie near an outline of their class on the other side.

        Each class has one bit, so that a single dilation serves all of them: a pixel is matched if the bits of the
        other side's outlines around it include the bit of its class.
        """
        # The smallest unsigned type with enough bits keeps the memory traffic of the dilation low.
        dtype = np.min_scalar_type(2 ** len(classes) - 1)
        bit_of = np.zeros(self._classes, dtype)
        bit_of[classes] = np.left_shift(np.array(1, dtype), np.arange(len(classes), dtype=dtype), dtype=dtype)
        for side, other in ((0, 1), (1, 0)):
            outline = np.zeros(shape, dtype)
            outline[edges[other]] = bit_of[ids[other]]
            matched = (near_bits(outline, distance)[edges[side]] & bit_of[ids[side]]) != 0
            self.outlines[side, 0] += np.bincount(ids[side][matched], minlength=self._classes)

    def _count(self, hits: LabelMap, truth: LabelMap, prediction: LabelMap) -> Counts:
        return count_classes(hits, truth, prediction, self._classes, self._ignore_index)


def _boundary_region(labels: LabelMap, distance: int) -> npt.NDArray[np.bool_]:
    """Return the pixels within `distance` of another label or of the image border."""
    (region,) = near_other_labels(labels, (distance,))
    region[:distance] = region[-distance:] = True
    region[:, :distance] = region[:, -distance:] = True
    return region
