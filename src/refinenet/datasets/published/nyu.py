"""NYU Depth V2 with 40 classes: 795 train and 654 val images, from the owners' .mat file or prepared PNG files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.file_pairs import open_folders
from refinenet.datasets.formats.matlab import hdf5_shape, read_hdf5, to_ids, translate
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.labels import LabelMap

INFO = read_info("nyu")
FILE = "nyu_depth_v2_labeled.mat"
SAMPLES_FOR_BORDER = 32
Crop = tuple[slice, slice]


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train" or "val" of NYU Depth V2 in `root`.

    Prepared folders `train_images`, `train_labels`, `val_images` and `val_labels`, whose masks hold 0 to 39 and 255,
    are used as they are. Images of the owners' `nyu_depth_v2_labeled.mat` are cropped to 625x468 pixels, removing the
    white border left by the alignment of colour and depth: outer rows and columns that are white in every image.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: The file is damaged, or images and masks do not match.
    """
    if (root / FILE).is_file() and not (root / f"{split}_images").is_dir():
        return _open_mat(root / FILE, split)
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


def _open_mat(path: Path, split: str) -> Dataset:
    images, labels = hdf5_shape(path, "images"), hdf5_shape(path, "labels")
    # HDF5 reverses MATLAB's axes: image, channel, column, row.
    if len(images) != 4 or images[1] != 3 or labels != (images[0], *images[2:]) or 0 in images:
        raise ValueError(
            f"{path}: images of shape {images} and labels of shape {labels} are not (N, 3, W, H) and (N, W, H). It "
            "is not the published file, or it is damaged."
        )
    val_numbers = set(INFO.more["val_numbers"])
    numbers = [number for number in range(1, images[0] + 1) if (number in val_numbers) == (split == "val")]
    crop = _find_crop(path, images[0])
    return Dataset(
        name="nyu",
        split=split,
        label_set=INFO.label_set,
        items=[f"{number:06}" for number in numbers],
        read_image=partial(_read_image, path, crop),
        read_labels=partial(_read_labels, path, crop),
        locate=partial(_locate, path),
        slow_sources=[path, path.with_name(f"{split}_images")],
    )


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


NYU = PublishedDataset(info=INFO, open_split=open_split)
