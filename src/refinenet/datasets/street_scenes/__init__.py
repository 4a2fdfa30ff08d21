"""Street scenes that the package draws itself, in NumPy alone: `draw_street` is the door, `scene` the order of events.

From the top: `scene`, `layout` (what stands where), `life` (who moves), then one file for each kind of thing, its
materials and weather, and at the bottom `shapes` and `drawing`, which know nothing of streets.
"""

from refinenet.datasets.street_scenes.scene import LARGEST, draw_street

__all__ = ["LARGEST", "draw_street"]
