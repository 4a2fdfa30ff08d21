"""Overlays: the colours of classes drawn over an image.

Shape letters: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt

from refinenet.io.drawing.legend import add_legend
from refinenet.labels import LabelMap, LabelSet
from refinenet.settings import Range, Settings, hint_at

OPACITY = 0.5


@dataclass(frozen=True, kw_only=True)
class OverlayStyle(Settings):
    """How classes are drawn over an image.

    Raises:
        ValueError: a value is not allowed.
    """

    opacity: Annotated[float, Range(0, 1)] = OPACITY
    """Share of the class colour in the mixture with the image, in [0, 1]."""
    outline: Annotated[int, Range(0, 100)] = 0
    """Width, in pixels, of the opaque outline inside each region; 0 for none."""
    legend: bool = False
    """Whether to add a legend below the picture."""
    show: tuple[str, ...] = ()
    """Names of the classes to draw. Empty for all except those coloured black (usually background)."""
    hide: tuple[str, ...] = ()
    """Names of classes not to draw."""
    lists_absent: bool = False
    """Whether the legend lists classes that do not occur, so that all frames of a video have one size."""

    _title: ClassVar[str] = "options of overlays"

    def find_shown(self, label_set: LabelSet) -> npt.NDArray[np.bool_]:
        """Return which ids are drawn, `(ignore_index + 1,)`; pixels without a class are not.

        Raises:
            ValueError: A name is not one of the classes, or is both shown and hidden.
        """
        unknown = [name for name in (*self.show, *self.hide) if name not in label_set.names]
        if unknown:
            raise ValueError(
                f"The model has no class {' and no class '.join(map(repr, unknown))} to show or hide."
                f"{hint_at(unknown, label_set.names)} Its classes are {', '.join(label_set.names)}."
            )
        both = [name for name in self.show if name in self.hide]
        if both:
            raise ValueError(f"{', '.join(both)} cannot be shown and hidden at once.")
        shown = np.zeros(label_set.ignore_index + 1, np.bool_)
        for label, (name, colour) in enumerate(zip(label_set.names, label_set.colours, strict=True)):
            is_chosen = name in self.show if self.show else any(colour)
            shown[label] = is_chosen and name not in self.hide
        return shown


USUAL_STYLE = OverlayStyle()


def blend(
    image: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8], opacity: float | npt.NDArray[np.float32] = OPACITY
) -> npt.NDArray[np.uint8]:
    """Mix two pictures `(H, W, 3)` uint8; `opacity`, also by pixel `(H, W, 1)`, is the share of the second."""
    mixed = (1 - opacity) * image + opacity * colours.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def draw_overlay(
    image: npt.NDArray[np.uint8],
    labels: LabelMap,
    label_set: LabelSet,
    areas: Mapping[str, float],
    style: OverlayStyle = USUAL_STYLE,
) -> npt.NDArray[np.uint8]:
    """Draw the colours of classes over an image; pixels of other classes, or of none, stay as they are.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` ids of `label_set`, or its ignore index.
        label_set: Names and colours.
        areas: Share of the pixels by class name, in [0, 1], for the legend.
        style: How to draw.

    Returns:
        `(H, W, 3)` uint8 RGB; with a legend it is taller.

    Raises:
        ValueError: As `OverlayStyle.find_shown`.
    """
    shown = style.find_shown(label_set)
    opacity = np.float32(style.opacity) * shown.astype(np.float32)
    strength = opacity[labels]
    if style.outline:
        strength[find_outlines(labels, style.outline) & shown[labels]] = 1
    picture = blend(image, label_set.colourise(labels), strength[..., np.newaxis])
    if not style.legend:
        return picture
    listed = {name: areas[name] for label, name in enumerate(label_set.names) if shown[label]}
    return add_legend(picture, label_set, listed, lists_absent=style.lists_absent)


def find_outlines(labels: LabelMap, width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels within `width` pixels of another label, `(H, W)`; the border of the image is no outline.

    Distances are counted in steps to one of the four neighbours.
    """
    found = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        _before(found, axis)[...] |= differs
        _after(found, axis)[...] |= differs
    for _ in range(width - 1):
        grown = found.copy()
        for axis in (0, 1):
            _before(grown, axis)[...] |= _after(found, axis)
            _after(grown, axis)[...] |= _before(found, axis)
        found = grown
    return found


def _before(pixels: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.bool_]:
    return pixels[:-1] if axis == 0 else pixels[:, :-1]


def _after(pixels: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.bool_]:
    return pixels[1:] if axis == 0 else pixels[:, 1:]
