"""The one dataset that all others are made of: names, and a function that loads one image with its label map.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.image_files import read_mask
from refinenet.images import decode
from refinenet.labels import LabelMap, LabelSet

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its truth."""

    name: str
    image: npt.NDArray[np.uint8]
    """`(H, W, 3)` uint8 RGB."""
    labels: LabelMap
    """`(H, W)` ids below K, or the label set's ignore index, in the label set's type."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images of one split with their label maps, loaded one by one when asked for.

    `dataset[i]` is a `Sample` whose image and label map have the same size and whose ids all belong to `label_set`.
    It raises ValueError, naming the file and what is wrong with it, where that does not hold.
    """

    name: str
    split: str
    label_set: LabelSet
    items: Sequence[str]
    """What the samples are called, in a fixed order."""
    load: Callable[[str], tuple[npt.NDArray[np.uint8], LabelMap]]
    """From an item to its image and label map. It can be pickled, so that worker processes can load, too."""
    locate: Callable[[str], str] = str
    """What messages call an item's mask: its path, where it has one."""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        image, labels = self.load(item)
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"{self.locate(item)}: the image has {image.shape[1]}x{image.shape[0]} pixels (width x height), "
                f"its mask {labels.shape[1]}x{labels.shape[0]}. They must be equal."
            )
        self._check_ids(item, labels)
        return Sample(name=item, image=image, labels=self.label_set.cast(labels))

    def _check_ids(self, item: str, labels: LabelMap) -> None:
        strange = (labels >= len(self.label_set)) & (labels != self.label_set.ignore_index)
        if strange.any():
            row, column = np.argwhere(strange)[0]
            raise ValueError(
                f"{self.locate(item)}: the mask has the id {labels[row, column]} at row {row}, column {column} "
                f"({strange.sum()} pixels in all have such ids). Allowed are 0 to {len(self.label_set) - 1} and "
                f"{self.label_set.ignore_index} for pixels to be ignored."
            )


Splits = Callable[[str], Dataset]
"""From the name of a split, such as "train" or "val", to its dataset."""


def read_label_set(name: str) -> LabelSet:
    """The label set of a published dataset, from the package's own `datasets/<name>.json`."""
    text = (resources.files("refinenet.datasets") / f"{name}.json").read_text("utf-8")
    return LabelSet.from_dict(json.loads(text))


def open_folders(
    *,
    name: str,
    split: str,
    label_set: LabelSet,
    images: Path,
    masks: Path,
    how_to_get: str,
    read_labels: Callable[[Path], LabelMap] = read_mask,
) -> Dataset:
    """The dataset of a folder of images and a folder of masks with the same stems, in alphabetical order.

    Args:
        name: What messages call the dataset.
        split: Which part of it.
        label_set: Its classes.
        images: The folder of images.
        masks: The folder of masks.
        how_to_get: What to say when the folders are not there.
        read_labels: From a mask file to its `(H, W)` ids in `label_set`.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        ValueError: a stem stands twice in one folder, or has no partner in the other; the stems are named.
    """
    absent = [str(folder) for folder in (images, masks) if not folder.is_dir()]
    if absent:
        raise FileNotFoundError(
            f"The dataset {name!r} has no split {split!r} here: {' and '.join(absent)} missing. {how_to_get}"
        )
    pairs = _pair_files(images, masks)
    if not pairs:
        raise FileNotFoundError(f"The dataset {name!r} has no images in {images}. {how_to_get}")
    return Dataset(
        name=name,
        split=split,
        label_set=label_set,
        items=list(pairs),
        load=partial(_load_pair, images, masks, pairs, read_labels),
        locate=partial(_locate_mask, masks, pairs),
    )


def list_files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files in a folder that end in one of `suffixes`, hidden ones aside, in any order."""
    return (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))


def join(parts: Sequence[Dataset]) -> Dataset:
    """The samples of several datasets as one; split and label set are those of the first.

    Raises:
        ValueError: their classes differ.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.label_set.names != first.label_set.names:
            raise ValueError(f"{first.name} and {part.name} have different classes and cannot be joined.")
    items = [f"{index}/{item}" for index, part in enumerate(parts) for item in part.items]
    return Dataset(
        name=" + ".join(part.name for part in parts),
        split=first.split,
        label_set=first.label_set,
        items=items,
        load=partial(_load_joined, parts),
        locate=partial(_locate_joined, parts),
    )


def _load_joined(parts: Sequence[Dataset], item: str) -> tuple[npt.NDArray[np.uint8], LabelMap]:
    index, _, inner = item.partition("/")
    return parts[int(index)].load(inner)


def _locate_joined(parts: Sequence[Dataset], item: str) -> str:
    index, _, inner = item.partition("/")
    return parts[int(index)].locate(inner)


def _load_pair(
    images: Path,
    masks: Path,
    pairs: Mapping[str, tuple[str, str]],
    read_labels: Callable[[Path], LabelMap],
    item: str,
) -> tuple[npt.NDArray[np.uint8], LabelMap]:
    image, mask = pairs[item]
    return decode(images / image), read_labels(masks / mask)


def _locate_mask(masks: Path, pairs: Mapping[str, tuple[str, str]], item: str) -> str:
    return str(masks / pairs[item][1])


def _pair_files(images: Path, masks: Path) -> dict[str, tuple[str, str]]:
    found_images, found_masks = _by_stem(images, IMAGE_SUFFIXES), _by_stem(masks, MASK_SUFFIXES)
    alone = sorted(set(found_images) ^ set(found_masks))
    if alone:
        lacking = [f"{stem} (no {'mask' if stem in found_images else 'image'})" for stem in alone[:5]]
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        raise ValueError(
            f"{images} and {masks} should hold the same file names, endings aside. Without partner: "
            f"{', '.join(lacking)}{more}. Images end in {', '.join(IMAGE_SUFFIXES)}, "
            f"masks in {', '.join(MASK_SUFFIXES)}."
        )
    return {stem: (found_images[stem], found_masks[stem]) for stem in sorted(found_images)}


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for path in list_files(folder, suffixes):
        # The same name may come spelt in two ways: macOS takes accents and letters apart, others do not.
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in files:
            raise ValueError(f"{folder} holds both {files[stem]} and {path.name}: which one is meant?")
        files[stem] = path.name
    return files
