"""Label maps as GeoJSON: the outlines of connected regions along the edges of their pixels, with their holes.

Shape letters: H height, W width.
"""

from __future__ import annotations

import itertools
from typing import Any

from refinenet.labels import LabelMap, LabelSet


def require_features() -> Any:
    """The module `rasterio.features`.

    Raises:
        ValueError: rasterio is not installed.
    """
    try:
        import rasterio.features
    except ImportError as error:
        raise ValueError("GeoJSON needs rasterio, which is not installed: pip install 'refinenet[polygons]'") from error
    return rasterio.features


def to_geojson(labels: LabelMap, label_set: LabelSet) -> dict[str, Any]:
    """The regions of a label map as a GeoJSON FeatureCollection of polygons.

    A region is what hangs together by the sides of pixels. Coordinates are whole pixels, x to the right and y down, (0,
    0) the image's upper left corner: not degrees, as RFC 7946 has them of maps.

    Args:
        labels: `(H, W)` ids; those of the ignore index get no polygon.
        label_set: What they mean.

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
    """Of a closed ring, by the shoelace formula."""
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))) // 2
