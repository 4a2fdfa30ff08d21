"""Geometry of a drawn scene: the depth and the normal of what each pixel shows. See `canvas` for units and the rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Relief:
    """Depth and normals of the surfaces that are painted; NaN where none is, which is the sky."""

    depth: Floats
    """`(H * W,)` metres along the optical axis."""
    normals: Floats
    """`(3, H * W)` unit vectors in view coordinates, turned towards the camera."""

    @classmethod
    def blank(cls, height: int, width: int) -> Relief:
        """Create a relief without any surface."""
        size = height * width
        return cls(depth=np.full(size, np.nan), normals=np.full((3, size), np.nan))

    def record(self, index: npt.NDArray[np.int64], depth: Floats, normals: Floats) -> None:
        """Replace the geometry of the pixels `index` `(N,)` by depths `(N,)` and normals `(3, N)` or `(3, 1)`."""
        self.depth[index] = depth
        self.normals[:, index] = normals
