"""Depth, normals and other quantities in a dataset folder: finds their files; `targets_file` says what these hold.

Folders beside the images that `targets_file` does not know are found, too, to be named in messages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from refinenet.datasets.dataset import Dataset, Target, spread
from refinenet.datasets.file_pairs import find_by_item, find_stem
from refinenet.datasets.folder.split_files import TARGET_FOLDERS, Layout, SplitFiles, list_folders
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.datasets.folder.targets_file import FILE, list_quantity_folders, read_encodings
from refinenet.io.images.image_files import open_file, walk_names
from refinenet.io.images.stored_values import STORED_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class TargetFolder:
    """The files of one target of a split."""

    encoding: TargetEncoding
    path: Path
    names: Mapping[str, tuple[str, ...]]
    """By stem, the names of the files; more than one is an error."""

    def find(self, item: str, image: Path) -> Path | None:
        """Return the file of an image, or None if there is none.

        Args:
            item: Its name in the dataset.
            image: Its path relative to the folder of images.

        Raises:
            ValueError: There are several.
        """
        found = self.names.get(item) or self.names.get(find_stem(image.as_posix())) or ()
        if len(found) > 1:
            raise ValueError(f"{self.path} holds both {found[0]} and {found[1]}. Keep only one of them.")
        return self.path / found[0] if found else None


def add_targets(dataset: Dataset, layout: Layout, files: SplitFiles) -> Dataset:
    """Return the dataset of a split with the targets in the folders beside its images.

    Files are not opened, and no problem of theirs is reported until a target is read.

    Raises:
        ValueError: The targets.yaml, which the message names, is damaged or has an invalid entry.
        FileNotFoundError: It declares a folder that does not exist.
    """
    specs, readers, located = [], {}, {}
    origins = (layout.root / FILE,)
    for folder in find_target_folders(layout, files).values():
        find = _match(folder, dataset, files.images)
        spec = folder.encoding.spec
        specs.append(spec)
        located[spec.name] = find
        readers[spec.name] = partial(_read_item, folder.encoding, find)
    return replace(
        dataset, target_specs=tuple(specs), target_readers=readers, target_files=located, target_origins=origins
    )


def find_target_folders(layout: Layout, files: SplitFiles) -> dict[str, TargetFolder]:
    """Find the folders of targets of a split, by their names in `TARGET_FOLDERS`, and list their files.

    Raises:
        ValueError, FileNotFoundError: See `add_targets`.
    """
    folders = list_target_folders(layout, files)
    elsewhere = {name for other in layout.splits.values() for name in list_target_folders(layout, other)}
    encodings = read_encodings(layout.root / FILE, folders, elsewhere)
    return {
        name: TargetFolder(encoding=encoding, path=folders[name], names=_list_names(folders[name]))
        for name, encoding in encodings.items()
    }


def list_target_folders(layout: Layout, files: SplitFiles) -> dict[str, Path]:
    """Return the folders of targets of a split: depth/SPLIT beside images/SPLIT, or depth/ beside images/."""
    names = (*TARGET_FOLDERS, *list_quantity_folders(layout.root / FILE))
    return {name: folder for name in names if (folder := _find_folder(layout, files, name)) is not None}


def _find_folder(layout: Layout, files: SplitFiles, name: str) -> Path | None:
    parent, split = files.images.parent, files.images.name
    candidates = (parent.parent / name / split, parent / name / split, parent / name)
    return next((path for path in candidates if path.is_relative_to(layout.root) and path.is_dir()), None)


_COMPARED = 20
"""Number of images, evenly spread, for which files are looked for in other folders."""


def find_unread_folders(layout: Layout, others: Collection[str]) -> list[Path]:
    """Return the folders beside the images that hold measurements, or what looks like some, and are not read.

    Args:
        layout: The folder.
        others: Names of folders that are for something else.
    """
    known = {name.lower() for name in (*TARGET_FOLDERS, *list_quantity_folders(layout.root / FILE), *others)}
    read = {path for files in layout.splits.values() for path in (files.images, files.masks)}
    found: dict[Path, None] = {}
    for files in layout.splits.values():
        inner, names = files.images.name, files.image_names
        places = [(files.images, names), (files.images.parent, [f"{inner}/{name}" for name in names])]
        for images, below in places:
            if images.parent.is_relative_to(layout.root):
                found.update(dict.fromkeys(list_fitting_folders(images, below, known)))
    return [folder for folder in found if not any(path.is_relative_to(folder) for path in read)]


def list_fitting_folders(images: Path, names: Sequence[str], known: Collection[str]) -> list[Path]:
    """Return the folders beside that of images with measurements of most of these, by their names.

    Args:
        images: The folder of images.
        names: Images in it.
        known: Names in lower case of folders that are left out.
    """
    stems = [find_stem(names[index]) for index in spread(len(names), _COMPARED)]
    folders = (folder for name, folder in list_folders(images.parent).items() if name.lower() not in known)
    return [
        folder
        for folder in folders
        if folder != images and stems and 2 * sum(_may_be_measured(folder, stem) for stem in stems) >= len(stems)
    ]


def _may_be_measured(folder: Path, stem: str) -> bool:
    """Return whether a folder holds a file of measurements of an image: not a PNG in colours, which is a picture."""
    path = next((path for suffix in STORED_SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)
    if path is None or path.suffix != ".png":
        return path is not None
    with open_file(path) as stream:
        return stream.read(26)[25:] == b"\0"  # the colour type: grey


def _list_names(folder: Path) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for name in sorted(walk_names(folder, STORED_SUFFIXES)):
        names[find_stem(name)] = (*names.get(find_stem(name), ()), name)
    return names


def _match(folder: TargetFolder, dataset: Dataset, images: Path) -> _Finder:
    found, lacking, twice = {}, [], {}
    for item in dataset.items:
        image = dataset.image_file(item)
        assert image is not None
        try:
            path = folder.find(item, image.relative_to(images))
        except ValueError as error:
            twice[item] = str(error)
            continue
        if path is None:
            lacking.append(item)
        else:
            found[item] = path.relative_to(folder.path).as_posix()
    return _Finder(folder.path, find_by_item(folder.path, found), frozenset(lacking), twice, folder.encoding)


@dataclass(frozen=True)
class _Finder:
    """Maps an item to its file, or to None if it has none and need not have one."""

    path: Path
    find: Callable[[str], Path]
    lacking: frozenset[str]
    twice: Mapping[str, str]
    """Error messages of the items that have several files."""
    encoding: TargetEncoding

    def __call__(self, item: str) -> Path | None:
        if item in self.twice:
            raise ValueError(self.twice[item])
        if item not in self.lacking:
            return self.find(item)
        if self.encoding.is_optional:
            return None
        raise FileNotFoundError(
            f"{self.path} has no file for the image {item}: {item} with one of the suffixes "
            f"{', '.join(STORED_SUFFIXES)} is expected. If images may lack one, state `optional: true` in "
            f"{self.encoding.origin}."
        )


def _read_item(encoding: TargetEncoding, find: Callable[[str], Path | None], item: str) -> Target:
    path = find(item)
    return np.full((len(encoding.missing), 1, 1), np.nan, np.float32) if path is None else encoding.read(path)
