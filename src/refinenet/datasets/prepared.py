"""Masks that `refinenet data prepare` has written of a published dataset whose own label files are slow to read.

Below the dataset's root they lie so, for a dataset named `sbd` and its split `train`:

    prepared/sbd-train/masks/ITEM.png     ids of the label set, with its palette
    prepared/sbd-train/images/ITEM.png    only where the image is in no file of its own
    prepared/sbd-train/samples.tsv        written last: an item and its image's path below the root on each line

Items may contain "/": then there are folders below `masks/` and `images/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.files import write_atomically
from refinenet.images import write
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
    for number, line in enumerate(listing.read_bytes().decode(errors="surrogateescape").splitlines(), start=1):
        item, tab, image = line.partition("\t")
        if not (tab and image) or item in images or not (_is_plain(item) and _is_plain(image)):
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


def write_sample(root: Path, folder: Path, dataset: Dataset, index: int) -> str:
    """Write the mask of one sample and, where no file holds it alone, the image; files that are there stay.

    Args:
        root: The dataset's root.
        folder: The split's `prepared_folder`.
        dataset: The split, as its owner's files hold it.
        index: Which sample.

    Returns:
        The path of its image below the root, with "/" between folders.

    Raises:
        ValueError: the sample is damaged, or its name or its image's place leads outside.
        OSError: a file cannot be read or written.
    """
    item = dataset.items[index]
    if not _is_plain(item):
        raise ValueError(f"{dataset.name} has an image named {item!r}, which cannot be the name of a file.")
    image = dataset.image_file(item)
    if image is None:
        image = place(folder / "images", ".png", item)
        if not image.exists():
            write(image, dataset.read_image(item))
    if not image.is_relative_to(root) or not _is_plain(image.relative_to(root).as_posix()):
        raise ValueError(f"The image {str(image)!r} of {dataset.name} is not below the root {root}.")
    mask = place(folder / "masks", ".png", item)
    if not mask.exists():
        labels = dataset.labels(index)
        write(mask, labels, palette=dataset.label_set.colours if labels.dtype.itemsize == 1 else None)
    return image.relative_to(root).as_posix()


def write_listing(folder: Path, items: Sequence[str], images: Sequence[str]) -> None:
    """Write the list of samples, after which the split is prepared.

    Raises:
        ValueError: an item stands there twice.
        OSError: it cannot be written.
    """
    if len(set(items)) < len(items):
        raise ValueError(f"Two images for {folder} have the same name, so one's mask would replace the other's.")
    lines = [f"{item}\t{image}\n" for item, image in zip(items, images, strict=True)]
    write_atomically(folder / "samples.tsv", "".join(lines).encode())


def _is_plain(name: str) -> bool:
    """Whether a name, or several with "/" between them, stays below the folder and on one line of a list."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/")) and ":" not in name


def _find_image(root: Path, images: Mapping[str, str], item: str) -> Path:
    return root / images[item]
