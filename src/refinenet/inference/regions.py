"""Regions of a label map for other programs: GeoJSON polygons and COCO's run lengths.

Run lengths are computed and compressed here by NumPy, so that COCO results need no pycocotools; tests compare both.

Shape letters: H height, W width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.extras import install_extra
from refinenet.labels import LabelMap, LabelSet


def require_features() -> Any:
    """Import `rasterio.features`.

    Raises:
        ValueError: rasterio is not installed.
    """
    try:
        import rasterio.features
    except ImportError as error:
        raise ValueError(f"GeoJSON needs rasterio, which is not installed: {install_extra('polygons')}") from error
    return rasterio.features


def to_geojson(labels: LabelMap, label_set: LabelSet) -> dict[str, Any]:
    """Return the regions of a label map as a GeoJSON FeatureCollection of polygons.

    Regions are 4-connected. Coordinates are whole pixels with x to the right, y down and (0, 0) at the upper left
    corner of the image: not the degrees of RFC 7946.

    Args:
        labels: `(H, W)` ids; pixels with the ignore index get no polygon.
        label_set: Names and colours of the ids.

    Returns:
        Features with the properties `id`, `class`, `colour` ("#rrggbb") and `area` (pixels).

    Raises:
        ValueError: rasterio is not installed.
    """
    found = require_features().shapes(labels, mask=labels != label_set.ignore_index, connectivity=4)
    return {
        "type": "FeatureCollection",
        "features": [_feature(geometry["coordinates"], int(value), label_set) for geometry, value in found],
    }


def _feature(rings: list[list[tuple[float, float]]], label: int, label_set: LabelSet) -> dict[str, Any]:
    whole = [[[round(x), round(y)] for x, y in ring] for ring in rings]
    red, green, blue = label_set.colours[label]
    return {
        "type": "Feature",
        "properties": {
            "id": label,
            "class": label_set.names[label],
            "colour": f"#{red:02x}{green:02x}{blue:02x}",
            "area": _area(whole[0]) - sum(_area(ring) for ring in whole[1:]),
        },
        "geometry": {"type": "Polygon", "coordinates": whole},
    }


def _area(ring: list[list[int]]) -> int:
    """Return the area of a closed ring by the shoelace formula."""
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))) // 2


Lengths = npt.NDArray[np.int64]

_BITS, _SIGN, _MORE, _FIRST = 5, 0x10, 0x20, 48
"""Bits per character, the sign bit, the bit for "more characters follow", and the offset that makes them printable."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """All pixels of one class."""

    label: int
    area: int
    """Number of pixels."""
    box: tuple[int, int, int, int]
    """x and y of the upper left corner, width and height, in pixels."""
    counts: Lengths
    """`(R,)` int64: run lengths outside, inside, outside, ..., in column-major order; they add up to H times W."""

    def to_coco(self, size: tuple[int, ...]) -> dict[str, Any]:
        """Return COCO's compressed `segmentation`, as pycocotools reads it; `size` is height and width."""
        return {"size": list(size), "counts": compress(self.counts)}


def find_regions(labels: LabelMap, void: int) -> Iterator[Region]:
    """Yield the pixels of each class that occurs, in the order of ids.

    Args:
        labels: `(H, W)` ids.
        void: The id of pixels without a class, which get no region.
    """
    # One pass over the column-major map finds the runs of all classes; COCO's masks are column-major, too.
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
    spans = bool((first != last).any())  # a run across columns touches both the bottom and the top row
    top = 0 if spans else int((starts % height).min())
    bottom = height - 1 if spans else int(((ends - 1) % height).max())
    left, right = int(first.min()), int(last.max())
    box = (left, top, right - left + 1, bottom - top + 1)
    return Region(label=label, area=int((ends - starts).sum()), box=box, counts=counts)


def compress(counts: Lengths) -> str:
    """Encode run lengths as COCO's text: from the fourth on as differences from the last but one, 5 bits each.

    Source: `rleToString` in pycocotools' `maskApi.c`.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]  # a run resembles the one in the neighbouring column: short numbers
    characters = np.zeros((len(rest), 1 + 64 // _BITS), np.uint8)
    unfinished = np.ones(len(rest), bool)
    for place in range(characters.shape[1]):
        bits = rest & (_MORE - 1)
        rest >>= _BITS
        # A number ends where only copies of its sign bit are left: -1 below zero, 0 above.
        more = np.where(bits & _SIGN, rest != -1, rest != 0)
        characters[:, place] = np.where(unfinished, bits + _MORE * more + _FIRST, 0)
        unfinished &= more
        if not unfinished.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")
