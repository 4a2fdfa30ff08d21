"""A legend below a picture: which colour is which class.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.labels import LabelSet

_ROW_HEIGHT = 26
_BOX = 16
_FONT_SIZE = 15
_MARGIN = 10


def add_legend(
    picture: npt.NDArray[np.uint8], label_set: LabelSet, areas: Mapping[str, float]
) -> npt.NDArray[np.uint8]:
    """Put a white strip with colour, name and area of each class that occurs below a picture.

    Args:
        picture: `(H, W, 3)` uint8 RGB.
        label_set: Names and colours.
        areas: Share of the pixels by class name, in [0, 1]; classes of area 0 are left out.

    Returns:
        `(H', W, 3)` uint8 RGB, H' > H.
    """
    width = picture.shape[1]
    font = ImageFont.load_default(_FONT_SIZE)
    entries = [
        (colour, f"{name} {100 * areas[name]:.1f} %")
        for name, colour in zip(label_set.names, label_set.colours, strict=True)
        if areas.get(name, 0) > 0
    ]
    places, x, y = [], _MARGIN, _MARGIN
    for _, text in entries:
        length = _BOX + 6 + round(font.getlength(text)) + 2 * _MARGIN
        if x > _MARGIN and x + length > width:
            x, y = _MARGIN, y + _ROW_HEIGHT
        places.append((x, y))
        x += length
    strip = Image.new("RGB", (width, y + _ROW_HEIGHT + _MARGIN), "white")
    draw = ImageDraw.Draw(strip)
    for (colour, text), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + _BOX, y + _BOX), fill=colour, outline="black")
        draw.text((x + _BOX + 6, y + _BOX // 2), text, fill="black", font=font, anchor="lm")
    return np.concatenate([picture, np.asarray(strip)])
