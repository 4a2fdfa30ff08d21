"""Cityscapes with fine annotations: 19 classes, 2,975 train and 500 val images of 27 cities.

Masks are `*_gtFine_labelIds.png` with ids 0 to 33, as used by the benchmark's server; `*_labelTrainIds.png`, which its
scripts can write beside them, are not read. The test masks are dummies, so test has images only.

With the packages disparity and camera, there is depth: `baseline * fx / disparity`, where the disparity, in pixels, is
`(p - 1) / 256` for stored values p above 0. 0 is missing, 1 infinitely far, and depths beyond `LARGEST_DEPTH` cannot be
measured: none of them is ground truth.
Source: README of cityscapesScripts.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from refinenet.datasets.dataset import UNLABELLED, Dataset, Target, from_files, place, without_labels
from refinenet.datasets.formats.lookup import make_table, read_with_table
from refinenet.datasets.metadata import PublishedDataset, Server, read_info
from refinenet.datasets.published.depth_targets import add_depth
from refinenet.io.images.stored_values import read_stored

INFO = read_info("cityscapes")
LARGEST_ID = 33
NUMBER_PLATE = 255
"""The id -1 of number plates, stored in 8 bits."""
TABLE = make_table(
    {value: k for k, value in enumerate(INFO.more["value_of_class"])}, void=[*range(LARGEST_ID + 1), NUMBER_PLATE]
)
MEANING = "Masks of Cityscapes hold its label ids, 0 to 33, and 255 for number plates."
IMAGE_ENDING, MASK_ENDING = "_leftImg8bit.png", "_gtFine_labelIds.png"
DISPARITY_ENDING, CAMERA_ENDING = "_disparity.png", "_camera.json"
LARGEST_DEPTH = 1000.0
"""In metres. Beyond it lies less than half a pixel of disparity, which stereo cannot measure: no ground truth."""


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train", "val" or, without labels, "test"; `root` holds leftImg8bit/ and gtFine/.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: Images and masks do not match.
    """
    images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    items = _list_items(images, IMAGE_ENDING)
    image_file = partial(place, images, IMAGE_ENDING)
    if split == UNLABELLED:
        return without_labels(
            name="cityscapes", split=split, label_set=INFO.label_set, items=items, image_file=image_file
        )
    _check_pairs(items, _list_items(masks, MASK_ENDING))
    dataset = from_files(
        name="cityscapes",
        split=split,
        label_set=INFO.label_set,
        items=items,
        image_file=image_file,
        mask_file=partial(place, masks, MASK_ENDING),
        read_labels=partial(read_with_table, TABLE, MEANING),
    )
    disparities, cameras = root / "disparity" / split, root / "camera" / split
    if not (disparities.is_dir() and cameras.is_dir()):
        return dataset
    return add_depth(
        dataset,
        partial(_read_depth, disparities, cameras),
        largest=LARGEST_DEPTH,
        depth_file=partial(place, disparities, DISPARITY_ENDING),
    )


def _read_depth(disparities: Path, cameras: Path, item: str) -> Target:
    path = place(disparities, DISPARITY_ENDING, item)
    stored, _ = read_stored(path)
    if stored.dtype != np.uint16 or stored.shape[2] != 1:
        raise ValueError(
            f"{path} holds {stored.dtype} in {stored.shape[2]} channels: disparities must have one channel of 16 bits."
        )
    baseline, fx = _read_camera(place(cameras, CAMERA_ENDING, item))
    disparity = (stored.transpose(2, 0, 1).astype(np.float32) - 1) / 256
    disparity[disparity <= 0] = np.nan
    depth: Target = np.divide(baseline * fx, disparity, dtype=np.float32)
    depth[depth > LARGEST_DEPTH] = np.nan
    return depth


def _read_camera(path: Path) -> tuple[float, float]:
    """Return the baseline in metres and the focal length in pixels."""
    try:
        camera = json.loads(path.read_bytes())
        baseline, fx = float(camera["extrinsic"]["baseline"]), float(camera["intrinsic"]["fx"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not a camera file of Cityscapes ({error!r}).") from error
    if not (baseline > 0 and fx > 0):
        raise ValueError(f"{path}: the baseline and the focal length must be above 0, not {baseline} and {fx}.")
    return baseline, fx


def _list_items(folder: Path, ending: str) -> list[str]:
    """List items such as "aachen/aachen_000000_000019" in alphabetical order."""
    files = sorted(path for path in folder.glob(f"*/*{ending}") if not path.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"The dataset 'cityscapes' has no files {folder / 'CITY' / ('*' + ending)}.")
    return [f"{path.parent.name}/{path.name.removesuffix(ending)}" for path in files]


def _check_pairs(images: list[str], masks: list[str]) -> None:
    alone = sorted(set(images) ^ set(masks))
    if alone:
        lacking = [f"{item} (no *{IMAGE_ENDING if item in masks else MASK_ENDING})" for item in alone[:5]]
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        raise ValueError(f"Each image of Cityscapes must have a mask. Without a partner: {', '.join(lacking)}{more}.")


def _place_in_archive(_split: str, item: str) -> str:
    return f"{item.rpartition('/')[2]}{IMAGE_ENDING}"


SERVER = Server(
    **INFO.more["server"], archive="zip", place=_place_in_archive, values=tuple(INFO.more["value_of_class"])
)
"""The server takes label ids, not indices of the 19 classes, in one file per image, anywhere in the archive, whose name
starts with city, sequence and frame. Source: cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py."""
CITYSCAPES = PublishedDataset(info=INFO, open_split=open_split, server=SERVER)
