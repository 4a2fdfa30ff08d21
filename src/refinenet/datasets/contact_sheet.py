"""Contact sheet of a dataset: images beside their classes, and beside depth, normals and other quantities in colours.

Shape letters: H height, W width, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.datasets.band_reading import with_shown_bands
from refinenet.datasets.catalog import Dataset, Sample
from refinenet.datasets.class_statistics import ClassCounts, ImageCount, count_each
from refinenet.datasets.dataset import spread
from refinenet.io.console import print_note
from refinenet.io.drawing.colour_bar import draw_colour_bar, find_limits, paint, paint_vectors
from refinenet.io.drawing.legend import FONT_SIZE, MARGIN, LegendEntry, draw_legend, fit_text, hatch
from refinenet.io.drawing.overlay import blend
from refinenet.io.images.band_images import as_picture
from refinenet.outputs import OutputSpec

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

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


_MOST_PANELS = 8
"""Maximum number of pictures of an image; further quantities are left out."""
_COLOURS = {"depth": "near_bright"}
"""Colour maps of kinds of outputs, if not "plasma"; those of the pictures that networks' outputs are drawn as."""


def draw_contact_sheet(
    dataset: Dataset,
    *,
    count: int = 12,
    columns: int = 4,
    cell: tuple[int, int] = (240, 320),
    counts: ClassCounts | None = None,
    workers: int | None = None,
) -> Pixels:
    """Draw images of a dataset, each to the left of its overlay and its other ground truth, with a legend below.

    The choice of images is deterministic: as many classes as possible are shown, and images are otherwise spread evenly
    over the dataset. Pixels without a class are hatched. Images keep their aspect ratio and are scaled to their cell.
    Depth and quantities have colours whose bar is below the legend, and (n + 1) / 2 of normals is RGB.

    Args:
        dataset: The dataset.
        count: Maximum number of images.
        columns: Maximum number of images in a row; fewer if more than two pictures are drawn of each.
        cell: Height and width in pixels that an image is fitted into; each of its pictures takes the same space again.
        counts: `count_classes` of the whole dataset, if known: the legend then shows its shares, and no class is
            missed. Otherwise, both come from `CANDIDATES` label maps.
        workers: Number of processes that read label maps; by default one per core, 0 for this process.

    Returns:
        `(H, W, 3)` uint8 RGB.

    Raises:
        ValueError: The dataset is empty or has no ground truth, `count`, `columns` or `cell` is invalid, or a file is
            damaged. Beside classes, other ground truth that cannot be read is left out, with a note.
        OSError: A file cannot be read.
    """
    dataset, shown = with_shown_bands(dataset), min(count, len(dataset))
    quantities = _list_quantities(dataset)
    panels = 1 + bool(dataset.label_set.names) + len(quantities)
    columns = columns if panels <= 2 else max(1, 2 * columns // panels)
    _check(dataset, count, columns, cell, panels)
    chosen, counted = _choose(dataset, shown, counts, workers)
    cells, quantities = _draw_cells(dataset, chosen, quantities, cell)
    columns = min(columns, shown)
    width = max(_NARROWEST, (cells[0].shape[1] + _GAP) * columns + _GAP)
    title = f"{dataset.name}, {dataset.split}: {shown:,} of {len(dataset):,} images"
    return np.concatenate(
        [
            _draw_line(title, width, FONT_SIZE + 5, (0, 0, 0)),
            *_draw_heading(dataset, quantities, width),
            _arrange(cells, columns, width),
            *(_draw_legend(dataset, counted, counts, width) if dataset.label_set.names else ()),
            *_draw_bars(quantities, cell[1], width),
        ]
    )


def _choose(
    dataset: Dataset, shown: int, counts: ClassCounts | None, workers: int | None
) -> tuple[list[int], list[ImageCount]]:
    """Return the indices of images, and the counts of all candidates; these are not read without classes."""
    if not dataset.label_set.names:
        return list(spread(len(dataset), shown)), []
    indices = _candidates(len(dataset), max(shown, CANDIDATES), counts)
    counted = list(count_each(dataset, indices, workers=workers))
    return choose_images(indices, np.stack([found.pixels for found in counted]), shown), counted


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    """A channel of a target, or the normals, which have a picture of their own."""

    spec: OutputSpec
    channel: int
    title: str
    limits: tuple[float, float] = (0.0, 1.0)
    """The values between which colours go."""

    @property
    def has_bar(self) -> bool:
        return self.spec.kind != "normals"

    @property
    def colours(self) -> str:
        return _COLOURS.get(self.spec.kind, "plasma")

    def paint(self, values: Values) -> Pixels:
        """Return the picture of the `(D, H, W)` values of the target."""
        return paint(values[self.channel], *self.limits, self.colours) if self.has_bar else paint_vectors(values)


def _list_quantities(dataset: Dataset) -> list[_Quantity]:
    found = []
    for spec in dataset.target_specs:
        for channel, (name, unit) in enumerate(spec.quantities if spec.kind != "normals" else [(spec.name, "")]):
            found.append(_Quantity(spec=spec, channel=channel, title=f"{name} ({unit})" if unit else name))
    return found[: _MOST_PANELS - 1 - bool(dataset.label_set.names)]


def _draw_cells(
    dataset: Dataset, chosen: Sequence[int], quantities: Sequence[_Quantity], cell: tuple[int, int]
) -> tuple[list[Pixels], list[_Quantity]]:
    """Draw the images, and return the quantities that could be drawn, with their limits."""
    with_targets = dataset.with_targets([quantity.spec.name for quantity in quantities])
    try:
        shrunk = [_shrink(with_targets[index], dataset, cell) for index in chosen]
    except (ValueError, OSError) as error:
        if not (quantities and dataset.label_set.names):
            raise
        shrunk, quantities = [_shrink(dataset[index], dataset, cell) for index in chosen], []
        print_note(f"Ground truth besides classes is not drawn: {error}")
    limited = []
    for quantity in quantities:
        values = [one.targets[quantity.spec.name][quantity.channel].ravel() for one in shrunk]
        limited.append(replace(quantity, limits=find_limits(np.concatenate(values))))
    return [_draw_cell(one, limited, cell) for one in shrunk], limited


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


def _check(dataset: Dataset, count: int, columns: int, cell: tuple[int, int], panels: int) -> None:
    problems = []
    if not len(dataset):
        problems.append(f"{dataset.name} has no images in its split {dataset.split!r}")
    if panels == 1:
        problems.append(f"{dataset.name} has no classes to draw over its images, nor other ground truth")
    if count < 1 or columns < 1:
        problems.append(f"count and columns must be at least 1, not {count} and {columns}")
    if min(cell) < _SMALLEST_CELL:
        problems.append(f"a cell must be at least {_SMALLEST_CELL} pixels high and wide, not {cell[0]} and {cell[1]}")
    if not problems:
        shown = min(count, len(dataset))
        rows = math.ceil(shown / columns)
        area = rows * (cell[0] + _CAPTION + _GAP) * min(columns, shown) * (_find_width(cell, panels) + _GAP)
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


def _find_width(cell: tuple[int, int], panels: int) -> int:
    return panels * (cell[1] + _BETWEEN) - _BETWEEN


@dataclass(frozen=True, kw_only=True)
class _Shrunk:
    """A sample at the size in which it is drawn."""

    name: str
    size: str
    pictures: tuple[Pixels, ...]
    """The image, and its overlay if there are classes."""
    targets: Mapping[str, Values]


def _shrink(sample: Sample, dataset: Dataset, cell: tuple[int, int]) -> _Shrunk:
    label_set, (height, width) = dataset.label_set, sample.labels.shape
    scale = min(cell[0] / height, cell[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = _resize(as_picture(sample.image, dataset.bands), size, Image.Resampling.BICUBIC)
    pictures = [image]
    if label_set.names:
        colours = _resize(label_set.colourise(sample.labels), size)
        void = _resize(np.where(sample.labels == label_set.ignore_index, np.uint8(255), np.uint8(0)), size) > 127
        pictures.append(np.where(void[..., np.newaxis], hatch(image, void), blend(image, colours)))
    rows, places = ((np.arange(new) + 0.5) * old / new for new, old in ((size[1], height), (size[0], width)))
    nearest = np.ix_(rows.astype(np.intp), places.astype(np.intp))
    targets = {name: values[:, *nearest] for name, values in sample.targets.items()}
    return _Shrunk(name=sample.name, size=f"{width}x{height}", pictures=tuple(pictures), targets=targets)


def _draw_cell(sample: _Shrunk, quantities: Sequence[_Quantity], cell: tuple[int, int]) -> Pixels:
    """Draw the pictures side by side, with name and size below: `(cell height + _CAPTION, width of all, 3)`."""
    pictures = [*sample.pictures, *(quantity.paint(sample.targets[quantity.spec.name]) for quantity in quantities)]
    sheet = Image.new("RGB", (_find_width(cell, len(pictures)), cell[0] + _CAPTION), _PAPER)
    for k, picture in enumerate(pictures):
        left, (height, width) = k * (cell[1] + _BETWEEN), picture.shape[:2]
        sheet.paste(_FRAME, (left, 0, left + cell[1], cell[0]))
        sheet.paste(Image.fromarray(picture), (left + (cell[1] - width) // 2, (cell[0] - height) // 2))
    _write_caption(sheet, sample.name, sample.size, cell[0])
    return np.asarray(sheet)


def _draw_heading(dataset: Dataset, quantities: Sequence[_Quantity], width: int) -> Iterator[Pixels]:
    """Yield a line that names the pictures of an image, if there are others than its overlay."""
    if quantities:
        names = ["image", *(["classes"] if dataset.label_set.names else [])]
        names += [quantity.title for quantity in quantities]
        yield _draw_line(f"From left to right: {', '.join(names)}", width, FONT_SIZE, _GREY)


def _draw_bars(quantities: Sequence[_Quantity], bar: int, width: int) -> Iterator[Pixels]:
    """Yield rows of the colour bars, each `bar` pixels wide."""
    bars = [draw_colour_bar(bar, *one.limits, one.title, one.colours) for one in quantities if one.has_bar]
    columns = max(1, width // bar)
    for start in range(0, len(bars), columns):
        row = np.concatenate(bars[start : start + columns], axis=1)
        yield np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def _resize(pixels: Pixels, size: tuple[int, int], enlarge: Image.Resampling = Image.Resampling.NEAREST) -> Pixels:
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


def _arrange(cells: Sequence[Pixels], columns: int, sheet_width: int) -> Pixels:
    height, width = cells[0].shape[:2]
    rows = math.ceil(len(cells) / columns)
    grid = np.full((rows * (height + _GAP), sheet_width, 3), _PAPER, np.uint8)
    for k, drawn in enumerate(cells):
        top, left = k // columns * (height + _GAP), k % columns * (width + _GAP) + _GAP
        grid[top : top + height, left : left + width] = drawn
    return grid


def _draw_line(text: str, width: int, size: int, colour: tuple[int, int, int]) -> Pixels:
    font = ImageFont.load_default(size)
    line = Image.new("RGB", (width, size + 2 * MARGIN), _PAPER)
    shortened = fit_text(text, font, width - 2 * MARGIN)
    ImageDraw.Draw(line).text((_GAP, line.height // 2), shortened, fill=colour, font=font, anchor="lm")
    return np.asarray(line)


def _draw_legend(
    dataset: Dataset, counted: Sequence[ImageCount], counts: ClassCounts | None, width: int
) -> tuple[Pixels, Pixels]:
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
    counted_in = f"{images:,} label map{'' if images == 1 else 's'}"
    note = f"Shares of the labelled pixels in {counted_in} (void: of all pixels)"
    if len(listed) < len(names):
        absent, rarer = len(names) - len(occurring), len(occurring) - len(listed)
        left_out = [f"{absent} that do not occur"] * (absent > 0) + [f"{rarer} rarer ones"] * (rarer > 0)
        note += f"; not listed: {' and '.join(left_out)} of {len(names)} classes"
    return _draw_line(note, width, FONT_SIZE, _GREY), draw_legend(entries, width)
