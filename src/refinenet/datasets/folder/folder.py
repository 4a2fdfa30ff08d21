"""Datasets in folders or described by YAML files: opens the layout that `datasets.folder.layouts` finds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from refinenet.datasets.dataset import Dataset, from_files, no_file, void_labels
from refinenet.datasets.file_pairs import by_stem, find_by_item, pair_names
from refinenet.datasets.folder.band_files import add_bands
from refinenet.datasets.folder.classes_file import MaskEncoding, NoPaletteError
from refinenet.datasets.folder.coco_images import MissingImages, match_images
from refinenet.datasets.folder.encodings import find_encoding
from refinenet.datasets.folder.layouts import Layout, find_layout
from refinenet.datasets.folder.split_files import SplitFiles, name_split
from refinenet.datasets.folder.target_files import add_targets
from refinenet.datasets.formats import coco, labelme
from refinenet.datasets.formats.coco_crowds import CrowdReport
from refinenet.datasets.formats.invalid_labels import InvalidLabels
from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.io.images.band_images import ARRAY_SUFFIX, read_samples
from refinenet.io.images.codec import decode
from refinenet.io.images.image_files import has_suffix, list_files
from refinenet.labels import NO_CLASSES, LabelMap, LabelSet


@dataclass(frozen=True, kw_only=True)
class AnnotationReport:
    """Remarks on the annotation files of a split."""

    path: Path
    """A JSON file, or the folder of several."""
    crowds: CrowdReport | None = None
    """The decision on COCO's crowds."""
    invalid: InvalidLabels | None = None
    """Invalid entries that were left out."""
    missing: MissingImages | None = None
    """Images that a COCO file names and that do not exist; they were left out."""


def open_split(source: Path, split: str) -> Dataset:
    """Open one split of a folder; see `FolderSplits`."""
    return FolderSplits(source)(split)


@dataclass(frozen=True)
class FolderSplits:
    """Maps the name of a split to its dataset. The folder is scanned once, when the first split is opened."""

    source: Path
    """A folder, or a YAML file."""
    leave_out_invalid: bool = False
    """Whether invalid annotations, and missing images of COCO files, are left out instead of being an error."""

    @cached_property
    def layout(self) -> Layout:
        """The layout of the folder."""
        return find_layout(self.source)

    @cached_property
    def encoding(self) -> MaskEncoding:
        """The meaning of the values in masks, or of the labels of shapes."""
        try:
            return find_encoding(self.layout, leave_out_invalid=self.leave_out_invalid)
        except NoPaletteError as error:
            raise ValueError(
                f"{error} Run `refinenet data check {self.source}`: it checks all masks and suggests a classes.yaml."
            ) from error

    def __call__(self, split: str) -> Dataset:
        """Open one split; "valid" and "validation" are read as "val".

        Raises:
            FileNotFoundError: The layout is not recognised, there is no such split, or a list or COCO file names a
                file that does not exist.
            ValueError: The meaning of the masks' values is not given, its file is damaged, or images and masks do not
                match.
            OSError: A file cannot be read.
        """
        dataset, report = self.open_reported(split)
        if report.crowds is not None:
            warnings.warn(report.crowds.text, stacklevel=2)
        return dataset

    def open_reported(self, split: str) -> tuple[Dataset, AnnotationReport]:
        """Open one split, with a report on its annotation files."""
        layout, name = self.layout, self.find_split(split)
        if not layout.annotations:  # of others, missing images are named first
            _refuse_one_image(layout, name)
        dataset, report = self._open(layout, name)
        files = layout.splits[name]
        if files.unread:
            warnings.warn(files.describe_unread(), stacklevel=3)
        return add_bands(add_targets(dataset, layout, files), layout, files), report

    def find_split(self, split: str) -> str:
        """Return the name of a split in the layout; "valid" and "validation" are read as "val".

        Raises:
            FileNotFoundError: The layout is not recognised, or there is no such split.
        """
        layout = self.layout
        name = split if split in layout.splits else name_split(split)
        if name not in layout.splits:
            raise FileNotFoundError(
                f"{self.source} has no split {split!r}: it has {', '.join(sorted(layout.splits))} "
                f"({layout.description})."
            )
        return name

    def _open(self, layout: Layout, name: str) -> tuple[Dataset, AnnotationReport]:
        if layout.is_unlabelled:
            return open_images(layout, name), AnnotationReport(path=layout.root)
        if name not in layout.annotations:
            return _open_masks(layout, name, self.encoding), AnnotationReport(path=layout.root)
        if layout.annotations[name].is_file():
            label_set = self.encoding.label_set if layout.classes_file else None
            return _open_coco(layout, name, label_set, leave_out_invalid=self.leave_out_invalid)
        return _open_labelme(layout, name, self.encoding, leave_out_invalid=self.leave_out_invalid)


def _refuse_one_image(layout: Layout, split: str) -> None:
    if layout.is_dealt and not layout.splits[split].image_names:
        raise ValueError(
            f"{layout.root.resolve().name} has only one image, which is used for validation: training needs two "
            "or more, or the folders images/train and masks/train."
        )


def _open_masks(layout: Layout, split: str, encoding: MaskEncoding) -> Dataset:
    files = layout.splits[split]
    if layout.is_dealt:  # an image may be in one split and its lone mask in the other: check both
        for part in layout.splits.values():
            _pair(part)
    pairs = _pair(files)
    if not pairs:
        raise FileNotFoundError(f"The split {split!r} of {layout.root} has no images in {files.images}.")
    return _of_pairs(layout, split, pairs, encoding.label_set, files.masks, encoding.read)


