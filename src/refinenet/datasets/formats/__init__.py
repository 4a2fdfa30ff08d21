"""Readers of label formats: MATLAB, COCO, LabelMe, and PNG files whose values need a table.

The readers know nothing of datasets; datasets are built from them.
"""
