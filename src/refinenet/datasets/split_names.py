"""Which splits what users name a dataset by has."""

from __future__ import annotations

from pathlib import Path

from refinenet.datasets.catalog import PUBLISHED
from refinenet.datasets.folder.layouts import find_layout, find_splits
from refinenet.datasets.street_scenes import dataset

_PLAIN = ("train", "val", "test")


def split_names(source: str) -> tuple[str, ...]:
    """The splits that a dataset has: train, val, test, and any others of a folder of one's own.

    Splits that are made of these, such as VOC's trainval, are not among them: their images would count twice.

    Args:
        source: As `open_dataset` takes it.

    Raises:
        FileNotFoundError, ValueError, OSError: as `find_layout`, for a folder of one's own.
    """
    if source in PUBLISHED:
        return tuple(split for split in _PLAIN if split in PUBLISHED[source].splits)
    if source.partition(":")[0] == "streets":
        return tuple(dataset.FIRST_SEEDS)
    return find_splits(find_layout(Path(source)))
