"""Masks whose stored values are not yet the classes: turned into them by a table of 256 entries.

H is height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.io.image_files import read_mask
from refinenet.labels import LabelMap

Table = npt.NDArray[np.int16]
"""`(256,)` int16: the class of each stored value, 255 for void, -1 for values that must not occur."""
VOID = 255


def make_table(class_of_value: Mapping[int, int], void: Iterable[int] = ()) -> Table:
    """The table of some stored values, 0 to 255, and their classes, below 255; `void` are values without a class."""
    table = np.full(256, -1, np.int16)
    table[list(void)] = VOID
    for value, identifier in class_of_value.items():
        table[value] = identifier
    return table


def read_with_table(table: Table, meaning: str, path: Path) -> LabelMap:
    """Read a mask of stored values.

    Args:
        table: Of `make_table`.
        meaning: What messages say of the values that may occur.
        path: The mask's file.

    Returns:
        `(H, W)` uint8 ids, 255 for void.

    Raises:
        ValueError: as `read_mask`, or a value must not occur; the file, the value and its place are named.
        OSError: as `read_mask`.
    """
    values = read_mask(path)
    ids = table[np.minimum(values, VOID)]
    strange = (ids < 0) | (values > VOID)
    if strange.any():
        row, column = np.argwhere(strange)[0]
        raise ValueError(
            f"{path} has the value {values[row, column]} at row {row}, column {column} ({strange.sum()} pixels in all "
            f"have such values). {meaning}"
        )
    return ids.astype(np.uint8)
