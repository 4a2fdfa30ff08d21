"""Findings about an image and its mask as a pair: sizes, rotation by EXIF, swapped folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Pair, name_pair, shorten
from refinenet.datasets.doctor.scan import MAX_VALUES, Facts, ImageFacts, MaskFacts
from refinenet.datasets.doctor.targets.rules import find_target_obstacle

MAX_LABELS = 64
"""Largest number of colours in an image that may be a mask."""


def find_swapped(facts: Sequence[Facts], root: Path | None) -> list[Finding]:
    """Find swapped folders: most masks are photographs, and their images have few colours."""
    swapped = [
        shorten(name_pair(fact.pair), root)
        for fact in facts
        if fact.image is not None and 0 < fact.image.colours <= MAX_LABELS and _is_photograph(fact.mask)
    ]
    return [find("swapped", swapped)] if 2 * len(swapped) > len(facts) else []


def _is_photograph(mask: MaskFacts | None) -> bool:
    return mask is not None and mask.is_colour and not mask.is_grey and len(mask.values) >= MAX_VALUES


def size_notes(pair: Pair, image: ImageFacts, mask: MaskFacts) -> Iterator[tuple[str, str, str]]:
    """Yield kind, file and details of mismatched sizes of an image and a mask, both readable."""
    turned = is_turned(image)
    if image.size == mask.size:
        # A quarter turn swaps the sides of an oblong image, so equal sizes prove that the mask was drawn on the
        # upright image. Half turns, flips and squares prove nothing.
        if image.orientation > 1 and not (turned and image.size[0] != image.size[1]):
            yield "exif-turned", pair.image, ""
    elif turned and image.size == mask.size[::-1]:
        yield "size-exif", name_pair(pair), ""
    else:
        sizes = (f"{size[1]}x{size[0]}" for size in (image.size, mask.size))
        yield "size-differs", name_pair(pair), "{} and {} pixels (width x height) for the first one.".format(*sizes)


def is_turned(image: ImageFacts) -> bool:
    """Return whether an image is stored rotated by a quarter turn (EXIF orientations 5 to 8)."""
    return image.orientation >= 5


def find_obstacle(fact: Facts) -> str:
    """Return why a sample cannot be repaired; empty if it can."""
    if fact.image is None or fact.mask is None:
        return "reading it crashes the reading process, or never ends"
    if fact.image.problem or fact.mask.problem:
        return fact.image.message or fact.mask.message
    if any(kind == "size-differs" for kind, _, _ in size_notes(fact.pair, fact.image, fact.mask)):
        return "image and mask have different sizes"
    return find_target_obstacle(fact)
