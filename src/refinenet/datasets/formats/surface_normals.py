"""Surface normals computed from a depth map and the camera that it belongs to. H is height, W width."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Intrinsics

Floats = npt.NDArray[np.float32]

METHOD = "least-squares plane in inverse depth over 9x9 pixels, without pixels that are more than 5 % nearer or farther"
"""How `find_normals` computes normals, in words."""

REACH = 4
"""Distance in rows and columns of the farthest neighbours that a plane is fitted to, as in `METHOD`."""
_SAME_SURFACE = 0.05
"""Largest relative difference in depth of neighbours on one surface."""
_FEWEST = 6
"""Smallest number of pixels that determine a plane."""


def find_normals(depth: Floats, camera: Intrinsics, *, reach: int = REACH) -> Floats:
    """Compute the normal of the surface at each pixel.

    A plane `n . P = d` seen by a pinhole camera has the inverse depth `(n . ray) / d`, where `ray` is `((u - cx) / fx,
    (v - cy) / fy, 1)`: an affine function of row and column. It is fitted by least squares to the neighbours of each
    pixel that lie on the same surface (`METHOD`), and its slopes give the normal. The fit is exact for planes.

    Args:
        depth: `(H, W)` float32 metres along the optical axis, above 0; NaN where unknown.
        camera: Its intrinsics, in pixels of this map.
        reach: Distance of the farthest neighbours, an even number of pixels; 25 neighbours are used.

    Returns:
        `(3, H, W)` float32 unit vectors towards the camera: x right, y down, z into the scene. NaN where the depth is
        unknown, or fewer than `_FEWEST` neighbours lie on the same surface, or all of them in one line.
    """
    count, along, down, level = _fit_planes(depth, reach)
    height, width = depth.shape
    columns = np.arange(width, dtype=np.float32)[np.newaxis] - np.float32(camera.cx)
    rows = np.arange(height, dtype=np.float32)[:, np.newaxis] - np.float32(camera.cy)
    normals = -np.stack(
        [along * np.float32(camera.fx), down * np.float32(camera.fy), level - along * columns - down * rows]
    )
    normals /= np.sqrt((normals * normals).sum(0))
    normals[:, ~(count >= _FEWEST)] = np.nan
    return normals.astype(np.float32)


def _fit_planes(depth: Floats, reach: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Fit inverse depths, divided by that of the pixel itself, to columns and rows relative to the pixel.

    Returns:
        The number of neighbours, the slopes along a row and down a column, and the value at the pixel, each `(H, W)`;
        NaN where the slopes are not determined.
    """
    count, u, v, uu, uv, vv, w, uw, vw = np.zeros((9, *depth.shape), np.float32)
    offsets = range(-reach, reach + 1, reach // 2)
    padded = np.pad(depth, reach, constant_values=np.nan)
    height, width = depth.shape
    for row in offsets:
        for column in offsets:
            other = padded[reach + row : reach + row + height, reach + column : reach + column + width]
            ratio = depth / other - 1
            weight = (np.abs(ratio) <= _SAME_SURFACE).astype(np.float32)  # 0 where either is NaN
            ratio[weight == 0] = 0
            for total, factor in ((count, 1), (u, column), (v, row), (uu, column**2), (uv, row * column), (vv, row**2)):
                total += weight * np.float32(factor)
            for total, factor in ((w, 1), (uw, column), (vw, row)):
                total += ratio * np.float32(factor)
    with np.errstate(invalid="ignore", divide="ignore"):
        uu, uv, vv = uu - u * u / count, uv - u * v / count, vv - v * v / count
        uw, vw = uw - u * w / count, vw - v * w / count
        determinant = uu * vv - uv * uv
        determinant[~(determinant > 1)] = np.nan  # whole numbers, 0 for neighbours in one line
        along, down = (uw * vv - vw * uv) / determinant, (vw * uu - uw * uv) / determinant
        level = 1 + (w - along * u - down * v) / count
    return count, along, down, level
