"""Bands of the images in a dataset folder: which bands the files hold, and files beside those in images/.

A `bands.yaml` in the root names, for the folder of images and for others beside it, the bands in their files; the files
of an image have the same stem:

    images: [red, green, blue]
    nir: ["nir:0:4095"]        # with the stored values that become 0 and 1, if these files differ from the model's
    lidar: [height, intensity]

Without this file, an image is one file, and its bands are those of the model in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from refinenet.datasets.dataset import BandFiles, Dataset
from refinenet.datasets.file_pairs import by_stem, find_by_item, find_stem
from refinenet.datasets.folder.classes_file import load_yaml
from refinenet.datasets.folder.split_files import Layout, SplitFiles, list_images_below
from refinenet.io.images.band_images import BAND_SUFFIXES
from refinenet.io.images.bands import Band, read_bands
from refinenet.io.images.image_files import walk_names
from refinenet.labels import NO_CLASSES, shorten

FILE = "bands.yaml"


def add_bands(dataset: Dataset, layout: Layout, files: SplitFiles) -> Dataset:
    """Return the dataset of a split with the files of its bands, if a bands.yaml declares them; no image is opened.

    Raises:
        ValueError: The bands.yaml, which the message names, is damaged or has an invalid entry.
        FileNotFoundError: It declares a folder that does not exist.
    """
    path = layout.root / FILE
    if not path.is_file():
        return dataset
    declared = _read_file(path)
    found = []
    for name, bands in declared.items():
        folder = _find_folder(layout, files, name)
        if folder is None:
            raise FileNotFoundError(f"{path} declares {name!r}, but there is no folder {name} beside the images.")
        find = dataset.image_file if folder == files.images else _match(folder, dataset, files)
        found.append(BandFiles(bands=bands, find=find, origin=path))
    return replace(dataset, band_files=tuple(found))


def is_band_folder(root: Path) -> bool:
    """Return whether a folder spreads the bands of its images over several folders."""
    return (root / FILE).is_file()


def open_band_folder(root: Path) -> Dataset:
    """Return the images, without ground truth, of a folder whose bands.yaml spreads their bands over several folders.

    Images are the files in the first of these folders, and its subfolders.

    Raises:
        ValueError: As `add_bands`, or there are no images.
        FileNotFoundError: As `add_bands`.
    """
    first = root / next(iter(_read_file(root / FILE)))
    if not first.is_dir():
        raise FileNotFoundError(f"{root / FILE} declares {first.name!r}, but there is no folder {first}.")
    names, unread = list_images_below(first)
    if not names:
        raise ValueError(f"{first} holds no images (looked for {', '.join(BAND_SUFFIXES)}).")
    files = SplitFiles(images=first, image_names=names, masks=first, mask_names=(), unread=unread)
    items = by_stem(names, "", first)
    dataset = Dataset(
        name=root.name,
        split="all",
        label_set=NO_CLASSES,
        items=list(items),
        read_image=_refuse_reading,
        read_labels=_refuse_reading,
        image_file=find_by_item(first, items),
    )
    layout = Layout(root=root, description="", splits={}, classes_file=None, is_unlabelled=True)
    return add_bands(dataset, layout, files)


def _refuse_reading(item: str) -> NoReturn:
    raise ValueError(f"The bands of {item} are in several files.")


def list_band_folders(layout: Layout) -> tuple[str, ...]:
    """Return the names of the folders that a bands.yaml declares; none without this file, or if it is invalid."""
    path = layout.root / FILE
    try:
        return tuple(_read_file(path)) if path.is_file() else ()
    except ValueError:  # reported where images are opened with their bands
        return ()


def _read_file(path: Path) -> dict[str, tuple[Band, ...]]:
    values = load_yaml(path)
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{path}: it must map folders to lists of bands, such as images: [red, green, blue].")
    declared: dict[str, tuple[Band, ...]] = {}
    for name, bands in values.items():
        listed = bands if isinstance(bands, list) else [bands]
        if not isinstance(name, str) or not all(isinstance(band, str) for band in listed):
            raise ValueError(
                f"{path}: {name!r} must be a list of bands, such as [red, green, blue], not {shorten(bands)}."
            )
        try:
            declared[name] = read_bands(listed)
        except ValueError as error:
            raise ValueError(f"{path}: {name!r}: {error}") from error
    names = [band.name for bands in declared.values() for band in bands]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: each band needs its own name, but the names are {', '.join(names)}.")
    return declared


def _find_folder(layout: Layout, files: SplitFiles, name: str) -> Path | None:
    """Find the folder of images by its name, or NAME/SPLIT beside images/SPLIT, or NAME/ beside images/."""
    parent, split = files.images.parent, files.images.name
    if name in (split, parent.name if split in layout.splits else ""):
        return files.images
    candidates = (parent.parent / name / split, parent / name / split, parent / name)
    return next((path for path in candidates if path.is_relative_to(layout.root) and path.is_dir()), None)


@dataclass(frozen=True)
class _Finder:
    """Maps an item to its file in a folder."""

    folder: Path
    find: Callable[[str], Path]
    lacking: frozenset[str]

    def __call__(self, item: str) -> Path:
        if item in self.lacking:
            raise FileNotFoundError(
                f"{self.folder} has no file for the image {item}, of the same name up to its suffix."
            )
        return self.find(item)


def _match(folder: Path, dataset: Dataset, files: SplitFiles) -> Callable[[str], Path]:
    """Return a picklable function from an item to its file in a folder."""
    try:
        names = by_stem(sorted(walk_names(folder, BAND_SUFFIXES)), "", folder)
    except ValueError as error:
        return partial(_refuse, str(error))
    found = {}
    for item in dataset.items:
        image = dataset.image_file(item)
        assert image is not None
        stem = find_stem(image.relative_to(files.images).as_posix())
        if item in names or stem in names:
            found[item] = names[item if item in names else stem]
    return _Finder(folder, find_by_item(folder, found), frozenset(dataset.items) - found.keys())


def _refuse(message: str, _item: str) -> NoReturn:
    raise ValueError(message)
