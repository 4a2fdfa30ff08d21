"""Synthetic street scenes drawn with NumPy: `draw_street` in `scene` is the entry point.

From top to bottom: `scene`, `layout` (placement), `occupants` (traffic, people, furniture), one module for each kind of
object and for the weather, and finally `shapes` and `canvas`, which are independent of streets.
"""

from refinenet.datasets.street_scenes.scene import LARGEST, draw_street

__all__ = ["LARGEST", "draw_street"]
