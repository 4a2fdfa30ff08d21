"""Mask encodings, defined by a classes.yaml or by the masks' palettes.

Keys of `classes.yaml`:

    names: [background, road, car]
    colours: [[0, 0, 0], [128, 64, 128], [64, 0, 128]]   # RGB; optional if masks hold ids
    masks: ids                                           # or "colours", for masks painted in the colours above
    values: [0, 100, 255]                                # the id in masks of each name; 0, 1, 2, ... by default
    ignore: [7]                                          # ids (or colours) without a class; optional
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as shorten  # a few bytes of YAML can expand to gigabytes
from typing import Any, Literal

import numpy as np
import yaml

from refinenet.datasets.formats.lookup import is_void, read_painted, split_palette
from refinenet.datasets.formats.renames import Renames
from refinenet.io.images.image_files import open_picture
from refinenet.io.images.mask_files import read_mask
from refinenet.io.processes.parallel import map_parallel
from refinenet.labels import Colour, LabelMap, LabelSet, voc_colours

KEYS = ("names", "colours", "masks", "values", "ignore")
"""Keys of a `classes.yaml`."""

LAYOUT_KEYS = ("path", "train", "val", "test")
"""Further keys of a YAML file that names folders; `refinenet.datasets.folder.layouts` reads them."""

OPTION_KEYS = ("labels", "crowds", "rename")
"""Further keys about a folder whose layout is detected; `refinenet.datasets.folder.layouts` reads them."""

PALETTE_ORIGIN = "the palette of the masks"
"""The `origin` of a meaning that is not given by a file."""

_MAX_ID = 65_535
# PyYAML lets the errors of Python's own conversions through where a tag does not fit its value, as in `!!bool x`.
_YAML_ERRORS = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, RecursionError)
_WORTH_PROCESSES = 200
"""Number of palette masks from which several processes read them, on Linux."""


class NoPaletteError(ValueError):
    """The meaning of a mask's values is not given."""


@dataclass(frozen=True, kw_only=True)
class MaskEncoding:
    """The encoding of classes in masks."""

    label_set: LabelSet
    kind: Literal["ids", "colours"]
    """Whether masks hold ids or are painted in the label set's colours."""
    values: tuple[int, ...]
    """The id in masks of each class, 0 to K - 1 by default; unused if masks hold colours."""
    ignored_ids: tuple[int, ...] = ()
    """Ids of pixels without a class, in addition to the label set's ignore index."""
    ignored_colours: tuple[Colour, ...] = ()
    """Colours of pixels without a class."""
    merged: tuple[tuple[Colour, int] | tuple[int, int], ...] = ()
    """Further colours, or ids in masks, of a class, each with the class."""
    origin: str
    """The path of the file that gives the meaning, or "the palette of the masks"."""
    has_colours: bool = field(default=False, compare=False)
    """Whether the label set's colours were given rather than chosen for drawing."""

    def read(self, path: Path) -> LabelMap:
        """Read a mask file as `(H, W)` ids in `label_set`; void becomes the ignore index.

        Ids that belong to no class are kept if masks hold class ids directly: `Dataset.labels` rejects them.

        Raises:
            ValueError: The file is not a mask, or has a colour (or, given `values`, an id) without a meaning; the
                message names file, value and position.
            OSError: The file cannot be read.
        """
        if self.kind == "colours":
            void = [self.label_set.ignore_index] * len(self.ignored_colours)
            colours = [*self.label_set.colours, *self.ignored_colours, *self.merged_values]
            ids = [*range(len(self.label_set)), *void, *(k for _, k in self.merged)]
            refusal = f"{self.origin} lists neither as a class nor as ignored."
            return self.label_set.cast(read_painted(path, colours, ids, refusal))
        labels = read_mask(path)
        if self.merged or self.values != tuple(range(len(self.label_set))):
            return self._look_up(labels, path)
        if self.label_set.dtype is np.uint16:
            labels = self.label_set.cast(labels)
        labels[np.isin(labels, self.ignored_ids)] = self.label_set.ignore_index
        return labels

    @property
    def merged_values(self) -> list[Any]:
        """The colours or ids in `merged`."""
        return [value for value, _ in self.merged]

    def rename(self, renames: Renames) -> MaskEncoding:
        """Return the encoding with new names; several classes of one new name become one.

        Raises:
            ValueError: A label with a new name does not exist, or no class is left.
        """
        if not renames:
            return self
        renames.check(self.label_set.names)
        stored: Sequence[Any] = self.values if self.kind == "ids" else self.label_set.colours
        kept: dict[str, list[int]] = {}
        for k, name in enumerate(self.label_set.names):
            kept.setdefault(renames.apply(name), []).append(k)
        dropped = tuple(stored[k] for name, members in kept.items() if is_void(name) for k in members)
        classes = {name: members for name, members in kept.items() if not is_void(name)}
        firsts = [members[0] for members in classes.values()]
        colours = tuple(self.label_set.colours[k] for k in firsts)
        merged = [(stored[k], new) for new, members in enumerate(classes.values()) for k in members[1:]]
        renamed = replace(self, label_set=LabelSet(names=tuple(classes), colours=colours), merged=tuple(merged))
        if self.kind == "ids":
            values = tuple(stored[k] for k in firsts)
            return replace(renamed, values=values, ignored_ids=(*self.ignored_ids, *dropped))
        values = tuple(range(len(firsts)))
        return replace(renamed, values=values, ignored_colours=(*self.ignored_colours, *dropped))

    def _look_up(self, stored: LabelMap, path: Path) -> LabelMap:
        void = self.label_set.ignore_index
        table = np.full(_MAX_ID + 1, -1, np.int32)
        table[[void, *self.ignored_ids]] = void
        table[list(self.values)] = np.arange(len(self.label_set))
        for value, k in self.merged:
            table[value] = k
        ids = table[stored]
        if (ids < 0).any():
            row, column = np.argwhere(ids < 0)[0]
            raise ValueError(
                f"{path} has the id {stored[row, column]} at row {row}, column {column} ({(ids < 0).sum()} pixels "
                f"in total have such ids), which {self.origin} lists neither as a class nor as ignored."
            )
        return self.label_set.cast(ids)


