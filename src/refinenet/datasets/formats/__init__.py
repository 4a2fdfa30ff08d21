"""Readers of label formats: MATLAB, COCO, LabelMe, and PNG files whose values are looked up in a table.

The readers do not depend on datasets; datasets are built on them. `coco` draws label maps from COCO JSON, whose entries
`coco_entries` checks; `coco_crowds` decides what `iscrowd` means.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.datasets.formats.coco import CocoInstances, open_instances
    from refinenet.datasets.formats.labelme import fill_shape, read_shapes, take_label
    from refinenet.datasets.formats.lookup import find_background, find_id, is_background, is_void
    from refinenet.datasets.formats.polygons import FIFTHS, fill_outline, to_outline
    from refinenet.datasets.formats.renames import Renames
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "FIFTHS",
    "CocoInstances",
    "Renames",
    "fill_outline",
    "fill_shape",
    "find_background",
    "find_id",
    "is_background",
    "is_void",
    "open_instances",
    "read_shapes",
    "take_label",
    "to_outline",
]
