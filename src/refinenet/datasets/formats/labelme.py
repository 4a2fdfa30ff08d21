"""LabelMe's JSON files: one per image, with the shapes drawn on it.

Shapes are filled as by LabelMe's own export: with Pillow, including outlines, in file order, later shapes over earlier
ones. Shapes without area (line, linestrip, point, points) are rejected rather than skipped, since labels would be lost
silently.

H is height, W width.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from refinenet.datasets.formats.invalid_labels import InvalidLabels, InvalidLabelsError
from refinenet.datasets.formats.lookup import (
    CLASSES_FILE,
    describe_unknown,
    find_background,
    find_id,
    is_background,
    is_void,
)
from refinenet.datasets.formats.renames import Renames
from refinenet.io.images.image_files import MAX_PIXELS, read_picture
from refinenet.labels import LabelMap, LabelSet, voc_colours

SHAPES = ("polygon", "rectangle", "circle", "mask")
SHAPES_WITHOUT_AREA = ("line", "linestrip", "point", "points")

Point = tuple[float, float]


NO_RENAMES = Renames()
"""All labels keep their names."""


def find_names(
    json_files: Sequence[Path], *, leave_out_invalid: bool = False, renames: Renames = NO_RENAMES
) -> LabelSet:
    """Return the label set of files: background, then all labels in alphabetical order, in VOC's colours.

    Labels that mean void (`lookup.is_void`) are no classes. Shapes that `find_invalid` lists may be left out.

    Raises:
        InvalidLabelsError: Shapes are invalid; the message lists all of them.
        ValueError: A file is damaged, no file has a shape, or a label with a new name does not occur.
        OSError: A file cannot be read.
    """
    found = _find_labels(json_files, leave_out_invalid)
    if not found:
        raise ValueError(f"None of {len(json_files)} LabelMe files has a shape, so there are no classes.")
    renames.check(found)
    labels = {renames.apply(label) for label in found}
    names = ("background", *sorted(label for label in labels if not is_background(label) and not is_void(label)))
    return LabelSet(names=names, colours=voc_colours(len(names)))


def check_labels(
    label_set: LabelSet,
    json_files: Sequence[Path],
    *,
    leave_out_invalid: bool = False,
    origin: str | Path = CLASSES_FILE,
    renames: Renames = NO_RENAMES,
) -> None:
    """Check that all labels of files are classes of a label set, or void.

    Shapes that `find_invalid` lists may be left out; `origin`, the file that lists the classes, is for messages.

    Raises:
        InvalidLabelsError: Shapes are invalid; the message lists all of them.
        ValueError: A label is not a class, so that `read_labels` would reject it; a label with a new name does not
            occur; or a file is damaged.
        OSError: A file cannot be read.
    """
    found = _find_labels(json_files, leave_out_invalid)
    renames.check(found)
    for label, path in found.items():
        _find_class(renames.apply(label), label_set, path, origin)


def find_invalid(json_files: Iterable[Path]) -> InvalidLabels:
    """Find all shapes that cannot be filled or have no label, each with its problem.

    Damaged files are skipped.

    Raises:
        OSError: A file cannot be read.
    """
    invalid = InvalidLabels()
    for path in json_files:
        try:
            shapes, size = read_shapes(path)
        except ValueError:
            continue
        for number, shape in enumerate(shapes, start=1):
            try:
                take_label(shape)
                fill_shape(shape, size)
            except ValueError as error:
                invalid.add(f"{path.name}, {_name(shape, number)}: {error}")
    return invalid


def _name(shape: Any, number: int) -> str:
    label = shape.get("label") if isinstance(shape, dict) else None
    return f"shape {number} ({label.strip()[:60]})" if isinstance(label, str) and label.strip() else f"shape {number}"


def _find_labels(json_files: Sequence[Path], leave_out_invalid: bool) -> dict[str, Path]:
    """Return all labels, each with the first file that has it."""
    found: dict[str, Path] = {}
    for path in json_files:
        try:
            shapes, size = read_shapes(path)
        except ValueError:
            if leave_out_invalid:
                continue
            raise
        for shape in shapes:
            try:
                label = take_label(shape)
                if leave_out_invalid:
                    _check(shape, size)
            except ValueError as error:
                if leave_out_invalid:
                    continue
                raise InvalidLabelsError(path.parent, find_invalid(json_files)) from error
            found.setdefault(label, path)
    return found


def _find_class(label: str, label_set: LabelSet, json_file: Path, origin: str | Path = CLASSES_FILE) -> int:
    found = find_id(label, label_set)
    if found is None:
        raise ValueError(f"{json_file} has a shape of {describe_unknown([label], label_set, origin)}")
    return found


def read_labels(
    label_set: LabelSet, json_file: Path, *, leave_out_invalid: bool = False, renames: Renames = NO_RENAMES
) -> LabelMap:
    """Draw the label map of one file.

    Args:
        label_set: From `find_names`, or any other; without a background class, uncovered pixels are void.
        json_file: A file written by LabelMe.
        leave_out_invalid: Whether to leave out invalid shapes instead of raising an error.
        renames: New names of the labels.

    Returns:
        `(H, W)` ids of `label_set`, H and W as stated in the file.

    Raises:
        InvalidLabelsError: Shapes cannot be filled or have no label; the message lists all of the file.
        ValueError: The file is damaged, or a label is not in the label set.
        OSError: The file cannot be read.
    """
    shapes, size = read_shapes(json_file)
    labels = label_set.cast(np.full(size, find_background(label_set), np.uint16))
    for shape in shapes:
        try:
            label, region = take_label(shape), fill_shape(shape, size)
        except ValueError as error:
            if leave_out_invalid:
                continue
            raise InvalidLabelsError(json_file, find_invalid([json_file])) from error
        labels[region] = _find_class(renames.apply(label), label_set, json_file)
    return labels


def read_shapes(json_file: Path) -> tuple[list[Mapping[str, Any]], tuple[int, int]]:
    """Read the shapes of a file, and the image's height and width.

    Raises:
        ValueError: The file is damaged.
        OSError: The file cannot be read.
    """
    try:
        values = json.loads(json_file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}.") from error
    shapes = values.get("shapes") if isinstance(values, dict) else None
    if not isinstance(shapes, list):
        raise ValueError(f"{json_file} is not a LabelMe file: it has no list 'shapes' of objects {{...}}.")
    height, width = (_as_whole(values.get(key)) for key in ("imageHeight", "imageWidth"))
    is_size = type(height) is int and type(width) is int and height > 0 and width > 0
    if not is_size or height * width > MAX_PIXELS:
        raise ValueError(
            f"{json_file} has imageHeight {height!r} and imageWidth {width!r}: whole numbers are needed, "
            f"at most {MAX_PIXELS:,} pixels together."
        )
    return shapes, (height, width)


def _as_whole(value: Any) -> Any:
    """Convert `640.0` and "640" to integers; return anything else unchanged."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < 19:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def take_label(shape: Any) -> str:
    """Return the label of a shape.

    Raises:
        ValueError: It has none.
    """
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(shape, dict):
        raise ValueError(f"it is {str(shape)[:60]!r}, not an object {{...}}.")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"it has the label {str(label)[:60]!r}, which is not text.")
    return label.strip()


