"""COCO 2017 with PASCAL VOC's 20 classes and background, as images and prepared masks."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.dataset import Dataset, open_folders, read_label_set

LABEL_SET = read_label_set("coco")

HOW_TO_GET = (
    "Download http://images.cocodataset.org/zips/train2017.zip (18 GB), "
    "http://images.cocodataset.org/zips/val2017.zip (1 GB) and "
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip (241 MB), and unpack the images to "
    "train2017/ and val2017/. Draw the instances of VOC's 20 classes as masks/train2017/NAME.png and "
    "masks/val2017/NAME.png, 8-bit grey: 0 for background, 1 to 20 in VOC's order, 255 where instances overlap or are "
    "marked as crowds. Keep only images that have a mask. Pass root= the folder that holds these, or name it in the "
    "environment variable REFINENET_COCO."
)


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train" or "val", of the prepared folder `root`.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: there is no such split, or images and masks do not pair.
    """
    if split not in ("train", "val"):
        raise ValueError(f"COCO has the splits train and val, not {split!r}.")
    return open_folders(
        name="coco",
        split=split,
        label_set=LABEL_SET,
        images=root / f"{split}2017",
        masks=root / "masks" / f"{split}2017",
        how_to_get=HOW_TO_GET,
    )