def open_images(layout: Layout, split: str) -> Dataset:
    """Open a split of a folder without masks, without its targets; nothing in it has a class.

    Raises:
        FileNotFoundError: There are no images.
        ValueError: Two images have the same stem.
    """
    files = layout.splits[split]
    names = by_stem(files.image_names, "", files.images)
    if not names:
        raise FileNotFoundError(f"The split {split!r} of {layout.root} has no images in {files.images}.")
    image_file = find_by_item(files.images, names)
    dataset = from_files(
        name=layout.root.resolve().name,
        split=split,
        label_set=NO_CLASSES,
        items=sorted(names),
        image_file=image_file,
        mask_file=image_file,
    )
    read_labels = partial(void_labels, partial(_read_samples, image_file), NO_CLASSES)
    return replace(dataset, read_labels=read_labels, label_file=no_file)


def _read_samples(image_file: Callable[[str], Path], item: str) -> npt.NDArray[Any]:
    """Read an image for its size; a NumPy file, which has no colours without its bands, as it is stored."""
    path = image_file(item)
    return read_samples(path)[0] if has_suffix(path.name, (ARRAY_SUFFIX,)) else decode(path)


def _pair(files: SplitFiles) -> dict[str, tuple[str, str]]:
    if files.absent:
        more = f" and {len(files.absent) - 5} more" if len(files.absent) > 5 else ""
        raise FileNotFoundError(
            f"The list names {', '.join(files.absent[:5])}{more}: there is neither an image in {files.images} nor a "
            f"mask in {files.masks} of that name."
        )
    folders = files.images, files.masks
    return pair_names(
        files.image_names, files.mask_names, ending=files.mask_ending, image_ending=files.image_ending, folders=folders
    )


def _of_pairs(
    layout: Layout,
    split: str,
    pairs: dict[str, tuple[str, str]],
    label_set: LabelSet,
    masks: Path,
    read_labels: Callable[[Path], LabelMap],
) -> Dataset:
    return from_files(
        name=layout.root.resolve().name,
        split=split,
        label_set=label_set,
        items=list(pairs),
        image_file=find_by_item(layout.splits[split].images, {item: names[0] for item, names in pairs.items()}),
        mask_file=find_by_item(masks, {item: names[1] for item, names in pairs.items()}),
        read_labels=read_labels,
    )


def _open_labelme(
    layout: Layout, split: str, encoding: MaskEncoding, *, leave_out_invalid: bool
) -> tuple[Dataset, AnnotationReport]:
    _refuse_one_image(layout, split)
    folder = layout.annotations[split]
    shapes = [path.name for path in list_files(folder, (".json",))]
    images = [name for files in _parts(layout, split) for name in files.image_names]
    pairs = pair_names(images, shapes, wanted="json file", folders=(folder, folder))
    in_split = set(layout.splits[split].image_names)
    chosen = {item: names for item, names in pairs.items() if names[0] in in_split}
    read_labels = partial(
        labelme.read_labels, encoding.label_set, leave_out_invalid=leave_out_invalid, renames=layout.renames
    )
    invalid = labelme.find_invalid(folder / names[1] for names in chosen.values()) if leave_out_invalid else None
    dataset = _of_pairs(layout, split, chosen, encoding.label_set, folder, read_labels)
    return dataset, AnnotationReport(path=folder, invalid=invalid)


def _parts(layout: Layout, split: str) -> Iterable[SplitFiles]:
    """Return the splits that share a split's folder and annotations."""
    return layout.splits.values() if layout.is_dealt else (layout.splits[split],)


def _open_coco(
    layout: Layout, split: str, label_set: LabelSet | None, *, leave_out_invalid: bool
) -> tuple[Dataset, AnnotationReport]:
    path, files = layout.annotations[split], layout.splits[split]
    instances = coco.open_instances(path, crowds=layout.crowds, leave_out_invalid=leave_out_invalid)
    if layout.renames:
        others = set(layout.annotations.values()) - {path}
        found_there = (coco.open_instances(other, leave_out_invalid=True) for other in others)
        layout.renames.check(name for each in (instances, *found_there) for name in each.categories.values())
        instances = instances.rename(layout.renames)
    if label_set is not None:
        instances = instances.with_classes(label_set, layout.classes_file or CLASSES_FILE)
    found, missing = match_images(path, layout.root, files.images, instances.file_names, _parts(layout, split))
    if missing is not None and not (found and leave_out_invalid):
        raise FileNotFoundError(missing.text)
    _refuse_one_image(layout, split)
    in_split = set(files.image_names)
    chosen = {item: found[item] for item in sorted(found) if found[item] in in_split}
    if not chosen:
        raise FileNotFoundError(f"{path} has no images for the split {split!r}.")
    image_file = find_by_item(files.images, chosen)
    dataset = from_files(
        name=layout.root.resolve().name,
        split=split,
        label_set=instances.label_set_of_all(),
        items=list(chosen),
        image_file=image_file,
        mask_file=image_file,
    )
    locate, label_file = partial(_locate, path), partial(_always, path)
    dataset = replace(dataset, read_labels=instances.read_labels, locate=locate, label_file=label_file)
    report = AnnotationReport(path=path, crowds=instances.crowds, invalid=instances.invalid, missing=missing)
    return dataset, report


def _always(path: Path, _item: str) -> Path:
    """Return the one file of all items."""
    return path


def _locate(path: Path, item: str) -> str:
    return f"{path}, image {item}"