def _check(shape: Mapping[str, Any], size: tuple[int, int]) -> tuple[str, list[Point]]:
    """Return the type and the points of a shape, checked so that it can be filled."""
    kind = shape.get("shape_type") or "polygon"  # LabelMe before 3.7 wrote polygons only
    if kind in SHAPES_WITHOUT_AREA:
        raise ValueError(f"it is a {kind}, which has no area. Draw it as a polygon, or remove it.")
    if kind not in SHAPES:
        raise ValueError(f"its shape_type is {str(kind)[:60]!r}: {', '.join(SHAPES)} are supported.")
    points = _read_points(shape.get("points"), size)
    if not (len(points) >= 3 if kind == "polygon" else len(points) == 2):
        raise ValueError(f"it is a {kind} of {len(points)} points: polygons have three or more, all others two.")
    return kind, points


def fill_shape(shape: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the `(H, W)` region of a shape; `size` is H and W.

    Raises:
        ValueError: The shape has no area, or is damaged.
    """
    kind, points = _check(shape, size)
    if kind == "mask":
        return _place_mask(shape.get("mask"), points, size)
    canvas = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon":
        draw.polygon(points, fill=1, outline=1)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=1, outline=1)
    else:
        (x, y), radius = points[0], math.dist(points[0], points[1])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)
    return np.asarray(canvas) > 0


def _read_points(points: Any, size: tuple[int, int]) -> list[Point]:
    if not isinstance(points, list):
        raise ValueError("it has no list of points.")
    for point in points:
        if not (isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) for value in point)):
            raise ValueError(f"it has the point {str(point)[:60]}: a point must be [x, y], two numbers.")
        # Points slightly outside come from dragging beyond the border; points far outside belong to another image.
        if not all(-limit <= value <= 2 * limit for value, limit in zip(point, (size[1], size[0]), strict=True)):
            raise ValueError(
                f"it has the point {point}, far outside the image of {size[1]}x{size[0]} pixels (width x height)."
            )
    return [(float(x), float(y)) for x, y in points]


def _place_mask(mask: Any, points: Sequence[Point], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the region of a base64 image whose first and last column and row are given by `points`."""
    if not isinstance(mask, str):
        raise ValueError("it is a mask without a 'mask', a PNG file in base64.")
    try:
        content = base64.b64decode(mask, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"its 'mask' is not valid base64: {error}.") from error
    pixels = np.asarray(read_picture(io.BytesIO(content), "its 'mask'").image)
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    box = (bottom - top + 1, right - left + 1)
    if pixels.shape != box:
        raise ValueError(f"its 'mask' has the shape {pixels.shape}, but its points span {box} (height, width).")
    if left < 0 or top < 0 or right >= size[1] or bottom >= size[0]:
        raise ValueError(f"its points extend outside the image of {size[1]}x{size[0]} pixels (width x height).")
    region = np.zeros(size, bool)
    region[top : bottom + 1, left : right + 1] = pixels > 0
    return region
