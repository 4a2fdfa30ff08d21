"""PASCAL-Context with 60 classes, or 59 where the background is ignored: 4,998 train and 5,105 val images of VOC 2010.

Two class orders are in use. This package uses that of the owners' 59_labels.txt, VOC's classes first. PNG files from
mmsegmentation's converter use the order of the 459 classes instead; they are reordered.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.datasets.formats.matlab import read_variable, to_ids, translate
from refinenet.datasets.metadata import DatasetInfo, PublishedDataset, read_info
from refinenet.datasets.published.devkit import check_presence, find_folder, not_found, read_names, require_folder
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelMap

INFO, INFO_59 = read_info("context"), read_info("context_59")
VOC_PLACES = ("VOCdevkit/VOC2010", "VOC2010", "")
MAT_PLACES = ("trainval", "pascal-context/trainval", "VOCdevkit/VOC2010/trainval", "VOC2010/trainval")
CONVERTED = "SegmentationClassContext"
CLASS_OF_ID = {int(identifier): index for identifier, index in INFO.more["class_of_id"].items()}
"""The class, 1 to 59, of each of the 459 ids that have one; all others are background, 0."""


def open_60(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val", with the background as class 0.

    Raises:
        FileNotFoundError: A list, an image or a mask is missing.
        ValueError: A list is damaged.
    """
    return _open(INFO, "context", root, split)


def open_59(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val", with the background ignored and all other ids one lower.

    Raises:
        FileNotFoundError: A list, an image or a mask is missing.
        ValueError: A list is damaged.
    """
    return _open(INFO_59, "context:59", root, split)


def _open(info: DatasetInfo, name: str, root: Path, split: str) -> Dataset:
    voc = require_folder(root, VOC_PLACES, "JPEGImages", "PASCAL VOC 2010")
    masks = find_folder(root, MAT_PLACES, ".")
    slow_sources = []
    if masks is not None:
        listing = voc / "ImageSets" / "Main" / f"{split}.txt"
        ending, items, slow_sources = ".mat", read_names(listing), [masks, listing]
    elif (voc / CONVERTED).is_dir():
        masks, ending = voc / CONVERTED, ".png"
        items = read_names(voc / "ImageSets" / "SegmentationContext" / f"{split}.txt")
    else:
        wanted = [*(root / place for place in MAT_PLACES), voc / CONVERTED]
        raise not_found("The labels of PASCAL-Context", wanted)
    check_presence(voc / "JPEGImages", ".jpg", items)
    check_presence(masks, ending, items)
    return from_files(
        name=name,
        split=split,
        label_set=info.label_set,
        items=items,
        image_file=partial(place, voc / "JPEGImages", ".jpg"),
        mask_file=partial(place, masks, ending),
        read_labels=partial(_read_labels, info is INFO),
        slow_sources=slow_sources,
    )


def _read_labels(has_background: bool, path: Path) -> LabelMap:
    if path.suffix == ".mat":
        table = np.zeros(460, np.uint8)
        table[list(CLASS_OF_ID)] = list(CLASS_OF_ID.values())
        ids = to_ids(read_variable(path, "LabelMap").numbers(), str(path))
    else:
        # mmsegmentation numbers the ids that have a class in ascending order of the 459 ids.
        table = np.array([0, *(CLASS_OF_ID[identifier] for identifier in sorted(CLASS_OF_ID))], np.uint8)
        ids = to_ids(read_mask(path), str(path))
    # uint8 wraps around: 0 becomes 255.
    return translate(ids, table if has_background else table - np.uint8(1), str(path))


CONTEXT = PublishedDataset(info=INFO, open_split=open_60)
CONTEXT_59 = PublishedDataset(info=INFO_59, open_split=open_59)
