"""All labelled images of a dataset, from every split, and the groups of related images among them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from refinenet.datasets import (
    PUBLISHED,
    Dataset,
    DatasetSource,
    group_stems,
    is_drawn,
    is_unlabelled,
    join,
    open_dataset,
    split_names,
)


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The images of several splits, in one order."""

    parts: tuple[Dataset, ...]
    """A dataset for each split."""
    has_fixed_splits: bool = False
    """Whether it is a published or a drawn dataset, whose name tells which images are in a split; folders of one name
    may hold any images."""

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.parts[0].name

    @cached_property
    def names(self) -> list[str]:
        """Name of each image: its split, "/", and its name in it."""
        return [f"{part.split}/{item}" for part in self.parts for item in part.items]

    @cached_property
    def all(self) -> Dataset:
        """All images as one dataset, in the same order."""
        return self.parts[0] if len(self.parts) == 1 else join(self.parts)

    def take(self, indices: Iterable[int]) -> Dataset:
        """Return some of the images as a dataset."""
        items = self.all.items
        return replace(self.all, items=[items[index] for index in indices])

    def groups(self, expression: str | None = None) -> list[list[int]]:
        """Return the images in groups of related ones, such as the frames of a video; see `datasets.group_stems`.

        Raises:
            ValueError: The regular expression is not valid.
        """
        # Without the split: frames of one video may be in several, and belong together all the same.
        items = [item for part in self.parts for item in part.items]
        found = group_stems(sorted(set(items)), expression)
        key = {item: name for name, members in found.items() for item in members}
        groups: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault(key[item], []).append(index)
        return list(groups.values())


def open_labelled(
    dataset: DatasetSource, root: str | os.PathLike[str] | None = None, splits: Sequence[str] = ()
) -> LabelledImages:
    """Open the labelled images of a dataset.

    Args:
        dataset: As for `datasets.open_dataset`.
        root: Folder of a named dataset.
        splits: Names of the splits; by default all that have labels.

    Raises:
        FileNotFoundError: The data are missing.
        ValueError: There is no such dataset or split, or it has no classes.
    """
    opened = open_dataset(dataset, root)
    chosen = tuple(splits) or _list_splits(dataset)
    parts = tuple(opened(split) for split in chosen)
    if not parts[0].label_set.names:
        raise ValueError(f"{parts[0].name} has no label maps: there are no labels to check.")
    is_named = not callable(dataset) and (os.fspath(dataset) in PUBLISHED or is_drawn(os.fspath(dataset)))
    return LabelledImages(parts=parts, has_fixed_splits=is_named)


def _list_splits(dataset: DatasetSource) -> tuple[str, ...]:
    if callable(dataset):
        return ("train", "val")
    name = os.fspath(dataset)
    return tuple(split for split in split_names(name) if not is_unlabelled(name, split))


def splits_of(images: LabelledImages, training: Sequence[int], validation: Sequence[int]) -> partial[Dataset]:
    """Return what `open_dataset` returns: the splits "train" and "val", of images given by their indices."""
    return partial(_open, images, {"train": training, "val": validation})


def _open(images: LabelledImages, indices: dict[str, Sequence[int]], split: str) -> Dataset:
    return replace(images.take(indices[split]), split=split)
