"""PASCAL Person-Part with 7 classes: 1,716 train and 1,817 val images of VOC 2010, from prepared PNG or PASCAL-Part."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.datasets.formats.matlab import Array, read_variable, to_ids
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.datasets.published.devkit import check_presence, find_folder, not_found, read_names, require_folder
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelMap

INFO = read_info("person_part")
VOC_PLACES = ("VOCdevkit/VOC2010", "VOC2010", "")
PNG_FOLDER, MAT_FOLDER = "pascal_person_part_gt", "Annotations_Part"
MASK_PLACES = ("", "pascal_person_part", "trainval", "pascal_part")
LIST_FOLDER = "pascal_person_part_trainval_list"
PERSON = 15
"""VOC's index of the class person."""


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val" below `root`.

    Prepared masks in `pascal_person_part_gt` are used if they exist, or else PASCAL-Part's `Annotations_Part`. The
    images are those in `pascal_person_part_trainval_list`; without these lists, which PASCAL-Part does not include,
    those in which VOC 2010 lists a person, whose number differs slightly.

    Raises:
        FileNotFoundError: A list, an image or a mask is missing.
        ValueError: A list is damaged.
    """
    voc = require_folder(root, VOC_PLACES, "JPEGImages", "PASCAL VOC 2010")
    masks, ending = _find_masks(root)
    items = _read_items(root, voc, split)
    is_matlab = ending == ".mat"
    check_presence(voc / "JPEGImages", ".jpg", items)
    check_presence(masks, ending, items)
    return from_files(
        name="person_part",
        split=split,
        label_set=INFO.label_set,
        items=items,
        image_file=partial(place, voc / "JPEGImages", ".jpg"),
        mask_file=partial(place, masks, ending),
        read_labels=_read_parts if is_matlab else read_mask,
        slow_sources=[masks, *_sources(root, voc, split)] if is_matlab else (),
    )


def _find_masks(root: Path) -> tuple[Path, str]:
    for folder, ending in ((PNG_FOLDER, ".png"), (MAT_FOLDER, ".mat")):
        found = find_folder(root, MASK_PLACES, folder)
        if found is not None:
            return found / folder, ending
    wanted = [root / place / folder for folder in (PNG_FOLDER, MAT_FOLDER) for place in MASK_PLACES]
    raise not_found("The labels of Person-Part", wanted)


def _read_items(root: Path, voc: Path, split: str) -> list[str]:
    lists = find_folder(root, MASK_PLACES, f"{LIST_FOLDER}/{split}.txt")
    if lists is not None:
        return read_names(lists / LIST_FOLDER / f"{split}.txt")
    return read_names(voc / "ImageSets" / "Main" / f"person_{split}.txt", flag="1")


def _sources(root: Path, voc: Path, split: str) -> list[Path]:
    """Return the lists, and the masks that take precedence over PASCAL-Part's, whether they exist or not."""
    lists = [root / place / LIST_FOLDER / f"{split}.txt" for place in MASK_PLACES]
    preferred = [root / place / PNG_FOLDER for place in MASK_PLACES]
    return [*lists, voc / "ImageSets" / "Main" / f"person_{split}.txt", *preferred]


def _read_parts(path: Path) -> LabelMap:
    """Draw PASCAL-Part's masks of the parts of all persons in file order, later ones over earlier ones."""
    objects = read_variable(path, "anno").field("objects")
    if len(objects) != 1 or not objects[0].field("mask"):
        raise ValueError(f"{path} contains no object, so the size of its image is unknown.")
    labels = np.zeros(objects[0].field("mask")[0].shape, np.uint8)
    classes, parts = objects[0].field("class_ind"), objects[0].field("parts")
    for number, person_parts in zip(classes, parts, strict=True):
        if number.numbers().tolist() == [[PERSON]]:
            _draw(labels, person_parts, path)
    return labels


def _draw(labels: LabelMap, parts: Array, path: Path) -> None:
    classes = INFO.more["class_of_part"]
    for name, mask in zip(parts.field("part_name"), parts.field("mask"), strict=True):
        part = name.text()
        if part not in classes:
            raise ValueError(f"{path} has a part {part[:40]!r}. Persons have {', '.join(classes)}.")
        if mask.shape != labels.shape:
            raise ValueError(f"{path}: the part {part} has the shape {mask.shape}, its image {labels.shape}.")
        labels[to_ids(mask.numbers(), f"{path}, {part}") != 0] = classes[part]


PERSON_PART = PublishedDataset(info=INFO, open_split=open_split)
