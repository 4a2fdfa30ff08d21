"""A folder of one's own: images and masks with the same file names, and what the masks' values mean.

Three layouts are understood:

    images/NAME.jpg            masks/NAME.png              no splits: every fifth image is kept for "val"
    images/SPLIT/NAME.jpg      masks/SPLIT/NAME.png        SPLIT is train, val, or any other name
    SPLIT/images/NAME.jpg      SPLIT/masks/NAME.png

`classes.yaml` beside them names the classes:

    names: [background, road, car]
    colours: [[0, 0, 0], [128, 64, 128], [64, 0, 128]]   # RGB; may be left out where masks hold ids
    masks: ids                                           # or: colours, for masks painted in the colours above
    ignore: [255]                                        # ids (or colours) that have no class; may be left out

Without it, masks must be palette PNG files: the ids are the classes, the palette their colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from refinenet.datasets.dataset import Dataset
from refinenet.datasets.pairs import MASK_SUFFIXES, list_files, open_folders
from refinenet.image_files import read_colour_mask, read_mask, read_palette
from refinenet.labels import Colour, LabelMap, LabelSet, voc_colours

VALIDATION_EVERY = 5
"""Where a folder has no splits, the first of each so many images, by name, is for validation."""

_LAYOUTS = (("{split}/images", "{split}/masks"), ("images/{split}", "masks/{split}"))


@dataclass(frozen=True, kw_only=True)
class MaskCode:
    """How masks encode classes."""

    label_set: LabelSet
    kind: Literal["ids", "colours"]
    ignored_ids: tuple[int, ...] = ()
    """Ids of pixels without a class, besides the label set's ignore index."""
    ignored_colours: tuple[Colour, ...] = ()
    """Colours of pixels without a class."""


def open_split(root: Path, split: str) -> Dataset:
    """One split of a folder.

    Raises:
        FileNotFoundError: there is no such split.
        ValueError: classes.yaml is missing where it is needed or says something that is not allowed, or images and
            masks do not pair.
    """
    images, masks, shared = _find_folders(root, split)
    code = _read_code(root)
    dataset = open_folders(
        name=root.resolve().name,
        split=split,
        label_set=code.label_set,
        images=images,
        masks=masks,
        read_labels=partial(_read_labels, code),
    )
    return _take_share(dataset, split) if shared else dataset


def _find_folders(root: Path, split: str) -> tuple[Path, Path, bool]:
    """The folders of a split's images and masks, and whether they hold the other splits, too."""
    for images, masks in _LAYOUTS:
        found = root / images.format(split=split), root / masks.format(split=split)
        if found[0].is_dir() and found[1].is_dir():
            return *found, False
    images_folder, masks_folder = root / "images", root / "masks"
    is_shared = images_folder.is_dir() and masks_folder.is_dir() and any(p.is_file() for p in images_folder.iterdir())
    if is_shared and split in ("train", "val"):
        return images_folder, masks_folder, True
    inside = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folders"
    raise FileNotFoundError(
        f"{root} has no split {split!r} (it holds {inside}). "
        f"Looked for {split}/images and {split}/masks, and images/{split} and "
        f"masks/{split}; images/ and masks/ without folders in them serve as train and val."
    )


def _take_share(dataset: Dataset, split: str) -> Dataset:
    validation = dataset.items[::VALIDATION_EVERY]
    if split == "val":
        return replace(dataset, items=validation)
    chosen = set(validation)
    training = [item for item in dataset.items if item not in chosen]
    if not training:
        raise ValueError(
            f"{dataset.name} has one image, which is kept for val: training needs two or more, or the folders "
            "images/train and masks/train."
        )
    return replace(dataset, items=training)


def _read_code(root: Path) -> MaskCode:
    path = root / "classes.yaml"
    return read_code_file(path) if path.exists() else _code_from_palettes(root)


