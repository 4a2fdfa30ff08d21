"""Synthetic street scenes drawn with NumPy.

Begin with `draw_street` in `scene`; `draw_street_geometry` returns the depth and normals of the same scene.

From top to bottom: `dataset` (the dataset `streets`), `scene`, `layout` (placement), `occupants` (traffic, people,
furniture), one module for each kind of object and for the weather, and finally three modules that are independent of
streets: `shapes` computes the depth and normal of each pixel that a shape covers, `canvas` blends colours, and `relief`
stores depth and normals.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.datasets.street_scenes.dataset import FIRST_SEEDS, parse
    from refinenet.datasets.street_scenes.scene import LARGEST, StreetGeometry, draw_street, draw_street_geometry
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = ["FIRST_SEEDS", "LARGEST", "StreetGeometry", "draw_street", "draw_street_geometry", "parse"]
