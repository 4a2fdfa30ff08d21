"""Masks that `refinenet data prepare` has written of a published dataset whose own label files are slow to read.

Below the dataset's root they lie so, for a dataset named `sbd` and its split `train`:

    prepared/sbd-train/masks/ITEM.png     ids of the label set, with its palette
    prepared/sbd-train/images/ITEM.png    only where the image is in no file of its own
    prepared/sbd-train/samples.tsv        written last: an item and its image's path below the root on each line
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.labels import LabelSet


def prepared_folder(root: Path, name: str, split: str) -> Path:
    """Where the prepared files of a split lie; `name` may have a variant, as in "coco:stuff"."""
    return root / "prepared" / f"{name.replace(':', '-')}-{split}"


def open_prepared(root: Path, name: str, split: str, label_set: LabelSet) -> Dataset | None:
    """The prepared dataset, or None where it was not prepared to its end.

    Raises:
        ValueError: its list of samples is damaged.
    """
    folder = prepared_folder(root, name, split)
    listing = folder / "samples.tsv"
    if not listing.is_file():
        return None
    images: dict[str, str] = {}
    for number, line in enumerate(listing.read_text("utf-8").splitlines(), start=1):
        item, tab, image = line.partition("\t")
        if not tab or item in images:
            raise ValueError(f"{listing}, line {number} is damaged: delete the file and prepare the dataset again.")
        images[item] = image
    return from_files(
        name=name,
        split=split,
        label_set=label_set,
        items=list(images),
        image_file=partial(_find_image, root, images),
        mask_file=partial(place, folder / "masks", ".png"),
    )


def _find_image(root: Path, images: Mapping[str, str], item: str) -> Path:
    return root / images[item]
