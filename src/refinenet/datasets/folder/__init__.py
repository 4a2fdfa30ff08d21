"""Datasets in plain folders: their layouts, and how their masks encode classes (`encodings`, `classes_file`)."""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.datasets.folder.classes_file import of_ids, read_classes_file
    from refinenet.datasets.folder.tool_exports import read_label_map
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = ["of_ids", "read_classes_file", "read_label_map"]
