"""Findings about single files: unreadable, or converted when read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from refinenet.datasets.doctor.findings import KINDS, Finding, find
from refinenet.datasets.doctor.listing import Pair, name_pair, shorten
from refinenet.datasets.doctor.pair_rules import size_notes
from refinenet.datasets.doctor.scan import ARRAY_MODE, Facts, ImageFacts, MaskFacts
from refinenet.io.images.band_images import ARRAY_SUFFIX
from refinenet.io.images.image_files import DEEP_MODES, MAX_PIXELS, has_suffix

GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)
_CONVERTED = {
    "CMYK": "image-cmyk",
    "P": "image-palette",
    "PA": "image-palette",
    **dict.fromkeys(DEEP_MODES, "image-deep"),
}


def judge_files(facts: Sequence[Facts], root: Path | None) -> list[Finding]:
    """Find problems of single files, and of images and masks as pairs."""
    return _collect(_all_notes(facts), root)


def judge_masks(facts: Sequence[Facts], root: Path | None) -> list[Finding]:
    """Find problems of single mask files."""
    return _collect((note for fact in facts if fact.mask for note in _mask_notes(fact.pair, fact.mask)), root)


def _collect(noted: Iterable[tuple[str, str, str]], root: Path | None) -> list[Finding]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind, path, message in noted:
        found[kind].append((shorten(path, root), message.replace(path, shorten(path, root))))
    return [
        find(kind, [name for name, _ in notes], limit=MAX_PIXELS, message=notes[0][1])
        for kind, notes in sorted(found.items())
    ]


def _all_notes(facts: Sequence[Facts]) -> Iterator[tuple[str, str, str]]:
    """Yield kind, file and details of each problem."""
    grey_is_odd = is_grey_odd(facts)
    for fact in facts:
        if fact.image is None or fact.mask is None:
            yield "reader-died", name_pair(fact.pair), ""
            continue
        yield from image_notes(fact.pair, fact.image, grey_is_odd)
        if fact.image.mode == ARRAY_MODE:
            is_array = has_suffix(fact.pair.image, (ARRAY_SUFFIX,))
            yield (
                ("image-array", fact.pair.image, "")
                if is_array
                else ("image-bands", fact.pair.image, fact.image.message)
            )
        yield from _mask_notes(fact.pair, fact.mask)
        if fact.is_readable:
            yield from size_notes(fact.pair, fact.image, fact.mask)


def is_grey_odd(facts: Sequence[Facts]) -> bool:
    """Return whether most images are coloured, so that grey ones stand out."""
    return 2 * sum(fact.image is not None and fact.image.mode not in ("", *GREY_MODES) for fact in facts) > len(facts)


def image_notes(pair: Pair, image: ImageFacts, grey_is_odd: bool) -> Iterator[tuple[str, str, str]]:
    """Yield kind, file and details of each problem of an image."""
    path = pair.image or name_pair(pair)
    if image.problem:
        yield _name_kind("image", image.problem), path, image.message
        return
    if image.has_frames:
        yield "image-frames", path, ""
    if image.is_constant:
        yield "image-constant", path, ""
    if image.is_transparent:
        yield "image-alpha", path, ""
    elif image.mode in _CONVERTED:
        yield _CONVERTED[image.mode], path, ""
    elif image.mode in GREY_MODES and grey_is_odd:
        yield "image-grey", path, ""


def _mask_notes(pair: Pair, mask: MaskFacts) -> Iterator[tuple[str, str, str]]:
    if mask.problem:
        yield _name_kind("mask", mask.problem), name_pair(pair), mask.message
        return
    if mask.has_frames:
        yield "mask-frames", pair.mask, ""
    if mask.is_lossy:
        yield "mask-lossy-format", pair.mask, ""
    if not mask.is_opaque:
        yield "mask-alpha", pair.mask, ""


def _name_kind(side: str, problem: str) -> str:
    kind = f"{side}-{problem}"
    return kind if kind in KINDS else "sample-refused"
