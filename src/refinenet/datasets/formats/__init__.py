"""Readers of label formats: MATLAB, COCO, LabelMe, and PNG files whose values are looked up in a table.

The readers do not depend on datasets; datasets are built on them.
"""
