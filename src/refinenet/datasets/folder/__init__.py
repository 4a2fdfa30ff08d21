"""Datasets in plain folders: their layouts, and how their masks encode classes (`encodings`, `classes_file`)."""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.datasets.folder.classes_file import MaskEncoding, of_ids, read_classes_file
    from refinenet.datasets.folder.encodings import find_encoding
    from refinenet.datasets.folder.folder import open_split
    from refinenet.datasets.folder.layouts import find_layout, find_pair
    from refinenet.datasets.folder.split_files import Layout, name_split
    from refinenet.datasets.folder.tool_exports import read_label_map
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "Layout",
    "MaskEncoding",
    "find_encoding",
    "find_layout",
    "find_pair",
    "name_split",
    "of_ids",
    "open_split",
    "read_classes_file",
    "read_label_map",
]
