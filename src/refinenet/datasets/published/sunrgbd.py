"""SUN RGB-D with 37 classes: 5,285 train and 5,050 val images (its own test split), in the layout of its owners.

It contains images of NYU Depth V2: a network trained on it must not be evaluated on `nyu`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.formats.matlab import hdf5_shape, read_referenced, read_variable, to_ids, translate
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.datasets.published.devkit import not_found, require_folder
from refinenet.io.images import decode
from refinenet.labels import LabelMap

INFO = read_info("sunrgbd")
IMAGE_PLACES = ("SUNRGBD", "")
TOOLBOX_PLACES = ("SUNRGBDtoolbox", "SUNRGBD/SUNRGBDtoolbox", "")
META, LABELS, SPLITS = "Metadata/SUNRGBDMeta.mat", "Metadata/SUNRGBD2Dseg.mat", "traintestSUNRGBD/allsplit.mat"
SEGMENTATIONS = "SUNRGBD2Dseg/seglabel"
VARIABLES = {"train": "alltrain", "val": "alltest"}


class _Scene(NamedTuple):
    position: int
    """Position in SUNRGBDMeta.mat and, equally, in SUNRGBD2Dseg.mat."""
    image: str
    """Path of the image below the folder SUNRGBD."""


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val" below `root` without reading labels.

    Raises:
        FileNotFoundError: The images or the toolbox are missing.
        ValueError: A file of the toolbox is damaged, or its files do not match.
    """
    images = require_folder(root, IMAGE_PLACES, "kv1", "SUN RGB-D's images")
    toolbox = require_folder(root, TOOLBOX_PLACES, META, "SUN RGB-D's toolbox")
    scenes = _read_scenes(toolbox, split)
    return Dataset(
        name="sunrgbd",
        split=split,
        label_set=INFO.label_set,
        items=list(scenes),
        read_image=partial(_read_image, images, scenes),
        read_labels=partial(_read_labels, toolbox / LABELS, scenes),
        locate=partial(_locate, toolbox / LABELS, scenes),
        image_file=partial(_place_image, images, scenes),
        slow_sources=[toolbox / part for part in (META, LABELS, SPLITS)],
    )


def _read_scenes(toolbox: Path, split: str) -> dict[str, _Scene]:
    for part in (LABELS, SPLITS):
        if not (toolbox / part).is_file():
            raise not_found("SUN RGB-D's toolbox", [toolbox / part])
    wanted = _read_directories(toolbox / SPLITS, VARIABLES[split])
    paths = read_variable(toolbox / META, "SUNRGBDMeta").field("rgbpath")
    stored = hdf5_shape(toolbox / LABELS, SEGMENTATIONS)
    if stored != (len(paths), 1):
        raise ValueError(f"{toolbox / LABELS}: labels of shape {stored} do not fit the {len(paths)} scenes of {META}.")
    scenes = {}
    for position, path in enumerate(paths):
        image = _cut(path.text(), toolbox / META)
        # Images are stored as SCENE/image/NAME.jpg.
        scene = str(PurePosixPath(image).parent.parent)
        if scene in wanted:
            scenes[scene] = _Scene(position, image)
    unknown = sorted(wanted - set(scenes))
    if unknown:
        raise ValueError(f"{toolbox / SPLITS} names {len(unknown)} scenes that {META} lacks, such as {unknown[0]}.")
    return scenes


def _read_directories(path: Path, variable: str) -> set[str]:
    return {_cut(cell.text(), path) for cell in read_variable(path, variable).cells()}


def _cut(stored: str, path: Path) -> str:
    """Return the path below SUNRGBD: the stored paths start with folders of the owners' machine."""
    parts = PurePosixPath(stored).parts
    below = parts[parts.index("SUNRGBD") + 1 :] if "SUNRGBD" in parts else ()
    if not below or ".." in below or not stored.isprintable():
        raise ValueError(f"{path} has the path {stored[:200]!r}, which does not lead to a place below SUNRGBD.")
    return "/".join(below)


def _place_image(folder: Path, scenes: Mapping[str, _Scene], item: str) -> Path:
    return folder / scenes[item].image


def _read_image(folder: Path, scenes: Mapping[str, _Scene], item: str) -> npt.NDArray[np.uint8]:
    return decode(_place_image(folder, scenes, item))


def _read_labels(path: Path, scenes: Mapping[str, _Scene], item: str) -> LabelMap:
    name = _locate(path, scenes, item)
    # HDF5 reverses MATLAB's axes, hence the transpose.
    ids = to_ids(read_referenced(path, SEGMENTATIONS, scenes[item].position).T, name)
    # uint8 wraps around: 0, unlabelled, becomes 255.
    return translate(ids, np.arange(len(INFO.label_set) + 1, dtype=np.uint8) - np.uint8(1), name)


def _locate(path: Path, scenes: Mapping[str, _Scene], item: str) -> str:
    return f"{path}, image {scenes[item].position + 1} ({item})"


SUNRGBD = PublishedDataset(info=INFO, open_split=open_split)
