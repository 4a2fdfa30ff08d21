"""NYU Depth V2 with 40 classes: 795 train and 654 val images, from the owners' .mat file or prepared PNG files.

The .mat file also holds depths, as `depths`, whose gaps its owners filled, and as `rawDepths`, in which 0 is missing.
Both were measured by a Kinect and projected onto the colour image. `nyu` reads the first, `nyu:raw` the second; normals
are computed from the same depths (`formats.surface_normals`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, Intrinsics, Target
from refinenet.datasets.file_pairs import open_folders
from refinenet.datasets.formats.matlab import hdf5_names, hdf5_shape, read_hdf5, to_ids, translate
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.datasets.published.depth_targets import add_depth
from refinenet.labels import LabelMap

INFO = read_info("nyu")
FILE = "nyu_depth_v2_labeled.mat"
SAMPLES_FOR_BORDER = 32
CAMERA = Intrinsics(fx=518.857901, fy=519.469611, cx=325.582449, cy=253.736166)
"""The Kinect's colour camera for images of 640x480 pixels. Source: camera_params.m of the owners' toolbox. The toolbox
counts pixels from 1, its calibration and this package from 0; normals differ by 0.1 degrees."""
LARGEST_DEPTH = 10.0
"""Largest depth in the file, in metres. Source: maxDepth in camera_params.m."""
DEPTHS, RAW_DEPTHS = "depths", "rawDepths"
Crop = tuple[slice, slice]


def open_split(root: Path, split: str, *, depths: str = DEPTHS) -> Dataset:
    """Open the split "train" or "val" of NYU Depth V2 in `root`, with the depths of that name in the .mat file.

    Prepared folders `train_images`, `train_labels`, `val_images` and `val_labels`, whose masks hold 0 to 39 and 255,
    are used as they are. Images of the owners' `nyu_depth_v2_labeled.mat` are cropped to 625x468 pixels, removing the
    white border left by the alignment of colour and depth: outer rows and columns that are white in every image. Depths
    are cropped alike, and only the .mat file has them.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: The file is damaged, or images and masks do not match.
    """
    if (root / FILE).is_file() and not (root / f"{split}_images").is_dir():
        return _open_mat(root / FILE, split, depths)
    try:
        return open_folders(
            name="nyu",
            split=split,
            label_set=INFO.label_set,
            images=root / f"{split}_images",
            masks=root / f"{split}_labels",
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {root / FILE} does not exist either.") from error


def add_targets(root: Path, dataset: Dataset, *, depths: str = DEPTHS) -> Dataset:
    """Return a split whose images and masks were written earlier, with depth and normals of the .mat file, if any.

    Raises:
        ValueError: The file is damaged.
    """
    path = root / FILE
    return _add_depths(dataset, _Maps(path, depths, hdf5_shape(path, "images")[0])) if path.is_file() else dataset


def _open_mat(path: Path, split: str, depths: str) -> Dataset:
    images, labels = hdf5_shape(path, "images"), hdf5_shape(path, "labels")
    # HDF5 reverses MATLAB's axes: image, channel, column, row.
    if len(images) != 4 or images[1] != 3 or labels != (images[0], *images[2:]) or 0 in images:
        raise ValueError(
            f"{path}: images of shape {images} and labels of shape {labels} are not (N, 3, W, H) and (N, W, H). It "
            "is not the published file, or it is damaged."
        )
    val_numbers = set(INFO.more["val_numbers"])
    numbers = [number for number in range(1, images[0] + 1) if (number in val_numbers) == (split == "val")]
    maps = _Maps(path, depths, images[0])
    dataset = Dataset(
        name="nyu",
        split=split,
        label_set=INFO.label_set,
        items=[f"{number:06}" for number in numbers],
        read_image=partial(_read_image, path, maps.crop),
        read_labels=partial(_read_labels, path, maps.crop),
        locate=partial(_locate, path),
        slow_sources=[path, path.with_name(f"{split}_images")],
    )
    return _add_depths(dataset, maps)


def _add_depths(dataset: Dataset, maps: _Maps) -> Dataset:
    """Add depth and normals, unless the file lacks them."""
    if maps.variable not in hdf5_names(maps.path):
        return dataset
    return add_depth(dataset, maps.read, largest=LARGEST_DEPTH, read_intrinsics=maps.find_camera)


@dataclass(frozen=True)
class _Maps:
    """Depth maps in a .mat file."""

    path: Path
    variable: str
    """Its name in the file."""
    count: int
    """Number of images in the file."""

    @cached_property
    def crop(self) -> Crop:
        """The part of each image within the white border."""
        return _find_crop(self.path, self.count)

    def read(self, item: str) -> Target:
        """Read depths, `(1, H, W)` float32 metres; NaN where there is no measurement."""
        stored = read_hdf5(self.path, self.variable, int(item) - 1)
        if stored.ndim != 2 or stored.dtype.kind != "f":
            raise ValueError(
                f"{self.path}: {self.variable} holds {stored.dtype} of shape (N, {', '.join(map(str, stored.shape))}), "
                "not floating-point numbers (N, W, H). It is not the published file, or it is damaged."
            )
        depth = stored.T[self.crop].astype(np.float32)
        depth[~((depth > 0) & np.isfinite(depth))] = np.nan
        return depth[np.newaxis]

    def find_camera(self, _item: str) -> Intrinsics:
        """Return the camera of the cropped images."""
        rows, columns = self.crop
        return CAMERA._replace(cx=CAMERA.cx - (columns.start or 0), cy=CAMERA.cy - (rows.start or 0))


def _find_crop(path: Path, count: int) -> Crop:
    chosen = np.unique(np.linspace(0, count - 1, SAMPLES_FOR_BORDER).astype(int))
    inside = np.any([(_read_colours(path, int(index)) < 255).any(axis=2) for index in chosen], axis=0)
    if not inside.any():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _read_colours(path: Path, index: int) -> npt.NDArray[np.uint8]:
    colours = read_hdf5(path, "images", index)
    if colours.dtype != np.uint8:
        raise ValueError(f"{path} has images of {colours.dtype}, not uint8.")
    return np.ascontiguousarray(colours.transpose(2, 1, 0))


def _read_image(path: Path, crop: Crop, item: str) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(_read_colours(path, int(item) - 1)[crop])


def _read_labels(path: Path, crop: Crop, item: str) -> LabelMap:
    ids = to_ids(read_hdf5(path, "labels", int(item) - 1).T[crop], _locate(path, item))
    # uint8 wraps around: 0, unlabelled, becomes 255.
    table = np.array([0, *INFO.more["map_894_to_40"]], np.uint8) - np.uint8(1)
    return translate(ids, table, _locate(path, item))


def _locate(path: Path, item: str) -> str:
    return f"{path}, image {item}"


NYU = PublishedDataset(info=INFO, open_split=open_split, add_targets=add_targets)
NYU_RAW = PublishedDataset(
    info=replace(INFO, title=f"{INFO.title}, depth as measured"),
    open_split=partial(open_split, depths=RAW_DEPTHS),
    add_targets=partial(add_targets, depths=RAW_DEPTHS),
)
