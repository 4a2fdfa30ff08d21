"""Quantities as colours, and the bar below such a picture that says which colour stands for which value.

Shape letters: H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refinenet.io.drawing.legend import FONT_SIZE, MARGIN, fit_text

Floats = npt.NDArray[np.floating]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PLASMA = "0d0887 46039f 7201a8 9c179e bd3786 d8576b ed7953 fb9f3a fdca26 f0f921"
"""Colours at equal steps of matplotlib's "plasma" (CC0), which grows evenly brighter, also in grey."""
_REDS = "fff5f0 fee0d2 fcbba1 fc9272 fb6a4a ef3b2c cb181d a50f15 67000d"
"""ColorBrewer's "Reds" (Apache 2.0): pale for small errors."""
COLOUR_MAPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"plasma": tuple(_PLASMA.split()), "near_bright": tuple(reversed(_PLASMA.split())), "error": tuple(_REDS.split())}
)
"""Colours from the lowest to the highest value, between which colours are interpolated linearly, by name."""

NO_DATA = (128, 128, 128)
"""Grey, which is in none of the colour maps."""
BAR_HEIGHT = 14
_TICK = 4
_BAR_TOP = MARGIN + FONT_SIZE + 4
STRIP_HEIGHT = _BAR_TOP + BAR_HEIGHT + _TICK + FONT_SIZE + MARGIN
_LEAST_BETWEEN_TICKS = 70
"""Pixels between two ticks, on wide bars."""
_LEAST_BETWEEN_LABELS = 8
"""Pixels between the labels of two ticks."""


def paint(values: Floats, low: float, high: float, colour_map: str) -> npt.NDArray[np.uint8]:
    """Paint the values of a quantity.

    Args:
        values: `(H, W)`; NaN where there is none.
        low: Value of the first colour; lower values get the same colour.
        high: Value of the last colour; higher values get the same colour.
        colour_map: A name of `COLOUR_MAPS`.

    Returns:
        `(H, W, 3)` uint8 RGB, `NO_DATA` where there is no value.
    """
    anchors = np.array([tuple(bytes.fromhex(colour)) for colour in COLOUR_MAPS[colour_map]], np.float64)
    steps = np.linspace(0, len(anchors) - 1, 256)
    table = np.stack([np.interp(steps, np.arange(len(anchors)), channel) for channel in anchors.T], axis=1)
    known = np.isfinite(values)
    share = np.where(known, (values - low) / ((high - low) or 1.0), 0)
    colours = np.rint(table).astype(np.uint8)[np.rint(share.clip(0, 1) * 255).astype(np.intp)]
    return np.where(known[..., np.newaxis], colours, np.array(NO_DATA, np.uint8))


def paint_vectors(values: Floats) -> npt.NDArray[np.uint8]:
    """Return (n + 1) / 2 of the components of unit vectors `(3, H, W)`, as `(H, W, 3)` uint8 RGB; black without data.

    No unit vector is black, which would be three components of -1.
    """
    painted = np.rint((np.moveaxis(values, 0, -1) + 1) * 127.5)
    return np.where(np.isfinite(painted), painted, 0).clip(0, 255).astype(np.uint8)


def find_limits(values: Floats) -> tuple[float, float]:
    """Return the values between which 96 % of all lie, which become the ends of the colours; (0, 1) without values."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(known, (2, 98)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def draw_colour_bar(width: int, low: float, high: float, title: str, colour_map: str) -> npt.NDArray[np.uint8]:
    """Draw a strip with a title, the colours from `low` to `high`, and round values below them.

    Args:
        width: Width of the strip, in pixels.
        low: Value of the first colour.
        high: Value of the last colour.
        title: Name of the quantity, with its unit.
        colour_map: A name of `COLOUR_MAPS`.

    Returns:
        `(STRIP_HEIGHT, width, 3)` uint8 RGB on white; narrow strips have the bar alone.
    """
    strip = Image.new("RGB", (width, STRIP_HEIGHT), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    left, right = min(MARGIN, width // 8), width - min(MARGIN, width // 8)
    colours = paint(np.linspace(low, high, max(1, right - left))[np.newaxis], low, high, colour_map)
    strip.paste(Image.fromarray(colours.repeat(BAR_HEIGHT, axis=0)), (left, _BAR_TOP))
    below = _BAR_TOP + BAR_HEIGHT
    draw.text((left, MARGIN), fit_text(title, font, right - left), "black", font)
    for value in _choose_ticks(low, high, right - left, font):
        place, text = left + (value - low) / (high - low) * (right - left - 1), f"{value:.6g}"
        draw.line((place, below, place, below + _TICK), fill="black")
        half = font.getlength(text) / 2
        if width >= 4 * half:
            draw.text((min(max(place, half), width - half), below + _TICK + 2), text, "black", font, anchor="mt")
    return np.asarray(strip)


def _choose_ticks(low: float, high: float, length: int, font: Font) -> list[float]:
    """Return as many round values from `low` to `high` as labels below a bar of `length` pixels have room for.

    The two ends, if there is room for one round value or none.
    """
    if not high > low:
        return []
    pixels, ends = length / (high - low), [float(f"{end:.3g}") for end in (low, high)]
    exponent = math.floor(math.log10((high - low) / 20))
    for step in (factor * 10.0**power for power in range(exponent, exponent + 4) for factor in (1, 2, 5)):
        values = _round_values(low, high, step)
        widest = max((font.getlength(f"{value:.6g}") for value in values), default=0)
        if step * pixels >= max(widest + _LEAST_BETWEEN_LABELS, min(_LEAST_BETWEEN_TICKS, length / 5)):
            return values if len(values) > 1 else ends
    return ends


def _round_values(low: float, high: float, step: float) -> list[float]:
    """Return the multiples of a step from `low` to `high`."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
