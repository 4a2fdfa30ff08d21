"""Contact sheet of a ranking: each chosen image, its prediction, a map of doubt, and the reasons for choosing it.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from refinenet.io.drawing.colour_bar import paint
from refinenet.io.drawing.legend import FONT_SIZE, MARGIN, fit_text
from refinenet.io.drawing.overlay import blend
from refinenet.io.images.sample_values import Pixels
from refinenet.labelling.ranking.measures import DoubtMaps
from refinenet.labels import LabelSet

CELL = (150, 200)
"""Height and width of a picture in pixels."""
_LINE = FONT_SIZE + 4
_COLUMNS = 2
_GREY = (90, 90, 90)
_MOST_DOUBT = 0.8
"""Entropy, as a share of the largest, that is drawn in the brightest colour."""


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """A chosen image on the sheet."""

    pictures: tuple[Pixels, Pixels, Pixels]
    """The image, the predicted classes over it, and the doubt; each fits into `CELL`."""
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
    return SheetCell(pictures=(small, blend(small, colours), doubt), title=title, reasons=reasons)


def draw_sheet(title: str, cells: Sequence[SheetCell]) -> Pixels:
    """Draw the sheet, `(H, W, 3)` uint8 RGB, in rows of two images."""
    wide = 3 * (CELL[1] + 2) + MARGIN
    high = CELL[0] + 2 * _LINE + 2 * MARGIN
    columns = min(_COLUMNS, max(1, len(cells)))
    rows = -(-len(cells) // columns)
    top = 2 * _LINE + MARGIN
    sheet = Image.new("RGB", (columns * wide + MARGIN, top + rows * high), "white")
    draw, large, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE + 3), ImageFont.load_default(FONT_SIZE)
    draw.text((MARGIN, _LINE), fit_text(title, large, sheet.width - 2 * MARGIN), "black", large, anchor="lm")
    for number, cell in enumerate(cells):
        left, up = MARGIN + number % columns * wide, top + number // columns * high
        for k, picture in enumerate(cell.pictures):
            sheet.paste(Image.fromarray(picture), (left + k * (CELL[1] + 2), up))
        for line, (text, colour) in enumerate(((cell.title, (0, 0, 0)), (cell.reasons, _GREY))):
            place = left, up + CELL[0] + MARGIN + line * _LINE
            draw.text(place, fit_text(text, font, wide - 2 * MARGIN), colour, font, anchor="lm")
    return np.asarray(sheet)


def _resize(picture: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
