"""Supervisely's JSON projects: a `meta.json`, and for each image a file of bitmaps or polygons.

Source: https://docs.supervisely.com/data-organization/00_ann_format_navi

Shape letters: H height, W width.
"""

from __future__ import annotations

import base64
import binascii
import io
import shutil
import zlib
from collections.abc import Container, Mapping
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats.polygons import fill_outline, to_outline
from refinenet.io.files import write_atomically
from refinenet.io.images.image_files import IMAGE_SUFFIXES, MAX_PIXELS, has_suffix, read_picture
from refinenet.labelling.formats.base import (
    Draft,
    DraftOptions,
    ToolExport,
    as_base64,
    as_hex,
    blank,
    find_class,
    label_masks,
    pack_picture,
    read_json,
    write_json,
)
from refinenet.labels import LabelMap, LabelSet

META_FILE = "meta.json"
DATASET = "images"
"""Name of the dataset in the project."""
_SLASH = "__"
"""What replaces "/" in the names of files, which have no folders in a dataset of Supervisely."""
_MAX_BITMAP = 1 << 28
"""Most bytes of a bitmap's PNG file."""


class SuperviselyWriter:
    """A writer of a project, with copies of the images, as Supervisely imports it.

    Args:
        folder: Folder of the project.
        options: How to write.
    """

    def __init__(self, folder: Path, options: DraftOptions) -> None:
        self._folder, self._options = folder / DATASET, options
        self._used: set[str] = set()
        classes = [
            {"title": name, "shape": "bitmap", "color": as_hex(colour).upper()} for name, colour in options.shown_labels
        ]
        write_atomically(folder / META_FILE, write_json({"classes": classes, "tags": []}).encode())

    def add(self, draft: Draft) -> None:
        """Copy an image, and write the file of its draft."""
        name = _find_free_name(draft.name, self._used)
        self._used.add(name)
        target = self._folder / "img" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(draft.file, target)
        objects = [self._describe(label, region) for label, region in label_masks(draft, self._options)]
        values = {
            # Where the name of the file could be read in two ways; it is shown as the image's description.
            "description": draft.name if _SLASH in name or name != draft.name else "",
            "tags": [],
            "size": {"height": draft.size[0], "width": draft.size[1]},
            "objects": objects,
        }
        write_atomically(self._folder / "ann" / f"{name}.json", write_json(values).encode())

    def _describe(self, label: int, region: npt.NDArray[np.bool_]) -> dict[str, Any]:
        rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        cut = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        content = as_base64(zlib.compress(pack_picture(cut)))
        return {
            "classTitle": self._options.name_of(label),
            "description": "",
            "tags": [],
            "geometryType": "bitmap",
            "bitmap": {"data": content, "origin": [int(columns[0]), int(rows[0])]},
        }


def _find_free_name(name: str, used: Container[str]) -> str:
    """Return the file name of an image: without folders, and with a number if another image has it already."""
    plain = PurePosixPath(name.replace("/", _SLASH))
    numbered = (plain.with_name(f"{plain.stem}_{number}{plain.suffix}") for number in count(2))
    return next(path.name for path in chain([plain], numbered) if path.name not in used)


def _is_named_after(file_name: str, name: str) -> bool:
    """Whether `_find_free_name` may have made a file name of the name of an image."""
    file, plain = PurePosixPath(file_name), PurePosixPath(name.replace("/", _SLASH))
    number = file.stem.removeprefix(f"{plain.stem}_")
    return file == plain or (file.suffix == plain.suffix and number != file.stem and number.isdecimal())


