"""PASCAL VOC 2012, SBD (the Semantic Boundaries Dataset) and both together, each with VOC's 21 classes.

No split to train on holds an image of VOC 2012's segmentation val, on which all three are judged: SBD's own train list
does, and a network trained on it would be tested on images it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from refinenet.datasets.dataset import UNLABELLED, Dataset, from_files, place, without_labels
from refinenet.datasets.formats.matlab import read_variable, to_ids
from refinenet.datasets.metadata import DatasetInfo, PublishedDataset, Server, read_info
from refinenet.datasets.published.devkit import check_presence, read_names, require_folder
from refinenet.io.image_files import list_files, read_mask
from refinenet.labels import LabelMap

INFO, SBD_INFO, AUG_INFO = (read_info(name) for name in ("voc", "sbd", "voc_aug"))
VOC_PLACES = ("VOCdevkit/VOC2012", "VOC2012", "")
SBD_PLACES = ("benchmark_RELEASE/dataset", "dataset", "VOCdevkit/VOCaug/dataset", "VOCaug/dataset", "")
VAL_IDS = frozenset(
    f"{year}_{number}" for year, numbers in SBD_INFO.more["voc_2012_val"].items() for number in numbers.split()
)
"""The 1,449 images of VOC 2012's segmentation val."""


def open_voc(root: Path, split: str) -> Dataset:
    """One split, "train", "val", "trainval" or, without labels, "test", of VOC 2012 below `root`.

    Raises:
        FileNotFoundError: a list, an image or a mask is not there.
        ValueError: a list is damaged.
    """
    return _open_segmentation(INFO, "voc", _find_voc(root), split)


def open_sbd(root: Path, split: str) -> Dataset:
    """One split of SBD below `root`.

    Args:
        root: The folder that holds `benchmark_RELEASE`, or a folder on the way to its images.
        split: "train": the list `train_noval.txt` where it is there, else `train.txt`, in both cases without the
            images of VOC 2012's val; "train_noval": that list, which must be there; "val": SBD's own.

    Raises:
        FileNotFoundError: a list, an image or a mask is not there.
        ValueError: a list is damaged.
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
    """One split of VOC 2012 with SBD's annotations.

    Args:
        root: The folder that holds `VOCdevkit` and either `benchmark_RELEASE` or, in `VOC2012`, `SegmentationClassAug`.
        split: "train": VOC's train and then all of SBD that is in neither VOC's train nor its val, 10,582 images;
            where both have masks those of VOC are taken, which are finer. "val": VOC's val.

    Raises:
        FileNotFoundError: a list, an image or a mask is not there.
        ValueError: a list is damaged.
    """
    voc = _find_voc(root)
    if split == "val":
        return _open_segmentation(AUG_INFO, "voc_aug", voc, "val")
    lists = [_list(voc, "train"), _list(voc, "val")]
    own, val = map(read_names, lists)
    known = {*own, *val}
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
    check_presence(voc / "JPEGImages", ".jpg", [*own, *added])
    check_presence(voc / "SegmentationClass", ".png", own)
    check_presence(others, ending, added)
    return from_files(
        name="voc_aug",
        split=split,
        label_set=AUG_INFO.label_set,
        items=[*own, *added],
        image_file=partial(place, voc / "JPEGImages", ".jpg"),
        mask_file=partial(_place_mask, frozenset(own), voc / "SegmentationClass", others, ending),
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


def _place_mask(own: frozenset[str], folder: Path, others: Path, ending: str, item: str) -> Path:
    return folder / f"{item}.png" if item in own else others / f"{item}{ending}"


def _read_labels(path: Path) -> LabelMap:
    return _read_sbd_labels(path) if path.suffix == ".mat" else read_mask(path)


def _read_sbd_labels(path: Path) -> LabelMap:
    segmentations = read_variable(path, "GTcls").field("Segmentation")
    if len(segmentations) != 1:
        raise ValueError(f"{path} has {len(segmentations)} segmentations instead of one. Get it again.")
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
"""It takes the results folder of VOC's development kit with a palette PNG of 0 to 20 for each image.

Of its two competitions comp5 is for systems built or trained on VOC 2012's own training and validation data only, and
comp6 for those with any other data but the test images. Weights from ImageNet, SBD's annotations and COCO are other
data, so that what the recipes of this package train belongs in comp6. Who trained on VOC alone, from random weights,
renames the folder to comp5. Source: the challenge's page, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/.
"""
VOC = PublishedDataset(info=INFO, open_split=open_voc, splits=("train", "val", "trainval"), server=SERVER)
SBD = PublishedDataset(info=SBD_INFO, open_split=open_sbd, splits=("train", "val", "train_noval"))
VOC_AUG = PublishedDataset(info=AUG_INFO, open_split=open_aug)
