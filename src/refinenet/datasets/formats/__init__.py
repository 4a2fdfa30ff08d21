"""Readers of label formats: MATLAB, COCO, LabelMe, and PNG files whose values are looked up in a table.

The readers do not depend on datasets; datasets are built on them. `coco` draws label maps from COCO JSON, whose entries
`coco_entries` checks; `coco_crowds` decides what `iscrowd` means.
"""
