"""NYU Depth V2 with 40 classes, as prepared PNG files: 795 train and 654 val images."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.dataset import Dataset, open_folders, read_label_set

LABEL_SET = read_label_set("nyu")

HOW_TO_GET = (
    "Download nyu_depth_v2_labeled.mat (2.8 GB) from "
    "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat, and the map of its 894 classes to "
    "40 and the split of 795 and 654 images from https://github.com/ankurhanda/nyuv2-meta-data. Write each image as "
    "train_images/NAME.png or val_images/NAME.png, and its classes as train_labels/NAME.png or val_labels/NAME.png, "
    "8-bit grey: 0 to 39 for the classes 1 to 40, 255 for unlabelled. Pass root= the folder that holds these four, or "
    "name it in the environment variable REFINENET_NYU."
)


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train" or "val", of the prepared folder `root`.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: there is no such split, or images and masks do not pair.
    """
    if split not in ("train", "val"):
        raise ValueError(f"NYU Depth V2 has the splits train and val, not {split!r}.")
    return open_folders(
        name="nyu",
        split=split,
        label_set=LABEL_SET,
        images=root / f"{split}_images",
        masks=root / f"{split}_labels",
        how_to_get=HOW_TO_GET,
    )
