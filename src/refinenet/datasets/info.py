"""What is in a dataset: images, sizes, classes and class weights, as a table, as JSON, and as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.datasets.class_statistics import ClassCounts, count_classes, log_weights, median_frequency_weights
from refinenet.datasets.contact_sheet import draw_contact_sheet
from refinenet.datasets.split_names import split_names
from refinenet.io.console import print_note, print_table
from refinenet.io.images import write
from refinenet.labels import LabelSet
from refinenet.legend import format_share

SIZES_LISTED = 10
"""Image sizes that are listed, the most frequent ones."""
_SIZES_PRINTED = 2


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What `describe` finds."""

    name: str
    label_set: LabelSet
    splits: Mapping[str, ClassCounts]
    """By name, only those whose data are there."""
    absent: tuple[str, ...]
    """Splits that the dataset has, but whose data are not there."""

    @property
    def class_weights(self) -> Mapping[str, Sequence[float]] | None:
        """Class weights by rule, "median_frequency" and "log", from the split "train"; None where it is not there."""
        if "train" not in self.splits:
            return None
        counts = self.splits["train"]
        return {"median_frequency": median_frequency_weights(counts), "log": log_weights(counts.pixels)}

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values; sizes are [width, height], shares in [0, 1]."""
        names, weights = self.label_set.names, self.class_weights
        return {
            "name": self.name,
            "classes": list(names),
            "splits": {split: _split_to_dict(counts, names) for split, counts in self.splits.items()},
            "absent": list(self.absent),
            "class_weights": weights and {rule: dict(zip(names, weights[rule], strict=True)) for rule in weights},
        }

    def print(self) -> None:
        """Print it as tables on standard output, and what is absent on standard error."""
        rows = [
            [split, f"{counts.images:,}", _describe_sizes(counts), format_share(counts.void_share)]
            for split, counts in self.splits.items()
        ]
        print_table(self.name, ["split", "images", "sizes", "no class (void)"], rows)
        names, weights = self.label_set.names, self.class_weights
        shares = zip(names, *map(_describe_classes, self.splits.values()), strict=True)
        print_table("Share of the labelled pixels (images with the class)", ["class", *self.splits], list(shares))
        if weights:
            columns = ([f"{weight:.4f}" for weight in column] for column in weights.values())
            rules = [rule.replace("_", " ") for rule in weights]
            print_table("Class weights from train", ["class", *rules], list(zip(names, *columns, strict=True)))
        if self.absent:
            print_note(f"Not there: {', '.join(self.absent)}.")


def describe(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> DatasetInfo:
    """Count what the label maps of a dataset hold, in all of its splits.

    Args:
        source: A dataset known by name, or a folder of one's own, as `open_dataset` takes it.
        root: Where a named dataset lies.
        workers: Processes that read; by default one for each core, and 0 reads in this process.
        progress: Whether to show progress bars, where standard error is a terminal.

    Raises:
        ValueError: as `open_dataset`, a file is damaged, or the splits have different classes.
        FileNotFoundError: no split is there.
        OSError: a file cannot be read.
    """
    splits, absent = _open_splits(source, root)
    return describe_splits(splits, absent=absent, workers=workers, progress=progress)


def describe_splits(
    splits: Mapping[str, Dataset], *, absent: Sequence[str] = (), workers: int | None = None, progress: bool = True
) -> DatasetInfo:
    """As `describe`, of splits that are open already, at least one; `absent` names those that are not there.

    Raises:
        ValueError: a file is damaged, or the splits have different classes.
        OSError: a file cannot be read.
    """
    first = next(iter(splits.values()))
    for split, dataset in splits.items():
        if dataset.label_set.names != first.label_set.names:
            raise ValueError(f"The splits {first.split} and {split} of {first.name} have different classes.")
    counts = {split: count_classes(dataset, workers=workers, progress=progress) for split, dataset in splits.items()}
    return DatasetInfo(name=first.name, label_set=first.label_set, splits=counts, absent=tuple(absent))


def write_contact_sheet(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    count: int = 12,
    info: DatasetInfo | None = None,
    workers: int | None = None,
) -> Path:
    """Draw some of a dataset's images with their labels (`draw_contact_sheet`) into a file.

    Args:
        path: A `.png`, `.jpg` or `.jpeg` file; it is replaced.
        source: The dataset, as `describe` takes it.
        root: Where a named dataset lies.
        split: Which part; by default the first one there, which is "train" where there is one.
        count: Images, at most.
        info: What `describe` found, where it is known: then every class is looked for in all images.
        workers: As in `describe`.

    Returns:
        The path written.

    Raises:
        ValueError: as `open_dataset` and `draw_contact_sheet`, or another kind of file.
        FileNotFoundError: the split is not there.
        OSError: a file cannot be read or written.
    """
    dataset = open_dataset(source, root)(split) if split else next(iter(_open_splits(source, root)[0].values()))
    counts = info.splits.get(dataset.split) if info else None
    return write(path, draw_contact_sheet(dataset, count=count, counts=counts, workers=workers))


def _open_splits(
    source: str | os.PathLike[str], root: str | os.PathLike[str] | None
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """The splits that are there, and the names of those that are not.

    Raises:
        FileNotFoundError: none is there; it is the door's own error on the first one.
    """
    door = open_dataset(source, root)
    found: dict[str, Dataset] = {}
    failures: dict[str, FileNotFoundError] = {}
    for split in split_names(os.fspath(source)):
        try:
            found[split] = door(split)
        except FileNotFoundError as error:
            failures[split] = error
    if not found:
        raise next(iter(failures.values()))
    return found, tuple(failures)


def _split_to_dict(counts: ClassCounts, names: Sequence[str]) -> dict[str, Any]:
    heights, widths = zip(*counts.sizes, strict=True) if counts.sizes else ((0,), (0,))
    per_class = zip(names, counts.pixels, counts.shares, counts.images_with, strict=True)
    return {
        "images": counts.images,
        "sizes": [
            {"width": width, "height": height, "images": images}
            for (height, width), images in list(counts.sizes.items())[:SIZES_LISTED]
        ],
        "different_sizes": len(counts.sizes),
        "width": {"smallest": min(widths), "largest": max(widths)},
        "height": {"smallest": min(heights), "largest": max(heights)},
        "void_pixels": counts.void,
        "void_share": counts.void_share,
        "classes": {
            name: {"pixels": pixels, "share": share, "images": images} for name, pixels, share, images in per_class
        },
    }


def _describe_sizes(counts: ClassCounts) -> str:
    """As width x height: the sizes where they are few, and else their range and the most frequent one."""
    if len(counts.sizes) <= _SIZES_PRINTED:
        return ", ".join(
            f"{width}x{height}" + (f" ({images:,})" if len(counts.sizes) > 1 else "")
            for (height, width), images in counts.sizes.items()
        )
    heights, widths = zip(*counts.sizes, strict=True)
    return f"{_describe_range(widths)} x {_describe_range(heights)}, most often {widths[0]}x{heights[0]}"


def _describe_range(lengths: Sequence[int]) -> str:
    return f"{min(lengths)}-{max(lengths)}" if min(lengths) < max(lengths) else str(lengths[0])


def _describe_classes(counts: ClassCounts) -> list[str]:
    digits = len(f"{max(counts.images_with):,}")
    return [
        f"{format_share(share)} ({images:>{digits},})" if images else "never"
        for share, images in zip(counts.shares, counts.images_with, strict=True)
    ]
