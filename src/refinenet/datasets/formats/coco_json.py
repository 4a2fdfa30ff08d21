"""COCO's json files of objects: images, categories, and for each object an outline or run lengths.

A file is read as a stream and kept as packed numbers, so that COCO's own 450 MB take a fraction of that in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats.json_stream import read_lists
from refinenet.datasets.formats.label_names import find_background, find_id, is_background, is_void
from refinenet.datasets.formats.polygons import fill_outline, fill_runs, read_runs, to_outline
from refinenet.image_files import MAX_PIXELS
from refinenet.labels import LabelMap, LabelSet, voc_colours

_CROWD, _RUNS = 1, 2


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

    def read_labels(self, file_name: str) -> LabelMap:
        """An image's label map in `label_set_of_all()`: later objects over earlier ones, crowds void.

        Raises:
            ValueError: the file has no such image.
        """
        label_set, class_of = self._classes
        index = self.find(file_name)
        labels = label_set.cast(np.full(self.size(index), find_background(label_set), np.uint16))
        for category, is_crowd, region in self.objects(index):
            labels[region] = label_set.ignore_index if is_crowd else class_of[category]
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
            region = fill_runs(shape, size) if flags & _RUNS else _fill_outlines(shape, size)
            yield int(self.category[number]), bool(flags & _CROWD), region

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


def open_instances(json_file: Path, categories: Collection[int] | None = None) -> CocoInstances:
    """Read a json file of objects.

    Args:
        json_file: As COCO's `instances_train2017.json`: the lists `images`, `annotations` and `categories`.
        categories: Ids of those whose objects are wanted; by default all.

    Raises:
        ValueError: the file is no sound json, or what it says cannot be; the file, the object and what is wrong with
            it are named.
        OSError: the file cannot be read.
    """
    try:
        images, names = _read_tables(json_file)
        objects = _read_objects(json_file, images, names, categories)
    except ValueError as error:
        raise ValueError(f"{json_file}: {error}") from error
    order = np.argsort(objects.image, kind="stable")
    counts = np.bincount(objects.image, minlength=len(images.names))
    return CocoInstances(
        json_file=json_file,
        file_names=tuple(images.names),
        categories=names,
        sizes=np.array(images.sizes, np.int32).reshape(-1, 2),
        first=np.concatenate([[0], np.cumsum(counts)]),
        category=np.array(objects.category, np.int64)[order],
        flags=np.array(objects.flags, np.uint8)[order],
        places=np.stack([np.array(objects.places[:-1])[order], np.array(objects.places[1:])[order]], axis=1),
        shapes=np.asarray(objects.shapes, np.int32),
        area=np.bincount(objects.image, np.array(objects.area, np.float64), len(images.names)).astype(np.float64),
    )


def _fill_outlines(shape: npt.NDArray[np.int32], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    region = np.zeros(size, bool)
    start = 0
    while start < len(shape):
        end = start + 1 + int(shape[start])
        region |= fill_outline(shape[start + 1 : end], size)
        start = end
    return region


@dataclass(kw_only=True)
class _Images:
    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("i"))
    index: dict[int, int] = field(default_factory=dict)
    """From image ids to places in the others."""


@dataclass(kw_only=True)
class _Objects:
    ids: array[int] = field(default_factory=lambda: array("q"))
    image: array[int] = field(default_factory=lambda: array("i"))
    category: array[int] = field(default_factory=lambda: array("q"))
    flags: array[int] = field(default_factory=lambda: array("B"))
    area: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("q", [0]))
    shapes: array[int] = field(default_factory=lambda: array("i"))


def _read_tables(json_file: Path) -> tuple[_Images, dict[int, str]]:
    """The images, and the names of the categories by id, in the order of the ids."""
    images, names = _Images(), dict[int, str]()
    for key, entry in _entries(json_file, "images", "categories"):
        if key == "images":
            _add_image(images, entry)
        else:
            _add_category(names, entry)
    if len(set(images.names)) < len(images.names):
        raise ValueError(f"two images have the file_name {max(images.names, key=images.names.count)!r}.")
    return images, dict(sorted(names.items()))


def _add_image(images: _Images, entry: Mapping[str, Any]) -> None:
    identifier, name = _take_id(entry, "id", "an image"), entry.get("file_name")
    what = f"the image with id {identifier}"
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} has the file_name {_shorten(name)}, which is no text.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise ValueError(f"{what} has the file_name {_shorten(name)}, which leads out of the folder of images.")
    if identifier in images.index:
        raise ValueError(f"two images have the id {identifier}.")
    height, width = _take_id(entry, "height", what), _take_id(entry, "width", what)
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"{what} has width {width} and height {height}: 1 to {MAX_PIXELS:,} pixels are allowed.")
    images.index[identifier] = len(images.names)
    images.names.append(name)
    images.sizes.extend((height, width))


def _add_category(names: dict[int, str], entry: Mapping[str, Any]) -> None:
    identifier, name = _take_id(entry, "id", "a category"), entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the category with id {identifier} has the name {_shorten(name)}, which is no text.")
    if identifier in names:
        raise ValueError(f"two categories have the id {identifier}: {names[identifier]!r} and {name!r}.")
    names[identifier] = name.strip()


def _read_objects(
    json_file: Path, images: _Images, names: Mapping[int, str], wanted: Collection[int] | None
) -> _Objects:
    objects = _Objects()
    for _, entry in _entries(json_file, "annotations"):
        identifier = _take_id(entry, "id", "an annotation")
        objects.ids.append(identifier)
        try:
            _add_object(objects, entry, images, names, wanted)
        except ValueError as error:
            raise ValueError(f"the annotation with id {identifier}: {error}") from error
    ids, counts = np.unique(np.array(objects.ids), return_counts=True)
    if counts.max() > 1:
        raise ValueError(f"{counts.max()} annotations have the id {ids[counts.argmax()]}.")
    return objects


def _add_object(
    objects: _Objects,
    entry: Mapping[str, Any],
    images: _Images,
    names: Mapping[int, str],
    wanted: Collection[int] | None,
) -> None:
    category, image_id = _take_id(entry, "category_id", "it"), _take_id(entry, "image_id", "it")
    if category not in names:
        raise ValueError(f"its category_id is {category}, which no category has ({len(names)} are listed).")
    if image_id not in images.index:
        raise ValueError(f"its image_id is {image_id}, which no image has ({len(images.names)} are listed).")
    if wanted is not None and category not in wanted:
        return
    is_crowd, area = entry.get("iscrowd", 0), entry.get("area", np.nan)
    if type(is_crowd) not in (int, bool) or is_crowd not in (0, 1):
        raise ValueError(f"its iscrowd is {_shorten(is_crowd)}: 0 and 1 are allowed.")
    if "area" in entry and (type(area) not in (int, float) or not 0 <= area < 2**63):
        raise ValueError(f"its area is {_shorten(area)}: a number of pixels, 0 or more, is allowed.")
    index = images.index[image_id]
    size = images.sizes[2 * index], images.sizes[2 * index + 1]
    is_runs = _add_shape(objects.shapes, entry.get("segmentation"), size)
    objects.image.append(index)
    objects.category.append(category)
    objects.flags.append(_CROWD * is_crowd + _RUNS * is_runs)
    objects.area.append(area)
    objects.places.append(len(objects.shapes))


def _add_shape(shapes: array[int], segmentation: Any, size: tuple[int, int]) -> bool:
    """Pack a `segmentation`, and say whether it is run lengths."""
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if stated != list(size):
            raise ValueError(
                f"its run lengths are for the size {_shorten(stated)}, but its image has {list(size)} (height, width)."
            )
        shapes.frombytes(read_runs(segmentation.get("counts"), size).tobytes())
        return True
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(
            f"its segmentation is {_shorten(segmentation)}: a list of polygons or run lengths are allowed. "
            "A file of boxes alone has no labels for segmentation."
        )
    for points in segmentation:
        outline = to_outline(points, size)
        shapes.append(len(outline))
        shapes.frombytes(outline.tobytes())
    return False


def _entries(json_file: Path, *keys: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of some of the file's lists, each with its list's key.

    Raises:
        ValueError: the file is no sound json, has no such list, or an entry is no object.
        OSError: the file cannot be read.
    """
    missing = set(keys)
    for key, entry in read_lists(json_file):
        if key not in keys:
            continue
        if not isinstance(entry, dict):
            raise ValueError(f"the list {key!r} has the entry {_shorten(entry)}, which is no object {{...}}.")
        missing.discard(key)
        yield key, entry
    if missing:
        raise ValueError(
            f"it has no {' and no '.join(sorted(missing))}: a COCO file of objects has the lists 'images', "
            "'annotations' and 'categories'."
        )


def _take_id(entry: Mapping[str, Any], key: str, what: str) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{what} has the {key} {_shorten(value)}: a whole number, 0 or more, is needed.")
    return value


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
