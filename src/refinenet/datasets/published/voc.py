"""PASCAL VOC 2012, SBD (the Semantic Boundaries Dataset) and both together, each with VOC's 21 classes.

No training split contains images of VOC 2012's segmentation val, on which all three are evaluated. SBD's own train list
does, so a network trained on it would be tested on training images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import UNLABELLED, Dataset, from_files, place, without_labels
from refinenet.datasets.formats.matlab import read_variable, to_ids
from refinenet.datasets.metadata import DatasetInfo, PublishedDataset, Server, read_info
from refinenet.datasets.published.devkit import check_presence, read_names, require_folder
from refinenet.io.images.image_files import list_files
from refinenet.io.images.mask_files import read_mask
from refinenet.labels import LabelMap

INFO, SBD_INFO, AUG_INFO = (read_info(name) for name in ("voc", "sbd", "voc_aug"))
VOC_PLACES = ("VOCdevkit/VOC2012", "VOC2012", "")
SBD_PLACES = ("benchmark_RELEASE/dataset", "dataset", "VOCdevkit/VOCaug/dataset", "VOCaug/dataset", "")
VAL_IDS = frozenset(
    f"{year}_{number}" for year, numbers in SBD_INFO.more["voc_2012_val"].items() for number in numbers.split()
)
"""The 1,449 images of VOC 2012's segmentation val."""


def open_voc(root: Path, split: str) -> Dataset:
    """Open the split "train", "val", "trainval" or, without labels, "test" of VOC 2012 below `root`.

    Raises:
        FileNotFoundError: A list, an image or a mask is missing.
        ValueError: A list is damaged.
    """
    return _open_segmentation(INFO, "voc", _find_voc(root), split)


def open_sbd(root: Path, split: str) -> Dataset:
    """Open one split of SBD below `root`.

    Args:
        root: The folder that contains `benchmark_RELEASE`, or a folder between that and its images.
        split: "train": the list `train_noval.txt` if it exists, or else `train.txt`, in both cases without the images
            of VOC 2012's val; "train_noval": that list, which must exist; "val": SBD's own val.

    Raises:
        FileNotFoundError: A list, an image or a mask is missing.
        ValueError: A list is damaged.
    """
    folder = require_folder(root, SBD_PLACES, "cls", "SBD")
    lists = [folder / "train_noval.txt", root / "train_noval.txt", folder / "train.txt"]
    if split == "val":
        lists = [folder / "val.txt"]
    elif split == "train_noval":
        lists.pop()
    names = read_names(next((path for path in lists if path.is_file()), lists[-1]))
    items = names if split == "val" else _without_val(names)
    check_presence(folder / "img", ".jpg", items)
    check_presence(folder / "cls", ".mat", items)
    return from_files(
        name="sbd",
        split=split,
        label_set=SBD_INFO.label_set,
        items=items,
        image_file=partial(place, folder / "img", ".jpg"),
        mask_file=partial(place, folder / "cls", ".mat"),
        read_labels=_read_sbd_labels,
        slow_sources=[folder / "cls", *lists],
    )