_NULL, _INT, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "int", "merge"))
_DECIMAL = re.compile(r"(?:0|-?[1-9][0-9]*)\Z")
_RESOLVED = {_NULL: None, _INT: _DECIMAL, _MERGE: None}
"""Tags that unquoted text may resolve to, with patterns that replace those of YAML 1.1."""


class _PlainLoader(yaml.SafeLoader):
    """YAML loader that converts decimal integers and null only, and keeps all other scalars as text.

    YAML 1.1 reads `010` as 8, `1:30` as 90, `no` as False and `2020-01-01` as a date, which would change class names.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Reject duplicate keys, of which PyYAML would silently keep the last."""
        written = [key for key, _ in node.value if key.tag != _MERGE]  # keys merged by `<<` may be overridden
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        counts = Counter(self.construct_object(key, deep=True) for key in written)
        for key, count in counts.most_common(1):
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} occurs twice", node.start_mark)
        return mapping

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """Parse an integer, including one tagged `!!int`."""
        text: str = self.construct_scalar(node)
        if not _DECIMAL.match(text):
            raise yaml.constructor.ConstructorError(None, None, f"{text!r} is not a decimal integer", node.start_mark)
        return int(text)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Return the text of a scalar."""
        text: str = self.construct_scalar(node)
        return text


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, _RESOLVED[tag] or pattern) for tag, pattern in resolvers if tag in _RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_constructor(_INT, _PlainLoader.construct_decimal)
_PlainLoader.add_constructor(_MERGE, _PlainLoader.construct_text)  # `<<` as a value, not a key


def load_yaml(path: Path) -> Any:
    """Return the contents of a YAML file: lists and mappings of text, decimal integers and None.

    Raises:
        ValueError: The file, which the message names, is damaged or has a duplicate key.
        OSError: The file cannot be read.
    """
    try:
        return yaml.load(path.read_text("utf-8"), _PlainLoader)
    except _YAML_ERRORS as error:
        hint = ' Put such a character in quotes: "%".' if "cannot start any token" in str(error) else ""
        raise ValueError(f"{path}: {error}{'.' if hint else ''}{hint}") from error


def read_classes_file(path: Path) -> MaskEncoding:
    """Read a `classes.yaml`.

    Raises:
        ValueError: The file is damaged or has an invalid entry.
        OSError: The file cannot be read.
    """
    values = load_yaml(path)
    if isinstance(values, Mapping):
        values = {key: value for key, value in values.items() if key not in (*LAYOUT_KEYS, *OPTION_KEYS)}
    try:
        return parse_classes(values, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_classes(values: Any, origin: str) -> MaskEncoding:
    """Parse the contents of a `classes.yaml`.

    Raises:
        ValueError: An entry is invalid.
    """
    if not isinstance(values, Mapping) or "names" not in values or not set(values) <= set(KEYS):
        found = shorten(sorted(map(str, values)) if isinstance(values, Mapping) else values)
        hint = hint_at_keys(values)
        raise ValueError(f"it needs the key 'names' and may have {sorted(KEYS[1:])}; it has {found}.{hint}")
    names = tuple(_as_name(name) for name in _list_names(values))
    colours = _as_colours(_as_list(values, "colours"), "colours") if "colours" in values else voc_colours(len(names))
    label_set = LabelSet(names=names, colours=colours)
    ignored = _as_list(values, "ignore") if "ignore" in values else []
    kind = values.get("masks", "ids")
    if kind not in ("ids", "colours"):
        hint = " Did you mean 'colours'?" if kind == "colors" else ""
        raise ValueError(f"'masks' must be ids or colours, not {shorten(kind)}.{hint}")
    if kind == "ids":
        stored = _parse_hex(_as_list(values, "values")) if "values" in values else list(range(len(names)))
        return replace(of_ids(label_set, stored, _parse_hex(ignored), origin), has_colours="colours" in values)
    if "colours" not in values:
        raise ValueError("masks painted in colours need the key 'colours'.")
    if "values" in values:
        raise ValueError("'values' lists the ids in masks; masks painted in colours have none. Remove one of the two.")
    return of_colours(label_set, _as_colours(ignored, "ignore"), origin)


def hint_at_keys(values: Any) -> str:
    """Return advice on keys that other programs use, or an empty string."""
    keys = set(values) if isinstance(values, Mapping) else set()
    hints = {"colors": "Did you mean 'colours'?", "nc": "Remove 'nc': the names are counted."}
    return "".join(f" {hint}" for key, hint in hints.items() if key in keys)


def _list_names(values: Mapping[str, Any]) -> list[Any]:
    """Return the names, given as a list or as a mapping from ids 0 to K - 1, as Ultralytics writes it."""
    names = values["names"]
    if not isinstance(names, Mapping):
        return _as_list(values, "names")
    if not names or not all(type(key) is int for key in names) or sorted(names) != list(range(len(names))):
        raise ValueError(
            f"'names' must be a list, or have the keys 0 to {max(len(names) - 1, 0)}, each once; it has "
            f"{shorten([*names])}."
        )
    return [names[k] for k in range(len(names))]


def of_ids(label_set: LabelSet, values: list[Any], ignored: list[Any], origin: str) -> MaskEncoding:
    """Return the meaning of masks that hold `values[k]` for class k, and `ignored` ids.

    Raises:
        ValueError: An id is invalid, occurs twice, or is both a class and ignored; or there are not K values.
    """
    for key, ids in (("values", values), ("ignore", ignored)):
        if not all(type(value) is int and 0 <= value <= _MAX_ID for value in ids):
            raise ValueError(f"{key!r} must list ids, whole numbers from 0 to {_MAX_ID}, not {shorten(ids)}.")
    if len(values) != len(label_set):
        raise ValueError(f"'values' must list an id for each of the {len(label_set)} names, but has {len(values)}.")
    doubled = sorted(value for value in set(values) if values.count(value) > 1)
    if doubled:
        raise ValueError(f"the id {doubled[0]} occurs twice in 'values': two classes cannot be told apart.")
    both = sorted(set(values) & set(ignored))
    if both:
        name = label_set.names[values.index(both[0])]
        raise ValueError(f"the id {both[0]} is in 'ignore' and is also the class {name!r}. Remove one of the two.")
    return MaskEncoding(
        label_set=label_set, kind="ids", values=tuple(values), ignored_ids=tuple(ignored), origin=origin
    )


def of_colours(label_set: LabelSet, ignored: Sequence[Colour], origin: str) -> MaskEncoding:
    """Return the meaning of masks that are painted in the label set's colours, and in `ignored` colours.

    Raises:
        ValueError: A colour occurs twice, or belongs to a class and is ignored.
    """
    if len(set(label_set.colours)) < len(label_set):
        raise ValueError("masks painted in colours need a different colour for each class.")
    both = sorted(set(ignored) & set(label_set.colours))
    if both:
        raise ValueError(f"{both[0]} is in both 'colours' and 'ignore'.")
    return MaskEncoding(
        label_set=label_set,
        kind="colours",
        values=tuple(range(len(label_set))),
        ignored_colours=tuple(ignored),
        origin=origin,
    )


def _as_list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values[key]
    if not isinstance(value, list):
        raise ValueError(f"{key!r} must be a list, not {shorten(value)}.")
    return value


def _as_name(value: Any) -> str:
    # `_PlainLoader` converts canonical decimals only (7, not 07 or +7), so str() restores the text in the file.
    if type(value) not in (str, int):
        raise ValueError(f"'names': a class name must be text, not {shorten(value)}: put it in quotes.")
    return str(value)


def _as_colours(values: list[Any], key: str) -> tuple[Colour, ...]:
    try:
        return tuple(as_colour(_parse_hex(value)) for value in values)
    except ValueError as error:
        raise ValueError(f"{key!r}: {error}") from error


def _parse_hex(values: Any) -> Any:
    """Convert the items of a list that are hexadecimal, such as 0x1F, to integers; return anything else as it is."""
    if not isinstance(values, list):
        return values
    return [int(v, 16) if isinstance(v, str) and re.fullmatch("0x[0-9a-fA-F]+", v) else v for v in values]


def as_colour(value: Any) -> Colour:
    """Parse a colour, a list of three numbers.

    Raises:
        ValueError: It is not a colour.
    """
    if not (isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)):
        raise ValueError(f"a colour must be [red, green, blue], each from 0 to 255, not {shorten(value)}.")
    return value[0], value[1], value[2]


def encoding_from_palettes(masks: Iterable[Path]) -> MaskEncoding:
    """Derive classes from palette masks, each read once: as many as the largest id except 255 requires.

    Raises:
        NoPaletteError: A mask, which the message names, has no palette.
        ValueError: A mask, which the message names, has a different palette from those before it or is damaged.
        FileNotFoundError: There are no masks.
        OSError: A mask cannot be read.
    """
    colours: list[Colour] = []
    largest = -1
    paths = iter(masks)
    first = list(itertools.islice(paths, _WORTH_PROCESSES))
    # On other systems processes are spawned and import the user's script again, which may lack a __main__ guard.
    workers = None if len(first) == _WORTH_PROCESSES and sys.platform == "linux" else 0
    read = map_parallel(_read_palette_mask, itertools.chain(first, paths), workers=workers)
    for path, palette, highest in read:
        common = min(len(colours), len(palette))
        if palette[:common] != colours[:common]:
            raise ValueError(
                f"{path} has a different palette from the masks before it, so the same id may mean another class. "
                "Save all masks with one palette, or name the classes in a classes.yaml."
            )
        colours = max(colours, palette, key=len)
        largest = max(largest, highest)
    if largest < 0:
        raise FileNotFoundError("There are no masks.")
    names = tuple(f"class {k}" for k in range(largest + 1))
    padded = tuple((colours + [(0, 0, 0)] * 256)[: largest + 1])
    return of_ids(LabelSet(names=names, colours=padded), list(range(largest + 1)), [], PALETTE_ORIGIN)


def _read_palette_mask(path: Path) -> tuple[Path, list[Colour], int]:
    """Return a mask's path, palette, and largest id other than 255."""
    image = open_picture(path).image
    if image.mode != "P":
        raise NoPaletteError(f"{path} is not a palette PNG, so the meaning of its values is unknown.")
    ids = np.asarray(image)
    palette = split_palette(image.getpalette("RGB") or [])
    return path, palette, int(ids[ids != 255].max(initial=0))
