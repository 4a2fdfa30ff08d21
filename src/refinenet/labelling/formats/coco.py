"""COCO's JSON of a whole folder, as CVAT, Roboflow, Label Studio and others import it.

Shape letters: H height, W width, P points.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from refinenet.datasets.formats.coco import CocoInstances, open_instances
from refinenet.inference.regions import find_regions
from refinenet.io.files import stream_atomically
from refinenet.labelling.formats.base import Draft, DraftOptions, ToolExport, blank, find_class, label_masks, write_json
from refinenet.labelling.outlines import Region, find_outlines, join_rings
from refinenet.labels import LabelMap, LabelSet

FILE = "instances_default.json"
"""CVAT's name for it, which `refinenet data` recognises."""
ROBOFLOW_FILE = "_annotations.coco.json"
TITLE = "Pre-labels"


class CocoWriter:
    """A writer of one JSON file; see `write_coco`.

    Args:
        stream: The file.
        waiting: Temporary file, in which annotations wait until all images are known.
        options: How to write; polygons follow `options.simplify`, masks are compressed run lengths.
    """

    def __init__(self, stream: BinaryIO, waiting: BinaryIO, options: DraftOptions) -> None:
        self._stream, self._waiting, self._options = stream, waiting, options
        self._images = self._annotations = 0
        self._stream.write(b'{"info":' + write_json({"description": f"{TITLE} {options.origin}".strip()}).encode())
        self._stream.write(b',"licenses":[],"images":[')

    def add(self, draft: Draft) -> None:
        """Write a draft: an annotation for each region as polygon, or for each class as run lengths."""
        self._images += 1
        height, width = draft.size
        entry = {"id": self._images, "file_name": draft.name, "width": width, "height": height}
        _append(self._stream, entry, is_first=self._images == 1)
        for annotation in self._describe(draft):
            self._annotations += 1
            whole = {"id": self._annotations, "image_id": self._images, **annotation}
            _append(self._waiting, whole, is_first=self._annotations == 1)

    def _describe(self, draft: Draft) -> list[dict[str, Any]]:
        if self._options.shapes == "polygons":
            regions = find_outlines(draft.labels, self._options.simplify)
            return [self._of_region(region) for region in regions if self._options.has_shape(region.label)]
        shown = {label for label, _ in label_masks(draft, self._options)}
        return [
            self._annotation(found.label, found.to_coco(draft.size), found.area, found.box)
            for found in find_regions(draft.labels, -1)
            if found.label in shown
        ]

    def _of_region(self, region: Region) -> dict[str, Any]:
        points = join_rings(region)
        x, y = points[:, 0], points[:, 1]
        # The shoelace formula: holes run the other way round, and count negative. Cuts to them cancel.
        area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
        left, top, right, bottom = (int(value) for value in (x.min(), y.min(), x.max(), y.max()))
        return self._annotation(region.label, [points.ravel().tolist()], area, (left, top, right - left, bottom - top))

    def _annotation(self, label: int, segmentation: Any, area: float, box: tuple[int, int, int, int]) -> dict[str, Any]:
        return {
            "category_id": self._options.first_id + self._options.place_of(label),
            "segmentation": segmentation,
            "area": area,
            "bbox": list(box),
            "iscrowd": 0,
        }

    def finish(self) -> None:
        """Write the annotations and the categories."""
        self._stream.write(b'],"annotations":[')
        self._waiting.seek(0)
        shutil.copyfileobj(self._waiting, self._stream)
        categories = [
            {"id": self._options.first_id + number, "name": name, "supercategory": ""}
            for number, (name, _) in enumerate(self._options.tool_labels)
        ]
        self._stream.write(b'],"categories":' + write_json(categories).encode() + b"}")


@contextmanager
def write_coco(path: Path, options: DraftOptions) -> Iterator[CocoWriter]:
    """Write one JSON file for all images.

    Raises:
        OSError: It cannot be written.
    """
    with stream_atomically(path) as stream, tempfile.TemporaryFile() as waiting:
        writer = CocoWriter(stream, waiting, options)
        yield writer
        writer.finish()


def _append(stream: Any, value: Any, *, is_first: bool) -> None:
    stream.write((b"" if is_first else b",") + write_json(value).encode())


def read_coco(path: Path, label: str = "coco") -> ToolExport:
    """Open a COCO file; `label` is the format's name.

    Raises:
        ValueError: The file is damaged, or has invalid entries.
        OSError: It cannot be read.
    """
    instances = open_instances(path, crowds="labels")
    used = {int(number) for number in instances.category}
    names = tuple(name for number, name in instances.categories.items() if number in used)

    def read(item: str, label_set: LabelSet) -> LabelMap:
        return _draw(instances, item, label_set)

    folders = path.parent, path.parent.parent / "images"
    places = ((item, folder / item) for item in instances.file_names for folder in folders)
    images = {item: file for item, file in places if file.is_file()}
    return ToolExport(
        path=path, format=label, items=instances.file_names, label_names=names, read=read, image_files=images
    )


def _draw(instances: CocoInstances, item: str, label_set: LabelSet) -> LabelMap:
    index = instances.find(item)
    labels = blank(label_set, instances.size(index))
    for category, _, region in instances.objects(index):
        name = instances.categories[category]
        labels[region] = find_class(name, label_set, f"{instances.json_file}, image {item},")
    return labels
