"""Entries of COCO's JSON files of objects, checked one by one; invalid ones are collected.

Harmless variants are accepted: sizes as `640.0`, ids as `"12"` or any other text, `iscrowd` as `null`, `false` or
`0.0`. Almost every large export of an annotation tool has some objects without a usable shape, so the first of them
must not hide the others.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from refinenet.datasets.formats.coco_crowds import CrowdMarks
from refinenet.datasets.formats.invalid_labels import InvalidLabels
from refinenet.datasets.formats.json_stream import read_lists
from refinenet.datasets.formats.polygons import read_runs, to_outline
from refinenet.io.images.image_files import MAX_PIXELS

CROWD, RUNS = 1, 2
"""Bits of `Objects.flags`."""

Identifier = int | str

_LEFT_OUT = -1
_MAX_NUMBER = 2**63
_FIRST_NAMED = 2**62
"""Categories whose ids are text are numbered from here on, in file order."""
_NO_CROWD: tuple[Any, ...] = (None, 0, "0", "false", "")
_IS_CROWD: tuple[Any, ...] = (1, "1", "true")


@dataclass(kw_only=True)
class Images:
    """The images of a file."""

    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("i"))
    """Height and width of each."""
    index: dict[Identifier, int] = field(default_factory=dict)
    """Maps image ids to positions in `names` and `sizes`; -1 for an image that is left out."""

    def size(self, place: int) -> tuple[int, int]:
        """Return height and width of an image."""
        return self.sizes[2 * place], self.sizes[2 * place + 1]


@dataclass(kw_only=True)
class Objects:
    """The objects of a file, in file order; see `coco.CocoInstances`."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    named_ids: Counter[str] = field(default_factory=Counter)
    """Ids that are text."""
    image: array[int] = field(default_factory=lambda: array("i"))
    category: array[int] = field(default_factory=lambda: array("q"))
    flags: array[int] = field(default_factory=lambda: array("B"))
    area: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("q", [0]))
    shapes: array[int] = field(default_factory=lambda: array("i"))