def read_code_file(path: Path) -> MaskCode:
    """What a `classes.yaml` says.

    Raises:
        ValueError: it is damaged, or says something that is not allowed.
        OSError: it cannot be read.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
        return _parse_code(values)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _parse_code(values: Any) -> MaskCode:
    allowed = {"names", "colours", "masks", "ignore"}
    if not isinstance(values, Mapping) or "names" not in values or not set(values) <= allowed:
        found = sorted(map(str, values)) if isinstance(values, Mapping) else values
        raise ValueError(f"it needs the key 'names' and may have {sorted(allowed - {'names'})}; it has {found}.")
    names = _as_list(values, "names")
    if "colours" in values:
        colours = tuple(_as_colour(value) for value in _as_list(values, "colours"))
    else:
        colours = voc_colours(len(names))
    label_set = LabelSet(names=tuple(_as_name(name) for name in names), colours=colours)
    kind = values.get("masks", "ids")
    if kind not in ("ids", "colours"):
        raise ValueError(f"'masks' is ids or colours, not {kind!r}.")
    if kind == "colours" and "colours" not in values:
        raise ValueError("masks painted in colours need the key 'colours'.")
    if kind == "colours" and len(set(colours)) < len(colours):
        raise ValueError("masks painted in colours need a different colour for each class.")
    ignored = _as_list(values, "ignore") if "ignore" in values else []
    if kind == "colours":
        ignored_colours = tuple(_as_colour(value) for value in ignored)
        if set(ignored_colours) & set(colours):
            raise ValueError(f"{sorted(set(ignored_colours) & set(colours))[0]} stands under 'colours' and 'ignore'.")
        return MaskCode(label_set=label_set, kind="colours", ignored_colours=ignored_colours)
    if not all(type(value) is int and 0 <= value <= 65_535 for value in ignored):
        raise ValueError(f"'ignore' lists ids, whole numbers from 0 to 65535, not {ignored}.")
    return MaskCode(label_set=label_set, kind="ids", ignored_ids=tuple(ignored))


def _as_list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values[key]
    if not isinstance(value, list):
        raise ValueError(f"{key!r} is a list, not {value!r}.")
    return value


def _as_name(value: Any) -> str:
    # YAML reads no, yes, null and dates as something else than the words they are.
    if type(value) not in (str, int):
        raise ValueError(f"a class name is text, not {value!r}: put it in quotes.")
    return str(value)


def _as_colour(value: Any) -> Colour:
    if not (isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)):
        raise ValueError(f"a colour is [red, green, blue], each from 0 to 255, not {value!r}.")
    return value[0], value[1], value[2]


def _code_from_palettes(root: Path) -> MaskCode:
    """Classes from palette masks: as many as the largest id needs, 255 aside, over all splits."""
    colours: list[Colour] = []
    largest = -1
    for path in _all_masks(root):
        palette = read_palette(path)
        if palette is None:
            raise ValueError(
                f"{root} has no classes.yaml and {path} is no palette PNG, so nothing says what its values mean. Write "
                f"{root / 'classes.yaml'} with, for example, one line: names: [background, road, car]"
            )
        common = min(len(colours), len(palette))
        if palette[:common] != colours[:common]:
            raise ValueError(
                f"{path} has other palette colours than the masks before it, so the same id may be another class "
                f"there. Save all masks with one palette, or name the classes in {root / 'classes.yaml'}."
            )
        colours = max(colours, palette, key=len)
        ids = read_mask(path)
        largest = max(largest, int(ids[ids != 255].max(initial=0)))
    if largest < 0:
        raise FileNotFoundError(f"{root} has no masks in {root / 'masks'}.")
    names = tuple(f"class {k}" for k in range(largest + 1))
    padded = tuple((colours + [(0, 0, 0)] * 256)[: largest + 1])
    return MaskCode(label_set=LabelSet(names=names, colours=padded), kind="ids")


def _all_masks(root: Path) -> Iterable[Path]:
    folders = [
        folder for pattern in ("masks", "masks/*", "*/masks") for folder in root.glob(pattern) if folder.is_dir()
    ]
    return sorted(path for folder in folders for path in list_files(folder, MASK_SUFFIXES))


def _read_labels(code: MaskCode, path: Path) -> LabelMap:
    if code.kind == "colours":
        return _colours_to_ids(code, path)
    labels = read_mask(path)
    if code.label_set.dtype is np.uint16:
        labels = code.label_set.cast(labels)
    labels[np.isin(labels, code.ignored_ids)] = code.label_set.ignore_index
    return labels


def _colours_to_ids(code: MaskCode, path: Path) -> LabelMap:
    pixels = read_colour_mask(path).astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    label_set = code.label_set
    ids = np.full(packed.shape, label_set.ignore_index, np.uint16)
    known = np.zeros(packed.shape, bool)
    table = [*enumerate(label_set.colours), *((label_set.ignore_index, colour) for colour in code.ignored_colours)]
    for identifier, colour in table:
        match = packed == (colour[0] << 16 | colour[1] << 8 | colour[2])
        ids[match] = identifier
        known |= match
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise ValueError(
            f"{path} has the colour {tuple(int(v) for v in pixels[row, column])} at row {row}, column {column} "
            f"({(~known).sum()} pixels in all have unknown colours), which classes.yaml lists neither under 'colours' "
            "nor under 'ignore'."
        )
    return label_set.cast(ids)
