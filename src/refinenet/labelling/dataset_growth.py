"""A dataset folder that takes labels: its samples, the places of new ones, and copies of replaced files.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.doctor import write_classes
from refinenet.datasets.folder import Layout, MaskEncoding, find_encoding, find_layout, find_pair, of_ids, open_split
from refinenet.datasets.formats.lookup import CLASSES_FILE
from refinenet.datasets.split import group_stems, split_stems, write_lists
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import write
from refinenet.io.images.mask_files import read_palette
from refinenet.labels import LabelMap, LabelSet

LOG_FILE = "labels_taken.jsonl"
"""File in the dataset with a line for each image whose labels were taken."""
BEFORE = ".before"
"""Hidden folder in the dataset with copies of replaced files, in a numbered folder for each time."""
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

    def write_mask(self, path: Path, labels: LabelMap) -> None:
        """Write a mask in the encoding of the dataset.

        Raises:
            ValueError: Some pixels have no class, and masks are painted in colours, none of which means void.
        """
        encoding, label_set = self.encoding, self.label_set
        if encoding.kind == "colours":
            write(path, _paint(labels, encoding))
            return
        if not encoding.merged and encoding.values == tuple(range(len(label_set))):
            write(path, labels, palette=self._palette if label_set.dtype is np.uint8 else None)
            return
        table = np.full(label_set.ignore_index + 1, label_set.ignore_index, np.uint16)
        table[: len(label_set)] = encoding.values
        stored = table[labels]
        write(path, stored if stored.max(initial=0) > 255 else stored.astype(np.uint8))

    @cached_property
    def _palette(self) -> Sequence[tuple[int, int, int]] | None:
        """The palette of the masks that are there, or the classes' colours; None if masks have no palette."""
        member = next(iter(self.members.values()), None)
        path = None if member is None else member.dataset.label_file(member.item)
        return self.label_set.colours if path is None else read_palette(path)

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


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A sample to write into a dataset."""

    stem: str
    split: str | None
    """None if it is not yet known."""
    image: Path | None
    """The image to copy; None if the dataset has it."""
    labels: LabelMap


class Installation:
    """A change of a dataset: files to be replaced are copied first, and each step is done completely or not at all.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: GrowingDataset) -> None:
        self._dataset = dataset
        folder = dataset.root / BEFORE
        numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()] if folder.is_dir() else []
        self.copies = folder / f"{max(numbers, default=0) + 1:04d}"
        """Where the copies of replaced files are."""

    def install(self, sample: Placed) -> None:
        """Write the mask of a sample, and its image if it is new.

        Raises:
            ValueError: The mask cannot be written in the dataset's encoding.
            OSError: A file cannot be written.
        """
        dataset = self._dataset
        member = dataset.members.get(sample.stem)
        if member is None:
            assert sample.image is not None
            write_atomically(
                dataset.image_place(sample.stem, sample.image.suffix, sample.split), sample.image.read_bytes()
            )
            dataset.write_mask(dataset.mask_place(sample.stem, sample.split), sample.labels)
            return
        path = member.dataset.label_file(sample.stem)
        assert path is not None
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path} is not a PNG file. Make a copy with PNG masks: refinenet data check --fix COPY")
        self.keep(path)
        dataset.write_mask(path, sample.labels)

    def keep(self, path: Path) -> None:
        """Copy a file that will be replaced."""
        place = self.copies / path.resolve().relative_to(self._dataset.root.resolve())
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)

    def extend_lists(self, splits: Mapping[str, str]) -> None:
        """Add new samples to the lists of their splits, where there are lists or a deal to be kept."""
        if splits and self._dataset.keeps_deal:
            homes = {stem: member.split for stem, member in self._dataset.members.items()} | dict(splits)
            for split in sorted(set(homes.values())):
                stems = sorted(stem for stem, home in homes.items() if home == split)
                write_atomically(self._dataset.root / f"{split}.txt", "".join(f"{stem}\n" for stem in stems).encode())
            return
        for split in sorted(set(splits.values())):
            path = self._dataset.list_file(split)
            if path is None:
                continue
            self.keep(path)
            text = path.read_text("utf-8-sig")
            listed = {line.strip() for line in text.splitlines()}
            new = sorted(stem for stem, name in splits.items() if name == split and stem not in listed)
            end = "" if text.endswith("\n") or not text else "\n"
            write_atomically(path, f"{text}{end}{''.join(f'{stem}{chr(10)}' for stem in new)}".encode())

    def write_lists(self, splits: Mapping[str, Sequence[str]]) -> None:
        """Write the lists of a folder that has none."""
        write_lists(self._dataset.root, splits)

    def write_classes(self) -> None:
        """Write the classes of a new dataset."""
        write_atomically(self._dataset.root / CLASSES_FILE, write_classes(self._dataset.encoding).encode())

    def log(self, lines: Iterable[Mapping[str, object]]) -> None:
        """Append lines to the log."""
        path = self._dataset.root / LOG_FILE
        before = path.read_bytes() if path.is_file() else b""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(path, before + text.encode())
