"""Layouts of images and masks in folders that say so by their names."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from refinenet.datasets.file_pairs import find_item
from refinenet.datasets.folder.split_files import (
    SHARED,
    SPLIT_FOLDERS,
    Layout,
    SplitFiles,
    deal,
    list_folders,
    list_split,
    name_splits,
    read_list,
    take,
)
from refinenet.io.image_files import IMAGE_SUFFIXES, list_files, walk_names

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir")
"""What a folder of images may be called, in any capitals."""
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "ann_dir", "annot", "gt", "ground_truth"),
    *("groundtruth", "segmentation", "segmentations", "segmentation_masks"),
)
"""What a folder of masks may be called, in any capitals."""

_BESIDE = ("annot", "_annot", "_masks", "_mask", "_labels", "_label", "_annotations", "_gt", "masks", "labels")


def find_pair(parent: Path, labels: str | None = None) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder; `labels` names that of masks where it is known.

    Raises:
        FileNotFoundError: there are several that masks may be in.
    """
    folders = {name.lower(): path for name, path in list_folders(parent).items()}
    images = next((folders[name] for name in IMAGE_FOLDERS if name in folders), None)
    if images is None:
        return None
    if labels is not None:
        return (images, folders[labels.lower()]) if labels.lower() in folders else None
    if "masks" in folders:
        return images, folders["masks"]
    found = [folders[name] for name in MASK_FOLDERS if name in folders and _holds_pictures(folders[name])]
    if len(found) > 1:
        raise FileNotFoundError(
            f"{parent} holds pictures in {' and in '.join(path.name for path in found)}: which are the masks? "
            f"Name one of them in classes.yaml, for example `labels: {found[0].name}`, or in a YAML file: "
            "train: {images: FOLDER, masks: FOLDER}"
        )
    return (images, found[0]) if found else None


def find_rivals(images: Path, masks: Path) -> list[Path]:
    """Other folders beside a folder of masks whose files fit at least half of the images, too, and differ from it."""
    if images.parent != masks.parent:
        return []
    folders = {name.lower(): path for name, path in list_folders(masks.parent).items()}
    others = [folders[name] for name in MASK_FOLDERS if name in folders and folders[name] != masks]
    return [other for other in others if _fits(images, other) and not _are_equal(masks, other)]


def _fits(images: Path, masks: Path) -> bool:
    files = list_split(images, masks)
    stems = {find_item(name, files.image_ending) for name in files.image_names}
    found = stems & {find_item(name, files.mask_ending) for name in files.mask_names}
    return bool(found) and 2 * len(found) >= len(stems)


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, byte by byte."""
    names = sorted(walk_names(one, IMAGE_SUFFIXES))
    return names == sorted(walk_names(other, IMAGE_SUFFIXES)) and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names
    )


def _holds_pictures(folder: Path) -> bool:
    return any(walk_names(folder, IMAGE_SUFFIXES))


def _is_flat(root: Path, labels: str | None) -> bool:
    pair = find_pair(root, labels)
    return pair is not None and any(list_files(pair[0], IMAGE_SUFFIXES))


def find_lists(root: Path, labels: str | None = None) -> Layout | None:
    """images/ and masks/ with lists of stems beside them: train.txt, val.txt, test.txt.

    Raises:
        ValueError: a list is damaged.
    """
    pair = find_pair(root, labels)
    lists = [name for name in SPLIT_FOLDERS if (root / f"{name}.txt").is_file()]
    if pair is None or not lists:
        return None
    files = list_split(*pair)
    splits = {split: take(files, read_list(root / f"{name}.txt")) for split, name in name_splits(lists).items()}
    return _of(root, f"{_say(pair)} with the lists {', '.join(f'{name}.txt' for name in lists)}", splits)


def find_inner_splits(root: Path, labels: str | None = None) -> Layout | None:
    """images/SPLIT and masks/SPLIT, but not where images lie beside the folders and none is for train."""
    pair = find_pair(root, labels)
    if pair is None:
        return None
    images, masks = (list_folders(folder) for folder in pair)
    names = name_splits(images.keys() & masks.keys())
    if not names or ("train" not in names and _is_flat(root, labels)):
        return None
    splits = {split: list_split(images[name], masks[name]) for split, name in names.items()}
    return _of(root, f"{pair[0].name}/SPLIT and {pair[1].name}/SPLIT", splits)


def find_outer_splits(root: Path, labels: str | None = None) -> Layout | None:
    """SPLIT/images and SPLIT/masks."""
    pairs = {
        name: pair for name, folder in list_folders(root).items() if (pair := find_pair(folder, labels)) is not None
    }
    names = name_splits(pairs)
    if not names or ("train" not in names and _is_flat(root, labels)):
        return None
    images, masks = pairs[next(iter(names.values()))]
    splits = {split: list_split(*pairs[name]) for split, name in names.items()}
    return _of(root, f"SPLIT/{images.name} and SPLIT/{masks.name}", splits)


def find_beside(root: Path) -> Layout | None:
    """train/ and trainannot/, as CamVid has them, or train/ and train_masks/, and so on for other splits."""
    folders = {name.lower(): path for name, path in list_folders(root).items()}
    pairs: dict[str, tuple[Path, Path]] = {}
    for name in SPLIT_FOLDERS:
        images = [folders[key] for key in (name, f"{name}_images", f"{name}_imgs") if key in folders]
        masks = [folders[name + ending] for ending in _BESIDE if name + ending in folders]
        if images and masks:
            pairs[name] = images[0], masks[0]
    if not pairs:
        return None
    images_folder, masks_folder = next(iter(pairs.values()))
    splits = {split: list_split(*pairs[name]) for split, name in name_splits(pairs).items()}
    return _of(root, f"{images_folder.name}/ and {masks_folder.name}/, and so on", splits)


def find_shared(root: Path, labels: str | None = None) -> Layout | None:
    """images/ and masks/ without splits."""
    pair = find_pair(root, labels)
    if pair is None or not _holds_pictures(pair[0]):
        return None
    return replace(_of(root, f"{_say(pair)} {SHARED}", deal(list_split(*pair))), is_dealt=True)


def _say(pair: tuple[Path, Path]) -> str:
    return f"{pair[0].name}/ and {pair[1].name}/"


def _of(root: Path, description: str, splits: Mapping[str, SplitFiles]) -> Layout:
    return Layout(root=root, description=description, splits=splits, classes_file=None)
