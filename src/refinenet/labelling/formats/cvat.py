"""CVAT's "Segmentation mask 1.1": a zip archive of painted masks, one colour for each label.

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""

from __future__ import annotations

import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from refinenet.datasets.folder.tool_exports import read_label_map
from refinenet.datasets.formats.lookup import is_background
from refinenet.inference.connected_regions import number_regions
from refinenet.io.files import stream_atomically, write_atomically
from refinenet.io.images.codec import encode
from refinenet.io.images.image_files import IMAGE_SUFFIXES, walk_names
from refinenet.labelling.formats.base import (
    Draft,
    DraftOptions,
    ToolExport,
    as_hex,
    strip_suffix,
    translate,
    write_json,
)
from refinenet.labels import LabelMap, LabelSet, voc_colours

FILE = "cvat_masks.zip"
LABELS_FILE = "cvat_labels.json"
LABEL_MAP = "labelmap.txt"
CLASSES, OBJECTS = "SegmentationClass", "SegmentationObject"
LIST = "ImageSets/Segmentation/default.txt"
MOST_OBJECTS = 255
"""Number of colours for the objects of an image, those of PASCAL VOC."""


class CvatWriter:
    """A writer of the archive, and of the labels to paste into CVAT ("Raw").

    Args:
        folder: Folder of the files.
        options: How to write.
    """

    def __init__(self, folder: Path, options: DraftOptions) -> None:
        self._options = options
        self._stems: list[str] = []
        self._stack = ExitStack()
        stream = self._stack.enter_context(stream_atomically(folder / FILE))
        self._archive = self._stack.enter_context(zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED))
        labels = [{"name": name, "color": as_hex(colour), "attributes": []} for name, colour in options.shown_labels]
        write_atomically(folder / LABELS_FILE, (write_json(labels) + "\n").encode())
        lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        lines += [f"{name}:{','.join(map(str, colour))}::" for name, colour in options.shown_labels]
        self._archive.writestr(LABEL_MAP, "".join(f"{line}\n" for line in lines))

    def add(self, draft: Draft) -> None:
        """Write the masks of a draft: its classes, and its regions as objects, each of which CVAT can relabel."""
        options = self._options
        table = np.zeros((options.label_set.ignore_index + 1, 3), np.uint8)
        for label in np.unique(draft.labels).tolist():
            if options.has_shape(label):
                table[label] = options.tool_labels[options.place_of(label)][1]
        painted = table[draft.labels]
        self._stems.append(draft.stem)
        self._archive.writestr(f"{CLASSES}/{draft.stem}.png", encode(painted, ".png"))
        self._archive.writestr(f"{OBJECTS}/{draft.stem}.png", encode(_paint_objects(draft, options), ".png"))

    def finish(self) -> None:
        """Complete the archive."""
        with self._stack:
            self._archive.writestr(LIST, "".join(f"{stem}\n" for stem in self._stems))


def _paint_objects(draft: Draft, options: DraftOptions) -> np.ndarray:
    """Return `(H, W, 3)` colours: one for each region, or for each class if there are too many regions."""
    shown = np.isin(draft.labels, [label for label in np.unique(draft.labels).tolist() if options.has_shape(label)])
    numbers = number_regions(draft.labels)
    regions = np.unique(numbers[shown])
    if len(regions) > MOST_OBJECTS:
        numbers = draft.labels.astype(np.int64)
        regions = np.unique(numbers[shown])
    places = np.zeros(int(numbers.max()) + 1, np.int64)
    places[regions] = 1 + np.arange(len(regions)) % MOST_OBJECTS
    objects = np.where(shown, places[numbers], 0)
    return np.array(voc_colours(256), np.uint8)[objects]


def read_cvat(root: Path) -> ToolExport:
    """Open an unpacked export of CVAT.

    Raises:
        ValueError: The label map is damaged.
        FileNotFoundError: There are no masks.
        OSError: A file cannot be read.
    """
    encoding = read_label_map(root / LABEL_MAP)
    folder = root / CLASSES
    masks = {strip_suffix(name): folder / name for name in sorted(walk_names(folder, (".png",)))}
    if not masks:
        raise FileNotFoundError(f"{root} has no masks in {CLASSES}/.")
    images = {
        strip_suffix(name): root / "JPEGImages" / name
        for name in (walk_names(root / "JPEGImages", IMAGE_SUFFIXES) if (root / "JPEGImages").is_dir() else ())
    }

    def read(item: str, label_set: LabelSet) -> LabelMap:
        return translate(encoding.read(masks[item]), encoding.label_set, label_set, str(masks[item]))

    return ToolExport(
        path=root,
        format="cvat",
        items=tuple(masks),
        label_names=tuple(name for name in encoding.label_set.names if not is_background(name)),
        read=read,
        image_files={item: path for item, path in images.items() if item in masks},
    )
