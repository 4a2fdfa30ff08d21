"""The files of a dataset, paired as far as possible; files without a partner become findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.file_pairs import (
    ARRAY_SUFFIXES,
    MASK_SUFFIXES,
    find_item,
    find_stem,
    remove_mark,
)
from refinenet.datasets.folder.layouts import Layout, SplitFiles, find_pair
from refinenet.datasets.folder.split_files import SPLIT_FOLDERS
from refinenet.datasets.folder.tool_exports import say_other_splits
from refinenet.io.console import write_command
from refinenet.io.images.image_files import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, walk_names

LOSSY_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in MASK_SUFFIXES)

_REASONS = {
    "sample-kind-unread": "a sample with a file of an unsupported format",
    "file-kind-unread": "a file of an unsupported format",
    "image-without-mask": "an image without a mask",
    "mask-without-image": "a mask without an image",
    "stem-twice": "one of several files with the same name except for the extension",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with its mask."""

    split: str
    item: str
    """The stem of the image, with folders separated by "/"."""
    image: str
    """Path of the image; empty if no file holds it alone."""
    mask: str
    """Path of the mask; empty if labels are not mask files."""
    targets: tuple[tuple[str, str], ...] = ()
    """Outputs with a file of ground truth, and its path; empty if it is missing or ambiguous."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The samples and other files of a dataset."""

    pairs: list[Pair]
    splits: Mapping[str, int]
    """Number of images by split, with or without masks."""
    findings: list[Finding]
    left_out: Mapping[str, str]
    """Files without a partner, with the reason."""


def list_pairs(layout: Layout) -> Listing:
    """Pair the files of a layout, even damaged ones."""
    sides = {split: _Sides(split, files) for split, files in layout.splits.items()}
    pairs = [pair for side in sides.values() for pair in side.pair()]
    _pair_by_case(sides.values(), pairs)
    for side in sides.values():
        side.pair_lossy(pairs)
    root = layout.root
    unread = _find_unread(layout, sides.values())
    alone = {
        **unread,
        "image-without-mask": [path for side in sides.values() for path in side.lone_images()],
        "mask-without-image": [path for side in sides.values() for path in side.lone_masks()],
        "stem-twice": [path for side in sides.values() for path in side.twice()],
    }
    found = {
        **alone,
        "stem-case": [pair.mask for pair in pairs if _differ_in_case(pair, layout.splits[pair.split])],
        "stem-unicode": [pair.mask for pair in pairs if _differ_in_form(pair, layout.splits[pair.split])],
        "listed-missing": [stem for files in layout.splits.values() for stem in files.absent],
    }
    held = {pair.split for pair in pairs}
    found["empty-split"] = [split for split in layout.splits if split not in held]
    resplit = say_resplit(layout)
    return Listing(
        pairs=sorted(pairs, key=lambda pair: (pair.split, pair.item)),
        splits={split: len(files.image_names) for split, files in layout.splits.items()},
        findings=[
            find(kind, [shorten(name, root) for name in sorted(names)], resplit=resplit)
            for kind, names in found.items()
            if names
        ],
        left_out={shorten(path, root): _REASONS[kind] for kind, paths in alone.items() for path in paths},
    )


def _find_unread(layout: Layout, sides: Iterable[_Sides]) -> dict[str, list[str]]:
    """Find images and masks of unsupported formats, and remove their partners from those without one.

    Files with the name of a readable one, such as the layers of an image editor next to it, are not reported.
    """
    found: dict[str, list[str]] = {"sample-kind-unread": [], "file-kind-unread": []}
    groups: dict[tuple[Path, Path], list[_Sides]] = defaultdict(list)
    for side in sides:
        groups[side.files.images, side.files.masks].append(side)
    for (images, masks), group in groups.items():
        if images == masks or layout.annotations or not (images.is_dir() and masks.is_dir()):
            continue
        _sort_unread(group, found)
    return found


def _sort_unread(group: Sequence[_Sides], found: Mapping[str, list[str]]) -> None:
    files = group[0].files
    arrays = {name for side in group for name in side.files.unread}
    foreign = {
        files.images: _by_stem([*walk_names(files.images, FOREIGN_SUFFIXES), *sorted(arrays)], files.image_ending),
        files.masks: _by_stem(walk_names(files.masks, (*FOREIGN_SUFFIXES, *ARRAY_SUFFIXES)), files.mask_ending),
    }
    used = {Path(path) for side in group for path in side.paired}
    known = {find_item(path.relative_to(files.images).as_posix(), files.image_ending) for path in used}
    for folder, other in ((files.images, files.masks), (files.masks, files.images)):
        for stem, names in foreign[folder].items():
            if stem in known:
                continue
            partners = [path for side in group for path in side.take_lone(stem, is_mask=folder == files.images)]
            is_sample = bool(partners) or stem in foreign[other]
            kind = "sample-kind-unread" if is_sample else "file-kind-unread"
            found[kind].extend([*(str(folder / name) for name in names), *partners])


