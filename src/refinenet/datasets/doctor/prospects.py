"""Whether a repaired copy is worth offering: something would be mended or left out, and each split keeps a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from refinenet.datasets.doctor.file_rules import find_obstacle
from refinenet.datasets.doctor.findings import Finding
from refinenet.datasets.doctor.listing import Listing, Pair
from refinenet.datasets.doctor.mask_values import points_of
from refinenet.datasets.doctor.scan import Facts, MaskFacts
from refinenet.datasets.doctor.value_matching import Codes, can_snap, fit
from refinenet.datasets.folder.classes_file import Meaning
from refinenet.datasets.formats.lookup import pack_colours, split_palette


def is_worth_fixing(
    listing: Listing,
    facts: Sequence[Facts],
    meaning: Meaning | None,
    left_out: Mapping[Pair, str],
    findings: Sequence[Finding],
) -> bool:
    """Whether `doctor.fix` would write a copy, and one in which something is better.

    Args:
        listing: What there is.
        facts: Of the samples that were read.
        meaning: What masks mean, None where nobody can tell.
        left_out: Samples that stand elsewhere, too.
        findings: All that was found.
    """
    if meaning is None or not findings:
        return False
    kept = [fact for fact in facts if fact.pair not in left_out and not find_obstacle(fact)]
    kept = [fact for fact in kept if fact.mask is not None and _is_clear(fact.mask, meaning)]
    has_all_splits = {fact.pair.split for fact in kept} >= listing.splits.keys()
    is_changed = any(finding.fixable for finding in findings) or len(kept) < len(facts) or bool(listing.left_out)
    return has_all_splits and is_changed


def _is_clear(mask: MaskFacts, meaning: Meaning) -> bool:
    """Whether `relabel` could read it, and finds more than void."""
    if not mask.is_opaque:
        return False
    values, points, is_colour = _find_points(mask, meaning)
    void = meaning.label_set.ignore_index
    codes, ids = points_of(meaning)
    if points is codes and not set(values.tolist()) - set(codes[ids == void].tolist()):
        return False
    found = fit(values, mask.counts, mask.areas, points, is_colour)
    return found.is_exact or (can_snap(points, is_colour) and found.is_clear)


def _find_points(mask: MaskFacts, meaning: Meaning) -> tuple[Codes, Codes, bool]:
    """The mask's values and those with a meaning, in the same form, and whether these are colours."""
    points, _ = points_of(meaning)
    if meaning.kind == "ids":
        if not mask.is_colour or mask.is_grey:
            return mask.values & 255 if mask.is_colour else mask.values, points, False
        told = pack_colours(meaning.label_set.colours) if meaning.has_colours else np.full(1, -1)
        return mask.values, told, True
    if mask.is_colour:
        return mask.values, points, True
    palette = pack_colours(np.array([*split_palette(mask.palette), *[(0, 0, 0)] * 256], np.uint8)[:256])
    return palette[mask.values] if mask.palette else (mask.values & 255) * 0x010101, points, True
