"""Lookup of class ids for mask values, colours and label names.

H is height, W width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.io.images.mask_files import read_colour_mask, read_mask
from refinenet.labels import Colour, LabelMap, LabelSet
from refinenet.settings import find_near

CLASSES_FILE = "classes.yaml"
"""Usual name of the file that lists the classes of a folder."""


def pack_colours(colours: Sequence[Colour] | npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Pack colours `(..., 3)` into integers `(...)`, red << 16 | green << 8 | blue."""
    channels = np.asarray(colours)
    packed = channels[..., 0].astype(np.int64)
    for channel in (1, 2):
        packed <<= 8
        packed |= channels[..., channel]
    return packed


def unpack_colour(number: int) -> Colour:
    """Unpack the colour of an integer."""
    return number >> 16 & 255, number >> 8 & 255, number & 255


def split_palette(values: Sequence[int]) -> list[Colour]:
    """Split a palette `[red, green, blue, red, green, ...]` into colours."""
    return [(values[k], values[k + 1], values[k + 2]) for k in range(0, len(values) - 2, 3)]


def read_painted(path: Path, colours: Sequence[Colour], ids: Sequence[int], refusal: str) -> npt.NDArray[np.int64]:
    """Read a mask that is painted in given colours.

    Args:
        path: See `read_colour_mask`.
        colours: The colours that may occur, each once.
        ids: The id of each colour.
        refusal: The end of the message about any other colour, after "which".

    Returns:
        `(H, W)` ids.

    Raises:
        ValueError: See `read_colour_mask`; or another colour occurs, which the message names with its position.
        OSError: See `read_colour_mask`.
    """
    pixels = read_colour_mask(path)
    packed, known = pack_colours(pixels), pack_colours(colours)
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed)
    np.minimum(place, len(known) - 1, out=place)
    invalid = known[order][place] != packed
    if invalid.any():
        row, column = np.argwhere(invalid)[0]
        raise ValueError(
            f"{path} has the colour {tuple(pixels[row, column].tolist())} at row {row}, column {column} "
            f"({invalid.sum()} pixels in total have such colours), which {refusal}"
        )
    return np.asarray(ids, np.int64)[order][place]


Table = npt.NDArray[np.int16]
"""`(256,)` int16: the class of each stored value, 255 for void, -1 for invalid values."""
VOID = 255


def make_table(class_of_value: Mapping[int, int], void: Iterable[int] = ()) -> Table:
    """Build the table from stored values, 0 to 255, to classes, below 255; `void` are values without a class."""
    table = np.full(256, -1, np.int16)
    table[list(void)] = VOID
    for value, identifier in class_of_value.items():
        table[value] = identifier
    return table


def read_with_table(table: Table, meaning: str, path: Path) -> LabelMap:
    """Read a mask of stored values.

    Args:
        table: From `make_table`.
        meaning: A sentence on the valid values for messages.
        path: The mask's file.

    Returns:
        `(H, W)` uint8 ids, 255 for void.

    Raises:
        ValueError: See `read_mask`; or a value is invalid: the message names file, value and position.
        OSError: See `read_mask`.
    """
    values = read_mask(path)
    ids = table[np.minimum(values, VOID)]
    invalid = (ids < 0) | (values > VOID)
    if invalid.any():
        row, column = np.argwhere(invalid)[0]
        raise ValueError(
            f"{path} has the value {values[row, column]} at row {row}, column {column} ({invalid.sum()} pixels in "
            f"total have such values). {meaning}"
        )
    return ids.astype(np.uint8)


_BACKGROUND = ("background", "_background_")
_VOID = ("ignore", "ignored", "__ignore__", "void")


def is_background(label: str) -> bool:
    """Return whether a label, ignoring case, means pixels that no object covers."""
    return label.lower() in _BACKGROUND


def is_void(label: str) -> bool:
    """Return whether a label, ignoring case, means pixels without a class."""
    return label.lower() in _VOID


def find_background(label_set: LabelSet) -> int:
    """Return the id of pixels that no object covers: the background, or void if there is no such class."""
    found = (k for k, name in enumerate(label_set.names) if is_background(name))
    return next(found, label_set.ignore_index)


def describe_unknown(labels: Sequence[str], label_set: LabelSet, origin: str | Path) -> str:
    """Say that labels are no classes, which may have been meant, and what to change; to follow "has objects of".

    Args:
        labels: Labels that `find_id` does not find.
        label_set: The classes.
        origin: The file that lists them.
    """
    shown, is_one = labels[:5], len(labels) == 1
    said = f"{', '.join(map(repr, shown))}, which {'is not one of' if is_one else 'are not among'}"
    said = f"{said} {', '.join(label_set.names)}."
    near = {label: found[0] for label in shown if (found := find_near(label, label_set.names))}
    renames = ", ".join(f"{_as_yaml(label)}: {_as_yaml(near.get(label, 'void'))}" for label in shown)
    line = f"rename: {{{renames}}}"
    if near:  # which of two similar names is misspelt, only the user knows
        meant = " and ".join(map(repr, dict.fromkeys(near.values())))
        return (
            f"{said} If {meant} is meant, correct the misspelt name: in 'names' of {origin}, or in the annotation "
            f"tool. Or rename the label{'' if is_one else 's'} in {origin}: {line}"
        )
    it = "it" if is_one else "them"
    return (
        f"{said} Add {it} to 'names' in {origin}, or rename {it} there to one of these classes, or to void, which "
        f"leaves the pixels out: {line}"
    )


def _as_yaml(name: str) -> str:
    """Return a name as it is written in a YAML mapping in braces."""
    return name if re.fullmatch(r"[A-Za-z][\w ]*", name) else json.dumps(name, ensure_ascii=False)


def find_id(label: str, label_set: LabelSet) -> int | None:
    """Return the id of the class with this name, void for labels that mean void, or None for unknown labels."""
    if label in label_set.names:
        return label_set.names.index(label)
    background = find_background(label_set)
    if is_background(label) and background != label_set.ignore_index:
        return background
    return label_set.ignore_index if is_void(label) else None
