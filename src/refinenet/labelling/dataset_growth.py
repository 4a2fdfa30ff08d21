"""A dataset folder that takes labels: its samples, other files in its folders, and the places and masks of new samples.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.folder import Layout, MaskEncoding, find_encoding, find_layout, find_pair, of_ids, open_split
from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.datasets.split import group_stems, split_stems
from refinenet.io.images.band_images import ARRAY_SUFFIX, BAND_SUFFIXES
from refinenet.io.images.codec import encode
from refinenet.io.images.image_files import IMAGE_SUFFIXES, has_suffix, walk_names
from refinenet.io.images.mask_files import read_palette
from refinenet.labelling.formats.base import strip_suffix
from refinenet.labels import LabelMap, LabelSet

VAL_SHARE = 0.2


@dataclass(frozen=True)
class Member:
    """A sample that the dataset has."""

    split: str
    item: str
    dataset: Dataset

    def read_labels(self) -> LabelMap:
        """Read its `(H, W)` ids."""
        return self.dataset.label_set.cast(self.dataset.read_labels(self.item))


@dataclass(frozen=True, kw_only=True)
class StrayFiles:
    """Files in the folders of a dataset that belong to no sample, such as those of images that no list names."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class GrowingDataset:
    """A folder of images and masks."""

    root: Path
    encoding: MaskEncoding
    layout: Layout | None
    """None for a new folder."""

    @property
    def label_set(self) -> LabelSet:
        """Its classes."""
        return self.encoding.label_set

    @cached_property
    def members(self) -> Mapping[str, Member]:
        """Its samples by their stems, with folders."""
        found: dict[str, Member] = {}
        for split in self.layout.splits if self.layout is not None else ():
            dataset = open_split(self.root, split)
            found |= {item: Member(split, item, dataset) for item in dataset.items}
        return found

    @cached_property
    def keeps_deal(self) -> bool:
        """Whether it has no lists, and is dealt into training and validation images whenever it is opened.

        These stay what they are when it grows: models were trained on the former, and are measured on the latter.
        """
        has_both = {member.split for member in self.members.values()} >= {"train", "val"}
        return self.layout is not None and self.layout.is_dealt and has_both

    def choose_splits(
        self, stems: Sequence[str], group: str | None, val: float, training: Collection[str] = ()
    ) -> dict[str, str]:
        """Choose the splits of new samples: that of their group or, for new groups, one that keeps the share of "val".

        Args:
            stems: Stems of the new samples.
            group: Regular expression whose first group is common to related images, as for `split_folder`.
            val: Share of images for validation.
            training: Those of them that may only be in "train".

        Returns:
            The split of each, without those of `training` whose group is in another one; empty for a folder without
            validation images, for which `plan_lists` splits all.

        Raises:
            ValueError: The regular expression is invalid, or finds nothing in a stem.
        """
        if not self.has_splits:
            return {}
        assert self.layout is not None
        groups = group_stems([*self.members, *stems], group)
        counts = dict.fromkeys(self.layout.splits, 0)
        for member in self.members.values():
            counts[member.split] += 1
        wanted, bound, chosen = set(stems), set(training), dict[str, str]()
        order = sorted(groups, key=lambda key: hashlib.sha256(key.encode()).digest())
        for key in order:
            new = [stem for stem in groups[key] if stem in wanted]
            homes = [self.members[stem].split for stem in groups[key] if stem in self.members]
            if not new:
                continue
            if homes:
                split = max(sorted(set(homes)), key=homes.count)
            elif "train" in counts and not bound.isdisjoint(new):
                split = "train"
            else:
                split = self._balance(counts, len(new), val)
            placed = [stem for stem in new if split == "train" or stem not in bound]
            counts[split] += len(placed)
            chosen |= dict.fromkeys(placed, split)
        return chosen

    @property
    def has_splits(self) -> bool:
        """Whether it has splits that new samples can join."""
        return self.layout is not None and (not self.layout.is_dealt or self.keeps_deal)

    def _balance(self, counts: Mapping[str, int], size: int, val: float) -> str:
        """Return the split for a new group of a size: "val" while it would not exceed its share."""
        total = sum(counts.get(split, 0) for split in ("train", "val")) + size
        fits = "val" in counts and counts["val"] + size <= val * total
        return "val" if fits or "train" not in counts else "train"

    def image_place(self, stem: str, suffix: str, split: str | None) -> Path:
        """Return the path of a new image."""
        if self.layout is None or split is None:
            folder = self.root / "images" if self.layout is None else next(iter(self.layout.splits.values())).images
            return folder / f"{stem}{suffix}"
        files = self.layout.splits[split]
        return files.images / (_with_mark(stem, files.image_ending) + suffix)

    def mask_place(self, stem: str, split: str | None) -> Path:
        """Return the path of a new mask."""
        if self.layout is None:
            return self.root / "masks" / f"{stem}.png"
        files = self.layout.splits[split] if split is not None else next(iter(self.layout.splits.values()))
        return files.masks / f"{_with_mark(stem, files.mask_ending)}.png"

    def encode_mask(self, labels: LabelMap) -> bytes:
        """Return a PNG file in the encoding of the dataset.

        Args:
            labels: `(H, W)` ids.

        Raises:
            ValueError: Some pixels have no class, and masks are painted in colours, none of which means void.
        """
        encoding, label_set = self.encoding, self.label_set
        if encoding.kind == "colours":
            return encode(_paint(labels, encoding), ".png")
        if not encoding.merged and encoding.values == tuple(range(len(label_set))):
            return encode(labels, ".png", palette=self._palette if label_set.dtype is np.uint8 else None)
        table = np.full(label_set.ignore_index + 1, label_set.ignore_index, np.uint16)
        table[: len(label_set)] = encoding.values
        stored = table[labels]
        return encode(stored if stored.max(initial=0) > 255 else stored.astype(np.uint8), ".png")

    @cached_property
    def _palette(self) -> Sequence[tuple[int, int, int]] | None:
        """The palette of the masks that are there, or the classes' colours; None if masks have no palette."""
        member = next(iter(self.members.values()), None)
        path = None if member is None else member.dataset.label_file(member.item)
        return self.label_set.colours if path is None else read_palette(path)

    def find_strays(self, stem: str) -> StrayFiles:
        """Return the files of a name that no sample has."""
        splits = self.layout.splits.values() if self.layout is not None else ()
        images = {(files.images, _with_mark(stem, files.image_ending)) for files in splits}
        masks = {(files.masks, _with_mark(stem, files.mask_ending)) for files in splits}
        return StrayFiles(images=self._list_files(images), masks=self._list_files(masks))

    def _list_files(self, places: Iterable[tuple[Path, str]]) -> tuple[Path, ...]:
        found = (self._files[folder].get(_compose(name), ()) for folder, name in sorted(places))
        return tuple(sorted(path for paths in found for path in paths))

    @cached_property
    def _files(self) -> Mapping[Path, Mapping[str, Sequence[Path]]]:
        """All images and masks in each folder of the layout, by their names without suffix."""
        splits = self.layout.splits.values() if self.layout is not None else ()
        first = next(iter(self.members.values()), None)
        image = None if first is None else first.dataset.image_file(first.item)
        # Beside other images, NumPy files are none, whatever their names.
        is_of_arrays = image is not None and has_suffix(image.name, (ARRAY_SUFFIX,))
        suffixes = BAND_SUFFIXES if is_of_arrays else IMAGE_SUFFIXES
        found: dict[Path, dict[str, list[Path]]] = {}
        for folder in {folder for files in splits for folder in (files.images, files.masks)}:
            by_name = found.setdefault(folder, {})
            for name in walk_names(folder, suffixes):
                by_name.setdefault(_compose(strip_suffix(name)), []).append(folder / name)
        return found

    def list_file(self, split: str) -> Path | None:
        """Return the file that lists a split's samples; None if the splits are folders."""
        names = [split, *(alias for alias, name in _ALIASES.items() if name == split)]
        places = [folder / f"{name}.txt" for folder in (self.root, self.root / _VOC_LISTS) for name in names]
        return next((path for path in places if path.is_file()), None)

    def plan_lists(
        self, stems: Sequence[str], group: str | None, val: float, training: Collection[str] = ()
    ) -> Mapping[str, tuple[str, ...]]:
        """Split all samples of a folder without splits, with new ones, as `refinenet data split` does.

        Args:
            stems: Stems of the new samples.
            group: As for `choose_splits`.
            val: The same.
            training: The same.

        Returns:
            The stems of each split; empty for fewer than two samples.

        Raises:
            ValueError: There are too few groups.
        """
        both = sorted({*self.members, *stems})
        if len(both) < 2:
            return {}
        return split_stems(both, val=val, group=group, training=training, place=str(self.root))