def read_supervisely(root: Path) -> ToolExport:
    """Open a project: all its datasets.

    Raises:
        ValueError: A file is damaged.
        FileNotFoundError: There are no annotations.
        OSError: A file cannot be read.
    """
    files: dict[str, Path] = {}
    other_names: dict[str, str] = {}
    labels: dict[str, None] = {}
    for path in sorted(root.glob("**/ann/*.json")):
        if not has_suffix(path.stem, IMAGE_SUFFIXES):
            continue
        values = _read_annotation(path)
        item, other = _name(root, path, values.get("description"))
        if item in files:
            raise ValueError(f"{files[item]} and {path} are both of the image {item}: rename or delete one of them.")
        files[item] = path
        other_names |= {item: other} if other is not None else {}
        labels |= dict.fromkeys(str(one.get("classTitle")) for one in values["objects"] if isinstance(one, dict))
    if not files:
        raise FileNotFoundError(f"{root} has no annotations (DATASET/ann/IMAGE.jpg.json).")
    images = {item: path.parents[1] / "img" / path.stem for item, path in files.items()}

    def read(item: str, label_set: LabelSet) -> LabelMap:
        return _draw(files[item], label_set)

    return ToolExport(
        path=root,
        format="supervisely",
        items=tuple(files),
        label_names=tuple(labels),
        read=read,
        image_files={item: path for item, path in images.items() if path.is_file()},
        other_names=other_names,
    )


def _name(root: Path, path: Path, described: object) -> tuple[str, str | None]:
    """Return the name of an image, and the other name that it may stand for; datasets other than ours become folders.

    Without the description, which older versions did not write, "a__b" is an image "a__b" or "b" in the folder "a".
    """
    if isinstance(described, str) and _is_named_after(path.stem, described):
        name, other = described, None
    else:
        name = path.stem.replace(_SLASH, "/")
        other = path.stem if _SLASH in path.stem else None
    dataset = path.relative_to(root).parts[0]
    folder = "" if dataset in (DATASET, "ann", path.name) else f"{dataset}/"
    return folder + name, None if other is None else folder + other


def _read_annotation(path: Path) -> dict[str, Any]:
    """Read the file of an image, which has a size and objects."""
    values = read_json(path)
    size = values.get("size") if isinstance(values, dict) else None
    height, width = _read_size(size)
    if not isinstance(height, int) or not isinstance(width, int) or not isinstance(values.get("objects"), list):
        raise ValueError(f"{path} is not an annotation of Supervisely: it needs a 'size' and a list 'objects'.")
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"{path} is for an image of {width}x{height} pixels: 1 to {MAX_PIXELS:,} are allowed.")
    return dict(values)


def _read_size(size: Any) -> tuple[Any, Any]:
    return (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)


def _draw(path: Path, label_set: LabelSet) -> LabelMap:
    values = _read_annotation(path)
    size = _read_size(values["size"])
    labels = blank(label_set, size)
    for number, entry in enumerate(values["objects"], start=1):
        try:
            region = _fill(entry, size)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, object {number}: {error}") from error
        labels[region] = find_class(str(entry.get("classTitle")), label_set, str(path))
    return labels


def _fill(entry: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    kind = entry.get("geometryType")
    if kind == "bitmap":
        return _place_bitmap(entry.get("bitmap") or {}, size)
    points = entry.get("points") or {}
    if kind == "rectangle":
        (left, top), (right, bottom) = points["exterior"]
        region = np.zeros(size, bool)
        region[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
        return region
    if kind != "polygon":
        raise ValueError(f"its geometryType is {kind!r}: bitmap, polygon and rectangle are supported.")
    region = _fill_ring(points.get("exterior"), size)
    for ring in points.get("interior") or ():
        region &= ~_fill_ring(ring, size)
    return region


def _fill_ring(ring: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    flat = [value for point in ring for value in point]
    return fill_outline(to_outline(flat, size), size)


def _place_bitmap(bitmap: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    try:
        packed = base64.b64decode(str(bitmap.get("data")), validate=True)
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, _MAX_BITMAP)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"its bitmap is damaged: {error}.") from error
    image = read_picture(io.BytesIO(content), "its bitmap").image
    # Supervisely's own files are transparent outside; without transparency, what is not black is inside.
    channels = np.asarray(image.convert("RGBA"))
    inside = channels[..., 3] > 0 if _has_alpha(image) else channels[..., :3].any(axis=2)
    left, top = (int(value) for value in bitmap["origin"])
    bottom, right = top + inside.shape[0], left + inside.shape[1]
    if left < 0 or top < 0 or bottom > size[0] or right > size[1]:
        raise ValueError(f"its bitmap extends outside the image of {size[1]}x{size[0]} pixels (width x height).")
    region = np.zeros(size, bool)
    region[top:bottom, left:right] = inside
    return region


def _has_alpha(image: Any) -> bool:
    return image.mode in ("RGBA", "LA") or "transparency" in image.info
