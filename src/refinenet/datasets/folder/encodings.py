"""The encoding of a dataset folder's masks: from the file that names its classes, from palettes or annotations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from refinenet.datasets.folder.classes_file import (
    MaskEncoding,
    NoPaletteError,
    encoding_from_palettes,
    of_ids,
    read_classes_file,
)
from refinenet.datasets.folder.layouts import YAML_SUFFIXES
from refinenet.datasets.folder.split_files import Layout, list_folders
from refinenet.datasets.folder.tool_exports import read_label_map, read_roboflow_classes
from refinenet.datasets.formats import coco, labelme
from refinenet.io.images.image_files import list_files
from refinenet.labels import LabelSet


def find_encoding(layout: Layout, *, leave_out_invalid: bool = False) -> MaskEncoding:
    """Find the meaning of the values in a layout's masks, or of its annotations.

    Palette masks without a classes file are all read, each once. Invalid annotations may be left out.

    Raises:
        NoPaletteError: The meaning is not given.
        ValueError: The file that gives it is damaged, or lacks a label that occurs.
        FileNotFoundError: There are no masks.
        OSError: A file cannot be read.
    """
    path = layout.classes_file
    if layout.annotations:
        return _find_annotated(layout, leave_out_invalid)
    if path is None:
        return _find_in_palettes(layout)
    if path.suffix.lower() in YAML_SUFFIXES:
        return read_classes_file(path)
    encoding = read_label_map(path) if path.suffix == ".txt" else _read_roboflow(layout, path)
    return encoding.rename(layout.renames)


def _find_annotated(layout: Layout, leave_out_invalid: bool) -> MaskEncoding:
    first = next(iter(layout.annotations.values()))
    folders = sorted({path for path in layout.annotations.values() if path.is_dir()})
    shapes = [path for folder in folders for path in sorted(list_files(folder, (".json",)))]
    if layout.classes_file is not None:
        encoding = _read_listed(layout.classes_file)
        if folders:  # COCO's files are checked when they are opened, each once
            labelme.check_labels(
                encoding.label_set,
                shapes,
                leave_out_invalid=leave_out_invalid,
                origin=layout.classes_file,
                renames=layout.renames,
            )
        return encoding
    if folders:
        return _number(labelme.find_names(shapes, leave_out_invalid=leave_out_invalid, renames=layout.renames), first)
    instances = coco.open_instances(first, leave_out_invalid=leave_out_invalid).rename(layout.renames)
    return _number(instances.label_set_of_all(), first)


def _number(label_set: LabelSet, origin: Path) -> MaskEncoding:
    return of_ids(label_set, list(range(len(label_set))), [], str(origin))


def _read_listed(path: Path) -> MaskEncoding:
    """Read the classes that a YAML file lists for shapes, which have labels but no ids or colours."""
    encoding = read_classes_file(path)
    if encoding != _number(encoding.label_set, path):
        raise ValueError(
            f"{path}: 'masks', 'values' and 'ignore' are for masks, but the labels here are shapes: use 'names' and "
            "'colours' only."
        )
    return encoding


def _find_in_palettes(layout: Layout) -> MaskEncoding:
    if not any(files.mask_names for files in layout.splits.values()):
        folders = sorted({str(files.masks) for files in layout.splits.values()})
        raise FileNotFoundError(f"{layout.root} has no masks in {', '.join(folders)}.")
    try:
        return encoding_from_palettes(_all_masks(layout))
    except NoPaletteError as error:
        raise NoPaletteError(f"{layout.root} has no classes.yaml and {error}") from error


def _all_masks(layout: Layout) -> Iterator[Path]:
    for files in layout.splits.values():
        yield from (files.masks / name for name in files.mask_names)


def _read_roboflow(layout: Layout, path: Path) -> MaskEncoding:
    encoding = read_roboflow_classes(path)
    for folder in list_folders(layout.root).values():
        other = folder / path.name
        if other.is_file() and read_roboflow_classes(other).label_set != encoding.label_set:
            raise ValueError(f"{path} and {other} name different classes: export all splits together.")
    return encoding
