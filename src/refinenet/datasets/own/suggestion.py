"""A classes.yaml to begin with, from what some masks hold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from refinenet.image_files import read_colour_mask, read_mask
from refinenet.labels import Colour

LOOKED_AT = 50
"""So many masks, spread evenly, are looked at."""
MAX_CLASSES = 40
"""With more values or colours than these, masks hold no classes, but are painted softly or were a lossy file once."""


def suggest_classes(masks: Iterable[Path]) -> str:
    """A sentence with the text of a classes.yaml for masks that hold ids or colours; names are left to be written.

    Some of the masks are looked at, and those that cannot be read are left aside.
    """
    paths = sorted(masks)
    some = paths[:: max(1, len(paths) // LOOKED_AT)][:LOOKED_AT]
    values: set[int] = set()
    colours: set[Colour] = set()
    for path in some:
        try:
            values |= set(map(int, np.unique(read_mask(path))))
        except (ValueError, OSError):
            colours |= _read_colours(path)
    looked = f"The {len(some)} masks that were looked at hold"
    if max(len(values), len(colours)) > MAX_CLASSES:
        return (
            f"{looked} {max(len(values), len(colours))} values or colours, which is too many for classes: they were "
            "drawn with soft edges, or were saved as JPEG once. Make them anew from their source."
        )
    if values and not colours:
        return f"{looked} the values {_shorten(values)}; so, with names that fit:\n\n{_suggest_values(sorted(values))}"
    if colours and not values:
        return f"{looked} {len(colours)} colours; so, with names that fit:\n\n{_suggest_colours(sorted(colours))}"
    return "With names that fit, it has one line:\n\nnames: [background, foreground]\n"


def _shorten(values: set[int]) -> str:
    ordered = sorted(values)
    return f"{', '.join(map(str, ordered[:8]))}{' ...' if len(ordered) > 8 else ''}"


def _read_colours(path: Path) -> set[Colour]:
    try:
        pixels = read_colour_mask(path)
    except (ValueError, OSError):
        return set()
    wide = pixels.astype(np.uint32)
    packed = np.unique(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
    return {(value >> 16, value >> 8 & 255, value & 255) for value in map(int, packed)}


def _suggest_values(values: list[int]) -> str:
    if values in ([0, 255], [0, 1], [0], [255]):
        stored = [0, 1] if values == [0, 1] else [0, 255]
        names = ["background", "foreground"]
    else:
        stored = [value for value in values if value != 255]
        names = [f"class {value}" for value in stored]
    text = f"names: [{', '.join(names)}]\n"
    return text if stored == list(range(len(stored))) else f"{text}values: {stored}\n"


def _suggest_colours(colours: list[Colour]) -> str:
    is_binary = colours == [(0, 0, 0), (255, 255, 255)]
    names = ["background", "foreground"] if is_binary else [f"class {k}" for k in range(len(colours))]
    return f"names: [{', '.join(names)}]\ncolours: {[list(colour) for colour in colours]}\nmasks: colours\n"
