"""Summary of a dataset (images, sizes, classes, class weights) as tables and JSON, and its contact sheet."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.datasets.band_reading import with_shown_bands
from refinenet.datasets.catalog import Dataset, Sample, open_dataset, split_names
from refinenet.datasets.class_statistics import (
    ClassCounts,
    ImageCount,
    count_classes,
    count_each,
    log_weights,
    median_frequency_weights,
)
from refinenet.datasets.dataset import spread
from refinenet.datasets.target_statistics import QuantitySummary, summarise_targets
from refinenet.io.band_images import as_picture
from refinenet.io.console import print_note, print_table
from refinenet.io.images import write
from refinenet.io.legend import FONT_SIZE, MARGIN, LegendEntry, draw_legend, fit_text, format_share, hatch
from refinenet.io.overlay import blend
from refinenet.labels import LabelSet

CANDIDATES = 64
"""Number of label maps, evenly spread, from which images are chosen."""
MAX_SHEET_PIXELS = 100_000_000
MAX_LEGEND = 300
"""Maximum number of classes in the legend, the most frequent ones."""

_SMALLEST_CELL = 32
_NARROWEST = 320
_CAPTION = 24
_GAP = MARGIN
_BETWEEN = 2
_PAPER, _FRAME, _GREY = (255, 255, 255), (225, 225, 225), (110, 110, 110)
_VISIBLE = 0.25
"""A class counts as shown by an image that has at least this share of the largest area among the candidates."""


def draw_contact_sheet(
    dataset: Dataset,
    *,
    count: int = 12,
    columns: int = 4,
    cell: tuple[int, int] = (240, 320),
    counts: ClassCounts | None = None,
    workers: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw images of a dataset, each to the left of its overlay, with a legend below.

    The choice of images is deterministic: as many classes as possible are shown, and images are otherwise spread evenly
    over the dataset. Pixels without a class are hatched. Images keep their aspect ratio and are scaled to their cell.

    Args:
        dataset: The dataset.
        count: Maximum number of images.
        columns: Maximum number of images in a row.
        cell: Height and width in pixels that an image is fitted into; its overlay takes the same space again.
        counts: `count_classes` of the whole dataset, if known: the legend then shows its shares, and no class is
            missed. Otherwise, both come from `CANDIDATES` label maps.
        workers: Number of processes that read label maps; by default one per core, 0 for this process.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        ValueError: The dataset is empty, `count`, `columns` or `cell` is invalid, or a file is damaged.
        OSError: A file cannot be read.
    """
    dataset, shown = with_shown_bands(dataset), min(count, len(dataset))
    _check(dataset, count, columns, cell)
    indices = _candidates(len(dataset), max(shown, CANDIDATES), counts)
    counted = list(count_each(dataset, indices, workers=workers))
    chosen = choose_images(indices, np.stack([found.pixels for found in counted]), shown)
    columns = min(columns, shown)
    width = max(_NARROWEST, (_pair_width(cell) + _GAP) * columns + _GAP)
    cells = [_draw_cell(dataset[index], dataset, cell) for index in chosen]
    title = f"{dataset.name}, {dataset.split}: {shown:,} of {len(dataset):,} images"
    return np.concatenate(
        [
            _draw_line(title, width, FONT_SIZE + 5, (0, 0, 0)),
            _arrange(cells, columns, width),
            *_draw_legend(dataset, counted, counts, width),
        ]
    )


def choose_images(indices: Sequence[int], pixels: npt.NDArray[np.int64], count: int) -> list[int]:
    """Choose the images that show the most new classes, and then those farthest from the ones chosen.

    Args:
        indices: Indices of the candidates, ascending.
        pixels: `(len(indices), K)` pixels per class of each candidate.
        count: Number of images to choose.

    Returns:
        `count` of `indices`, or all if there are fewer, ascending.
    """
    shows = (pixels > 0) & (pixels >= _VISIBLE * pixels.max(axis=0))
    places = np.asarray(indices)
    distance = np.full(len(places), np.inf)
    unseen = np.ones(pixels.shape[1], bool)
    for _ in range(min(count, len(places))):
        gains = (shows & unseen).sum(axis=1)
        best = int(np.argmax(gains if gains.any() else distance))
        unseen &= ~shows[best]
        distance = np.minimum(distance, abs(places - places[best]))
    return [index for index, far in zip(indices, distance, strict=True) if far == 0]


def _check(dataset: Dataset, count: int, columns: int, cell: tuple[int, int]) -> None:
    problems = []
    if not len(dataset):
        problems.append(f"{dataset.name} has no images in its split {dataset.split!r}")
    if not dataset.label_set.names:
        problems.append(f"{dataset.name} has no classes to draw over its images")
    if count < 1 or columns < 1:
        problems.append(f"count and columns must be at least 1, not {count} and {columns}")
    if min(cell) < _SMALLEST_CELL:
        problems.append(f"a cell must be at least {_SMALLEST_CELL} pixels high and wide, not {cell[0]} and {cell[1]}")
    if not problems:
        shown = min(count, len(dataset))
        rows = math.ceil(shown / columns)
        area = rows * (cell[0] + _CAPTION + _GAP) * min(columns, shown) * (_pair_width(cell) + _GAP)
        if area > MAX_SHEET_PIXELS:
            problems.append(
                f"{shown} images in cells of {cell[1]}x{cell[0]} make {area:,} pixels, {MAX_SHEET_PIXELS:,} are "
                "allowed: ask for fewer images or smaller cells"
            )
    if problems:
        raise ValueError("No contact sheet can be drawn: " + "; ".join(problems) + ".")


