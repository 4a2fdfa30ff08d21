"""COCO 2017 with PASCAL VOC's 20 classes and background, and with the 171 things and stuff of COCO-Stuff."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.datasets.file_pairs import open_folders, pair_files
from refinenet.datasets.formats.coco import CocoInstances, open_instances
from refinenet.datasets.formats.lookup import make_table, read_with_table
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import list_files
from refinenet.labels import LabelMap

INFO = read_info("coco")
CLASS_OF_CATEGORY = {int(category): k for category, k in INFO.more["class_of_category"].items()}
SMALLEST_AREA = 1000
"""Training uses only images whose objects of the 20 classes have more pixels than this in total.

Source: torchvision's reference training on COCO, `references/segmentation/coco_utils.py`.
"""
STUFF_INFO = read_info("coco_stuff")
STUFF_TABLE = make_table({int(value): k for value, k in STUFF_INFO.more["class_of_value"].items()}, void=[255])
STUFF_MEANING = (
    "Masks of COCO-Stuff hold COCO's category ids less one (0 to 181, without eleven that no category has), and 255 "
    "for none. Files of *_labelTrainIds.png, of the panoptic task or of stuff alone hold other values."
)


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val".

    `root` holds train2017/ and val2017/ with the images, and annotations/instances_train2017.json etc.; or, instead of
    the latter, prepared masks with ids of the 21 classes in masks/train2017/ and masks/val2017/.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: The JSON file is damaged, or images and prepared masks do not match.
    """
    images, masks = root / f"{split}2017", root / "masks" / f"{split}2017"
    json_file = root / "annotations" / f"instances_{split}2017.json"
    if masks.is_dir():
        return open_folders(name="coco", split=split, label_set=INFO.label_set, images=images, masks=masks)
    if not json_file.is_file() or not images.is_dir():
        raise FileNotFoundError(
            f"The dataset 'coco' has no split {split!r} here: it needs the folder {images}, and {json_file} or the "
            f"folder {masks}."
        )
    instances = open_instances(json_file, CLASS_OF_CATEGORY, crowds="void")
    return Dataset(
        name="coco",
        split=split,
        label_set=INFO.label_set,
        items=_choose(instances, split),
        read_image=partial(_read_image, images),
        read_labels=partial(_read_labels, instances),
        locate=partial(_locate, json_file),
        image_file=partial(place, images, ".jpg"),
        slow_sources=[json_file, masks],
    )


def _choose(instances: CocoInstances, split: str) -> list[str]:
    chosen = np.ones(len(instances.file_names), bool)
    if split == "train":
        if np.isnan(instances.area).any():
            raise ValueError(f"{instances.json_file} has annotations without 'area', which is needed to select images.")
        chosen = instances.area > SMALLEST_AREA
    names = [instances.file_names[index] for index in np.flatnonzero(chosen)]
    other = next((name for name in names if not name.endswith(".jpg")), None)
    if other is not None:
        raise ValueError(f"{instances.json_file} has an image {other!r}: the images of COCO end in .jpg.")
    return [name.removesuffix(".jpg") for name in names]


def _read_image(folder: Path, item: str) -> npt.NDArray[np.uint8]:
    return decode(place(folder, ".jpg", item))


def _read_labels(instances: CocoInstances, item: str) -> LabelMap:
    """Draw objects in their classes; crowds, and pixels of more than one object, are void."""
    index = instances.find(f"{item}.jpg")
    labels = np.zeros(instances.size(index), np.uint8)
    taken = np.zeros(labels.shape, bool)
    for category, is_crowd, region in instances.objects(index):
        labels[region] = INFO.label_set.ignore_index if is_crowd else CLASS_OF_CATEGORY[category]
        labels[region & taken] = INFO.label_set.ignore_index
        taken |= region
    return labels


def _locate(json_file: Path, item: str) -> str:
    return f"{json_file}, image {item}.jpg"


def open_stuff_split(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val" of COCO-Stuff in the folder `root`.

    Images are in train2017/ or images/train2017/; masks are in stuffthingmaps/train2017/, in annotations/train2017/, or
    beside the images if all archives were unpacked into one folder.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: Images and masks do not match.
    """
    part = f"{split}2017"
    image_places = [root / part, root / "images" / part]
    mask_places = [root / "stuffthingmaps" / part, root / "annotations" / part, *image_places]
    images = next((folder for folder in image_places if _list(folder, ".jpg")), None)
    masks = next((folder for folder in mask_places if _list(folder, ".png")), None)
    if images is None or masks is None:
        raise FileNotFoundError(
            f"The dataset 'coco:stuff' has no split {split!r} here: it needs JPEG images in {_either(image_places)}, "
            f"and PNG masks in {_either(mask_places)}."
        )
    pairs = pair_files(_list(images, ".jpg"), _list(masks, ".png"))
    return from_files(
        name="coco:stuff",
        split=split,
        label_set=STUFF_INFO.label_set,
        items=list(pairs),
        image_file=partial(place, images, ".jpg"),
        mask_file=partial(place, masks, ".png"),
        read_labels=partial(read_with_table, STUFF_TABLE, STUFF_MEANING),
    )


def _list(folder: Path, suffix: str) -> list[Path]:
    """List the files with a suffix, without the masks that other tools write beside the published ones."""
    files = list_files(folder, (suffix,)) if folder.is_dir() else ()
    return [path for path in files if not path.stem.endswith("_labelTrainIds")]


def _either(folders: list[Path]) -> str:
    return " or ".join(str(folder) for folder in folders)


COCO = PublishedDataset(info=INFO, open_split=open_split)
COCO_STUFF = PublishedDataset(info=STUFF_INFO, open_split=open_stuff_split)