def say_resplit(layout: Layout | None) -> str:
    """Advise how to move samples to other splits; None stands for a published dataset."""
    if layout is None:
        return "The splits were defined by the publisher."
    if layout.annotations and not layout.is_dealt:
        if any(path.is_file() for path in layout.annotations.values()):
            return "Move images with their annotations between the JSON files of the splits manually."
        return "Move files, image and JSON together, between the folders of the splits manually."
    if layout.is_dealt:
        if sum(len(files.image_names) for files in layout.splits.values()) == 1:
            return (
                "The only image is used for val: training needs at least two images, or the folders images/train and "
                "masks/train next to images/val and masks/val."
            )
        if not layout.annotations and _has_pair(layout.root):
            return f"Make new splits with `{write_command(['refinenet', 'data', 'split', str(layout.root)])}`."
        return f"Every fifth sample is used for val. {say_other_splits(layout)}"
    if not layout.annotations and not layout.splits.keys() & {*SPLIT_FOLDERS} and _has_pair(layout.root):
        return (
            "The folders are used as splits. If they are recordings, assign them to splits as a whole with "
            f"`{write_command(['refinenet', 'data', 'split', str(layout.root)])}`."
        )
    lists = [layout.root / f"{name}.txt" for name in SPLIT_FOLDERS]
    if any(path.is_file() for path in lists) or (layout.root / "ImageSets" / "Segmentation").is_dir():
        return "Move lines between the lists of the splits manually."
    return "Move files, image and mask together, between the folders of the splits manually."


def _has_pair(root: Path) -> bool:
    try:
        return find_pair(root) is not None
    except FileNotFoundError:  # several folders may hold masks
        return False


def shorten(path: str, root: Path | None) -> str:
    """Return a path relative to the dataset's folder, if it is inside."""
    if root is None:
        return path
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


class _Sides:
    """The images and masks of a split that have no partner yet, by stem."""

    def __init__(self, split: str, files: SplitFiles) -> None:
        self.split, self.files = split, files
        self.paired: list[str] = []
        """Paths of the images that have a mask."""
        self.images = _by_stem(files.image_names, files.image_ending)
        self.masks = _by_stem(files.mask_names, files.mask_ending)
        doubled = {stem for side in (self.images, self.masks) for stem, names in side.items() if len(names) > 1}
        self._twice = [
            path
            for folder, side in ((files.images, self.images), (files.masks, self.masks))
            for stem in doubled & side.keys()
            for path in _take(folder, side, stem)
        ]

    def pair(self) -> list[Pair]:
        return [self.make(stem, self, stem) for stem in sorted(self.images.keys() & self.masks.keys())]

    def make(self, stem: str, other: _Sides, mask_stem: str) -> Pair:
        """Pair an image with a mask, which may be in another split."""
        image = str(self.files.images / self.images.pop(stem)[0])
        self.paired.append(image)
        return Pair(self.split, stem, image, str(other.files.masks / other.masks.pop(mask_stem)[0]))

    def pair_lossy(self, pairs: list[Pair]) -> None:
        """Pair images with JPEG or WebP masks, which layouts ignore."""
        if not self.images or self.files.masks == self.files.images or not self.files.masks.is_dir():
            return
        found = _by_stem(walk_names(self.files.masks, LOSSY_SUFFIXES), self.files.mask_ending)
        for stem in sorted(self.images.keys() & found.keys()):
            self.masks[stem] = found[stem]
            pairs.append(self.make(stem, self, stem))

    def take_lone(self, stem: str, *, is_mask: bool) -> list[str]:
        """Remove and return the paths of the masks or images of a stem."""
        folder, side = (self.files.masks, self.masks) if is_mask else (self.files.images, self.images)
        return [str(folder / name) for name in side.pop(stem, [])]

    def lone_images(self) -> list[str]:
        return [str(self.files.images / names[0]) for names in self.images.values()]

    def lone_masks(self) -> list[str]:
        return [str(self.files.masks / names[0]) for names in self.masks.values()]

    def twice(self) -> list[str]:
        return self._twice


def _take(folder: Path, side: dict[str, list[str]], stem: str) -> list[str]:
    names = side.pop(stem)
    # only the side with several files has a problem to report
    return [str(folder / name) for name in names] if len(names) > 1 else []


def _by_stem(names: Iterable[str], ending: str) -> dict[str, list[str]]:
    files: dict[str, list[str]] = defaultdict(list)
    for name in names:
        files[find_item(name, ending)].append(name)
    return dict(files)


def _pair_by_case(sides: Iterable[_Sides], pairs: list[Pair]) -> None:
    """Pair files whose names differ only in case; they may be in different splits of one folder."""
    lone: dict[tuple[Path, str], list[tuple[_Sides, str]]] = defaultdict(list)
    for side in sides:
        for stem in side.masks:
            lone[side.files.masks, stem.casefold()].append((side, stem))
    for side in sides:
        for stem in sorted(side.images):
            candidates = lone.pop((side.files.masks, stem.casefold()), [])
            if len(candidates) == 1:
                pairs.append(side.make(stem, *candidates[0]))


def _plain_stems(pair: Pair, files: SplitFiles) -> tuple[str, str]:
    image, mask = (Path(path).name.rpartition(".")[0] for path in (pair.image, pair.mask))
    return remove_mark(image, files.image_ending), remove_mark(mask, files.mask_ending)


def _differ_in_case(pair: Pair, files: SplitFiles) -> bool:
    image, mask = (find_stem(f"{stem}.") for stem in _plain_stems(pair, files))
    return image != mask


def _differ_in_form(pair: Pair, files: SplitFiles) -> bool:
    image, mask = _plain_stems(pair, files)
    return image != mask and find_stem(f"{image}.") == find_stem(f"{mask}.")


def name_pair(pair: Pair) -> str:
    """Return the name of a pair in messages: the path of its mask, or of its image, or its split and item."""
    return pair.mask or pair.image or f"{pair.split}: {pair.item}"
