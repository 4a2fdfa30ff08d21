"""Contact sheet of a ranking: each chosen image, its prediction, a map of doubt, and the reasons for choosing it.

A legend below has the colours of the classes that are predicted.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from refinenet.io.drawing.colour_bar import paint
from refinenet.io.drawing.legend import FONT_SIZE, MARGIN, LegendEntry, draw_legend, fit_text, wrap_text
from refinenet.io.drawing.overlay import blend
from refinenet.io.images.sample_values import Pixels
from refinenet.labelling.ranking.measures import DoubtMaps
from refinenet.labels import LabelSet

CELL = (150, 200)
"""Height and width of a picture in pixels."""
_LINE = FONT_SIZE + 4
_COLUMNS = 2
_WIDE = 3 * (CELL[1] + 2) + MARGIN
"""Width of an image with its two other pictures."""
_TEXT = _WIDE - 2 * MARGIN
_GREY = (90, 90, 90)
_MOST_DOUBT = 0.8
"""Entropy, as a share of the largest, that is drawn in the darkest colour."""


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """A chosen image on the sheet."""

    pictures: tuple[Pixels, Pixels, Pixels]
    """The image, the predicted classes over it, and the doubt; each fits into `CELL`."""
    classes: frozenset[int]
    """Ids of the predicted classes."""
    title: str
    reasons: str


def draw_cell(image: Pixels, maps: DoubtMaps, label_set: LabelSet, title: str, reasons: str) -> SheetCell:
    """Draw the three pictures of an image, `(H, W, 3)` uint8 RGB."""
    height, width = image.shape[:2]
    scale = min(CELL[0] / height, CELL[1] / width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    colours = _resize(label_set.colourise(label_set.cast(maps.labels)), size)
    doubt = _resize(paint(maps.entropy, 0.0, _MOST_DOUBT, "error"), size)
    classes = frozenset(np.unique(maps.labels).tolist())
    return SheetCell(pictures=(small, blend(small, colours), doubt), classes=classes, title=title, reasons=reasons)


def draw_sheet(title: str, cells: Sequence[SheetCell], label_set: LabelSet) -> Pixels:
    """Draw the sheet, `(H, W, 3)` uint8 RGB, in rows of two images, with a legend of the predicted classes below."""
    columns = min(_COLUMNS, max(1, len(cells)))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = columns * _WIDE + MARGIN
    heading = Image.new("RGB", (width, 2 * _LINE + MARGIN), "white")
    large = ImageFont.load_default(FONT_SIZE + 3)
    text = fit_text(title, large, width - 2 * MARGIN)
    ImageDraw.Draw(heading).text((MARGIN, _LINE), text, "black", large, anchor="lm")
    shown = frozenset[int]().union(*(cell.classes for cell in cells))
    entries = [
        LegendEntry(colour=colour, name=name, share=None)
        for number, (name, colour) in enumerate(zip(label_set.names, label_set.colours, strict=True))
        if number in shown
    ]
    parts = [np.asarray(heading), *(_draw_row(row, width) for row in rows), draw_legend(entries, width)]
    return np.concatenate(parts)


def _draw_row(cells: Sequence[SheetCell], width: int) -> Pixels:
    """Draw images beside each other, with their texts below; the row is as high as the longest needs."""
    font = ImageFont.load_default(FONT_SIZE)
    texts = [[fit_text(cell.title, font, _TEXT), *wrap_text(cell.reasons, font, _TEXT)] for cell in cells]
    height = CELL[0] + max(map(len, texts)) * _LINE + 2 * MARGIN
    row = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(row)
    for number, (cell, lines) in enumerate(zip(cells, texts, strict=True)):
        left = MARGIN + number * _WIDE
        for k, picture in enumerate(cell.pictures):
            row.paste(Image.fromarray(picture), (left + k * (CELL[1] + 2), 0))
        for line, text in enumerate(lines):
            place = left, CELL[0] + MARGIN + line * _LINE
            draw.text(place, text, _GREY if line else "black", font, anchor="lm")
    return np.asarray(row)


def _resize(picture: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