@dataclass(kw_only=True)
class Entries:
    """The contents of a file, during and after reading."""

    json_file: Path
    wanted: Collection[int] | None
    """Ids of the categories to read; None for all."""
    images: Images = field(default_factory=Images)
    categories: dict[int, str] = field(default_factory=dict)
    """Names by number, in ascending order."""
    numbers: dict[Identifier, int] = field(default_factory=dict)
    """Maps category ids to the numbers in `categories`; -1 for a category that is left out."""
    objects: Objects = field(default_factory=Objects)
    invalid: InvalidLabels = field(default_factory=InvalidLabels)
    marks: CrowdMarks = field(default_factory=CrowdMarks)

    def read(self) -> None:
        """Read the file.

        Raises:
            ValueError: The file is not valid JSON, or has no images, annotations or categories.
            OSError: The file cannot be read.
        """
        self._read_tables()
        for _, entry in _list_entries(self.json_file, ("annotations",)):
            self._read_object(entry)
        ids, counts = np.unique(np.array(self.objects.ids), return_counts=True)
        for identifier, count in zip(ids[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
            self.invalid.add(f"{count} annotations have the id {identifier}.")
        for name, times in self.objects.named_ids.items():
            if times > 1:
                self.invalid.add(f"{times} annotations have the id {name!r}.")

    def _read_tables(self) -> None:
        for key, entry in _list_entries(self.json_file, ("images", "categories"), optional="info"):
            if key == "info":
                self.marks.note_info(entry)
                continue
            try:
                if not isinstance(entry, dict):
                    raise ValueError(
                        f"the list {key!r} has the entry {shorten(entry)}, which is not an object {{...}}."
                    )
                if key == "images":
                    self._add_image(entry)
                else:
                    self._add_category(entry)
            except ValueError as error:
                self.invalid.add(str(error))
        if len(set(self.images.names)) < len(self.images.names):
            self._leave_out_twins()
        self.categories = dict(sorted(self.categories.items()))

    def _leave_out_twins(self) -> None:
        """Leave out images that share a file name under different ids: their objects cannot be told apart."""
        twins = [name for name, count in Counter(self.images.names).items() if count > 1]
        for name in twins:
            self.invalid.add(f"two images have the file_name {name!r}.")
        doubled = set(twins)
        for identifier, place in self.images.index.items():
            if place >= 0 and self.images.names[place] in doubled:
                self.images.index[identifier] = _LEFT_OUT

    def _add_image(self, entry: Mapping[str, Any]) -> None:
        identifier = _take_id(entry, "id", "an image")
        images = self.images
        known = images.index.get(identifier)
        if known is None:
            images.index[identifier] = _LEFT_OUT  # until all of the entry is checked
        name, size = _read_image(entry, f"the image with id {identifier}")
        if known is None:
            images.index[identifier] = len(images.names)
            images.names.append(name)
            images.sizes.extend(size)
            self.marks.note_image(entry)
        elif known == _LEFT_OUT or (images.names[known], images.size(known)) != (name, size):
            images.index[identifier] = _LEFT_OUT
            raise ValueError(f"two images have the id {identifier}.")

    def _add_category(self, entry: Mapping[str, Any]) -> None:
        identifier, name = _take_id(entry, "id", "a category"), entry.get("name")
        known = self.numbers.get(identifier)
        if not isinstance(name, str) or not name.strip():
            self._leave_out_category(identifier)
            raise ValueError(f"the category with id {identifier} has the name {shorten(name)}, which is not text.")
        if known is None:
            number = identifier if isinstance(identifier, int) else _FIRST_NAMED + len(self.numbers)
            self.numbers[identifier] = number
            self.categories[number] = name.strip()
        elif self.categories.get(known) != name.strip():
            first = self.categories.get(known)
            self._leave_out_category(identifier)
            raise ValueError(f"two categories have the id {identifier}: {first!r} and {name!r}.")

    def _leave_out_category(self, identifier: Identifier) -> None:
        self.categories.pop(self.numbers.get(identifier, _LEFT_OUT), None)
        self.numbers[identifier] = _LEFT_OUT

    def _read_object(self, entry: Any) -> None:
        try:
            if not isinstance(entry, dict):
                raise ValueError(
                    f"the list 'annotations' has the entry {shorten(entry)}, which is not an object {{...}}."
                )
            identifier = _take_id(entry, "id", "an annotation")
        except ValueError as error:
            self.invalid.add(str(error))
            return
        if isinstance(identifier, int):
            self.objects.ids.append(identifier)
        else:
            self.objects.named_ids[identifier] += 1
        try:
            self._add_object(entry)
        except ValueError as error:
            del self.objects.shapes[self.objects.places[-1] :]
            self.invalid.add(f"the annotation with id {identifier}: {error}")

    def _add_object(self, entry: Mapping[str, Any]) -> None:
        category, place = self._find_category(entry), self._find_image(entry)
        if place == _LEFT_OUT or (self.wanted is not None and category not in self.wanted):
            return
        is_crowd, area = _read_crowd(entry), _read_area(entry)
        objects = self.objects
        size = self.images.size(place)
        is_runs, problem = add_shape(objects.shapes, entry.get("segmentation"), size)
        pixels = sum(objects.shapes[objects.places[-1] + 1 :: 2]) if is_runs and is_crowd else 0 if is_runs else None
        self.marks.note_object(entry, place, is_crowd=is_crowd, pixels=pixels)
        objects.image.append(place)
        objects.category.append(category)
        objects.flags.append(CROWD * is_crowd + RUNS * is_runs)
        objects.area.append(area)
        objects.places.append(len(objects.shapes))
        if problem:
            self.invalid.add(f"the annotation with id {entry['id']}: {problem} Its other polygons can be used.")

    def _find_category(self, entry: Mapping[str, Any]) -> int:
        identifier = _take_id(entry, "category_id", "it")
        number = self.numbers.get(identifier)
        if number is None:
            raise ValueError(
                f"its category_id is {identifier}, which no category has ({len(self.numbers)} are listed)."
            )
        if number == _LEFT_OUT:
            raise ValueError(f"its category_id is {identifier}, a category whose name is missing or ambiguous.")
        return number

    def _find_image(self, entry: Mapping[str, Any]) -> int:
        identifier = _take_id(entry, "image_id", "it")
        place = self.images.index.get(identifier)
        if place is None:
            listed = len(self.images.index)
            raise ValueError(f"its image_id is {identifier}, which no image has ({listed} are listed).")
        return place


def _read_image(entry: Mapping[str, Any], what: str) -> tuple[str, tuple[int, int]]:
    """Read file name, and height and width, of an image."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} has the file_name {shorten(name)}, which is not text.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise ValueError(f"{what} has the file_name {shorten(name)}, which leads out of the folder of images.")
    height, width = (_take_length(entry, key, what) for key in ("height", "width"))
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"{what} has width {width} and height {height}: 1 to {MAX_PIXELS:,} pixels are allowed.")
    return name, (height, width)


def _read_crowd(entry: Mapping[str, Any]) -> bool:
    value = entry.get("iscrowd")
    plain = value.strip().lower() if isinstance(value, str) else value
    if isinstance(plain, str | int | float | None) and plain in (*_NO_CROWD, *_IS_CROWD):
        return plain in _IS_CROWD
    raise ValueError(f"its iscrowd is {shorten(value)}: 0 and 1 are allowed.")


def _read_area(entry: Mapping[str, Any]) -> float:
    value = entry.get("area")
    if value is None:
        return float("nan")
    if type(value) not in (int, float) or not 0 <= value < _MAX_NUMBER:
        raise ValueError(f"its area is {shorten(value)}: a number of pixels, 0 or more, is needed.")
    return float(value)


def add_shape(shapes: array[int], segmentation: Any, size: tuple[int, int]) -> tuple[bool, str]:
    """Pack a `segmentation`; return whether it is run lengths, and the problem of an invalid polygon among valid ones.

    Raises:
        ValueError: No part of it is valid.
    """
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if _as_lengths(stated) != list(size):
            raise ValueError(
                f"its run lengths are for the size {shorten(stated)}, but its image has {list(size)} (height, width)."
            )
        shapes.frombytes(read_runs(segmentation.get("counts"), size).tobytes())
        return True, ""
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(
            f"its segmentation is {shorten(segmentation)}: it must be a list of polygons, or run lengths. "
            "A file of boxes alone has no labels for segmentation."
        )
    problems, before = [], len(shapes)
    for points in segmentation:
        try:
            outline = to_outline(points, size)
        except ValueError as error:
            problems.append(error)
            continue
        shapes.append(len(outline))
        shapes.frombytes(outline.tobytes())
    if problems and len(shapes) == before:
        raise problems[0]
    return False, str(problems[0]) if problems else ""


def _as_lengths(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return [int(one) if type(one) is float and one.is_integer() else one for one in value]


def _list_entries(json_file: Path, keys: tuple[str, ...], optional: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the entries of some lists, each with its list's key, and the value of an optional key.

    Raises:
        ValueError: The file is not valid JSON, or lacks a list.
        OSError: The file cannot be read.
    """
    missing = set(keys)
    for key, entry in read_lists(json_file, (optional,) if optional else ()):
        if key == optional:
            yield key, entry
        elif key in keys and (key not in missing or isinstance(entry, dict | list | str | int | float | None)):
            missing.discard(key)
            yield key, entry
    if missing:
        raise ValueError(
            f"it has no {' and no '.join(sorted(missing))}: a COCO file of objects has the lists 'images', "
            "'annotations' and 'categories'."
        )


def _take_id(entry: Mapping[str, Any], key: str, what: str) -> Identifier:
    """Read an id: an integer in any spelling, or text."""
    value = entry.get(key)
    if type(value) is float and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        plain = value.strip()
        number = int(plain) if plain.isascii() and plain.isdecimal() and len(plain) < 19 else _LEFT_OUT
        value = number if str(number) == plain else plain
        if isinstance(value, str) and value and value.isprintable() and len(value) <= 200:
            return value
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise ValueError(f"{what} has the {key} {shorten(value)}: a whole number, 0 or more, or a text is needed.")
    return value


def _take_length(entry: Mapping[str, Any], key: str, what: str) -> int:
    """Read a height or width: an integer in any spelling."""
    value = entry.get(key)
    number: Any = value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < 19:
        number = int(value)
    if type(number) is float and number.is_integer():
        number = int(number)
    if type(number) is not int or not 0 <= number < _MAX_NUMBER:
        raise ValueError(f"{what} has the {key} {shorten(value)}: a whole number, 0 or more, is needed.")
    return number


def shorten(value: object) -> str:
    """Return a value as shown in messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
