"""NYU Depth V2 with 40 classes, as prepared PNG files: 795 train and 654 val images."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.facts import Published, read_facts
from refinenet.datasets.pairs import open_folders

FACTS = read_facts("nyu")


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train" or "val", of the prepared folder `root`.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: images and masks do not pair.
    """
    return open_folders(
        name="nyu",
        split=split,
        label_set=FACTS.label_set,
        images=root / f"{split}_images",
        masks=root / f"{split}_labels",
    )


NYU = Published(facts=FACTS, open_split=open_split, is_slow=True)
