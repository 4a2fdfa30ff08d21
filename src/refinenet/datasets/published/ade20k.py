"""ADE20K in the form of the SceneParsing challenge: 150 classes, 20,210 train and 2,000 val images.

Masks hold 0 for pixels without a class, and 1 to 150. The full ADE20K with its 3,000 classes is another download.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import UNLABELLED, Dataset
from refinenet.datasets.file_pairs import open_folders, open_images
from refinenet.datasets.formats.lookup import make_table, read_with_table
from refinenet.datasets.metadata import PublishedDataset, Server, read_info
from refinenet.datasets.published.devkit import require_folder

INFO = read_info("ade20k")
FOLDER = "ADEChallengeData2016"
TEST_PLACES = ("release_test", f"{FOLDER}/release_test", f"{FOLDER}/images", "images", "")
TABLE = make_table({k + 1: k for k in range(len(INFO.label_set))}, void=[0])
MEANING = "Masks of ADE20K SceneParsing contain 1 to 150 for classes and 0 for no class."


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train", "val" or, without labels, "test".

    `root` is ADEChallengeData2016/ or contains it; release_test/ with the test images is beside or inside that folder.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: Images and masks do not match.
    """
    if split == UNLABELLED:
        images = require_folder(root, TEST_PLACES, "testing", "The test images of ADE20K SceneParsing") / "testing"
        return open_images(name="ade20k", split=split, label_set=INFO.label_set, images=images)
    base = root if (root / "annotations").is_dir() else root / FOLDER
    part = {"train": "training", "val": "validation"}[split]
    return open_folders(
        name="ade20k",
        split=split,
        label_set=INFO.label_set,
        images=base / "images" / part,
        masks=base / "annotations" / part,
        read_labels=partial(read_with_table, TABLE, MEANING),
    )


def _place_in_archive(_split: str, item: str) -> str:
    return f"{item}.png"


SERVER = Server(
    **INFO.more["server"],
    archive="zip",
    place=_place_in_archive,
    values=tuple(range(1, len(INFO.label_set) + 1)),
)
"""The server takes values 1 to 150, like the owner's masks, in files named like the images, but .png.

Source: the challenge's development kit, CSAILVision/sceneparsing.
"""
ADE20K = PublishedDataset(info=INFO, open_split=open_split, server=SERVER)
