"""Pairing of images and masks in one or two folders by the stems of their names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import Dataset, from_files, without_labels
from refinenet.io.images.image_files import IMAGE_SUFFIXES, list_files
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelMap, LabelSet

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
"""Suffixes of array files that may hold masks and are not read."""


def open_folders(
    *,
    name: str,
    split: str,
    label_set: LabelSet,
    images: Path,
    masks: Path,
    read_labels: Callable[[Path], LabelMap] = read_mask,
) -> Dataset:
    """Open a folder of images and a folder of masks with the same stems, in alphabetical order.

    Args:
        name: The dataset's name in messages.
        split: The name of the split.
        label_set: The classes.
        images: The folder of images.
        masks: The folder of masks.
        read_labels: Maps a mask file to its `(H, W)` ids in `label_set`.

    Raises:
        FileNotFoundError: A folder is missing or empty.
        ValueError: A stem occurs twice in one folder or has no partner in the other; the message names the stems.
    """
    absent = [str(folder) for folder in (images, masks) if not folder.is_dir()]
    if absent:
        raise FileNotFoundError(f"The dataset {name!r} has no split {split!r} here: {' and '.join(absent)} missing.")
    pairs = pair_names(
        (path.name for path in list_files(images, IMAGE_SUFFIXES)),
        (path.name for path in list_files(masks, MASK_SUFFIXES)),
        folders=(images, masks),
    )
    if not pairs:
        raise FileNotFoundError(f"The dataset {name!r} has no images in {images}.")
    return from_files(
        name=name,
        split=split,
        label_set=label_set,
        items=list(pairs),
        image_file=find_by_item(images, {item: names[0] for item, names in pairs.items()}),
        mask_file=find_by_item(masks, {item: names[1] for item, names in pairs.items()}),
        read_labels=read_labels,
    )


def open_images(*, name: str, split: str, label_set: LabelSet, images: Path) -> Dataset:
    """Open a folder of images whose labels are withheld by the owners, in alphabetical order.

    Args:
        name: The dataset's name in messages.
        split: The name of the split.
        label_set: The classes.
        images: The folder.

    Raises:
        FileNotFoundError: The folder is empty.
        ValueError: A stem occurs twice in it.
    """
    names = by_stem((path.name for path in list_files(images, IMAGE_SUFFIXES)), "", images)
    if not names:
        raise FileNotFoundError(f"The dataset {name!r} has no images in {images}.")
    return without_labels(
        name=name, split=split, label_set=label_set, items=sorted(names), image_file=find_by_item(images, names)
    )


def find_stem(name: str) -> str:
    """Return a file name without its last suffix, in Unicode's composed form (NFC).

    macOS stores accents decomposed, other systems do not, so the same name may occur in two spellings.
    """
    return unicodedata.normalize("NFC", name.rpartition(".")[0])


def pair_files(images: Iterable[Path], masks: Iterable[Path]) -> dict[str, tuple[str, str]]:
    """Map each stem, in alphabetical order, to the file names of its image and mask.

    Raises:
        ValueError: A stem occurs twice on one side, or on one side only; the message names the stems.
    """
    return pair_names((path.name for path in images), (path.name for path in masks))


def pair_names(
    images: Iterable[str],
    masks: Iterable[str],
    *,
    ending: str = "",
    image_ending: str = "",
    wanted: str = "mask",
    folders: tuple[Path | str, Path | str] = ("The folder of images", "The folder of masks"),
) -> dict[str, tuple[str, str]]:
    """Map each stem, in alphabetical order, to the names of its image and mask.

    Args:
        images: File names, which may have folders in front, separated by "/".
        masks: Like `images`.
        ending: The part of a mask's stem that does not belong to the sample's name: a suffix such as "_mask" or a
            prefix such as "mask_".
        image_ending: The same for images, such as "_image" or "img_".
        wanted: The word for a mask in messages.
        folders: The names of the folders of images and masks in messages.

    Raises:
        ValueError: A stem occurs twice on one side, or on one side only; the message names the stems.
    """
    found_images, found_masks = by_stem(images, image_ending, folders[0]), by_stem(masks, ending, folders[1])
    alone = sorted(found_images.keys() ^ found_masks.keys())
    if alone:
        lacking = [f"{stem} (no {wanted if stem in found_images else 'image'})" for stem in alone[:5]]
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        endings = f" Images end in {', '.join(IMAGE_SUFFIXES)}, masks in {', '.join(MASK_SUFFIXES)}."
        raise ValueError(
            f"Images and {wanted}s should have the same file names except for the suffix. Without a partner: "
            f"{', '.join(lacking)}{more}.{endings if wanted == 'mask' else ''}"
        )
    return {stem: (found_images[stem], found_masks[stem]) for stem in sorted(found_images)}


def find_item(name: str, mark: str) -> str:
    """Return a file's stem without `mark`, a suffix such as "_mask" or a prefix such as "mask_"."""
    return remove_mark(find_stem(name), mark)


def remove_mark(stem: str, mark: str) -> str:
    """Return a stem, including any folders in front, without a suffix or prefix."""
    if not mark.endswith(("_", "-")):
        return stem.removesuffix(mark)
    folders, slash, last = stem.rpartition("/")
    return f"{folders}{slash}{last.removeprefix(mark)}"


def by_stem(names: Iterable[str], mark: str, folder: Path | str) -> dict[str, str]:
    """Map the stems of files, without `mark`, to their names.

    Raises:
        ValueError: A stem occurs twice; the message names `folder` and both files.
    """
    files: dict[str, str] = {}
    for name in names:
        stem = find_item(name, mark)
        if stem in files:
            raise ValueError(f"{folder} holds both {files[stem]} and {name}. Keep only one of them.")
        files[stem] = name
    return files


def find_by_item(folder: Path, names: Mapping[str, str]) -> Callable[[str], Path]:
    """Return a picklable function from an item to its file that stores only the exceptions to the common suffix.

    Args:
        folder: The folder of the files.
        names: The file name of each item.
    """
    endings = Counter(name.removeprefix(item) for item, name in names.items() if name.startswith(item))
    ending = endings.most_common(1)[0][0] if endings else ""
    others = {item: name for item, name in names.items() if name != item + ending}
    return partial(_find, folder, ending, others)


def _find(folder: Path, ending: str, others: Mapping[str, str], item: str) -> Path:
    return folder / others.get(item, item + ending)
