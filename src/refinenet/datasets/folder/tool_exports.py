"""Layouts of annotation tools and well-known datasets: VOC and CVAT, Roboflow, COCO, LabelMe."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from refinenet.datasets.file_pairs import find_stem
from refinenet.datasets.folder.classes_file import MaskEncoding, as_colour, of_colours, of_ids
from refinenet.datasets.folder.split_files import (
    SHARED,
    Layout,
    SplitFiles,
    deal,
    list_folders,
    list_images,
    list_mixed,
    list_split,
    name_splits,
    read_list,
    take,
)
from refinenet.datasets.formats.lookup import is_void
from refinenet.io.images.band_images import BAND_SUFFIXES
from refinenet.io.images.image_files import IMAGE_SUFFIXES, list_files
from refinenet.labels import Colour, LabelSet, voc_colours

ROBOFLOW_ENDING = "_mask"
ROBOFLOW_COCO = "_annotations.coco.json"

LABEL_STUDIO_COCO = "result.json"

_ONE_COCO_FILE = ("instances_default.json", "annotations.json", ROBOFLOW_COCO)


def find_voc(root: Path) -> Layout | None:
    """Find JPEGImages/ (or images/), SegmentationClass/ and the lists in ImageSets/Segmentation/ of VOC and CVAT.

    Without a list, and with CVAT's single list `default.txt`, every fifth image is used for validation.

    Raises:
        ValueError: A list is damaged.
    """
    images = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), None)
    masks, lists = root / "SegmentationClass", root / "ImageSets" / "Segmentation"
    if images is None or not masks.is_dir():
        return None
    files = list_split(images, masks)
    found = {path.stem: path for path in sorted(lists.glob("*.txt"))} if lists.is_dir() else {}
    names = f"{images.name}/ and SegmentationClass/"
    if not found:
        return _of(root, f"{names} {SHARED}", deal(files), is_dealt=True)
    if list(found) == ["default"]:
        listed = take(files, read_list(found["default"]))
        return _of(root, f"{names} with ImageSets/Segmentation/default.txt, {SHARED}", deal(listed), is_dealt=True)
    splits = {split: take(files, read_list(found[name])) for split, name in name_splits(found).items()}
    return _of(root, f"{names} with the lists in ImageSets/Segmentation/", splits)


def find_roboflow(root: Path) -> Layout | None:
    """Find Roboflow's folders of images and masks, NAME.jpg and NAME_mask.png, with or without splits."""
    splits, single = _find_folders(root, _is_mixed)
    if splits:
        files = {split: list_mixed(folder, ROBOFLOW_ENDING) for split, folder in splits.items()}
        return _of(root, "SPLIT/NAME.jpg and SPLIT/NAME_mask.png", files)
    if single is not None:
        dealt = deal(list_mixed(single, ROBOFLOW_ENDING))
        return _of(root, f"NAME.jpg and NAME_mask.png in one folder, {SHARED}", dealt, is_dealt=True)
    return None


def _find_folders(root: Path, is_meant: Callable[[Path], bool]) -> tuple[dict[str, Path], Path | None]:
    """Return the folders of splits, or else a single folder: the root, or a subfolder not named like a split."""
    folders = {name: folder for name, folder in list_folders(root).items() if is_meant(folder)}
    splits = {split: folders[name] for split, name in name_splits(folders).items()}
    if "train" not in splits and is_meant(root):
        return {}, root
    if len(splits) == 1 and not splits.keys() & {"train", "val", "test"}:
        return {}, next(iter(splits.values()))
    return splits, None


def _is_mixed(folder: Path) -> bool:
    stems = {find_stem(path.name) for path in list_files(folder, IMAGE_SUFFIXES)}
    return any(stem.endswith(ROBOFLOW_ENDING) and stem.removesuffix(ROBOFLOW_ENDING) in stems for stem in stems)


def find_coco(root: Path) -> Layout | None:
    """Find COCO files: annotations/instances_SPLIT.json, SPLIT/_annotations.coco.json, or one file beside images/."""
    by_folder = {name: folder for name, folder in list_folders(root).items() if (folder / ROBOFLOW_COCO).is_file()}
    if by_folder:
        names = name_splits(by_folder)
        return _of(
            root,
            f"COCO annotations, SPLIT/{ROBOFLOW_COCO}",
            {split: list_images(by_folder[name], below=True) for split, name in names.items()},
            {split: by_folder[name] / ROBOFLOW_COCO for split, name in names.items()},
        )
    by_name = {
        path.stem.removeprefix("instances_"): path
        for folder in (root / "annotations", root)
        for path in sorted(folder.glob("instances_*.json"))
    }
    by_name.pop("default", None)
    if by_name:
        names = name_splits(by_name)
        return _of(
            root,
            "COCO annotations, annotations/instances_SPLIT.json",
            {split: list_images(_find_coco_images(root, name), below=True) for split, name in names.items()},
            {split: by_name[name] for split, name in names.items()},
        )
    return _find_one_coco_file(root)


