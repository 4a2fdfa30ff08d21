"""COCO 2017 with PASCAL VOC's 20 classes and background, as images and prepared masks."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.facts import Published, read_facts
from refinenet.datasets.pairs import open_folders

FACTS = read_facts("coco")


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train" or "val", of the prepared folder `root`.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: images and masks do not pair.
    """
    return open_folders(
        name="coco",
        split=split,
        label_set=FACTS.label_set,
        images=root / f"{split}2017",
        masks=root / "masks" / f"{split}2017",
    )


COCO = Published(facts=FACTS, open_split=open_split, is_slow=True)
