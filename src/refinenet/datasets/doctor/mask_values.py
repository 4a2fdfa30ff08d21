"""What the values in masks mean: as a file says it, or as they suggest it where nothing or the wrong thing is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import yaml

from refinenet.datasets.doctor.scan import MaskFacts
from refinenet.datasets.doctor.value_matching import MIN_SAME, SAME, Codes
from refinenet.datasets.folder.classes_file import PALETTE_ORIGIN, Meaning, of_colours, of_ids
from refinenet.datasets.formats.lookup import pack_colours, split_palette, unpack_colour
from refinenet.labels import Colour, LabelSet, voc_colours

PROPOSED = "a proposal"
MAX_PROPOSED = 64
"""Classes that are proposed at most: more distinct values are no labels but a photograph or noise."""

_MIN_SHARE = 0.0002
_NOISY = 8
_WIDE = 60


@dataclass(frozen=True, kw_only=True)
class Values:
    """All values that some masks hold, with their pixels, the most frequent first."""

    pixels: dict[int, int]
    is_colour: bool
    of: int = 0
    """The pixels that shares are told of; those of all values unless told otherwise."""

    @property
    def total(self) -> int:
        """Pixels of all."""
        return sum(self.pixels.values())

    def describe(self, count: int = 8) -> str:
        """The most frequent values in words."""
        shown = [
            f"{unpack_colour(value) if self.is_colour else value} ({share})"
            for value, share in list(self.shares().items())[:count]
        ]
        more = len(self.pixels) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")

    def shares(self) -> dict[int, str]:
        """For each value its share of all pixels in words."""
        return {value: _say_share(pixels / max(self.of or self.total, 1)) for value, pixels in self.pixels.items()}


def _say_share(share: float) -> str:
    return "under 0.01 %" if 0 < share < 0.0001 else f"{100 * share:.3g} %"


def count_ids(masks: Sequence[MaskFacts]) -> Values:
    """The ids in masks, those that hold them three times as colours included."""
    sound = [mask for mask in masks if not mask.is_lossy] or masks
    counts: Counter[int] = Counter()
    for mask in sound:
        if not mask.is_colour or mask.is_grey:
            ids = mask.values & 255 if mask.is_colour else mask.values
            counts.update(dict(zip(ids.tolist(), mask.counts.tolist(), strict=True)))
    return Values(pixels=dict(counts.most_common()), is_colour=False)


def count_colours(masks: Sequence[MaskFacts]) -> Values:
    """The colours in masks that hold colours."""
    counts: Counter[int] = Counter()
    for mask in masks:
        if mask.is_colour:
            counts.update(dict(zip(mask.values.tolist(), mask.counts.tolist(), strict=True)))
    return Values(pixels=dict(counts.most_common()), is_colour=True)


def is_binary(values: Values) -> bool:
    """Whether ids are 0 and 255, but for smoothed edges."""
    pixels = values.pixels
    if not {0, 255} <= pixels.keys():
        return False
    between = pixels.keys() - {0, 255}
    if not between:
        return True
    is_noise = len(between) >= _NOISY and max(between) - min(between) >= _WIDE
    return is_noise and pixels[0] + pixels[255] >= MIN_SAME * values.total


def starts_at_one(values: Values, meaning: Meaning) -> bool:
    """Whether ids go from 1 to K where 0 to K - 1 are meant."""
    count = len(meaning.label_set)
    if meaning.kind != "ids" or meaning.values != tuple(range(count)):
        return False
    classes = values.pixels.keys() - {meaning.label_set.ignore_index, *meaning.ignored_ids}
    return bool(classes) and min(classes) >= 1 and max(classes) == count


def as_binary(meaning: Meaning | None) -> Meaning:
    """The meaning of masks of 0 and 255, with the names that are known."""
    names = meaning.label_set.names if meaning else ()
    colours = meaning.label_set.colours if meaning else ()
    if len(names) != 2:
        is_named = len(names) == 1 and names[0].casefold() not in ("background", "class 0")
        names, colours = ("background", names[0] if is_named else "object"), voc_colours(2)
    origin = meaning.origin if meaning else PROPOSED
    found = of_ids(LabelSet(names=names, colours=colours), [0, 255], [], origin)
    return replace(found, has_colours=meaning is not None and meaning.has_colours and len(meaning.label_set) == 2)


def from_one(meaning: Meaning) -> Meaning:
    """The same classes with ids from 1."""
    return replace(meaning, values=tuple(range(1, len(meaning.label_set) + 1)))


def common_palette(masks: Sequence[MaskFacts]) -> list[Colour] | None:
    """The colours that all masks' palettes begin with, or None where these disagree or a mask has none."""
    longest = b""
    for mask in masks:
        common = min(len(longest), len(mask.palette))
        if not mask.palette or mask.palette[:common] != longest[:common]:
            return None
        longest = max(longest, mask.palette, key=len)
    return split_palette(longest)


