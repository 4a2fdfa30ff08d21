"""Detection of the layout of a dataset folder.

The first layout that fits is used:

    a YAML file, or a classes.yaml, that names the folders:      train: {images: FOLDER, masks: FOLDER}
    images/NAME.jpg  masks/NAME.png  train.txt val.txt           lists of stems
    JPEGImages/NAME.jpg  SegmentationClass/NAME.png              VOC, with the lists in ImageSets/Segmentation, and CVAT
    images/SPLIT/NAME.jpg  masks/SPLIT/NAME.png                  SPLIT is train, val, or any other name
    SPLIT/images/NAME.jpg  SPLIT/masks/NAME.png
    train/NAME.png  trainannot/NAME.png                          as CamVid; also train_masks, train_labels, ...
    images/NAME.jpg  masks/NAME.png                              no splits: every fifth image is used for "val"
    SPLIT/NAME.jpg  SPLIT/NAME_mask.png                          Roboflow
    annotations/instances_SPLIT.json  images/                    COCO, and as Roboflow and CVAT write it
    NAME.jpg  NAME.json                                          LabelMe, also in split folders
    images/NAME.jpg  depth/NAME.png                              no classes: depth, normals or values, also with splits,
                                                                 or folders that a targets.yaml declares

The classes of COCO and LabelMe folders are those named in a classes.yaml (or the YAML file), or else all labels found.
The key `rename` there gives the labels of annotation tools other names.

Masks may also be in `labels`, `annotations`, `gt` and the like, and their stems may have a suffix such as "_mask".
The splits "valid" and "validation" are read as "val". Images may be in subfolders within a split.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

from refinenet.datasets.file_pairs import find_item
from refinenet.datasets.folder.classes_file import (
    KEYS,
    LAYOUT_KEYS,
    OPTION_KEYS,
    hint_at_keys,
    load_yaml,
)
from refinenet.datasets.folder.split_files import (
    SHARED,
    SPLIT_FOLDERS,
    TARGET_FOLDERS,
    Layout,
    SplitFiles,
    deal,
    describe_folder,
    list_folders,
    list_images_below,
    list_split,
    name_splits,
    read_list,
    take,
)
from refinenet.datasets.folder.target_files import list_fitting_folders
from refinenet.datasets.folder.targets_file import FILE, list_quantity_folders
from refinenet.datasets.folder.tool_exports import (
    find_coco,
    find_labelme,
    find_roboflow,
    find_voc,
)
from refinenet.datasets.formats.coco_crowds import Crowds
from refinenet.datasets.formats.renames import Renames, parse_renames
from refinenet.io.images.band_images import BAND_SUFFIXES
from refinenet.io.images.image_files import IMAGE_SUFFIXES, list_files, walk_names

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir")
"""Names of folders of images, case-insensitive."""
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "ann_dir", "annot", "gt", "ground_truth"),
    *("groundtruth", "segmentation", "segmentations", "segmentation_masks"),
)
"""Names of folders of masks, case-insensitive."""

_BESIDE = ("annot", "_annot", "_masks", "_mask", "_labels", "_label", "_annotations", "_gt", "masks", "labels")


def find_pair(parent: Path, labels: str | None = None) -> tuple[Path, Path] | None:
    """Find the folders of images and masks in a folder; `labels` names the folder of masks if it is known.

    Raises:
        FileNotFoundError: Several folders may hold the masks.
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
            f"{parent} holds pictures in {' and in '.join(path.name for path in found)}, so it is unclear which are "
            f"the masks. Select one in classes.yaml, for example `labels: {found[0].name}`, or in a YAML file: "
            "train: {images: FOLDER, masks: FOLDER}"
        )
    return (images, found[0]) if found else None


def find_rivals(images: Path, masks: Path) -> list[Path]:
    """Find sibling folders whose files also match at least half of the images, and differ from the folder of masks."""
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
    """Return whether two folders hold the same files, byte for byte."""
    names = sorted(walk_names(one, IMAGE_SUFFIXES))
    return names == sorted(walk_names(other, IMAGE_SUFFIXES)) and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names
    )


def _holds_pictures(folder: Path) -> bool:
    return any(walk_names(folder, IMAGE_SUFFIXES))


def _holds_images(folder: Path) -> bool:
    return any(walk_names(folder, BAND_SUFFIXES))


