"""COCO's json files of objects: images, categories, and for each object an outline or run lengths.

A file is read as a stream and kept as packed numbers, so that COCO's own 450 MB take a fraction of that in memory.
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
from refinenet.datasets.formats.lookup import find_background, find_id, is_background, is_void
from refinenet.datasets.formats.polygons import fill_outline, fill_runs
from refinenet.labels import LabelMap, LabelSet, voc_colours


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoInstances:
    """The objects of one json file. It can be pickled."""

    json_file: Path
    file_names: tuple[str, ...]
    """Of the images, in the order of the file."""
    categories: Mapping[int, str]
    """Names by id, in the order of the ids."""
    sizes: npt.NDArray[np.int32]
    """`(images, 2)`: height and width."""
    first: npt.NDArray[np.int64]
    """`(images + 1,)`: where each image's objects begin in `category`, `flags` and `places`."""
    category: npt.NDArray[np.int64]
    """`(objects,)`: category ids; image after image, within an image in the order of the file."""
    flags: npt.NDArray[np.uint8]
    """`(objects,)`: 1 where it is a crowd, plus 2 where it is run lengths."""
    places: npt.NDArray[np.int64]
    """`(objects, 2)`: where an object's shape begins and ends in `shapes`."""
    shapes: npt.NDArray[np.int32]
    """Run lengths; or outlines in fifths of a pixel, each after its length."""
    area: npt.NDArray[np.float64]
    """`(images,)`: the sum of the areas that the file states, NaN where it lacks one."""
    classes: LabelSet | None = None
    """What `with_classes` was given."""
    crowds: CrowdReport | None = None
    """What was decided on its crowds, if it has some."""
    invalid: InvalidLabels | None = None
    """What cannot be used of it and was left out, if anything."""

    def read_labels(self, file_name: str) -> LabelMap:
        """An image's label map in `label_set_of_all()`: later objects over earlier ones; of crowds, see `crowds`.

        Raises:
            ValueError: the file has no such image.
        """
        label_set, class_of = self._classes
        index = self.find(file_name)
        labels = label_set.cast(np.full(self.size(index), find_background(label_set), np.uint16))
        are_void = self.crowds is None or self.crowds.are_void
        for category, is_crowd, region in self.objects(index):
            labels[region] = label_set.ignore_index if is_crowd and are_void else class_of[category]
        return labels

    def label_set_of_all(self) -> LabelSet:
        """Background and all categories in the order of their ids, in VOC's colours; equal names are one class.

        Categories that mean void (`label_names.is_void`) are none. After `with_classes`, the label set given there.
        """
        return self._classes[0]

    def with_classes(self, label_set: LabelSet) -> CocoInstances:
        """The same objects in the classes that a list names; where none of these is the background, that is void.

        Raises:
            ValueError: there are objects of a category that is not listed.
        """
        present = [self.categories[identifier] for identifier in np.unique(self.category).tolist()]
        strange = [name for name in present if find_id(name, label_set) is None]
        if strange:
            raise ValueError(
                f"{self.json_file} has objects of {', '.join(map(repr, strange[:5]))}, "
                f"which {'is' if len(strange) == 1 else 'are'} none of {', '.join(label_set.names)}."
            )
        return replace(self, classes=label_set)

    def objects(self, index: int) -> Iterator[tuple[int, bool, npt.NDArray[np.bool_]]]:
        """Category id, whether it is a crowd, and `(H, W)` region of each of an image's objects, in order."""
        size = self.size(index)
        for number in range(self.first[index], self.first[index + 1]):
            start, end = self.places[number]
            shape, flags = self.shapes[start:end], self.flags[number]
            region = fill_runs(shape, size) if flags & RUNS else _fill_outlines(shape, size)
            yield int(self.category[number]), bool(flags & CROWD), region

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image."""
        return int(self.sizes[index, 0]), int(self.sizes[index, 1])

    def find(self, file_name: str) -> int:
        """The index of an image in `file_names`.

        Raises:
            ValueError: the file has no such image.
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
    """Read a json file of objects.

    Args:
        json_file: As COCO's `instances_train2017.json`: the lists `images`, `annotations` and `categories`.
        categories: Ids of those whose objects are wanted; by default all.
        crowds: What becomes of objects that are marked `iscrowd`; by default what the file shows to be meant
            (`coco_crowds`), which `CocoInstances.crowds` reports.
        leave_out_invalid: Whether images and objects that cannot be used are left out; `CocoInstances.invalid` lists
            them. Otherwise they are an error.

    Raises:
        InvalidLabelsError: images or objects cannot be used; all are listed, each with what is wrong with it.
        ValueError: the file is not sound json, or lacks a list; it is named.
        OSError: the file cannot be read.
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
    kept = np.array(sorted({place for place in images.index.values() if place >= 0}), np.int64)
    is_whole = len(kept) == len(images.names)
    # Images with a twin were left out after the names were listed.
    names = images.names if is_whole else [images.names[place] for place in kept]
    image = np.array(objects.image, np.int64)
    image = image if is_whole else np.searchsorted(kept, image)
    order = np.argsort(image, kind="stable")
    counts = np.bincount(image, minlength=len(names))
    return CocoInstances(
        json_file=entries.json_file,
        file_names=tuple(names),
        categories=entries.categories,
        sizes=np.array(images.sizes, np.int32).reshape(-1, 2)[slice(None) if is_whole else kept],
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
