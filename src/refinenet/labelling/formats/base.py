"""Base of all annotation formats: drafts to write and exports to read.

Shape letters: H height, W width, K classes.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.datasets.formats.lookup import find_background, find_id, is_background
from refinenet.labels import Colour, LabelMap, LabelSet, voc_colours
from refinenet.settings import hint_at

VOID_NAMES = ("void", "ignore", "ignored")
"""Labels that all readers take for pixels without a class."""
VOID_COLOUR: Colour = (255, 0, 255)

Shapes = Literal["masks", "polygons"]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A proposal for one image."""

    name: str
    """The image's path below the folder of images, with "/" between folders, and with its suffix."""
    file: Path
    """The image file."""
    labels: LabelMap
    """`(H, W)` ids; the ignore index where a person has to decide."""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return strip_suffix(self.name)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]


@dataclass(frozen=True, kw_only=True)
class DraftOptions:
    """How drafts are written.

    Raises:
        ValueError: `simplify` or `first_id` is negative.
    """

    label_set: LabelSet
    shapes: Shapes
    """Whether regions become masks, pixel by pixel, or polygons."""
    simplify: float = 1.0
    """Largest distance, in pixels, between a polygon and the border that it approximates; 0 follows the pixels'
    edges."""
    first_id: int = 1
    """Id of the first class in COCO's files."""
    image_prefix: str = ""
    """Beginning of the address under which a tool finds an image, before its name; for Label Studio."""
    origin: str = ""
    """Where the labels come from, for tools that show it."""

    def __post_init__(self) -> None:
        if not (0 <= self.simplify < 1000):
            raise ValueError(f"simplify must be a distance in pixels, 0 or more, not {self.simplify}.")
        if self.first_id < 0:
            raise ValueError(f"first_id must be 0 or more, not {self.first_id}.")

    @property
    def tool_labels(self) -> tuple[tuple[str, Colour], ...]:
        """Names and colours of all classes and of void, in the order of ids; the colours are distinct and not black."""
        taken = {(0, 0, 0), VOID_COLOUR}
        spare = iter(colour for colour in voc_colours(256) if colour not in {*taken, *self.label_set.colours})
        colours = []
        for colour in self.label_set.colours:
            chosen = next(spare, colour) if colour in taken else colour
            taken.add(chosen)
            colours.append(chosen)
        names = (*self.label_set.names, self.void_name)
        return tuple(zip(names, (*colours, VOID_COLOUR), strict=True))

    @property
    def shown_labels(self) -> tuple[tuple[str, Colour], ...]:
        """Those of `tool_labels` that regions are drawn in: all but the background."""
        return tuple((name, colour) for name, colour in self.tool_labels if not is_background(name))

    @property
    def void_name(self) -> str:
        """Label of pixels without a class, for a person to decide: "void", unless a class has that name."""
        taken = {name.lower() for name in self.label_set.names}
        return next((name for name in VOID_NAMES if name not in taken), "__ignore__")

    def place_of(self, label: int) -> int:
        """Return the place of an id in `tool_labels`."""
        return len(self.label_set) if label == self.label_set.ignore_index else label

    def name_of(self, label: int) -> str:
        """Return the name of an id."""
        return self.tool_labels[self.place_of(label)][0]

    def has_shape(self, label: int) -> bool:
        """Whether regions of an id are written as shapes: all but the background, which has none."""
        return not is_background(self.name_of(label))


class Writer(Protocol):
    """A writer of one format: takes drafts one by one, so that memory does not grow with their number.

    Its context completes the files that hold several images; after an error, they do not exist.
    """

    def add(self, draft: Draft) -> None:
        """Write a draft."""


@dataclass(frozen=True, kw_only=True)
class ToolExport:
    """Labels that a tool has exported."""

    path: Path
    format: str
    """The format's name in `table.FORMATS`."""
    items: tuple[str, ...]
    """Names of the images as the tool gives them, with or without folders and suffixes."""
    label_names: tuple[str, ...]
    """Labels that occur, or that the export declares."""
    read: Callable[[str, LabelSet], LabelMap]
    """Maps an item and a label set to its `(H, W)` ids. Raises ValueError: a label is not in the set, or the entry is
    damaged."""
    image_files: Mapping[str, Path] = field(default_factory=dict)
    """Images in the export, by item."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """The reason for each image of the export that has no labels."""
    reviewed: frozenset[str] = frozenset()
    """Items that a person is known to have looked at, because the tool exports only those, or marks them."""
    other_names: Mapping[str, str] = field(default_factory=dict)
    """The other name that an item may stand for, where the name in the export has two meanings."""
    cleared: frozenset[str] = frozenset()
    """Items without any shape in a format that does not tell the size of an image without: all is background."""

    def read_sized(self, item: str, label_set: LabelSet, size: tuple[int, int] | None) -> LabelMap:
        """Read the `(H, W)` ids of an item; of cleared ones, those of an image of a size.

        Raises:
            ValueError: A label is not in the set, or the entry is damaged.
        """
        if item not in self.cleared:
            return self.read(item, label_set)
        assert size is not None
        return blank(label_set, size)


def strip_suffix(name: str) -> str:
    """Return a name with "/" between folders without the suffix of an image."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix else name


def find_class(label: str, label_set: LabelSet, place: str) -> int:
    """Return the id of a label; the ignore index for those that mean void, or background where there is no such class.

    Raises:
        ValueError: There is no such class; `place` is where the label occurs.
    """
    found = label_set.ignore_index if is_background(label) else None
    found = find_id(label, label_set) if found is None or find_background(label_set) != found else found
    if found is None:
        raise ValueError(
            f"{place} has the label {label!r}, which is not one of {', '.join(label_set.names)}."
            f"{hint_at([label], label_set.names)} `label take` imports it as one of these classes with --rename "
            f"{label!r}=CLASS, and without a class with =void. Or rename it in the tool, or add it to `names` in the "
            "dataset's classes.yaml."
        )
    return found


def translate(labels: LabelMap, origin: LabelSet, label_set: LabelSet, place: str) -> LabelMap:
    """Convert a label map `(H, W)` to another label set, by the names of the classes that occur.

    Raises:
        ValueError: A class that occurs is not in the other set; `place` is where.
    """
    table = np.full(origin.ignore_index + 1, label_set.ignore_index, np.uint16)
    for label in np.unique(labels).tolist():
        if label != origin.ignore_index:
            table[label] = find_class(origin.names[label], label_set, place)
    return label_set.cast(table[labels])


def blank(label_set: LabelSet, size: tuple[int, int]) -> LabelMap:
    """Return a label map without shapes: background, or void if there is no such class."""
    return label_set.cast(np.full(size, find_background(label_set), np.uint16))


def write_json(value: Any) -> str:
    """Return JSON without spaces, readable by every program."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: It is not valid JSON.
        OSError: It cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error


def pack_picture(region: npt.NDArray[np.bool_]) -> bytes:
    """Return a PNG of a region `(H, W)`, 255 inside and 0 outside."""
    content = io.BytesIO()
    Image.fromarray(region.astype(np.uint8) * 255).save(content, "PNG")
    return content.getvalue()


def as_hex(colour: Colour) -> str:
    """Return a colour as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def as_base64(content: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(content).decode("ascii")


def label_masks(draft: Draft, options: DraftOptions) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Yield the classes of a draft that have shapes, each with its `(H, W)` pixels."""
    for label in np.unique(draft.labels).tolist():
        if options.has_shape(label):
            yield label, draft.labels == label