def _is_flat(root: Path, labels: str | None) -> bool:
    pair = find_pair(root, labels)
    return pair is not None and any(list_files(pair[0], BAND_SUFFIXES))


def find_lists(root: Path, labels: str | None = None) -> Layout | None:
    """Find images/ and masks/ with lists of stems beside them: train.txt, val.txt, test.txt.

    Raises:
        ValueError: A list is damaged.
    """
    pair = find_pair(root, labels)
    lists = [name for name in SPLIT_FOLDERS if (root / f"{name}.txt").is_file()]
    if pair is None or not lists:
        return None
    files = list_split(*pair)
    splits = {split: take(files, read_list(root / f"{name}.txt")) for split, name in name_splits(lists).items()}
    return _of(root, f"{_describe_pair(pair)} with the lists {', '.join(f'{name}.txt' for name in lists)}", splits)


def find_inner_splits(root: Path, labels: str | None = None) -> Layout | None:
    """Find images/SPLIT and masks/SPLIT, unless images lie beside the folders and no folder is for training."""
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
    """Find SPLIT/images and SPLIT/masks."""
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
    """Find train/ and trainannot/, as in CamVid, or train/ and train_masks/, and the same for other splits."""
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
    """Find images/ and masks/ without splits."""
    pair = find_pair(root, labels)
    if pair is None or not _holds_images(pair[0]):
        return None
    return replace(_of(root, f"{_describe_pair(pair)} {SHARED}", deal(list_split(*pair))), is_dealt=True)


def find_unlabelled(root: Path) -> Layout | None:
    """Find images/ and other ground truth, in any of the layouts of masks, where no folder is for masks."""
    if not {name.lower() for name in list_folders(root)}.isdisjoint(MASK_FOLDERS):
        return None
    finders = (find_lists, find_inner_splits, find_outer_splits, find_shared)
    names = (*TARGET_FOLDERS, *list_quantity_folders(root / FILE))
    found = [next((layout for find in finders if (layout := find(root, name))), None) for name in names]
    layouts = [layout for layout in found if layout is not None]
    if not layouts:
        return None
    layout = max(layouts, key=lambda layout: len(layout.splits))  # a split may lack one of the folders
    splits = {split: _without_masks(files) for split, files in layout.splits.items()}
    return replace(layout, splits=splits, is_unlabelled=True)


def _without_masks(files: SplitFiles) -> SplitFiles:
    return replace(files, masks=files.images, mask_names=(), mask_ending="", image_ending="")


def _describe_pair(pair: tuple[Path, Path]) -> str:
    return f"{pair[0].name}/ and {pair[1].name}/"


def _of(root: Path, description: str, splits: Mapping[str, SplitFiles]) -> Layout:
    return Layout(root=root, description=description, splits=splits, classes_file=None)


__all__ = ["Layout", "SplitFiles", "find_layout", "find_splits"]

YAML_SUFFIXES = (".yaml", ".yml")
_ROBOFLOW_CLASSES = "_classes.csv"
_YAML_CLASSES = ("classes.yaml", "classes.yml")
_CLASSES_FILES = (*_YAML_CLASSES, "labelmap.txt", _ROBOFLOW_CLASSES)
_SPLIT_KEYS = ("train", "val", "test")


def find_layout(source: Path) -> Layout:
    """Find the layout of a folder, or of the folders that a YAML file names, without pairing files or opening images.

    Raises:
        FileNotFoundError: No layout fits; the message lists the supported layouts and the contents of the folder.
        ValueError: A YAML file or a list has an invalid entry.
        OSError: A folder or file cannot be read.
    """
    if source.is_file() and source.suffix.lower() in YAML_SUFFIXES:
        return _follow(source, _read_yaml(source))
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is neither a folder nor a YAML file.")
    classes = next((source / name for name in _YAML_CLASSES if (source / name).is_file()), None)
    values = _load_mapping(classes) if classes is not None else {}
    if classes is not None and not set(LAYOUT_KEYS).isdisjoint(values):
        return _follow(classes, _read_yaml(classes))
    return _find_in(source, _read_options(classes, values) if classes is not None else Options())


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options in a YAML file about a folder whose layout is detected."""

    labels: str | None = None
    """The folder or file below the root that holds the labels, if several fit."""
    crowds: Crowds = "auto"
    """How a COCO file's crowds are read."""
    renames: Renames = field(default_factory=Renames)
    """New names of the labels that an annotation tool wrote."""


