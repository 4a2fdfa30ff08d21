"""Encoding of mask values: as defined by a file, or inferred from the values if no file defines it correctly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from refinenet.datasets.doctor.scan import MaskFacts
from refinenet.datasets.doctor.value_matching import MIN_SAME, SAME, Codes
from refinenet.datasets.folder.classes_file import PALETTE_ORIGIN, MaskEncoding, of_colours, of_ids
from refinenet.datasets.formats.lookup import pack_colours, split_palette, unpack_colour
from refinenet.labels import Colour, LabelSet, voc_colours

PROPOSED = "a proposal"
MAX_PROPOSED = 64
"""Largest number of proposed classes: more distinct values suggest a photograph or noise, not labels."""

_MIN_SHARE = 0.0002  # of all pixels; a colour with less is noise, not a class
_NOISY = 8  # distinct grey values between 0 and 255 that smoothing leaves at least
_WIDE = 60  # range that these values cover at least; ids of classes are closer together


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values in some masks with their pixel counts, the most frequent first."""

    pixels: dict[int, int]
    is_colour: bool
    of: int = 0
    """The total that shares refer to; 0 for the sum of `pixels`."""

    @property
    def total(self) -> int:
        """Sum of all pixel counts."""
        return sum(self.pixels.values())

    def describe(self, count: int = 8) -> str:
        """Describe the most frequent values."""
        shown = [
            f"{unpack_colour(value) if self.is_colour else value} ({share})"
            for value, share in list(self.shares().items())[:count]
        ]
        more = len(self.pixels) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

    def shares(self) -> dict[int, str]:
        """Return the share of each value as text."""
        return {value: _format_share(pixels / max(self.of or self.total, 1)) for value, pixels in self.pixels.items()}


def _format_share(share: float) -> str:
    return "under 0.01 %" if 0 < share < 0.0001 else f"{100 * share:.3g} %"


def count_ids(masks: Sequence[MaskFacts]) -> Values:
    """Count the ids in masks, including masks that store them in three equal channels."""
    sound = [mask for mask in masks if not mask.is_lossy] or masks
    counts: Counter[int] = Counter()
    for mask in sound:
        if not mask.is_colour or mask.is_grey:
            ids = mask.values & 255 if mask.is_colour else mask.values
            counts.update(dict(zip(ids.tolist(), mask.counts.tolist(), strict=True)))
    return Values(pixels=dict(counts.most_common()), is_colour=False)


def count_colours(masks: Sequence[MaskFacts]) -> Values:
    """Count the colours in colour masks."""
    counts: Counter[int] = Counter()
    for mask in masks:
        if mask.is_colour:
            counts.update(dict(zip(mask.values.tolist(), mask.counts.tolist(), strict=True)))
    return Values(pixels=dict(counts.most_common()), is_colour=True)


def is_binary(values: Values) -> bool:
    """Return whether ids are 0 and 255, apart from smoothed edges."""
    pixels = values.pixels
    if not {0, 255} <= pixels.keys():
        return False
    between = pixels.keys() - {0, 255}
    if not between:
        return True
    is_noise = len(between) >= _NOISY and max(between) - min(between) >= _WIDE
    return is_noise and pixels[0] + pixels[255] >= MIN_SAME * values.total


def starts_at_one(values: Values, encoding: MaskEncoding) -> bool:
    """Return whether ids go from 1 to K although 0 to K - 1 are expected."""
    count = len(encoding.label_set)
    if encoding.kind != "ids" or encoding.values != tuple(range(count)):
        return False
    classes = values.pixels.keys() - {encoding.label_set.ignore_index, *encoding.ignored_ids}
    return bool(classes) and min(classes) >= 1 and max(classes) == count


def as_binary(encoding: MaskEncoding | None) -> MaskEncoding:
    """Make the meaning of masks with 0 and 255, using known names."""
    names = encoding.label_set.names if encoding else ()
    colours = encoding.label_set.colours if encoding else ()
    if len(names) != 2:
        is_named = len(names) == 1 and names[0].casefold() not in ("background", "class 0")
        names, colours = ("background", names[0] if is_named else "object"), voc_colours(2)
    origin = encoding.origin if encoding else PROPOSED
    found = of_ids(LabelSet(names=names, colours=colours), [0, 255], [], origin)
    return replace(found, has_colours=encoding is not None and encoding.has_colours and len(encoding.label_set) == 2)


def from_one(encoding: MaskEncoding) -> MaskEncoding:
    """Make the meaning with the same classes and ids from 1."""
    return replace(encoding, values=tuple(range(1, len(encoding.label_set) + 1)))


def common_palette(masks: Sequence[MaskFacts]) -> list[Colour] | None:
    """Return the colours that all palettes begin with, or None if they disagree or a mask has no palette."""
    longest = b""
    for mask in masks:
        common = min(len(longest), len(mask.palette))
        if not mask.palette or mask.palette[:common] != longest[:common]:
            return None
        longest = max(longest, mask.palette, key=len)
    return split_palette(longest)


