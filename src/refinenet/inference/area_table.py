"""Rows of tables of class areas: pixels, shares, regions and square metres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

GROUND_COLUMN = "square_metres"
"""Column that has values for georeferenced images only."""
AREA_COLUMNS = ("id", "class", "pixels", "share", "regions", GROUND_COLUMN)
"""Columns of a table of class areas."""


def area_rows(
    areas: Mapping[str, float],
    size: int,
    regions: Mapping[str, int] | None = None,
    pixel_area: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each class, with `AREA_COLUMNS`.

    Args:
        areas: Share of the pixels with data by class name, in the order of ids.
        size: Number of pixels with data.
        regions: Number of regions by class name; None if they were not counted.
        pixel_area: Ground area of a pixel in square metres; None if it is not known, as is `GROUND_COLUMN` then.
    """
    for label, (name, share) in enumerate(areas.items()):
        pixels = round(share * size)
        yield {
            "id": label,
            "class": name,
            "pixels": pixels,
            "share": share,
            "regions": None if regions is None else regions.get(name),
            GROUND_COLUMN: None if pixel_area is None else pixels * pixel_area,
        }
