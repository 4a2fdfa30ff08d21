"""Ground area of the pixels of a georeferenced image, on the ellipsoid of WGS 84."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.raster.reader import as_value_error, is_installed, open_raster, read_georeference

SEMI_MAJOR_AXIS = 6_378_137.0
"""Of the ellipsoid of WGS 84, in metres."""
FLATTENING = 1 / 298.257223563
TOLERANCE = 0.02
"""Relative difference of pixel areas across an image up to which all its pixels have the mean area."""
_GRID = 5
"""Points per side at which the area is computed."""


def read_pixel_area(path: str | os.PathLike[str]) -> float | None:
    """Return the ground area of a pixel of an image file, in square metres.

    The area is computed on the ellipsoid, so maps in Web Mercator, whose metres are not those of the ground, and in
    degrees are right as well.

    Args:
        path: The image file.

    Returns:
        The mean area; None if the image has no coordinate reference system and transform, if the areas of its pixels
        differ by more than 2 % (a map of a continent), or if rasterio is not installed.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    if not is_installed():
        return None
    try:
        with open_raster(Path(path)) as dataset, as_value_error(Path(path)):
            placing = read_georeference(dataset)
            if placing.crs is None or placing.transform is None:
                return None
            areas = _areas(placing.crs, placing.transform, dataset.height, dataset.width)
    except ValueError:  # a file without georeferencing, of a format that GDAL does not read here, or a local system
        return None
    mean = float(areas.mean())
    is_even = np.isfinite(mean) and mean > 0 and float(np.ptp(areas)) <= TOLERANCE * mean
    return mean if is_even else None


def _areas(crs: Any, transform: Any, height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the ground area of a pixel at points all over an image, in square metres.

    Source: the lengths of a degree follow from the radii of curvature of an ellipsoid (Snyder, Map Projections: A
    Working Manual, 1987, p. 24): M = a (1 - e^2) / (1 - e^2 sin^2 lat)^(3/2), N = a / (1 - e^2 sin^2 lat)^(1/2).
    """
    rows, columns = (axis.ravel() for axis in np.meshgrid(np.linspace(0, height, _GRID), np.linspace(0, width, _GRID)))
    # Differences over many pixels: those of a single one would be lost in the rounding of degrees.
    step = max(1.0, min(height, width) / 10)
    before, after = -step / 2, step / 2
    places = ((rows, columns + before), (rows, columns + after), (rows + before, columns), (rows + after, columns))
    left, right, up, down = (_to_radians(crs, transform, *place) for place in places)
    along, across = (right - left) / step, (down - up) / step
    latitudes = (left[1] + right[1]) / 2
    squared_eccentricity = FLATTENING * (2 - FLATTENING)
    root = np.sqrt(1 - squared_eccentricity * np.sin(latitudes) ** 2)
    meridian = SEMI_MAJOR_AXIS * (1 - squared_eccentricity) / root**3
    parallel = SEMI_MAJOR_AXIS / root * np.cos(latitudes)
    areas: npt.NDArray[np.float64] = np.abs(along[0] * across[1] - along[1] * across[0]) * meridian * parallel
    return areas


def _to_radians(
    crs: Any, transform: Any, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return longitudes and latitudes of places in an image, `(2, N)` in radians."""
    import rasterio.warp

    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    places: npt.NDArray[np.float64] = np.radians(np.array(rasterio.warp.transform(crs, "EPSG:4326", x, y)))
    return places