def from_palette(colours: Sequence[Colour], values: Values, kind: str = "ids") -> MaskEncoding:
    """Make a meaning with classes named by numbers, in the colours of a palette."""
    count = max((value for value in values.pixels if value != 255), default=0) + 1
    padded = ([*colours, *[(0, 0, 0)] * 256])[:count]
    label_set = replace(LabelSet.numbered(count), colours=tuple(padded))
    if kind == "colours":
        return of_colours(label_set, [], PALETTE_ORIGIN)
    return of_ids(label_set, list(range(count)), [], PALETTE_ORIGIN)


def propose(masks: Sequence[MaskFacts]) -> MaskEncoding | None:
    """Propose the likeliest meaning of unexplained masks, or None if their values are not labels."""
    colours = [mask for mask in masks if mask.is_colour and not mask.is_grey]
    if 2 * len(colours) > len(masks):
        return propose_colours(count_colours(colours))
    return _propose_ids(count_ids(masks))


def propose_colours(values: Values) -> MaskEncoding | None:
    """Propose a class for each colour above a minimum share, except near copies of more frequent ones."""
    found: list[int] = []
    enough = _MIN_SHARE * values.total
    for value, pixels in values.pixels.items():
        if pixels >= enough and not _is_near(value, found):
            found.append(value)
    if not 1 <= len(found) <= MAX_PROPOSED:
        return None
    label_set = replace(LabelSet.numbered(len(found)), colours=tuple(unpack_colour(value) for value in found))
    return of_colours(label_set, [], PROPOSED)


def _is_near(value: int, others: list[int]) -> bool:
    place = np.array(unpack_colour(value))
    return any(np.abs(place - unpack_colour(other)).max() <= 2 * SAME for other in others)


def _propose_ids(values: Values) -> MaskEncoding | None:
    if is_binary(values):
        return as_binary(None)
    classes = sorted(values.pixels.keys() - {255})
    if not classes or len(classes) > MAX_PROPOSED:
        return None
    stored = classes if classes[-1] > 2 * len(classes) else list(range(min(1, classes[0]), classes[-1] + 1))
    return of_ids(LabelSet.numbered(len(stored)), stored, [], PROPOSED)


def points_of(encoding: MaskEncoding) -> tuple[Codes, Codes]:
    """Return the codes that have a meaning, and the label id of each."""
    label_set = encoding.label_set
    ids = np.arange(len(label_set))
    if encoding.kind == "colours":
        void: Sequence[Any] = encoding.ignored_colours
        codes = pack_colours([*label_set.colours, *void, *encoding.merged_values])
    else:
        void = sorted({label_set.ignore_index, *encoding.ignored_ids} - {*encoding.values, *encoding.merged_values})
        codes = np.array([*encoding.values, *void, *encoding.merged_values], np.int64)
    merged = np.array([k for _, k in encoding.merged], np.int64)
    return codes, np.concatenate([ids, np.full(len(void), label_set.ignore_index), merged])


def write_classes(encoding: MaskEncoding) -> str:
    """Return the text of a `classes.yaml` with this meaning; default colours are omitted."""
    label_set = encoding.label_set
    lines: dict[str, object] = {"names": list(label_set.names)}
    if encoding.kind == "colours" or label_set.colours != voc_colours(len(label_set)):
        lines["colours"] = [list(colour) for colour in label_set.colours]
    if encoding.kind == "colours":
        lines["masks"] = "colours"
        ignored: list[object] = [list(colour) for colour in encoding.ignored_colours]
    else:
        ignored = list(encoding.ignored_ids)
        if encoding.values != tuple(range(len(label_set))):
            lines["values"] = list(encoding.values)
    if ignored:
        lines["ignore"] = ignored
    return "".join(f"{key}: {_write_value(value)}\n" for key, value in lines.items())