def _candidates(images: int, spread_over: int, counts: ClassCounts | None) -> list[int]:
    clearest = [index for index in counts.clearest if index is not None] if counts else []
    return sorted({*spread(images, spread_over), *clearest[:MAX_LEGEND]})


def _pair_width(cell: tuple[int, int]) -> int:
    return 2 * cell[1] + _BETWEEN


def _draw_cell(sample: Sample, dataset: Dataset, cell: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw image and overlay, with name and size below: `(cell height + _CAPTION, pair width, 3)`."""
    label_set, (height, width) = dataset.label_set, sample.labels.shape
    scale = min(cell[0] / height, cell[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = _resize(as_picture(sample.image, dataset.bands), size, Image.Resampling.BICUBIC)
    colours = _resize(label_set.colourise(sample.labels), size)
    void = _resize(np.where(sample.labels == label_set.ignore_index, np.uint8(255), np.uint8(0)), size) > 127
    overlay = np.where(void[..., np.newaxis], hatch(image, void), blend(image, colours))
    sheet = Image.new("RGB", (_pair_width(cell), cell[0] + _CAPTION), _PAPER)
    for picture, left in ((image, 0), (overlay, cell[1] + _BETWEEN)):
        sheet.paste(_FRAME, (left, 0, left + cell[1], cell[0]))
        place = left + (cell[1] - size[0]) // 2, (cell[0] - size[1]) // 2
        sheet.paste(Image.fromarray(picture), place)
    _write_caption(sheet, sample.name, f"{width}x{height}", cell[0])
    return np.asarray(sheet)


def _resize(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int], enlarge: Image.Resampling = Image.Resampling.NEAREST
) -> npt.NDArray[np.uint8]:
    """Resize with box averaging when reducing, so that thin objects leave a trace."""
    is_larger = size[0] * size[1] > pixels.shape[0] * pixels.shape[1]
    return np.asarray(Image.fromarray(pixels).resize(size, enlarge if is_larger else Image.Resampling.BOX))


def _write_caption(sheet: Image.Image, name: str, size: str, top: int) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    draw, middle = ImageDraw.Draw(sheet), top + _CAPTION // 2
    room = sheet.width - font.getlength(size) - _GAP
    if room < sheet.width / 2:
        size, room = "", sheet.width
    draw.text((0, middle), fit_text(name, font, room, keep_end=True), fill="black", font=font, anchor="lm")
    draw.text((sheet.width, middle), size, fill=_GREY, font=font, anchor="rm")


def _arrange(cells: Sequence[npt.NDArray[np.uint8]], columns: int, sheet_width: int) -> npt.NDArray[np.uint8]:
    height, width = cells[0].shape[:2]
    rows = math.ceil(len(cells) / columns)
    grid = np.full((rows * (height + _GAP), sheet_width, 3), _PAPER, np.uint8)
    for k, drawn in enumerate(cells):
        top, left = k // columns * (height + _GAP), k % columns * (width + _GAP) + _GAP
        grid[top : top + height, left : left + width] = drawn
    return grid


def _draw_line(text: str, width: int, size: int, colour: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    font = ImageFont.load_default(size)
    line = Image.new("RGB", (width, size + 2 * MARGIN), _PAPER)
    shortened = fit_text(text, font, width - 2 * MARGIN)
    ImageDraw.Draw(line).text((_GAP, line.height // 2), shortened, fill=colour, font=font, anchor="lm")
    return np.asarray(line)


def _draw_legend(
    dataset: Dataset, counted: Sequence[ImageCount], counts: ClassCounts | None, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a line on the origin of the shares, and the legend."""
    if counts:
        pixels, void, images = np.array(counts.pixels), counts.void, counts.images
    else:
        pixels = np.sum([found.pixels for found in counted], axis=0)
        void, images = sum(found.void for found in counted), len(counted)
    occurring = np.flatnonzero(pixels).tolist()
    listed = sorted(sorted(occurring, key=lambda k: -pixels[k])[:MAX_LEGEND])
    total = max(1, int(pixels.sum()))
    names, colours = dataset.label_set.names, dataset.label_set.colours
    entries = [LegendEntry(colour=colours[k], name=f"{k} {names[k]}", share=int(pixels[k]) / total) for k in listed]
    if void:
        entries.append(LegendEntry(colour=None, name="no class (void)", share=void / (void + int(pixels.sum()))))
    note = f"{len(occurring)} of {len(names)} classes occur in the {images:,} label maps counted"
    if len(listed) < len(occurring):
        note += f", the {len(listed)} most frequent ones are listed"
    note += "; shares of labelled pixels (void: of all pixels)"
    return _draw_line(note, width, FONT_SIZE, _GREY), draw_legend(entries, width)


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
