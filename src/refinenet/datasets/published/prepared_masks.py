"""Masks written by `refinenet data prepare` for published datasets whose own label files are slow to read.

They are used instead of the owner's files, unless these have changed since: their state is recorded.

Files below the dataset's root, for a dataset named `sbd` and its split `train`:

    prepared/sbd-train/made_from.json     written first: the source files and folders, and their state
    prepared/sbd-train/masks/ITEM.png     ids of the label set, with its palette
    prepared/sbd-train/images/ITEM.png    only if the image is not in a file of its own
    prepared/sbd-train/depth/ITEM.npy     only if the dataset has depths that are not in files of their own: float32
                                          metres, NaN where unknown; with cameras.json, written after the last of them
    prepared/sbd-train/samples.tsv        written last: on each line an item and its image's path below the root

Items may contain "/"; `masks/` and `images/` then have subfolders.
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
from refinenet.datasets.metadata import PublishedDataset
from refinenet.datasets.published.depth_targets import add_written_depth, write_cameras, write_depth
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import write
from refinenet.io.processes.parallel import map_parallel
from refinenet.labels import LabelSet

MANY_PROBLEMS = 20
"""Conversion stops after this many damaged samples."""
OLD = 3600
"""Age in seconds from which a temporary file counts as abandoned."""


def prepared_folder(root: Path, name: str, split: str) -> Path:
    """Return the folder of a split's prepared files; `name` may have a variant, as in "coco:stuff"."""
    return root / "prepared" / f"{name.replace(':', '-')}-{split}"


def open_fastest(root: Path, name: str, split: str, published: PublishedDataset) -> Dataset:
    """Open a split of a published dataset from prepared masks if they are up to date, or else from its own files.

    Warns if masks were prepared from files that have changed since.

    Args:
        root: The dataset's root.
        name: The dataset's name, which may have a variant.
        split: The name of the split.
        published: The dataset in its owner's files.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: The data are damaged.
    """
    prepared = open_prepared(root, name, split, published.info.label_set, published.add_targets)
    if prepared is not None:
        return prepared
    dataset = published.open_split(root, split)
    folder = prepared_folder(root, name, split)
    if dataset.is_slow and _listing(folder).is_file():
        warnings.warn(
            f"The masks in {folder} were made from files that have changed since, and are not used. Run `refinenet "
            f"data prepare {name} --root {root}` to write them again; until then, reading is slower.",
            stacklevel=2,
        )
    return dataset


def open_prepared(
    root: Path,
    name: str,
    split: str,
    label_set: LabelSet,
    add_targets: Callable[[Path, Dataset], Dataset] | None = None,
) -> Dataset | None:
    """Open a prepared split; None if its preparation was not finished, or its source files have changed since.

    Args:
        root: The dataset's root.
        name: The dataset's name, which may have a variant.
        split: The name of the split.
        label_set: The classes.
        add_targets: See `PublishedDataset.add_targets`; used where depths were not written with the masks.

    Raises:
        ValueError: The list of samples, or a record of source files or cameras, is damaged.
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
    dataset = from_files(
        name=name,
        split=split,
        label_set=label_set,
        items=list(images),
        image_file=partial(_find_image, root, images),
        mask_file=partial(place, folder / "masks", ".png"),
    )
    with_depth = add_written_depth(folder, dataset)
    if with_depth is None:
        return dataset if add_targets is None else add_targets(root, dataset)
    return with_depth


def write_split(
    root: Path, folder: Path, dataset: Dataset, *, workers: int | None = None, advance: Callable[[], object]
) -> None:
    """Write the missing masks and depths and, last of all, the list of samples. Only one process at a time may do this.

    Args:
        root: The dataset's root.
        folder: The split's `prepared_folder`.
        dataset: The split in its owner's files.
        workers: Number of processes; by default one per core.
        advance: Called after each sample.

    Raises:
        ValueError: Samples are damaged or cannot be written; the message names some of them.
        OSError: A file cannot be read, removed or written.
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
    write_cameras(folder, dataset)
    write_listing(folder, dataset.items, images)