_VOC_LISTS = Path("ImageSets/Segmentation")
_ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def _compose(name: str) -> str:
    """Return a name with its accents composed, as the stems of samples are; macOS stores them decomposed."""
    return unicodedata.normalize("NFC", name)


def _with_mark(stem: str, mark: str) -> str:
    """Add a suffix such as "_mask" or a prefix such as "mask_" to a stem, which may have folders."""
    if not mark or mark[0] in "_-" or mark[-1] not in "_-":
        return stem + mark
    folder, slash, name = stem.rpartition("/")
    return f"{folder}{slash}{mark}{name}"


def _paint(labels: LabelMap, encoding: MaskEncoding) -> np.ndarray:
    label_set = encoding.label_set
    table = np.zeros((label_set.ignore_index + 1, 3), np.uint8)
    table[: len(label_set)] = label_set.colours
    if (labels == label_set.ignore_index).any():
        if not encoding.ignored_colours:
            raise ValueError(
                f"{encoding.origin} has no colour for pixels without a class, but there are some: add one, such as "
                "`ignore: [[255, 255, 255]]`, or label all pixels."
            )
        table[label_set.ignore_index] = encoding.ignored_colours[0]
    return table[labels]


def open_growing(root: Path, label_set: LabelSet) -> GrowingDataset:
    """Open a dataset folder that takes labels, or plan a new one.

    Args:
        root: The folder; it may be missing or empty.
        label_set: Classes of a new one.

    Raises:
        ValueError: Its labels are not mask files.
        FileNotFoundError: Its layout is not recognised.
        OSError: It cannot be read.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        encoding = of_ids(label_set, list(range(len(label_set))), [], str(root / CLASSES_FILE))
        return GrowingDataset(root=root, encoding=encoding, layout=None)
    layout = find_layout(root)
    if layout.annotations or layout.is_unlabelled:
        raise ValueError(
            f"{root} has labels in another form ({layout.description}), but new labels can only be added to folders of "
            f"images and masks. Make such a copy: refinenet data check {root} --fix COPY"
        )
    if layout.is_dealt and find_pair(root) is None:
        raise ValueError(
            f"{root} has no splits and is not a folder of images and masks ({layout.description}). Make such a copy: "
            f"refinenet data check {root} --fix COPY"
        )
    return GrowingDataset(root=root, encoding=find_encoding(layout), layout=layout)