def _write_value(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
    return text.removesuffix("...\n").strip()


MAX_LISTED = 64
"""Largest number of values to list: more cannot be classes."""

_WITHOUT = "`--fix OUT` writes a copy without these samples."


def name_file(encoding: MaskEncoding | None) -> str:
    """Return the name of the file that defines the values; `classes.yaml` if none does."""
    path = Path(encoding.origin) if encoding else Path("classes.yaml")
    return path.name if path.suffix.lower() in (".yaml", ".yml", ".txt", ".csv") else "classes.yaml"


def introduce_lines(encoding: MaskEncoding | None) -> str:
    """Return the instruction that introduces the lines of a whole `classes.yaml`."""
    name = name_file(encoding)
    if name.endswith((".txt", ".csv")):
        return f"Write a file classes.yaml into the folder, which then takes precedence over {name}:"
    return f"Write this into {name}:"


def ask_for_colours(colours: Values, proposal: MaskEncoding | None, encoding: MaskEncoding) -> str:
    """Ask the owner which colour is which class, in a form that cannot be pasted without an answer."""
    if proposal is None:
        return (
            "So many colours cannot be classes; they come from a photograph, smoothing or lossy compression. Export "
            "the masks again as PNG without smoothing."
        )
    names, shares = encoding.label_set.names, colours.shares()
    found = zip(pack_colours(proposal.label_set.colours).tolist(), proposal.label_set.colours, strict=True)
    more = "" if len(proposal.label_set) <= len(names) else " List colours without a class under 'ignore'."
    return "\n".join(
        [
            "The class of each colour is unknown. The most frequent colours, as shares of all pixels:",
            *(f"- [{', '.join(map(str, colour))}]: {shares[value]}" for value, colour in found),
            f"The names are {', '.join(names)}.",
            f"In {name_file(encoding)}, add the key 'colours' with one [red, green, blue] per name, in the order of "
            f"the names, and 'masks: colours'.{more}",
            "Or: `--fix OUT` writes a copy with ids and placeholders for class names (class 0 and so on), which you "
            "can rename.",
        ]
    )


def advise_few_painted(is_known: bool) -> str:
    """Advise on colour masks among id masks."""
    by_colour = "`--fix OUT` writes a copy with ids for the class colours."
    return f"The other masks contain ids. Save these with ids, too; {by_colour if is_known else _WITHOUT}"


def advise_colours(strays: Values, encoding: MaskEncoding, *, is_grey: bool) -> str:
    """Advise on colours without a meaning; `is_grey` if the masks with them may contain ids."""
    colours = [unpack_colour(value) for value in list(strays.pixels)[:MAX_LISTED]]
    hint = "\nIf the masks contain ids instead of colours, remove 'masks: colours'." if is_grey else ""
    name = name_file(encoding)
    if name.endswith(".txt"):
        red, green, blue = colours[0]
        return (
            f"If they are classes, add a line for each to {name}, such as\nNAME:{red},{green},{blue}::\n"
            "There, name colours without a class void, ignore or ignored."
        )
    ignored = [list(colour) for colour in [*encoding.ignored_colours, *colours]]
    return f"If they are classes, add names and colours to {name}; otherwise add the line\nignore: {ignored}{hint}"


def advise_ids(strays: Values, present: Values, encoding: MaskEncoding) -> str:
    """Advise on ids without a meaning; `present` are the ids of all masks."""
    count = len(encoding.label_set)
    values = _find_values(present, encoding)
    if values:
        return _write_in(
            "If these are the classes in the order of the names,",
            replace(encoding, values=values),
            f"values: {[*values]}",
        )
    stray = sorted(strays.pixels)
    if stray == [count] and 0 in present.pixels and encoding.values == tuple(range(count)):
        return _advise_shifted(count, encoding)
    return _advise_ignoring(stray, encoding)


def _advise_shifted(count: int, encoding: MaskEncoding) -> str:
    """Advise on ids 0 to K for K names: either 0 is not a class, or the first or the last class has no name."""
    values = tuple(range(1, count + 1))
    shifted = replace(encoding, values=values, ignored_ids=(0,))
    condition = f"If 0 means unlabelled and the names belong to 1 to {count},"
    where = _write_in(condition, shifted, f"values: {[*values]}\nignore: [0]")
    return (
        f"There are {count + 1} ids, 0 to {count}, for {count} names. {where}\n"
        f"If 0 is a class (background), add its name before the others; if {count} is a class, add its "
        "name at the end."
    )


def _find_values(present: Values, encoding: MaskEncoding) -> tuple[int, ...]:
    """Return the ids in order if there are as many as names, and they cannot be used as they are."""
    count = len(encoding.label_set)
    if encoding.values != tuple(range(count)) or encoding.ignored_ids:
        return ()
    everything = sorted(present.pixels)
    void = encoding.label_set.ignore_index
    for found in (everything, [value for value in everything if value != void]):
        valid = [value for value in found if value < count]
        if len(found) == count and (2 * len(valid) < count or valid == [0]):
            return tuple(found)
    return ()


def _advise_ignoring(stray: Sequence[int], encoding: MaskEncoding) -> str:
    if len(stray) > MAX_LISTED:
        return "So many ids cannot be classes: the masks may be ordinary images, or smoothed."
    it, has, is_class = ("it", "has", "is a class") if len(stray) == 1 else ("they", "have", "are classes")
    ignored = (*encoding.ignored_ids, *stray)
    where = _write_in(f"If {it} {has} no class,", replace(encoding, ignored_ids=ignored), f"ignore: {[*ignored]}")
    name = name_file(encoding)
    if name.endswith(".csv"):
        return f"{where}\nIf {it} {is_class}, add to {name} a line for each id, such as\n{stray[0]}, NAME"
    return (
        f"{where}\nIf {it} {is_class}, add the names to {name}: the id of a name is its position, from 0, unless "
        "'values' lists the ids of all names in order."
    )


def _write_in(condition: str, encoding: MaskEncoding, line: str) -> str:
    """Advise to add a line to the file that defines the classes, or to write a classes.yaml instead of it."""
    name = name_file(encoding)
    if name.endswith((".txt", ".csv")):
        where = introduce_lines(encoding)
        return f"{condition} {where[0].lower()}{where[1:]}\n{write_classes(encoding).strip()}"
    return f"{condition} write into {name}\n{line}"
