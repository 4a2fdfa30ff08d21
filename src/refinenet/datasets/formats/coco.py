"""COCO's JSON files of objects: images, categories, and for each object a polygon or run lengths.

Files are read as a stream and stored as packed numbers, so that COCO's own 450 MB take a fraction of that in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats.coco_crowds import CrowdReport, Crowds, decide_crowds
from refinenet.datasets.formats.coco_entries import CROWD, RUNS, Entries
from refinenet.datasets.formats.invalid_labels import InvalidLabels, InvalidLabelsError
from refinenet.datasets.formats.lookup import (
    CLASSES_FILE,
    describe_unknown,
    find_background,
    find_id,
    is_background,
    is_void,
)
from refinenet.datasets.formats.polygons import fill_outline, fill_runs
from refinenet.datasets.formats.renames import Renames
from refinenet.labels import LabelMap, LabelSet, voc_colours


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoInstances:
    """The objects of one JSON file; picklable."""

    json_file: Path
    file_names: tuple[str, ...]
    """File names of the images, in file order."""
    categories: Mapping[int, str]
    """Category names by id, in ascending order of the ids."""
    sizes: npt.NDArray[np.int32]
    """`(images, 2)`: height and width."""
    first: npt.NDArray[np.int64]
    """`(images + 1,)`: where each image's objects start in `category`, `flags` and `places`."""
    category: npt.NDArray[np.int64]
    """`(objects,)`: category ids, image by image, within an image in file order."""
    flags: npt.NDArray[np.uint8]
    """`(objects,)`: bit 0 marks a crowd, bit 1 run lengths."""
    places: npt.NDArray[np.int64]
    """`(objects, 2)`: start and end of an object's shape in `shapes`."""
    shapes: npt.NDArray[np.int32]
    """Run lengths, or polygons in fifths of a pixel, each preceded by its length."""
    area: npt.NDArray[np.float64]
    """`(images,)`: the sum of the objects' areas as stated in the file, NaN if one is missing."""
    classes: LabelSet | None = None
    """The label set given to `with_classes`."""
    crowds: CrowdReport | None = None
    """The decision on crowds, if there are any."""
    invalid: InvalidLabels | None = None
    """Invalid entries that were left out, if any."""

    def read_labels(self, file_name: str) -> LabelMap:
        """Draw an image's label map in `label_set_of_all()`, later objects over earlier ones; for crowds see `crowds`.

        Raises:
            ValueError: The file has no such image.
        """
        label_set, class_of = self._classes
        index = self.find(file_name)
        labels = label_set.cast(np.full(self.size(index), find_background(label_set), np.uint16))
        are_void = self.crowds is None or self.crowds.are_void
        for category, is_crowd, region in self.objects(index):
            labels[region] = label_set.ignore_index if is_crowd and are_void else class_of[category]
        return labels

    def label_set_of_all(self) -> LabelSet:
        """Return background and all categories in the order of their ids, in VOC's colours; equal names are one class.

        Categories that mean void (`lookup.is_void`) are no classes. After `with_classes`, the label set given there.
        """
        return self._classes[0]

    def with_classes(self, label_set: LabelSet, origin: str | Path = CLASSES_FILE) -> CocoInstances:
        """Return the same objects in the given classes; without a background class, uncovered pixels are void.

        Args:
            label_set: The classes.
            origin: The file that lists them, for messages.

        Raises:
            ValueError: There are objects of a category that is not listed.
        """
        present = [self.categories[identifier] for identifier in np.unique(self.category).tolist()]
        unlisted = [name for name in present if find_id(name, label_set) is None]
        if unlisted:
            raise ValueError(f"{self.json_file} has objects of {describe_unknown(unlisted, label_set, origin)}")
        return replace(self, classes=label_set)

    def rename(self, renames: Renames) -> CocoInstances:
        """Return the same objects with new names of their categories; equal names become one class."""
        return replace(self, categories={number: renames.apply(name) for number, name in self.categories.items()})

    def objects(self, index: int) -> Iterator[tuple[int, bool, npt.NDArray[np.bool_]]]:
        """Iterate over an image's objects in order: category id, whether it is a crowd, and `(H, W)` region."""
        size = self.size(index)
        for number in range(self.first[index], self.first[index + 1]):
            start, end = self.places[number]
            shape, flags = self.shapes[start:end], self.flags[number]
            region = fill_runs(shape, size) if flags & RUNS else _fill_outlines(shape, size)
            yield int(self.category[number]), bool(flags & CROWD), region

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of an image."""
        return int(self.sizes[index, 0]), int(self.sizes[index, 1])

    def find(self, file_name: str) -> int:
        """Return the index of an image in `file_names`.

        Raises:
            ValueError: The file has no such image.
        """
        try:
            return self._index[file_name]
        except KeyError:
            raise ValueError(f"{self.json_file} has no image with the file_name {file_name!r}.") from None

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return {name: index for index, name in enumerate(self.file_names)}

    @cached_property
    def _classes(self) -> tuple[LabelSet, Mapping[int, int]]:
        label_set = self.classes or self._all_categories()
        found = {identifier: find_id(name, label_set) for identifier, name in self.categories.items()}
        return label_set, {identifier: index for identifier, index in found.items() if index is not None}

    def _all_categories(self) -> LabelSet:
        listed = (name for name in self.categories.values() if not is_background(name) and not is_void(name))
        names = ("background", *dict.fromkeys(listed))
        try:
            return LabelSet(names=names, colours=voc_colours(len(names)))
        except ValueError as error:
            raise ValueError(f"{self.json_file}: {error}") from error


def open_instances(
    json_file: Path,
    categories: Collection[int] | None = None,
    *,
    crowds: Crowds = "auto",
    leave_out_invalid: bool = False,
) -> CocoInstances:
    """Read a JSON file of objects.

    Args:
        json_file: A file like COCO's `instances_train2017.json`: lists `images`, `annotations` and `categories`.
        categories: Ids of the categories whose objects are read; by default all.
        crowds: How to read objects marked `iscrowd`; by default decided by the contents of the file (`coco_crowds`) and
            reported in `CocoInstances.crowds`.
        leave_out_invalid: Whether to leave out invalid images and objects, listed in `CocoInstances.invalid`, instead
            of raising an error.

    Raises:
        InvalidLabelsError: Images or objects are invalid; the message lists all of them with their problems.
        ValueError: The file, which the message names, is not valid JSON or lacks a list.
        OSError: The file cannot be read.
    """
    entries = Entries(json_file=json_file, wanted=categories)
    try:
        entries.read()
    except ValueError as error:
        raise ValueError(f"{json_file}: {error}") from error
    if entries.invalid.count and not leave_out_invalid:
        raise InvalidLabelsError(json_file, entries.invalid)
    return _pack(entries, crowds)


def _pack(entries: Entries, crowds: Crowds) -> CocoInstances:
    images, objects = entries.images, entries.objects
    used = np.array(sorted({place for place in images.index.values() if place >= 0}), np.int64)
    is_whole = len(used) == len(images.names)
    # Images that share a file name were left out after the names had been listed.
    names = images.names if is_whole else [images.names[place] for place in used]
    image = np.array(objects.image, np.int64)
    image = image if is_whole else np.searchsorted(used, image)
    order = np.argsort(image, kind="stable")  # keeps the file order within an image: later objects cover earlier ones
    counts = np.bincount(image, minlength=len(names))
    return CocoInstances(
        json_file=entries.json_file,
        file_names=tuple(names),
        categories=entries.categories,
        sizes=np.array(images.sizes, np.int32).reshape(-1, 2)[slice(None) if is_whole else used],
        first=np.concatenate([[0], np.cumsum(counts)]),
        category=np.array(objects.category, np.int64)[order],
        flags=np.array(objects.flags, np.uint8)[order],
        places=np.stack([np.array(objects.places[:-1])[order], np.array(objects.places[1:])[order]], axis=1),
        shapes=np.asarray(objects.shapes, np.int32),
        area=np.bincount(image, np.array(objects.area, np.float64), len(names)).astype(np.float64),
        crowds=decide_crowds(entries.json_file, entries.marks, entries.categories, crowds),
        invalid=entries.invalid if entries.invalid.count else None,
    )


def _fill_outlines(shape: npt.NDArray[np.int32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    region = np.zeros(size, bool)
    start = 0
    while start < len(shape):
        end = start + 1 + int(shape[start])
        region |= fill_outline(shape[start + 1 : end], size)
        start = end
    return region
