"""Masks that `refinenet data prepare` has written of a published dataset whose own label files are slow to read.

They stand for the owner's files as long as these are unchanged, or gone: what they were made from is noted.

Below the dataset's root they lie so, for a dataset named `sbd` and its split `train`:

    prepared/sbd-train/made_from.json     written first: files and folders below the root, and what they looked like
    prepared/sbd-train/masks/ITEM.png     ids of the label set, with its palette
    prepared/sbd-train/images/ITEM.png    only where the image is in no file of its own
    prepared/sbd-train/samples.tsv        written last: an item and its image's path below the root on each line

Items may contain "/": then there are folders below `masks/` and `images/`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.io.files import write_atomically
from refinenet.io.images import write
from refinenet.io.parallel import map_parallel
from refinenet.labels import LabelSet

MANY_PROBLEMS = 20
"""After so many damaged samples nobody wants to hear of more."""
OLD = 3600
"""Seconds after which a temporary file is nobody's any more."""


def prepared_folder(root: Path, name: str, split: str) -> Path:
    """Where the prepared files of a split lie; `name` may have a variant, as in "coco:stuff"."""
    return root / "prepared" / f"{name.replace(':', '-')}-{split}"


def open_fastest(
    root: Path, name: str, split: str, label_set: LabelSet, open_split: Callable[[Path, str], Dataset]
) -> Dataset:
    """The split of a published dataset, from prepared masks where they are there and still right, else from its files.

    It warns where masks were prepared, but not from the files that are there now.

    Args:
        root: The dataset's root.
        name: What it is called; it may have a variant.
        split: Which part of it.
        label_set: Its classes.
        open_split: From root and split to the dataset in its owner's files.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: they are damaged.
    """
    prepared = open_prepared(root, name, split, label_set)
    if prepared is not None:
        return prepared
    dataset = open_split(root, split)
    folder = prepared_folder(root, name, split)
    if dataset.is_slow and _listing(folder).is_file():
        warnings.warn(
            f"The masks in {folder} were made from files that have changed since, and are not used. Run `refinenet "
            f"data prepare {name} --root {root}` to make them anew: reading is slower until then.",
            stacklevel=2,
        )
    return dataset


def open_prepared(root: Path, name: str, split: str, label_set: LabelSet) -> Dataset | None:
    """The prepared dataset, or None where it was not prepared to its end, or from files that have changed since.

    Raises:
        ValueError: its list of samples, or the note of what it was made from, is damaged.
    """
    folder = prepared_folder(root, name, split)
    listing = _listing(folder)
    if not listing.is_file() or not _is_current(root, folder):
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


def write_split(
    root: Path, folder: Path, dataset: Dataset, *, workers: int | None = None, advance: Callable[[], object]
) -> None:
    """Write the masks that are not there yet and, last of all, the list of samples. One process at a time may do it.

    Args:
        root: The dataset's root.
        folder: The split's `prepared_folder`.
        dataset: The split, as its owner's files hold it.
        workers: Processes; by default one for each core.
        advance: Called after each sample.

    Raises:
        ValueError: samples are damaged or cannot be written; some are named.
        OSError: something cannot be read, removed or written.
    """
    _begin(root, folder, dataset)
    images, problems = [], []
    work = partial(_write_or_explain, root, folder, dataset)
    for image, problem in map_parallel(work, range(len(dataset)), workers=workers):
        images.append(image)
        problems += [problem] if problem else []
        if len(problems) >= MANY_PROBLEMS:
            break
        advance()
    if problems:
        raise ValueError(
            f"{dataset.name} {dataset.split} cannot be converted: {len(problems)} of its images are damaged or cannot "
            f"be written{' so far' if len(problems) >= MANY_PROBLEMS else ''}. {' '.join(problems[:5])}"
        )
    write_listing(folder, dataset.items, images)


def _write_or_explain(root: Path, folder: Path, dataset: Dataset, index: int) -> tuple[str, str]:
    """The place of a sample's image, or else what went wrong."""
    try:
        return write_sample(root, folder, dataset, index), ""
    except (OSError, ValueError) as error:
        return "", str(error)


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
    write_atomically(_listing(folder), "".join(lines).encode())


def _begin(root: Path, folder: Path, dataset: Dataset) -> None:
    """Note what a split is made from; what was made from other files is removed, also if it was not finished."""
    looks = {path.relative_to(root).as_posix(): _look(path) for path in dataset.slow_sources}
    note = json.dumps(looks, indent=1).encode()
    path = _note(folder)
    for leftover in folder.rglob(".*.tmp"):
        if time.time() - leftover.stat().st_mtime > OLD:
            leftover.unlink(missing_ok=True)
    if path.is_file() and path.read_bytes() == note:
        return
    for file in (_listing(folder), path):
        file.unlink(missing_ok=True)
    for part in ("masks", "images"):
        if (folder / part).is_dir():
            shutil.rmtree(folder / part)
    write_atomically(path, note)


def _listing(folder: Path) -> Path:
    return folder / "samples.tsv"


def _note(folder: Path) -> Path:
    return folder / "made_from.json"


Look = list[int] | None
"""Number of files, their bytes together, when the last of them was changed (in seconds); None where there are none."""


def _look(path: Path) -> Look:
    """How a file, or a folder of files, looks without being opened."""
    try:
        found = [entry.stat() for entry in os.scandir(path)] if path.is_dir() else [path.stat()]
    except FileNotFoundError:
        return None
    # Whole seconds: copies between file systems keep no more.
    return _sum_up(found) if found else None


def _sum_up(found: Iterable[os.stat_result]) -> list[int]:
    sizes, times = zip(*((entry.st_size, int(entry.st_mtime)) for entry in found), strict=True)
    return [len(sizes), sum(sizes), max(times)]


def _is_current(root: Path, folder: Path) -> bool:
    """Whether all that the masks were made from is as it was, or gone, as it may be to save space."""
    path = _note(folder)
    if not path.is_file():
        return False
    try:
        looks = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: delete the file and prepare the dataset again.") from error
    if not isinstance(looks, dict) or not all(_is_plain(source) for source in looks):
        raise ValueError(f"{path} is damaged: delete the file and prepare the dataset again.")
    return all(_look(root / source) in (None, look) for source, look in looks.items())


def _is_plain(name: str) -> bool:
    """Whether a name, or several with "/" between them, stays below the folder and on one line of a list."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/")) and ":" not in name


def _find_image(root: Path, images: Mapping[str, str], item: str) -> Path:
    return root / images[item]