def from_palette(colours: Sequence[Colour], values: Values, kind: str = "ids") -> Meaning:
    """Classes named by numbers, in a palette's colours."""
    count = max((value for value in values.pixels if value != 255), default=0) + 1
    padded = ([*colours, *[(0, 0, 0)] * 256])[:count]
    label_set = replace(LabelSet.numbered(count), colours=tuple(padded))
    if kind == "colours":
        return of_colours(label_set, [], PALETTE_ORIGIN)
    return of_ids(label_set, list(range(count)), [], PALETTE_ORIGIN)


def propose(masks: Sequence[MaskFacts]) -> Meaning | None:
    """The likeliest meaning of masks that nothing explains, or None where their values are no labels."""
    colours = [mask for mask in masks if mask.is_colour and not mask.is_grey]
    if 2 * len(colours) > len(masks):
        return propose_colours(count_colours(colours))
    return _propose_ids(count_ids(masks))


def propose_colours(values: Values) -> Meaning | None:
    """Classes of the colours that fill more than a trace, those aside that are nearly another one."""
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


def _propose_ids(values: Values) -> Meaning | None:
    if is_binary(values):
        return as_binary(None)
    classes = sorted(values.pixels.keys() - {255})
    if not classes or len(classes) > MAX_PROPOSED:
        return None
    stored = classes if classes[-1] > 2 * len(classes) else list(range(min(1, classes[0]), classes[-1] + 1))
    return of_ids(LabelSet.numbered(len(stored)), stored, [], PROPOSED)


def points_of(meaning: Meaning) -> tuple[Codes, Codes]:
    """The codes that have a meaning, and the id that each stands for in the label set."""
    label_set = meaning.label_set
    ids = np.arange(len(label_set))
    if meaning.kind == "colours":
        codes = pack_colours([*label_set.colours, *meaning.ignored_colours])
        return codes, np.concatenate([ids, np.full(len(meaning.ignored_colours), label_set.ignore_index)])
    void = sorted({label_set.ignore_index, *meaning.ignored_ids} - set(meaning.values))
    codes = np.array([*meaning.values, *void], np.int64)
    return codes, np.concatenate([ids, np.full(len(void), label_set.ignore_index)])


def write_classes(meaning: Meaning) -> str:
    """The text of a `classes.yaml` that says so; colours that are the usual ones are left out."""
    label_set = meaning.label_set
    lines: dict[str, object] = {"names": list(label_set.names)}
    if meaning.kind == "colours" or label_set.colours != voc_colours(len(label_set)):
        lines["colours"] = [list(colour) for colour in label_set.colours]
    if meaning.kind == "colours":
        lines["masks"] = "colours"
        ignored: list[object] = [list(colour) for colour in meaning.ignored_colours]
    else:
        ignored = list(meaning.ignored_ids)
        if meaning.values != tuple(range(len(label_set))):
            lines["values"] = list(meaning.values)
    if ignored:
        lines["ignore"] = ignored
    return "".join(f"{key}: {_write_value(value)}\n" for key, value in lines.items())


def _write_value(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
    return text.removesuffix("...\n").strip()