def open_aug(root: Path, split: str) -> Dataset:
    """Open one split of VOC 2012 with SBD's annotations.

    Args:
        root: The folder with `VOCdevkit` and either `benchmark_RELEASE` or, in `VOC2012`, `SegmentationClassAug`.
        split: "train": VOC's train, followed by all images of SBD that are in neither VOC's train nor its val, 10,582
            in total; where both have masks, the finer ones of VOC are used. "val": VOC's val.

    Raises:
        FileNotFoundError: A list, an image or a mask is missing.
        ValueError: A list is damaged.
    """
    voc = _find_voc(root)
    if split == "val":
        return _open_segmentation(AUG_INFO, "voc_aug", voc, "val")
    lists = [_list(voc, "train"), _list(voc, "val")]
    voc_train, val = map(read_names, lists)
    known = {*voc_train, *val}
    others, ending = voc / "SegmentationClassAug", ".png"
    slow_sources: list[Path] = []
    if others.is_dir():
        listing = _list(voc, "trainaug")
        names = (
            read_names(listing) if listing.is_file() else sorted(path.stem for path in list_files(others, (ending,)))
        )
    else:
        sbd = require_folder(root, SBD_PLACES, "cls", "SBD")
        lists += [sbd / "train.txt", sbd / "val.txt"]
        slow_sources = [sbd / "cls", voc / "SegmentationClass", others, *lists]
        others, ending = sbd / "cls", ".mat"
        names = [*read_names(sbd / "train.txt"), *read_names(sbd / "val.txt")]
    added = [name for name in _without_val(dict.fromkeys(names)) if name not in known]
    check_presence(voc / "JPEGImages", ".jpg", [*voc_train, *added])
    check_presence(voc / "SegmentationClass", ".png", voc_train)
    check_presence(others, ending, added)
    return from_files(
        name="voc_aug",
        split=split,
        label_set=AUG_INFO.label_set,
        items=[*voc_train, *added],
        image_file=partial(place, voc / "JPEGImages", ".jpg"),
        mask_file=partial(_place_mask, frozenset(voc_train), voc / "SegmentationClass", others, ending),
        read_labels=_read_labels,
        slow_sources=slow_sources,
    )


def _open_segmentation(info: DatasetInfo, name: str, folder: Path, split: str) -> Dataset:
    items = read_names(_list(folder, split))
    check_presence(folder / "JPEGImages", ".jpg", items)
    image_file = partial(place, folder / "JPEGImages", ".jpg")
    if split == UNLABELLED:
        return without_labels(name=name, split=split, label_set=info.label_set, items=items, image_file=image_file)
    check_presence(folder / "SegmentationClass", ".png", items)
    return from_files(
        name=name,
        split=split,
        label_set=info.label_set,
        items=items,
        image_file=image_file,
        mask_file=partial(place, folder / "SegmentationClass", ".png"),
    )


def _list(folder: Path, split: str) -> Path:
    return folder / "ImageSets" / "Segmentation" / f"{split}.txt"


def _find_voc(root: Path) -> Path:
    return require_folder(root, VOC_PLACES, "ImageSets/Segmentation", "PASCAL VOC 2012")


def _without_val(names: Sequence[str] | Mapping[str, None]) -> list[str]:
    return [name for name in names if name not in VAL_IDS]


def _place_mask(from_voc: frozenset[str], folder: Path, others: Path, ending: str, item: str) -> Path:
    return folder / f"{item}.png" if item in from_voc else others / f"{item}{ending}"


def _read_labels(path: Path) -> LabelMap:
    return _read_sbd_labels(path) if path.suffix == ".mat" else read_mask(path)


def _read_sbd_labels(path: Path) -> LabelMap:
    segmentations = read_variable(path, "GTcls").field("Segmentation")
    if len(segmentations) != 1:
        raise ValueError(f"{path} has {len(segmentations)} segmentations instead of one. Download it again.")
    return to_ids(segmentations[0].numbers(), str(path))


def _place_in_archive(split: str, item: str) -> str:
    return f"results/VOC2012/Segmentation/comp6_{split}_cls/{item}.png"


SERVER = Server(
    **INFO.more["server"],
    archive="tgz",
    place=_place_in_archive,
    values=tuple(range(len(INFO.label_set))),
    palette=INFO.label_set.colours,
)
"""The server takes the results folder of VOC's development kit with a palette PNG of values 0 to 20 for each image.

Of its two competitions, comp5 is for systems built or trained on VOC 2012's own training and validation data only, and
comp6 for those using any other data except the test images. ImageNet weights, SBD's annotations and COCO count as other
data, so models trained with this package's recipes belong in comp6. For a model trained on VOC alone, from random
weights, rename the folder to comp5. Source: the challenge's page, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/.
"""
VOC = PublishedDataset(info=INFO, open_split=open_voc, splits=("train", "val", "trainval"), server=SERVER)
SBD = PublishedDataset(info=SBD_INFO, open_split=open_sbd, splits=("train", "val", "train_noval"))
VOC_AUG = PublishedDataset(info=AUG_INFO, open_split=open_aug)
