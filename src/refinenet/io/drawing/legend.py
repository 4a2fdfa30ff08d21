"""Legend below a picture, with the colour of each class.

Shape letters: H height, W width.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.labels import Colour, LabelSet

FONT_SIZE = 15
MARGIN = 10
_ROW_HEIGHT = 26
_BOX = 16
_GAP = 6
_BETWEEN_COLUMNS = 36
_LONGEST_NAME = 200
"""Maximum width of a name in pixels; longer names are shortened."""


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """A line of a legend."""

    colour: Colour | None
    """RGB; None is drawn hatched, like pixels without a class."""
    name: str
    share: float | None
    """Share of the pixels, in [0, 1]; None if it is not shown."""


def add_legend(
    picture: npt.NDArray[np.uint8], label_set: LabelSet, areas: Mapping[str, float], *, lists_absent: bool = False
) -> npt.NDArray[np.uint8]:
    """Add a white strip below a picture, with colour, name and area of each class that occurs.

    Args:
        picture: `(H, W, 3)` uint8 RGB.
        label_set: Names and colours.
        areas: Share of the pixels by class name, in [0, 1]; classes of area 0 are left out.
        lists_absent: Whether classes of area 0 are listed, too, if `areas` has them.

    Returns:
        `(H', W, 3)` uint8 RGB, H' > H.
    """
    entries = [
        LegendEntry(colour=colour, name=name, share=areas[name])
        for name, colour in zip(label_set.names, label_set.colours, strict=True)
        if name in areas and (lists_absent or areas[name] > 0)
    ]
    return np.concatenate([picture, draw_legend(entries, picture.shape[1])])


def draw_legend(entries: Sequence[LegendEntry], width: int) -> npt.NDArray[np.uint8]:
    """Draw colours, names and shares in aligned columns, which are read downwards.

    Args:
        entries: Lines of the legend.
        width: Width of the strip in pixels.

    Returns:
        `(H, width, 3)` uint8 RGB on white, as high as needed.
    """
    font = ImageFont.load_default(FONT_SIZE)
    names = [fit_text(entry.name, font, _LONGEST_NAME) for entry in entries]
    shares = ["" if entry.share is None else format_share(entry.share) for entry in entries]
    share_end = _BOX + 3 * _GAP + _longest(names, font) + _longest(shares, font)
    columns = max(1, (width - 2 * MARGIN + _BETWEEN_COLUMNS) // (share_end + _BETWEEN_COLUMNS))
    rows = math.ceil(len(entries) / columns)
    strip = Image.new("RGB", (width, max(1, rows) * _ROW_HEIGHT + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(strip)
    for k, (entry, name, share) in enumerate(zip(entries, names, shares, strict=True)):
        x, y = MARGIN + k // rows * (share_end + _BETWEEN_COLUMNS), MARGIN + k % rows * _ROW_HEIGHT
        _draw_box(strip, (x, y), entry.colour)
        draw.text((x + _BOX + _GAP, y + _BOX // 2), name, fill="black", font=font, anchor="lm")
        draw.text((x + share_end, y + _BOX // 2), share, fill="black", font=font, anchor="rm")
    return np.asarray(strip)


def hatch(picture: npt.NDArray[np.uint8], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Draw pixels without a class: at half brightness, under white diagonal lines.

    Args:
        picture: `(H, W, 3)` uint8 RGB.
        where: `(H, W)`, true for pixels without a class.

    Returns:
        `(H, W, 3)` uint8 RGB, a copy.
    """
    # Diagonals are lines of equal row + column: two pixels white, four dark.
    is_line = np.indices(where.shape).sum(axis=0) % 6 < 2
    drawn = np.where(is_line[..., np.newaxis], np.uint8(255), picture // 2)
    return np.where(where[..., np.newaxis], drawn, picture)


def fit_text(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, *, keep_end: bool = False
) -> str:
    """Shorten a text with "..." to at most `width` pixels on one line.

    Pillow's built-in font, the only one available everywhere, has only ASCII letters: accents are left out, and other
    letters become question marks.
    """
    plain = _as_ascii(text)
    if font.getlength(plain) <= width:
        return plain
    for length in range(min(len(plain) - 1, round(width)), 0, -1):
        shortened = f"...{plain[-length:].lstrip()}" if keep_end else f"{plain[:length].rstrip()}..."
        if font.getlength(shortened) <= width:
            return shortened
    return ""


def wrap_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words; a longer word is shortened, see `fit_text`."""
    lines: list[str] = []
    for word in _as_ascii(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fit_text(word, font, width))
    return lines


def _as_ascii(text: str) -> str:
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def format_share(share: float) -> str:
    """Format a share in [0, 1] in per cent with one decimal; a small share above 0 becomes "<0.1 %"."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _longest(texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return math.ceil(max((font.getlength(text) for text in texts), default=0))


def _draw_box(strip: Image.Image, place: tuple[int, int], colour: Colour | None) -> None:
    corners = (*place, place[0] + _BOX, place[1] + _BOX)
    if colour is None:
        grey = np.full((_BOX, _BOX, 3), 128, np.uint8)
        strip.paste(Image.fromarray(hatch(grey, np.ones((_BOX, _BOX), bool))), place)
    ImageDraw.Draw(strip).rectangle(corners, fill=colour, outline="black")
