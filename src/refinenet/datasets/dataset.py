"""The one dataset that all others are made of: names, and functions that read an image and its label map.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from refinenet.io.images import decode, read_image
from refinenet.io.mask_files import read_mask
from refinenet.io.sample_values import ImageWarning, Reading, ValueRange
from refinenet.labels import LabelMap, LabelSet

Result = TypeVar("Result")

UNLABELLED = "test"
"""The split whose labels the owners of some datasets keep, to measure on a server of theirs."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its truth."""

    name: str
    image: npt.NDArray[np.uint8]
    """`(H, W, 3)` uint8 RGB."""
    labels: LabelMap
    """`(H, W)` ids below K, or the label set's ignore index, in the label set's type."""


def _no_file(item: str) -> None:
    """No file is known to hold what is asked for of this item."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images of one split with their label maps, read one by one when asked for.

    `dataset[i]` is a `Sample` whose image and label map have the same size and whose ids all belong to `label_set`.
    It raises ValueError, naming the file and what is wrong with it, where that does not hold.

    The functions can be pickled, so that worker processes can read, too.
    """

    name: str
    split: str
    label_set: LabelSet
    items: Sequence[str]
    """What the samples are called, in a fixed order."""
    read_image: Callable[[str], npt.NDArray[np.uint8]]
    """From an item to its image, `(H, W, 3)` uint8 RGB, upright."""
    read_labels: Callable[[str], LabelMap]
    """From an item to its `(H, W)` ids in `label_set`."""
    locate: Callable[[str], str] = str
    """What messages call an item's mask: its path, where it has one."""
    image_file: Callable[[str], Path | None] = _no_file
    """The file that holds an item's image and nothing else, or None where there is no such file."""
    label_file: Callable[[str], Path | None] = _no_file
    """The file that holds an item's labels, perhaps with those of others, or None where no such file is known."""
    slow_sources: Sequence[Path] = ()
    """Where labels are much slower to read than a mask file: the files and folders that they come from, and those that
    would be taken instead if they were there. Else nothing."""

    @property
    def is_slow(self) -> bool:
        """Whether its labels are much slower to read than a mask file; `refinenet data prepare` writes masks then."""
        return bool(self.slow_sources)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        image, labels = self.read_image(item), self.labels(index)
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"{self.locate(item)}: the image has {image.shape[1]}x{image.shape[0]} pixels (width x height), "
                f"its mask {labels.shape[1]}x{labels.shape[0]}. They must be equal."
            )
        return Sample(name=item, image=image, labels=labels)

    def labels(self, index: int) -> LabelMap:
        """`(H, W)` ids of a sample, without reading its image; checked and in the label set's type.

        Raises:
            ValueError: an id is no class; the mask, the id and its place are named.
        """
        item = self.items[index]
        labels = self.read_labels(item)
        strange = (labels >= len(self.label_set)) & (labels != self.label_set.ignore_index)
        if strange.any():
            row, column = np.argwhere(strange)[0]
            raise ValueError(
                f"{self.locate(item)}: the mask has the id {labels[row, column]} at row {row}, column {column} "
                f"({strange.sum()} pixels in all have such ids). Allowed are 0 to {len(self.label_set) - 1} and "
                f"{self.label_set.ignore_index} for pixels to be ignored."
            )
        return self.label_set.cast(labels)


Splits = Callable[[str], Dataset]
"""From the name of a split, such as "train" or "val", to its dataset."""


def with_value_range(dataset: Dataset, value_range: ValueRange | None) -> Dataset:
    """The dataset with images whose stored values from and to these are black and white; None changes nothing.

    Images of 8 bits are read as ever.

    Raises:
        ValueError: its images are not files.
    """
    if value_range is None:
        return dataset
    if len(dataset) and dataset.image_file(dataset.items[0]) is None:
        raise ValueError(f"value_range is for images in files; those of {dataset.name} are not. Leave it out.")
    return replace(dataset, read_image=partial(_read_scaled, dataset.image_file, value_range))


def _read_scaled(image_file: Callable[[str], Path | None], value_range: ValueRange, item: str) -> npt.NDArray[np.uint8]:
    path = image_file(item)
    if path is None:
        raise ValueError(f"value_range is for images in files; {item} is not in one. Leave it out.")
    decoded = read_image(path, reading=Reading(value_range=value_range, is_from_model=True))
    for note in decoded.notes:
        if note.kind != "range-of-model":
            warnings.warn(ImageWarning(note), stacklevel=2)
    return decoded.pixels


def from_files(
    *,
    name: str,
    split: str,
    label_set: LabelSet,
    items: Sequence[str],
    image_file: Callable[[str], Path],
    mask_file: Callable[[str], Path],
    read_labels: Callable[[Path], LabelMap] = read_mask,
    slow_sources: Sequence[Path] = (),
) -> Dataset:
    """The dataset whose images and masks are files.

    Args:
        name: What messages call the dataset.
        split: Which part of it.
        label_set: Its classes.
        items: What the samples are called.
        image_file: From an item to its image's path. It can be pickled.
        mask_file: From an item to the path of what holds its labels. It can be pickled.
        read_labels: From that path to `(H, W)` ids in `label_set`. It can be pickled.
        slow_sources: As `Dataset` has it.
    """
    return Dataset(
        name=name,
        split=split,
        label_set=label_set,
        items=items,
        read_image=partial(_chain, image_file, decode),
        read_labels=partial(_chain, mask_file, read_labels),
        locate=partial(_chain, mask_file, str),
        image_file=image_file,
        label_file=mask_file,
        slow_sources=slow_sources,
    )


def without_labels(
    *, name: str, split: str, label_set: LabelSet, items: Sequence[str], image_file: Callable[[str], Path]
) -> Dataset:
    """The dataset whose images are files, and whose labels its owners keep: to ask for one is an error.

    Args:
        name: What messages call the dataset.
        split: Which part of it.
        label_set: Its classes.
        items: What the images are called.
        image_file: From an item to its image's path. It can be pickled.
    """
    return Dataset(
        name=name,
        split=split,
        label_set=label_set,
        items=items,
        read_image=partial(_chain, image_file, decode),
        read_labels=partial(_refuse_labels, name, split),
        image_file=image_file,
    )


def _refuse_labels(name: str, split: str, _item: str) -> NoReturn:
    raise no_labels(name, split)


def no_labels(name: str, split: str) -> ValueError:
    """The error for those who want to measure on, or learn from, a split without labels."""
    return ValueError(
        f"{name} {split} has images, but no labels to measure on: its owners keep them. Measure on val, or write the "
        f"file that their server takes: `refinenet eval --dataset {name} --split {split} --submission FILE`, in Python "
        "RefineNet.submit."
    )


def _chain(find: Callable[[str], Path], read: Callable[[Path], Result], item: str) -> Result:
    return read(find(item))


def place(folder: Path, ending: str, item: str) -> Path:
    """`folder`/`item` + `ending`: with `functools.partial`, an `image_file` or `mask_file` for `from_files`."""
    return folder / f"{item}{ending}"


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
        read_image=partial(_in_part, [part.read_image for part in parts]),
        read_labels=partial(_in_part, [part.read_labels for part in parts]),
        locate=partial(_in_part, [part.locate for part in parts]),
        image_file=partial(_in_part, [part.image_file for part in parts]),
        label_file=partial(_in_part, [part.label_file for part in parts]),
        slow_sources=[source for part in parts for source in part.slow_sources],
    )


def _in_part(functions: Sequence[Callable[[str], Result]], item: str) -> Result:
    index, _, inner = item.partition("/")
    return functions[int(index)](inner)
