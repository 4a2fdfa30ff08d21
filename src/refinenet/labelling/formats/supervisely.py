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
from collections.abc import Mapping
from pathlib import Path
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
        classes = [
            {"title": name, "shape": "bitmap", "color": as_hex(colour).upper()} for name, colour in options.shown_labels
        ]
        write_atomically(folder / META_FILE, write_json({"classes": classes, "tags": []}).encode())

    def add(self, draft: Draft) -> None:
        """Copy an image, and write the file of its draft."""
        name = draft.name.replace("/", "__")
        target = self._folder / "img" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(draft.file, target)
        objects = [self._describe(label, region) for label, region in label_masks(draft, self._options)]
        values = {
            "description": "",
            "tags": [],
            "size": {"height": draft.size[0], "width": draft.size[1]},
            "objects": objects,
        }
        write_atomically(self._folder / "ann" / f"{name}.json", write_json(values).encode())

    def finish(self) -> None:
        """All files are complete."""

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


def read_supervisely(root: Path) -> ToolExport:
    """Open a project: all its datasets.

    Raises:
        ValueError: A file is damaged.
        FileNotFoundError: There are no annotations.
        OSError: A file cannot be read.
    """
    files = {
        _name(root, path): path for path in sorted(root.glob("**/ann/*.json")) if has_suffix(path.stem, IMAGE_SUFFIXES)
    }
    if not files:
        raise FileNotFoundError(f"{root} has no annotations (DATASET/ann/IMAGE.jpg.json).")
    labels: dict[str, None] = {}
    for path in files.values():
        labels |= dict.fromkeys(str(one.get("classTitle")) for one in _read_objects(path)[0] if isinstance(one, dict))
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
    )


def _name(root: Path, path: Path) -> str:
    """Return the name of an image; datasets other than ours become folders."""
    name = path.stem.replace("__", "/")
    dataset = path.relative_to(root).parts[0]
    return name if dataset in (DATASET, "ann", path.name) else f"{dataset}/{name}"


def _read_objects(path: Path) -> tuple[list[Any], tuple[int, int]]:
    """Read the objects of an image, and its height and width."""
    values = read_json(path)
    size = values.get("size") if isinstance(values, dict) else None
    objects = values.get("objects") if isinstance(values, dict) else None
    height, width = (size.get(key) if isinstance(size, dict) else None for key in ("height", "width"))
    if not isinstance(height, int) or not isinstance(width, int) or not isinstance(objects, list):
        raise ValueError(f"{path} is not an annotation of Supervisely: it needs a 'size' and a list 'objects'.")
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"{path} is for an image of {width}x{height} pixels: 1 to {MAX_PIXELS:,} are allowed.")
    return objects, (height, width)


def _draw(path: Path, label_set: LabelSet) -> LabelMap:
    objects, size = _read_objects(path)
    labels = blank(label_set, size)
    for number, entry in enumerate(objects, start=1):
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