def _load_mapping(path: Path) -> Mapping[str, Any]:
    """Read a YAML file; a damaged one counts as empty, and `encodings.find_encoding` reports the damage."""
    try:
        values = load_yaml(path)
    except ValueError:
        return {}
    return values if isinstance(values, Mapping) else {}


def _read_options(path: Path, values: Mapping[str, Any]) -> Options:
    labels, crowds = values.get("labels"), values.get("crowds", "auto")
    if labels is not None and not (isinstance(labels, str) and labels.strip("/ ")):
        raise ValueError(f"{path}: 'labels' must be the folder or file that holds the labels, not {shorten(labels)}.")
    if crowds not in ("auto", "labels", "void"):
        raise ValueError(f"{path}: 'crowds' must be auto, labels or void, not {shorten(crowds)}.")
    return Options(
        labels=labels and labels.strip("/ "), crowds=crowds, renames=parse_renames(values.get("rename", {}), path)
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    values = load_yaml(path)
    allowed = (*KEYS, *OPTION_KEYS, *LAYOUT_KEYS)
    if not isinstance(values, Mapping) or not set(values) <= set(allowed):
        found = shorten(sorted(map(str, values)) if isinstance(values, Mapping) else values)
        raise ValueError(f"{path}: it may have the keys {', '.join(allowed)}; it has {found}.{hint_at_keys(values)}")
    return values


def _follow(path: Path, values: Mapping[str, Any]) -> Layout:
    """Return the layout that a YAML file describes."""
    inner = values.get("path", ".")
    if not isinstance(inner, str):
        raise ValueError(f"{path}: 'path' must be a folder, not {shorten(inner)}.")
    root = path.parent / inner
    if not root.is_dir():
        raise FileNotFoundError(f"{path}: 'path' is {inner}, but there is no folder {root}.")
    has_classes = not set(KEYS).isdisjoint(values)
    options = _read_options(path, values)
    named = [key for key in _SPLIT_KEYS if key in values]
    if named and options.renames:
        raise ValueError(f"{options.renames.origin} has no effect on masks: write the new names into 'names'.")
    if not named:
        layout = _find_in(root, options)
        if has_classes:
            _refuse_renames(layout, path, options.renames)
        return replace(layout, classes_file=path) if has_classes else layout
    return Layout(
        root=root,
        description=f"as described by {path.name}",
        splits={key: list_split(*_read_split(path, root, key, values[key])) for key in named},
        classes_file=path if has_classes else _find_classes_file(root),
    )


def _read_split(path: Path, root: Path, key: str, value: Any) -> tuple[Path, Path]:
    is_sound = isinstance(value, Mapping) and set(value) == {"images", "masks"}
    if not is_sound or not all(isinstance(folder, str) for folder in value.values()):
        raise ValueError(f"{path}: {key!r} must be {{images: FOLDER, masks: FOLDER}}, not {shorten(value)}.")
    for kind, folder in value.items():
        if not (root / folder).is_dir():
            raise FileNotFoundError(f"{path}: {kind!r} of {key!r} is {folder}, but there is no folder {root / folder}.")
    return root / value["images"], root / value["masks"]


def _find_in(root: Path, options: Options) -> Layout:
    finders: tuple[Callable[[Path], Layout | None], ...] = (
        *(partial(find, labels=options.labels) for find in (find_lists,)),
        *((find_voc,) if options.labels is None else ()),
        *(partial(find, labels=options.labels) for find in (find_inner_splits, find_outer_splits)),
        *((find_beside,) if options.labels is None else ()),
        partial(find_shared, labels=options.labels),
        *(find_roboflow, find_coco, find_labelme, find_unlabelled),
    )
    for find in finders:
        layout = find(root)
        if layout is not None:
            if options.labels is None:
                _refuse_rivals(layout)
            names = _YAML_CLASSES if layout.annotations else _CLASSES_FILES
            classes_file = _find_classes_file(root, names)
            _refuse_renames(layout, classes_file, options.renames)
            return replace(layout, classes_file=classes_file, crowds=options.crowds, renames=options.renames)
    raise FileNotFoundError(
        f"{root} has no recognised layout: it holds {describe_folder(root)}.{_say_empty(root)}{_say_undeclared(root)} "
        "Looked for images/ and masks/, with or without folders or lists (train.txt) for splits; SPLIT/images and "
        "SPLIT/masks; train/ and trainannot/; "
        "JPEGImages/ and SegmentationClass/; NAME.jpg and NAME_mask.png; COCO's and LabelMe's json files; and, without "
        "classes, images/ and depth/, normals/ or values/, or folders that a targets.yaml declares. "
        "A YAML file can name the folders with lines such as: train: {images: FOLDER, masks: FOLDER}"
    )


def _refuse_renames(layout: Layout, classes_file: Path | None, renames: Renames) -> None:
    """Reject new names where no annotation tool has named the classes."""
    is_of_tool = layout.annotations or (classes_file is not None and classes_file.suffix not in YAML_SUFFIXES)
    if renames and not is_of_tool:
        raise ValueError(
            f"{renames.origin} is for labels that an annotation tool wrote (COCO, LabelMe, labelmap.txt, "
            f"_classes.csv). Here the masks hold ids or colours: write the new names into 'names'."
        )


def _refuse_rivals(layout: Layout) -> None:
    """Reject several folders of masks that all match the images."""
    for files in layout.splits.values():
        rivals = [] if layout.annotations else find_rivals(*_find_parents(layout.root, files))
        if rivals:
            names = [path.name for path in (_find_parents(layout.root, files)[1], *rivals)]
            raise ValueError(
                f"{layout.root}: the folders {' and '.join(names)} all hold masks that fit the images, and they "
                f"differ. Select one in classes.yaml, for example `labels: {names[0]}`, or move "
                "the others away."
            )


def _find_parents(root: Path, files: SplitFiles) -> tuple[Path, Path]:
    """Return the folders of images and of masks above any folders of splits."""
    if files.images.parent != files.masks.parent and root in files.masks.parent.parents:
        return files.images.parent, files.masks.parent
    return files.images, files.masks


def _say_empty(root: Path) -> str:
    known = (*IMAGE_FOLDERS, *MASK_FOLDERS)
    folders = {name: folder for name, folder in list_folders(root).items() if name.lower() in known}
    empty = [f"{name}/" for name, folder in folders.items() if not any(walk_names(folder, IMAGE_SUFFIXES))]
    return f" No pictures are in {' and '.join(empty)}." if empty else ""


def _say_undeclared(root: Path) -> str:
    """Name the folders that seem to hold quantities of the images, without being declared as such."""
    images = next((folder for name, folder in list_folders(root).items() if name.lower() in IMAGE_FOLDERS), None)
    found = [] if images is None else list_fitting_folders(images, list_images_below(images)[0], MASK_FOLDERS)
    if not found:
        return ""
    names = " and ".join(f"{folder.name}/" for folder in found)
    return (
        f" Files with the names of the images are in {names}: if they hold a quantity for each pixel, name it and its "
        f"unit in a targets.yaml in {root}, for example: {found[0].name}: {{unit: m}}."
    )


def _find_classes_file(root: Path, names: Sequence[str] = _CLASSES_FILES) -> Path | None:
    found = [root / name for name in names]
    found += [folder / _ROBOFLOW_CLASSES for folder in list_folders(root).values() if _ROBOFLOW_CLASSES in names]
    return next((path for path in found if path.is_file() and not _has_options_alone(path)), None)


def _has_options_alone(path: Path) -> bool:
    """Return whether a YAML file has options but no classes."""
    values = _load_mapping(path) if path.suffix in YAML_SUFFIXES else {}
    return bool(values) and set(values) <= set(OPTION_KEYS)


def find_splits(layout: Layout) -> tuple[str, ...]:
    """Return the splits of a layout, train and val first, without those that combine others, such as VOC's trainval."""
    plain = {
        (layout.splits[split].images, name)
        for split in layout.splits.keys() & set(_SPLIT_KEYS)
        for name in layout.splits[split].image_names
    }

    def is_made_of_others(split: str, files: SplitFiles) -> bool:
        images = {(files.images, name) for name in files.image_names}
        return split not in _SPLIT_KEYS and bool(images) and images <= plain

    # For annotations the JSON files, not the folders, decide which images are in a split.
    found = [
        split for split, files in layout.splits.items() if layout.annotations or not is_made_of_others(split, files)
    ]
    return tuple(sorted(found, key=lambda split: (split != "train", split != "val")))