def _find_one_coco_file(root: Path) -> Layout | None:
    candidates = [folder / name for folder in (root / "annotations", root) for name in _ONE_COCO_FILE]
    if (root / "images").is_dir():  # elsewhere it may be LabelMe's file for an image called "result"
        candidates.append(root / LABEL_STUDIO_COCO)
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return None
    dealt = deal(list_images(_find_coco_images(root, "default"), below=True))
    return _of(root, f"COCO annotations, {path.name}, {SHARED}", dealt, {"train": path, "val": path}, is_dealt=True)


def _find_coco_images(root: Path, name: str) -> Path:
    candidates = (root / "images" / name, root / name, root / "images")
    return next((folder for folder in candidates if folder.is_dir()), root)


def say_other_splits(layout: Layout) -> str:
    """Advise how to choose the splits of a folder in a tool's layout, of which every fifth image is used for "val"."""
    path = next(iter(layout.annotations.values()), layout.root)
    if path.is_file():
        return (
            f"To choose the splits, divide {path.name} into annotations/instances_train.json and "
            "annotations/instances_val.json, each with the entries of its images, which may all lie in images/. "
            "CVAT exports a file for each of the subsets Train and Validation."
        )
    if (layout.root / "SegmentationClass").is_dir():
        return "To choose the splits, write the lists train.txt and val.txt into ImageSets/Segmentation/."
    return "To choose the splits, move the samples into folders train and val."


def find_labelme(root: Path) -> Layout | None:
    """Find images and LabelMe's JSON files with the same stems in one folder, or in a folder for each split."""
    splits, single = _find_folders(root, _has_shapes)
    if splits:
        files = {split: list_images(folder, below=False) for split, folder in splits.items()}
        return _of(root, "LabelMe, SPLIT/NAME.jpg and SPLIT/NAME.json", files, splits)
    if single is not None:
        dealt = deal(list_images(single, below=False))
        annotations = {"train": single, "val": single}
        return _of(root, f"LabelMe, NAME.jpg and NAME.json, {SHARED}", dealt, annotations, is_dealt=True)
    return None


def _has_shapes(folder: Path) -> bool:
    stems = {find_stem(path.name) for path in list_files(folder, BAND_SUFFIXES)}
    return any(find_stem(path.name) in stems for path in list_files(folder, (".json",)))


def _of(
    root: Path,
    description: str,
    splits: Mapping[str, SplitFiles],
    annotations: Mapping[str, Path] | None = None,
    *,
    is_dealt: bool = False,
) -> Layout:
    return Layout(
        root=root,
        description=description,
        splits=splits,
        annotations=annotations or {},
        classes_file=None,
        is_dealt=is_dealt,
    )


def read_label_map(path: Path) -> MaskEncoding:
    """Read CVAT's `labelmap.txt`: lines `label:red,green,blue:parts:actions`, and comments after `#`.

    Masks are painted in these colours. A label that means void (`lookup.is_void`) has no class.

    Source: https://docs.cvat.ai/docs/dataset_management/formats/format-smask

    Raises:
        ValueError: A line is invalid, or a name or colour occurs twice.
        OSError: The file cannot be read.
    """
    colours: dict[str, Colour] = {}
    try:
        for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                name, colour = _parse_label(line, number)
                if name in colours:
                    raise ValueError(f"line {number} names {name!r} twice.")
                colours[name] = colour
        classes = {name: colour for name, colour in colours.items() if not is_void(name)}
        ignored = [colour for name, colour in colours.items() if name not in classes]
        label_set = LabelSet(names=tuple(classes), colours=tuple(classes.values()))
        return of_colours(label_set, ignored, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse_label(line: str, number: int) -> tuple[str, Colour]:
    found = re.fullmatch(r"\s*(.+?)\s*:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(:[^:]*){0,2}", line)
    if found is None:
        raise ValueError(f"line {number} is {line!r}, not label:red,green,blue:: with each from 0 to 255.")
    return found[1], as_colour([int(found[k]) for k in (2, 3, 4)])


def read_roboflow_classes(path: Path) -> MaskEncoding:
    """Read Roboflow's `_classes.csv`: a header `Pixel Value, Class`, then lines such as `0, background`.

    Raises:
        ValueError: A line is invalid, or a name or value occurs twice.
        OSError: The file cannot be read.
    """
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(path.read_text("utf-8-sig").splitlines())]
        rows = [row for row in rows if any(row)]
        if not rows or [cell.lower() for cell in rows[0]] != ["pixel value", "class"]:
            raise ValueError(f"its first line must be 'Pixel Value, Class', but is {rows[0] if rows else 'missing'}.")
        for row in rows[1:]:
            if len(row) != 2 or not row[0].isdecimal():
                raise ValueError(f"a line must be an id and a name, such as '0, background', not {', '.join(row)!r}.")
        names = tuple(name for _, name in rows[1:])
        label_set = LabelSet(names=names, colours=voc_colours(len(names)))
        return of_ids(label_set, [int(value) for value, _ in rows[1:]], [], str(path))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
