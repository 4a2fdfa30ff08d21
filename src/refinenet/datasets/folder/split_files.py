"""Lists of the files in each split of a folder, before any file is paired or read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from refinenet.datasets.file_pairs import MASK_SUFFIXES, find_item, find_stem
from refinenet.datasets.formats.coco_crowds import Crowds
from refinenet.datasets.formats.renames import Renames
from refinenet.io.images.band_images import ARRAY_SUFFIX, BAND_SUFFIXES
from refinenet.io.images.image_files import IMAGE_SUFFIXES, has_suffix, list_files, walk_names

VALIDATION_EVERY = 5
"""In a folder without splits, every n-th image by name is used for validation."""

SHARED = "without splits; every fifth image is used for validation"
"""Part of `Layout.description` for such folders."""

ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg", "_segmentation", "_L", "-mask", "_labelTrainIds", "_labelIds")
"""Suffixes of the stems of masks."""

_BEGINNINGS = ("mask_", "masks_", "label_", "labels_", "gt_", "seg_", "mask-", "label-")
"""Prefixes of the stems of masks."""

_BOTH_ENDINGS = (*("", *ENDINGS), "_gtFine_labelTrainIds", "_gtFine_labelIds")

_IMAGE_MARKS = (
    *("_image", "_img", "_rgb", "_photo", "_sat", "_leftImg8bit", "-image", "-img", "-rgb"),
    *("image_", "img_", "rgb_", "photo_", "im_", "image-", "img-", "rgb-"),
)
"""Affixes of the stems of images, removed before they are compared with those of masks."""

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Names of folders and lists of splits, where nothing else distinguishes them from other folders."""

TARGET_FOLDERS = ("depth", "normals", "values")
"""Names of the folders beside the images that hold ground truth other than classes; see `target_files`."""

_SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


@dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """The files of one split. Names may have folders in front, separated by "/"."""

    images: Path
    """The folder of images."""
    image_names: tuple[str, ...]
    """Images, in alphabetical order."""
    masks: Path
    """The folder of masks, possibly the same as that of images."""
    mask_names: tuple[str, ...]
    """Masks, in alphabetical order; empty if labels are shapes."""
    mask_ending: str = ""
    """Affix of the stems of masks: a suffix such as "_mask" or a prefix such as "mask_"."""
    image_ending: str = ""
    """The same for images, such as "_image" or "img_"."""
    absent: tuple[str, ...] = ()
    """Stems in a list that match neither an image nor a mask."""
    unread: tuple[str, ...] = ()
    """NumPy files in the folder of images that are not images, since there are others; in alphabetical order."""

    def describe_unread(self) -> str:
        """Return a warning about the NumPy files that are not read; empty if there are none."""
        if not self.unread:
            return ""
        more = f" and {len(self.unread) - 3} more" if len(self.unread) > 3 else ""
        return (
            f"{self.images} holds NumPy files that are not read, since it also holds other images: "
            f"{', '.join(self.unread[:3])}{more}. Keep images of one kind in a folder."
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of a folder."""

    root: Path
    description: str
    """The layout in words."""
    splits: Mapping[str, SplitFiles]
    annotations: Mapping[str, Path] = field(default_factory=dict)
    """For each split whose labels are shapes: a COCO JSON file, or the folder of LabelMe's JSON files."""
    classes_file: Path | None
    """A classes.yaml or other YAML file, labelmap.txt, or _classes.csv."""
    is_dealt: bool = False
    """Whether the folder has no splits, so that every fifth image is used for validation."""
    crowds: Crowds = "auto"
    """How a COCO file's crowds are read."""
    renames: Renames = field(default_factory=Renames)
    """New names of the labels that an annotation tool wrote."""
    is_unlabelled: bool = False
    """Whether there are no masks, only folders of other ground truth."""


def list_split(images: Path, masks: Path) -> SplitFiles:
    """List all images and masks in two folders, with the affix that most masks have."""
    image_names, unread = list_images_below(images)
    mask_names = _prefer_lossless(sorted(walk_names(masks, IMAGE_SUFFIXES)))
    image_ending, mask_ending = find_endings(image_names, mask_names)
    return SplitFiles(
        images=images,
        image_names=image_names,
        masks=masks,
        mask_names=mask_names,
        image_ending=image_ending,
        mask_ending=mask_ending,
        unread=unread,
    )


def list_images_below(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the images in a folder and its subfolders, and those of other NumPy files.

    NumPy files are images if there are no others; otherwise, those with the name of an image may be anything.
    """
    return _sort_images(walk_names(folder, BAND_SUFFIXES))


def _sort_images(found: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = sorted(found)
    images = [name for name in names if not has_suffix(name, (ARRAY_SUFFIX,))]
    if len(images) in (0, len(names)):
        return tuple(names), ()
    stems = {find_stem(name) for name in images}
    arrays = (name for name in names if has_suffix(name, (ARRAY_SUFFIX,)))
    return tuple(images), tuple(name for name in arrays if find_stem(name) not in stems)


def list_mixed(folder: Path, ending: str) -> SplitFiles:
    """List images and masks in one folder (not its subfolders), where the stems of masks have a suffix."""
    names = sorted(path.name for path in list_files(folder, IMAGE_SUFFIXES))
    return SplitFiles(
        images=folder,
        image_names=tuple(name for name in names if not find_stem(name).endswith(ending)),
        masks=folder,
        mask_names=_prefer_lossless([name for name in names if find_stem(name).endswith(ending)]),
        mask_ending=ending,
    )


def list_images(folder: Path, *, below: bool) -> SplitFiles:
    """List the images of a folder, with `below` also of its subfolders, whose labels are shapes."""
    found = walk_names(folder, BAND_SUFFIXES) if below else (path.name for path in list_files(folder, BAND_SUFFIXES))
    names, unread = _sort_images(found)
    return SplitFiles(images=folder, image_names=names, masks=folder, mask_names=(), unread=unread)


def _prefer_lossless(names: Sequence[str]) -> tuple[str, ...]:
    """Drop masks in lossy formats that have a lossless twin; the others stay, so that reading them is an error."""
    lossless = {find_stem(name) for name in names if has_suffix(name.rpartition("/")[2], MASK_SUFFIXES)}
    return tuple(
        name for name in names if has_suffix(name.rpartition("/")[2], MASK_SUFFIXES) or find_stem(name) not in lossless
    )


def find_endings(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str]:
    """Return the affixes of images and masks under which most masks find their image; empty if the stems are equal."""
    if not masks:
        return "", ""
    if _count_pairs(images, masks, "", "") == len(masks):
        return "", ""
    counts = {("", mark): _count_pairs(images, masks, "", mark) for mark in ("", *ENDINGS)}
    if 2 * max(counts.values()) < len(masks):
        image_marks = [mark for mark in _IMAGE_MARKS if any(_has(name, mark) for name in images)]
        mask_marks = [mark for mark in (*_BOTH_ENDINGS, *_BEGINNINGS) if any(_has(name, mark) for name in masks)]
        for marks in ((one, other) for one in ("", *image_marks) for other in mask_marks):
            counts.setdefault(marks, _count_pairs(images, masks, *marks))
    return max(counts, key=lambda marks: counts[marks])


def _has(name: str, mark: str) -> bool:
    return not mark or find_item(name, mark) != find_stem(name)


def _count_pairs(images: Sequence[str], masks: Sequence[str], image_mark: str, mask_mark: str) -> int:
    items = {find_item(name, image_mark) for name in images if _has(name, image_mark)}
    return sum(_has(name, mask_mark) and find_item(name, mask_mark) in items for name in masks)


def take(files: SplitFiles, stems: Sequence[str]) -> SplitFiles:
    """Return only the files whose stems are listed."""
    wanted = {find_item(f"{stem}.", files.image_ending) for stem in stems}
    images = tuple(name for name in files.image_names if find_item(name, files.image_ending) in wanted)
    masks = tuple(name for name in files.mask_names if _find_image_stem(files, name) in wanted)
    unread = tuple(name for name in files.unread if find_item(name, files.image_ending) in wanted)
    found = {find_item(name, files.image_ending) for name in images} | {_find_image_stem(files, name) for name in masks}
    absent = tuple(sorted(wanted - found))
    return replace(files, image_names=images, mask_names=masks, absent=absent, unread=unread)


def deal(files: SplitFiles) -> dict[str, SplitFiles]:
    """Assign every fifth stem to "val" and the others to "train"."""
    stems = {find_item(name, files.image_ending) for name in files.image_names}
    stems |= {_find_image_stem(files, name) for name in files.mask_names}
    ordered = sorted(stems)
    validation = ordered[::VALIDATION_EVERY]
    chosen = set(validation)
    training = take(files, [stem for stem in ordered if stem not in chosen])
    return {"train": replace(training, absent=files.absent, unread=files.unread), "val": take(files, validation)}


def _find_image_stem(files: SplitFiles, mask_name: str) -> str:
    return find_item(mask_name, files.mask_ending)


def describe_folder(folder: Path) -> str:
    """Describe the contents of a folder for messages: its subfolders, and the number of files per suffix."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [f"{path.name}/" for path in paths if path.is_dir()]
    endings = Counter(path.suffix.lower() or "other" for path in paths if path.is_file())
    files = [f"{count} {ending} file{'s' if count > 1 else ''}" for ending, count in endings.most_common(4)]
    more = [f"{len(folders) - 12} more folders"] if len(folders) > 12 else []
    return ", ".join([*folders[:12], *more, *files]) or "nothing"


def list_folders(parent: Path) -> dict[str, Path]:
    """Return the subfolders by name, without hidden ones, in alphabetical order."""
    with os.scandir(parent) as entries:  # many times faster than a stat call for each path
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return {name: parent / name for name in names}


def name_splits(folders: Iterable[str]) -> dict[str, str]:
    """Map the names of splits to their folders: "valid" becomes "val", "train2017" becomes "train"."""
    names: dict[str, list[str]] = {}
    for folder in folders:
        names.setdefault(name_split(folder), []).append(folder)
    return {split if len(found) == 1 else folder: folder for split, found in names.items() for folder in found}


def name_split(folder: str) -> str:
    """Return the split's name for a folder: "val" for "Validation", "train" for "train2017"."""
    plain = folder.lower()
    for known in ("train", "val", "test"):
        if plain.startswith(known) and plain.removeprefix(known).isdecimal():
            return known
    known = _SPLIT_NAMES.get(plain, plain)
    return known if known in ("train", "val", "test") else folder


def read_list(path: Path) -> list[str]:
    """Read the stems in a list file, one per line, without suffixes of images.

    Raises:
        ValueError: The file is not UTF-8.
        OSError: The file cannot be read.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    return [find_stem(line) if line.lower().endswith(BAND_SUFFIXES) else line for line in lines if line]
