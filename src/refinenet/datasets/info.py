"""Summary of a dataset (images, sizes, classes, class weights) as tables and JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinenet.datasets.catalog import Dataset, open_dataset, split_names
from refinenet.datasets.class_statistics import ClassCounts, count_classes, log_weights, median_frequency_weights
from refinenet.datasets.contact_sheet import draw_contact_sheet
from refinenet.datasets.target_statistics import QuantitySummary, summarise_targets
from refinenet.io.console import print_note, print_table, say
from refinenet.io.drawing.legend import format_share
from refinenet.io.images.codec import write
from refinenet.labels import LabelSet

SIZES_LISTED = 10
"""Maximum number of image sizes in the JSON, the most frequent ones."""
_SIZES_PRINTED = 2


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """The result of `describe`."""

    name: str
    label_set: LabelSet
    splits: Mapping[str, ClassCounts]
    """Counts by split; only splits whose data are there."""
    absent: tuple[str, ...]
    """Splits of the dataset whose data are missing."""
    targets: Mapping[str, tuple[QuantitySummary, ...]] = field(default_factory=dict)
    """By split, what is known besides classes."""

    @property
    def class_weights(self) -> Mapping[str, Sequence[float]] | None:
        """Class weights by rule, "median_frequency" and "log", from the split "train"; None without it or classes."""
        if "train" not in self.splits or not self.label_set.names:
            return None
        counts = self.splits["train"]
        return {"median_frequency": median_frequency_weights(counts), "log": log_weights(counts.pixels)}

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values; sizes are [width, height], shares in [0, 1]."""
        names, weights = self.label_set.names, self.class_weights
        return {
            "name": self.name,
            "classes": list(names),
            "splits": {split: _split_to_dict(counts, names) for split, counts in self.splits.items()},
            "absent": list(self.absent),
            "class_weights": weights and {rule: dict(zip(names, weights[rule], strict=True)) for rule in weights},
            "targets": {split: [one.to_dict() for one in found] for split, found in self.targets.items()},
        }

    def print(self) -> None:
        """Print the summary as tables on standard output, and missing splits on standard error."""
        rows = [
            [split, f"{counts.images:,}", _describe_sizes(counts), *self._describe_void(counts)]
            for split, counts in self.splits.items()
        ]
        void = ["no class (void)"] if self.label_set.names else []
        print_table(self.name, ["split", "images", "sizes", *void], rows)
        names, weights = self.label_set.names, self.class_weights
        if names:
            shares = zip(names, *map(_describe_classes, self.splits.values()), strict=True)
            print_table("Share of labelled pixels (images with the class)", ["class", *self.splits], list(shares))
        for split, found in self.targets.items():
            if found:
                title = f"Ground truth besides classes, {found[0].images} images of {split}"
                print_table(title, ["quantity", "unit", "known", "5 %", "median", "95 %"], _rows(found))
        if weights:
            columns = ([f"{weight:.4f}" for weight in column] for column in weights.values())
            rules = [rule.replace("_", " ") for rule in weights]
            print_table("Class weights from train", ["class", *rules], list(zip(names, *columns, strict=True)))
            say(
                "Training with --set class_weights=median or log multiplies the cross-entropy of a class's pixels by "
                "these weights; by default all have the same."
            )
        if self.absent:
            print_note(f"Missing splits: {', '.join(self.absent)}.")

    def _describe_void(self, counts: ClassCounts) -> list[str]:
        return [format_share(counts.void_share)] if self.label_set.names else []


def describe(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> DatasetSummary:
    """Count the classes in the label maps of all splits of a dataset, and summarise its other ground truth.

    Args:
        source: The name of a dataset, or a folder; see `open_dataset`.
        root: The folder of a named dataset.
        workers: Number of processes that read; by default one per core, 0 for this process.
        progress: Whether to show progress bars if standard error is a terminal.

    Raises:
        ValueError: See `open_dataset`; or a file is damaged, or the splits have different classes.
        FileNotFoundError: No split is there.
        OSError: A file cannot be read.
    """
    splits, absent = _open_splits(source, root)
    return describe_splits(splits, absent=absent, workers=workers, progress=progress)


def describe_splits(
    splits: Mapping[str, Dataset], *, absent: Sequence[str] = (), workers: int | None = None, progress: bool = True
) -> DatasetSummary:
    """Describe one or more opened splits; `absent` names the missing ones. See `describe`.

    Raises:
        ValueError: A file is damaged, the splits have different classes, or there are none.
        OSError: A file cannot be read.
    """
    first = next(iter(splits.values()))
    for split, dataset in splits.items():
        if dataset.label_set.names != first.label_set.names:
            raise ValueError(f"The splits {first.split} and {split} of {first.name} have different classes.")
    counts = {split: count_classes(dataset, workers=workers, progress=progress) for split, dataset in splits.items()}
    targets = {split: _summarise(dataset, workers, progress) for split, dataset in splits.items()}
    return DatasetSummary(
        name=first.name, label_set=first.label_set, splits=counts, absent=tuple(absent), targets=targets
    )


def _summarise(dataset: Dataset, workers: int | None, progress: bool) -> tuple[QuantitySummary, ...]:
    """Summarise targets, which may be invalid and unused: `refinenet data check` is for their problems."""
    try:
        return summarise_targets(dataset, workers=workers)
    except (ValueError, OSError) as error:
        print_note(f"Ground truth besides classes cannot be summarised: {error}", enabled=progress)
        return ()


def write_contact_sheet(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    count: int = 12,
    info: DatasetSummary | None = None,
    workers: int | None = None,
) -> Path:
    """Draw some of a dataset's images with their labels (`draw_contact_sheet`) into a file.

    Args:
        path: A `.png`, `.jpg` or `.jpeg` file; it is replaced.
        source: The dataset; see `describe`.
        root: The folder of a named dataset.
        split: The split; by default the first one there, which is "train" if it exists.
        count: Maximum number of images.
        info: The result of `describe`, if known: the clearest images of every class are then candidates.
        workers: See `describe`.

    Returns:
        The path written.

    Raises:
        ValueError: See `open_dataset` and `draw_contact_sheet`; or `path` has another suffix.
        FileNotFoundError: The split is missing.
        OSError: A file cannot be read or written.
    """
    dataset = open_dataset(source, root)(split) if split else next(iter(_open_splits(source, root)[0].values()))
    counts = info.splits.get(dataset.split) if info else None
    return write(path, draw_contact_sheet(dataset, count=count, counts=counts, workers=workers))


def _open_splits(
    source: str | os.PathLike[str], root: str | os.PathLike[str] | None
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Open the splits that are there, and return the names of the missing ones.

    Raises:
        FileNotFoundError: No split is there; this is the error of the first one.
    """
    splits = open_dataset(source, root)
    found: dict[str, Dataset] = {}
    failures: dict[str, FileNotFoundError] = {}
    for split in split_names(os.fspath(source)):
        try:
            found[split] = splits(split)
        except FileNotFoundError as error:
            failures[split] = error
    if not found:
        raise next(iter(failures.values()))
    return found, tuple(failures)


def _rows(found: Sequence[QuantitySummary]) -> list[list[str]]:
    return [
        [one.name, one.unit, format_share(one.known), *(f"{value:.4g}" for value in one.quantiles)] for one in found
    ]


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
    """Format sizes as width x height: all if they are few, or else their range and the most frequent one."""
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
