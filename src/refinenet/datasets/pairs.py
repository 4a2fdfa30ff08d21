"""Images and masks in two folders, or one, brought together by the stems of their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import Dataset, from_files
from refinenet.image_files import read_mask
from refinenet.labels import LabelMap, LabelSet

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")


def open_folders(
    *,
    name: str,
    split: str,
    label_set: LabelSet,
    images: Path,
    masks: Path,
    read_labels: Callable[[Path], LabelMap] = read_mask,
) -> Dataset:
    """The dataset of a folder of images and a folder of masks with the same stems, in alphabetical order.

    Args:
        name: What messages call the dataset.
        split: Which part of it.
        label_set: Its classes.
        images: The folder of images.
        masks: The folder of masks.
        read_labels: From a mask file to its `(H, W)` ids in `label_set`.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        ValueError: a stem stands twice in one folder, or has no partner in the other; the stems are named.
    """
    absent = [str(folder) for folder in (images, masks) if not folder.is_dir()]
    if absent:
        raise FileNotFoundError(
            f"The dataset {name!r} has no split {split!r} here: {' and '.join(absent)} missing."
        )
    pairs = pair_files(list_files(images, IMAGE_SUFFIXES), list_files(masks, MASK_SUFFIXES))
    if not pairs:
        raise FileNotFoundError(f"The dataset {name!r} has no images in {images}.")
    return from_files(
        name=name,
        split=split,
        label_set=label_set,
        items=list(pairs),
        image_file=partial(_find, images, {stem: names[0] for stem, names in pairs.items()}),
        mask_file=partial(_find, masks, {stem: names[1] for stem, names in pairs.items()}),
        read_labels=read_labels,
    )


def list_files(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files in a folder that end in one of `suffixes`, hidden ones aside, in any order."""
    return (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))


def pair_files(images: Iterable[Path], masks: Iterable[Path]) -> dict[str, tuple[str, str]]:
    """The file names of image and mask by their common stem, in alphabetical order.

    Raises:
        ValueError: a stem stands twice on one side, or only on one; the stems are named.
    """
    found_images, found_masks = _by_stem(images), _by_stem(masks)
    alone = sorted(set(found_images) ^ set(found_masks))
    if alone:
        lacking = [f"{stem} (no {'mask' if stem in found_images else 'image'})" for stem in alone[:5]]
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        raise ValueError(
            f"Images and masks should have the same file names, endings aside. Without partner: "
            f"{', '.join(lacking)}{more}. Images end in {', '.join(IMAGE_SUFFIXES)}, "
            f"masks in {', '.join(MASK_SUFFIXES)}."
        )
    return {stem: (found_images[stem], found_masks[stem]) for stem in sorted(found_images)}


def _by_stem(paths: Iterable[Path]) -> dict[str, str]:
    files: dict[str, str] = {}
    for path in paths:
        # The same name may come spelt in two ways: macOS takes accents and letters apart, others do not.
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in files:
            raise ValueError(f"{path.parent} holds both {files[stem]} and {path.name}: which one is meant?")
        files[stem] = path.name
    return files


def _find(folder: Path, names: Mapping[str, str], item: str) -> Path:
    return folder / names[item]
