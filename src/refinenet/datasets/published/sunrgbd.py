"""SUN RGB-D with 37 classes: 5,285 train and 5,050 val images (its own test split), in the layout of its owners.

It contains images of NYU Depth V2: a network trained on it must not be evaluated on `nyu`.

Depths are those of SCENE/depth_bfx, which the toolbox uses (fused from several frames where there are any), or else of
SCENE/depth: millimetres in 16 bits, rotated left by three bits; 0 is missing. The toolbox clips them to 8 metres, since
the sensors measure no farther; here, they stay as they are, and an evaluation limits its range. Normals are computed
from them and from SCENE/intrinsics.txt (`formats.surface_normals`). Source: read3dPoints.m of the toolbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, Intrinsics, Target
from refinenet.datasets.formats.matlab import hdf5_shape, read_referenced, read_variable, to_ids, translate
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.datasets.published.depth_targets import add_depth
from refinenet.datasets.published.devkit import find_folder, not_found, require_folder
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import list_files
from refinenet.io.images.stored_values import read_stored
from refinenet.labels import LabelMap

INFO = read_info("sunrgbd")
IMAGE_PLACES = ("SUNRGBD", "")
TOOLBOX_PLACES = ("SUNRGBDtoolbox", "SUNRGBD/SUNRGBDtoolbox", "")
META, LABELS, SPLITS = "Metadata/SUNRGBDMeta.mat", "Metadata/SUNRGBD2Dseg.mat", "traintestSUNRGBD/allsplit.mat"
SEGMENTATIONS = "SUNRGBD2Dseg/seglabel"
VARIABLES = {"train": "alltrain", "val": "alltest"}
DEPTH_FOLDERS = ("depth_bfx", "depth")
LARGEST_DEPTH = 65.535
"""Largest depth that a file can hold, in metres."""


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
    dataset = Dataset(
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
    return add_targets(root, dataset)


def add_targets(root: Path, dataset: Dataset) -> Dataset:
    """Return a split with depth and normals, whose files are looked for when they are read.

    Raises:
        FileNotFoundError: The images are missing.
    """
    folder = require_folder(root, IMAGE_PLACES, "kv1", "SUN RGB-D's images")
    return add_depth(
        dataset,
        partial(_read_depth, folder),
        largest=LARGEST_DEPTH,
        read_intrinsics=partial(_read_intrinsics, folder),
        depth_file=partial(_find_depth, folder),
    )


def _find_depth(folder: Path, item: str) -> Path:
    scene = folder / item
    found = find_folder(scene, DEPTH_FOLDERS, "")
    files = [] if found is None else list(list_files(found, (".png",)))
    if len(files) != 1:
        places = " or ".join(f"{scene / name}" for name in DEPTH_FOLDERS)
        raise FileNotFoundError(
            f"One .png file of depths is expected in {places}, not {len(files)}. Unpack the images."
        )
    return files[0]


def _read_depth(folder: Path, item: str) -> Target:
    path = _find_depth(folder, item)
    stored, _ = read_stored(path)
    if stored.dtype != np.uint16 or stored.shape[2] != 1:
        raise ValueError(
            f"{path} holds {stored.dtype} in {stored.shape[2]} channels: SUN RGB-D has one channel of 16 bits."
        )
    depth = (stored >> 3 | stored << 13).astype(np.float32) / np.float32(1000)
    depth[depth == 0] = np.nan
    return depth.transpose(2, 0, 1)


def _read_intrinsics(folder: Path, item: str) -> Intrinsics:
    """Read the rows of the 3x3 matrix of a camera, which the file has on one line or on three."""
    path = folder / item / "intrinsics.txt"
    try:
        numbers = [float(word) for word in path.read_text("ascii").split()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it should hold the 9 numbers of a camera's matrix ({error}).") from error
    if len(numbers) != 9 or not (numbers[0] > 0 and numbers[4] > 0):
        raise ValueError(f"{path} is damaged: it should hold the 9 numbers of a camera's matrix, not {numbers}.")
    return Intrinsics(fx=numbers[0], fy=numbers[4], cx=numbers[2], cy=numbers[5])


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


SUNRGBD = PublishedDataset(info=INFO, open_split=open_split, add_targets=add_targets)
