"""Label sets: names and colours of the ids in a label map.

Shape letters: H height, W width, K number of classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LabelMap = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Colour = tuple[int, int, int]

MAX_CLASSES = 65_535
MAX_NAME_LENGTH = 200


def voc_colours(count: int) -> tuple[Colour, ...]:
    """Return the first `count` colours of the PASCAL VOC colour map, RGB, 0 to 255; they repeat after 256 ids.

    Source: `VOClabelcolormap` of the VOC development kit.
    """

    # Every third bit of the id belongs to one channel, the lowest id bits to the highest bits of the channel.
    def channel(identifier: int, first_bit: int) -> int:
        return sum((identifier >> (3 * level + first_bit) & 1) << (7 - level) for level in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in (k % 256 for k in range(count)))


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Classes of a label map: id k is `names[k]`, drawn in `colours[k]`.

    Raises:
        ValueError: There is no class or too many, a name is empty, repeated, too long or has control characters, a
            colour is outside 0 to 255, or there is not one colour per name. All problems are reported together.
    """

    names: tuple[str, ...]
    """Class names by id, 1 to 65,535 of them."""
    colours: tuple[Colour, ...]
    """RGB colours by id, each channel 0 to 255."""

    def __post_init__(self) -> None:
        if not isinstance(self.names, tuple) or not isinstance(self.colours, tuple):
            raise ValueError("The names and colours of a label set must be tuples.")
        problems = [*_name_problems(self.names), *_colour_problems(self.colours, len(self.names))]
        if problems:
            raise ValueError("This label set cannot be used: " + "; ".join(problems) + ".")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignore_index(self) -> int:
        """Id of pixels without a class (void): 255, or 65535 for more than 255 classes."""
        return 255 if len(self) <= 255 else 65_535

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of label maps: uint8, or uint16 for more than 255 classes."""
        return np.uint8 if len(self) <= 255 else np.uint16

    def cast(self, ids: npt.NDArray[Any]) -> LabelMap:
        """Convert ids of any integer type, all valid in this set, to a label map of `dtype`."""
        return ids.astype(np.uint8) if self.dtype is np.uint8 else ids.astype(np.uint16)

    def colourise(self, labels: LabelMap) -> npt.NDArray[np.uint8]:
        """Draw a label map.

        Args:
            labels: `(H, W)` ids, each below K or `ignore_index`.

        Returns:
            `(H, W, 3)` uint8 RGB, void in black.
        """
        table = np.zeros((self.ignore_index + 1, 3), np.uint8)
        table[: len(self)] = self.colours
        return table[labels]

    def to_dict(self) -> dict[str, Any]:
        """Return the set as JSON-ready values for `from_dict`."""
        return {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "ignore_index": self.ignore_index,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSet:
        """Build a set, or `NO_CLASSES`, from the values that `to_dict` returns.

        Raises:
            ValueError: A key is missing or unknown, or a value is of the wrong type or out of range.
        """
        allowed = {"names", "colours", "ignore_index"}
        if not isinstance(values, Mapping) or set(values) != allowed:
            raise ValueError(f"A label set must have exactly the keys {sorted(allowed)}, unlike {shorten(values)}.")
        names, colours = values["names"], values["colours"]
        if not isinstance(names, list) or not isinstance(colours, list):
            raise ValueError("A label set's 'names' and 'colours' must be lists.")
        if not all(isinstance(colour, list) for colour in colours):
            raise ValueError("Each colour of a label set must be a list of three numbers.")
        if not names and values == NO_CLASSES.to_dict():
            return NO_CLASSES
        label_set = cls(names=tuple(names), colours=tuple(tuple(colour) for colour in colours))
        if values["ignore_index"] != label_set.ignore_index:
            raise ValueError(
                f"The ignore index of a set of {len(names)} classes must be {label_set.ignore_index}, "
                f"not {shorten(values['ignore_index'])}."
            )
        return label_set

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """Return a set of placeholder names, "class 0", "class 1", ..., in VOC colours."""
        if not 1 <= count <= MAX_CLASSES:
            raise ValueError(f"A label set must have 1 to {MAX_CLASSES} classes, not {count}.")
        return cls(names=tuple(f"class {k}" for k in range(count)), colours=voc_colours(count))

    def is_numbered(self) -> bool:
        """Whether the names are only the placeholders of `numbered`."""
        return self.names == tuple(f"class {k}" for k in range(len(self)))


def _name_problems(names: tuple[str, ...]) -> list[str]:
    if not 1 <= len(names) <= MAX_CLASSES:
        return [f"it has {len(names)} classes, 1 to {MAX_CLASSES} are allowed"]
    problems = []
    for k, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
            problems.append(
                f"the name of class {k} is {shorten(name)}, not 1 to {MAX_NAME_LENGTH} printable characters"
            )
    counts = Counter(name for name in names if isinstance(name, str))
    repeated = sorted(name for name, count in counts.items() if count > 1)
    return problems + [f"the name {shorten(name)} is used more than once" for name in repeated]


def _colour_problems(colours: tuple[Colour, ...], count: int) -> list[str]:
    if len(colours) != count:
        return [f"it has {count} names and {len(colours)} colours"]
    return [
        f"the colour of class {k} is {shorten(colour)}, not three whole numbers from 0 to 255"
        for k, colour in enumerate(colours)
        if not isinstance(colour, tuple)
        or len(colour) != 3
        or not all(type(value) is int and 0 <= value <= 255 for value in colour)
    ]


def shorten(value: object, limit: int = 80) -> str:
    """Return the `repr` of a value in a message, cut after `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


class _NoClasses(LabelSet):
    """Label set without classes; any other has at least one, so that no dataset loses its classes silently."""

    def __post_init__(self) -> None:
        assert not self.names


NO_CLASSES: LabelSet = _NoClasses(names=(), colours=())
"""Label set of models that predict no classes."""
