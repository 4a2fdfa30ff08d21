"""ADE20K in the form of the SceneParsing challenge: 150 classes, 20,210 train and 2,000 val images.

Masks hold 0 for what has no class, and 1 to 150. The full ADE20K with its 3,000 classes is another download.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.facts import Published, read_facts
from refinenet.datasets.formats.tables import make_table, read_with_table
from refinenet.datasets.pairs import open_folders

FACTS = read_facts("ade20k")
FOLDER = "ADEChallengeData2016"
TABLE = make_table({k + 1: k for k in range(len(FACTS.label_set))}, void=[0])
MEANING = "Masks of ADE20K SceneParsing hold 1 to 150 for its classes and 0 for none."


def open_split(root: Path, split: str) -> Dataset:
    """One split, "train" or "val", of the folder `root`, which holds ADEChallengeData2016/ or is it.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: images and masks do not pair.
    """
    base = root if (root / "annotations").is_dir() else root / FOLDER
    part = {"train": "training", "val": "validation"}[split]
    return open_folders(
        name="ade20k",
        split=split,
        label_set=FACTS.label_set,
        images=base / "images" / part,
        masks=base / "annotations" / part,
        read_labels=partial(read_with_table, TABLE, MEANING),
    )


ADE20K = Published(facts=FACTS, open_split=open_split)
