"""A mask of any kind to the ids of a label set, where that is clear. H is height, W width."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refinenet.datasets.doctor.mask_pixels import MaskPixels, read_pixels
from refinenet.datasets.doctor.mask_values import points_of
from refinenet.datasets.doctor.scan import count_values
from refinenet.datasets.doctor.value_matching import Codes, can_snap, find_areas, fit, snap
from refinenet.datasets.folder.classes_file import Meaning
from refinenet.datasets.formats.lookup import pack_colours
from refinenet.labels import LabelMap


class Relabelled(NamedTuple):
    """A mask's ids, and what was done to get them."""

    labels: LabelMap
    """`(H, W)` ids in the label set."""
    changes: tuple[str, ...]


def relabel(path: str, meaning: Meaning, orientation: int) -> Relabelled:
    """Read a mask file.

    Args:
        path: The file.
        meaning: What its values mean, as it should be said.
        orientation: EXIF's, by which the mask has to be turned; 1 for not at all.

    Raises:
        ValueError: what some pixels mean is not clear, or the file cannot be read.
        OSError: it cannot be opened.
    """
    pixels = read_pixels(path, as_colours=meaning.kind == "colours")
    changes = _describe(pixels, meaning)
    codes, points, ids = _find_points(pixels, meaning)
    places, snapped, lost = _place(codes, points, pixels.is_colour and not (pixels.is_grey and meaning.kind == "ids"))
    table = np.append(ids, meaning.label_set.ignore_index)  # -1, what is not clear, is the last one: void
    labels = meaning.label_set.cast(turn(table[places], orientation))
    if orientation > 1:
        changes.append("turned as its image")
    if snapped:
        changes.append(f"{snapped} pixels set to the class they were near, {lost} to void")
    return Relabelled(labels, tuple(changes))


def _describe(pixels: MaskPixels, meaning: Meaning) -> list[str]:
    if not pixels.is_opaque:
        raise ValueError("partly transparent, so what it holds there is not clear")
    changes = ["the first of its frames"] if pixels.has_frames else []
    if pixels.is_colour and meaning.kind == "ids":
        changes.append("one channel of three equal ones" if pixels.is_grey else "ids for the colours of the classes")
    elif meaning.kind == "colours":
        changes.append("ids for colours")
    elif meaning.values != tuple(range(len(meaning.label_set))):
        changes.append(f"ids {list(meaning.values)} became 0 to {len(meaning.label_set) - 1}")
    return changes


def _find_points(pixels: MaskPixels, meaning: Meaning) -> tuple[Codes, Codes, Codes]:
    """The codes of a mask, the codes that have a meaning, and their ids."""
    points, ids = points_of(meaning)
    if not pixels.is_colour or meaning.kind == "colours":
        return pixels.codes, points, ids
    if pixels.is_grey:
        return pixels.codes & 255, points, ids
    colours = pack_colours(meaning.label_set.colours)
    if not meaning.has_colours or len(np.unique(colours)) < len(colours):
        raise ValueError("painted in colours, and nothing says which colour is which class")
    return pixels.codes, colours, np.arange(len(colours))


def _place(codes: Codes, points: Codes, is_colour: bool) -> tuple[Codes, int, int]:
    """The index of each pixel's point, -1 where it is not clear; pixels that were moved, and lost."""
    values, counts = count_values(codes)
    found = fit(values, counts, find_areas(codes), points, is_colour)
    if not found.is_exact and not (can_snap(points, is_colour) and found.is_clear):
        raise ValueError("holds values without a meaning, which are near no class or near several")
    places = snap(codes, points, is_colour)
    lost = int((places < 0).sum())
    return places, found.total - found.exact - lost if not found.is_exact else 0, lost


def turn(labels: Codes, orientation: int) -> Codes:
    """`(H, W)` labels turned as EXIF's orientation says, 5 to 8 by a quarter."""
    flipped = labels.T if orientation in (5, 7) else labels
    quarters = {1: 0, 5: 0, 6: 3, 7: 2, 8: 1}[orientation]
    return np.rot90(flipped, quarters)