def _write_or_explain(root: Path, folder: Path, dataset: Dataset, index: int) -> tuple[str, str]:
    """Write a sample and return the path of its image, or else an error message."""
    try:
        return write_sample(root, folder, dataset, index), ""
    except (OSError, ValueError) as error:
        return "", str(error)


def write_sample(root: Path, folder: Path, dataset: Dataset, index: int) -> str:
    """Write the mask of one sample, and image and depth if they are in no files of their own; existing files stay.

    Args:
        root: The dataset's root.
        folder: The split's `prepared_folder`.
        dataset: The split in its owner's files.
        index: The index of the sample.

    Returns:
        The path of the sample's image below the root, with "/" between folders.

    Raises:
        ValueError: The sample is damaged, or its name or its image's path leads out of the folder.
        OSError: A file cannot be read or written.
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
    write_depth(folder, dataset, item)
    return image.relative_to(root).as_posix()


def write_listing(folder: Path, items: Sequence[str], images: Sequence[str]) -> None:
    """Write the list of samples, which marks the split as prepared.

    Raises:
        ValueError: An item occurs twice.
        OSError: The list cannot be written.
    """
    if len(set(items)) < len(items):
        raise ValueError(
            f"Two images for {folder} have the same name, so the mask of one would replace that of the other."
        )
    lines = [f"{item}\t{image}\n" for item, image in zip(items, images, strict=True)]
    write_atomically(_listing(folder), "".join(lines).encode())


def _begin(root: Path, folder: Path, dataset: Dataset) -> None:
    """Record the source files of a split, and remove everything made from other files, finished or not."""
    states = {path.relative_to(root).as_posix(): _read_state(path) for path in dataset.slow_sources}
    note = json.dumps(states, indent=1).encode()
    path = _note(folder)
    for leftover in folder.rglob(".*.tmp"):
        if time.time() - leftover.stat().st_mtime > OLD:
            leftover.unlink(missing_ok=True)
    if path.is_file() and path.read_bytes() == note:
        return
    # The list marks a finished split, so it goes first: a stop in between must not leave a list with half of its masks.
    for file in (_listing(folder), path, folder / "cameras.json"):
        file.unlink(missing_ok=True)
    for part in ("masks", "images", "depth"):
        if (folder / part).is_dir():
            shutil.rmtree(folder / part)
    write_atomically(path, note)


def _listing(folder: Path) -> Path:
    return folder / "samples.tsv"


def _note(folder: Path) -> Path:
    return folder / "made_from.json"


FileState = list[int] | None
"""Number of files, total bytes, and time of the last change in seconds; None if there are no files."""


def _read_state(path: Path) -> FileState:
    """Return the state of a file, or of a folder of files, without opening them."""
    try:
        found = [entry.stat() for entry in os.scandir(path)] if path.is_dir() else [path.stat()]
    except FileNotFoundError:
        return None
    # Whole seconds, since copies between file systems may lose fractions.
    return _sum_up(found) if found else None


def _sum_up(found: Iterable[os.stat_result]) -> list[int]:
    sizes, times = zip(*((entry.st_size, int(entry.st_mtime)) for entry in found), strict=True)
    return [len(sizes), sum(sizes), max(times)]


def _is_current(root: Path, folder: Path) -> bool:
    """Return whether all source files of the masks are unchanged, or deleted, for example to save space."""
    path = _note(folder)
    if not path.is_file():
        return False
    try:
        states = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: delete the file and prepare the dataset again.") from error
    if not isinstance(states, dict) or not all(_is_plain(source) for source in states):
        raise ValueError(f"{path} is damaged: delete the file and prepare the dataset again.")
    return all(_read_state(root / source) in (None, state) for source, state in states.items())


def _is_plain(name: str) -> bool:
    """Return whether a name, possibly with "/", stays below its folder and on one line of a list."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/")) and ":" not in name


def _find_image(root: Path, images: Mapping[str, str], item: str) -> Path:
    return root / images[item]
