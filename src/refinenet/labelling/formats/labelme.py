"""LabelMe's JSON files, one for each image.

LabelMe fills polygons with Pillow, including their outlines, in the order of the file: a polygon through the centres of
the pixels along a region's border fills exactly this region. It knows no holes, so larger outlines come first and what
lies in them is drawn over them.

Shape letters: H height, W width, P points.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.formats.labelme import fill_shape, read_shapes, take_label
from refinenet.io.files import write_atomically
from refinenet.labelling.formats.base import (
    Draft,
    DraftOptions,
    ToolExport,
    as_base64,
    blank,
    find_class,
    label_masks,
    pack_picture,
    read_json,
    write_json,
)
from refinenet.labelling.outlines import Region, Ring, find_outlines
from refinenet.labels import LabelMap, LabelSet

VERSION = "5.5.0"
"""The version of LabelMe whose format is written."""
SUFFIX = ".json"


class LabelMeWriter:
    """A writer of one file for each image.

    Args:
        folder: Folder of the files, which keep the subfolders of the images.
        options: How to write.
    """

    def __init__(self, folder: Path, options: DraftOptions) -> None:
        self._folder, self._options = folder, options

    def add(self, draft: Draft) -> None:
        """Write the file of a draft."""
        path = self._folder / f"{draft.stem}{SUFFIX}"
        shapes = self._mask_shapes(draft) if self._options.shapes == "masks" else self._polygon_shapes(draft)
        values: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": list(shapes),
            "imagePath": Path(os.path.relpath(draft.file.resolve(), path.parent.resolve())).as_posix(),
            "imageData": None,
            "imageHeight": draft.size[0],
            "imageWidth": draft.size[1],
        }
        write_atomically(path, write_json(values).encode())

    def _mask_shapes(self, draft: Draft) -> Iterator[dict[str, Any]]:
        for label, region in label_masks(draft, self._options):
            yield _mask_shape(self._options.name_of(label), region)

    def _polygon_shapes(self, draft: Draft) -> Iterator[dict[str, Any]]:
        is_exact = self._options.simplify == 0
        # A row and a column more, as `_fill` fills one beyond a region's last.
        canvas = np.full((draft.size[0] + 1, draft.size[1] + 1), -1)
        for region in sorted(find_outlines(draft.labels, self._options.simplify), key=_size, reverse=True):
            points = _through_pixels(region) if is_exact else _onto_pixels(region, draft.size)
            name = self._options.name_of(region.label)
            shape = _shape(name, "polygon", _at_least_three(points.astype(float).tolist()))
            place, filled = _fill(shape, region)
            # What lies in the hole of another region has been covered, and must be drawn even if it is background.
            if self._options.has_shape(region.label) or (canvas[place][filled] >= 0).any():
                canvas[place][filled] = region.label
                yield shape
        missed = self._missed(draft, canvas[:-1, :-1]) if is_exact else {}
        for label, where in missed.items():
            yield _mask_shape(self._options.name_of(label), where)

    def _missed(self, draft: Draft, canvas: npt.NDArray[np.int64]) -> Mapping[int, npt.NDArray[np.bool_]]:
        """Return the pixels of each class that polygons do not reach exactly."""
        differs = (canvas != draft.labels) & ((canvas >= 0) | np.isin(draft.labels, self._uncovered(), invert=True))
        return {label: differs & (draft.labels == label) for label in np.unique(draft.labels[differs]).tolist()}

    def _uncovered(self) -> list[int]:
        return [label for label in range(len(self._options.label_set)) if not self._options.has_shape(label)]


def _size(region: Region) -> tuple[int, int]:
    """Return what larger regions, holes included, and among equal ones the later, have more of."""
    x, y = region.outer[:, 0], region.outer[:, 1]
    area = int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return area, -region.area


def _through_pixels(region: Region) -> Ring:
    """Return x and y of pixels `(P, 2)`: for each corner of the outer border the pixel of the region that is there."""
    ring = region.outer
    before = np.sign(ring - np.roll(ring, 1, axis=0))
    after = np.sign(np.roll(ring, -1, axis=0) - ring)
    # The region lies to the right of a step (dx, dy), in the direction (-dy, dx). At a corner it lies to the right of
    # both steps; where the outline turns left, that is the pixel inside of the corner, too.
    inward = np.stack([-before[:, 1] - after[:, 1], before[:, 0] + after[:, 0]], axis=1)
    pixels: Ring = ring + np.where(inward > 0, 0, -1)
    return pixels


def _onto_pixels(region: Region, size: tuple[int, int]) -> Ring:
    """Return the points of a simplified border, kept inside the image.

    Pillow takes whole numbers for the centres of pixels and includes the outline: all pixels are covered, those along
    a common border twice.
    """
    points: Ring = np.minimum(region.outer, np.array(size[::-1]) - 1)
    return points


def _at_least_three(points: list[list[float]]) -> list[list[float]]:
    """Repeat points of an outline around one row of pixels or a single one, as LabelMe wants three."""
    return points if len(points) >= 3 else (points * 3)[:3]


def _fill(shape: Mapping[str, Any], region: Region) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """Return the rows and columns around a polygon, and its pixels there."""
    left, top, width, height = region.box
    size = height + 1, width + 1
    points = [[x - left, y - top] for x, y in shape["points"]]
    filled = fill_shape({**shape, "points": points}, size)
    return (slice(top, top + size[0]), slice(left, left + size[1])), filled


def _shape(label: str, kind: str, points: list[list[float]], mask: str | None = None) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }


def _mask_shape(label: str, region: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    content = pack_picture(region[top : bottom + 1, left : right + 1])
    return _shape(label, "mask", [[float(left), float(top)], [float(right), float(bottom)]], as_base64(content))


def read_labelme(files: Mapping[str, Path], path: Path) -> ToolExport:
    """Open a folder of LabelMe's files.

    Args:
        files: The files by their names below the folder, without suffix.
        path: The folder.

    Raises:
        ValueError: A file is damaged.
        OSError: A file cannot be read.
    """
    labels: dict[str, None] = {}
    images = {}
    for item, file in files.items():
        values = read_json(file)
        shapes = values.get("shapes", ()) if isinstance(values, dict) else ()
        labels |= dict.fromkeys(str(shape.get("label")) for shape in shapes if isinstance(shape, dict))
        name = values.get("imagePath") if isinstance(values, dict) else None
        image = file.parent / name.replace("\\", "/") if isinstance(name, str) else None
        if image is not None and image.is_file():
            images[item] = image

    def read(item: str, label_set: LabelSet) -> LabelMap:
        shapes, size = read_shapes(files[item])
        found = blank(label_set, size)
        for number, shape in enumerate(shapes, start=1):
            try:
                label, region = take_label(shape), fill_shape(shape, size)
            except ValueError as error:
                raise ValueError(f"{files[item]}, shape {number}: {error}") from error
            found[region] = find_class(label, label_set, str(files[item]))
        return found

    return ToolExport(
        path=path, format="labelme", items=tuple(files), label_names=tuple(labels), read=read, image_files=images
    )
