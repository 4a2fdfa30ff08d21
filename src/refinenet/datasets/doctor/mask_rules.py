"""Findings about mask values: their encoding, and values that contradict it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refinenet.datasets.doctor import mask_values
from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import name_pair, shorten
from refinenet.datasets.doctor.mask_values import (
    Values,
    advise_colours,
    advise_few_painted,
    advise_ids,
    ask_for_colours,
    count_colours,
    count_ids,
    introduce_lines,
    points_of,
    write_classes,
)
from refinenet.datasets.doctor.scan import Facts, MaskFacts
from refinenet.datasets.doctor.value_matching import Codes, Fit, can_snap, fit
from refinenet.datasets.folder.classes_file import PALETTE_ORIGIN, MaskEncoding, of_colours
from refinenet.datasets.formats.lookup import pack_colours, split_palette


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The meaning of the mask values, and the findings about them."""

    encoding: MaskEncoding | None
    """The corrected meaning; None if unknown."""
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class Mask:
    """A readable mask."""

    name: str
    split: str
    facts: MaskFacts


def judge_values(facts: Sequence[Facts], encoding: MaskEncoding | None, root: Path | None) -> Verdict:
    """Find problems of the values of all masks.

    Args:
        facts: Facts of the samples.
        encoding: Encoding of the values as a file defines it, or None if no file does.
        root: The dataset's folder.
    """
    masks = [
        Mask(shorten(name_pair(fact.pair), root), fact.pair.split, fact.mask)
        for fact in facts
        if fact.mask is not None and not fact.mask.problem and fact.mask.is_opaque
    ]
    if not masks:
        return Verdict(encoding=encoding, findings=[])
    settled = _settle_unnamed(masks) if encoding is None else _settle(masks, encoding)
    if settled.encoding is None:
        return settled
    findings = [*settled.findings]
    if settled.encoding.origin != mask_values.PROPOSED:
        findings += _judge_each(masks, settled.encoding)
    return Verdict(encoding=settled.encoding, findings=findings)


def _settle_unnamed(masks: Sequence[Mask]) -> Verdict:
    facts = [mask.facts for mask in masks]
    values = count_ids(facts)
    if all(mask.palette for mask in facts):
        colours = mask_values.common_palette(facts)
        if colours is None:
            return _judge_palettes(masks, values)
        return _settle(masks, mask_values.from_palette(colours, values))
    proposal = mask_values.propose(facts)
    lines = write_classes(proposal).strip() if proposal else "names: [background, object]"
    shown = count_colours(facts) if proposal and proposal.kind == "colours" else values
    described = (shown if shown.pixels else count_colours(facts)).describe()
    names = [mask.name for mask in masks]
    fixable = proposal is not None
    order = ", in the order of the colours" if proposal and proposal.kind == "colours" else ""
    finding = find("no-classes", names, fixable=fixable, values=described, lines=lines, order=order)
    return Verdict(encoding=proposal, findings=[finding])


def _judge_palettes(masks: Sequence[Mask], values: Values) -> Verdict:
    """Judge masks with different palettes: the most common one defines the classes, colours map the others to it."""
    usual = Counter(mask.facts.palette for mask in masks).most_common(1)[0][0]
    odd = [mask for mask in masks if not _begin_alike(mask.facts.palette, usual)]
    encoding = _as_colours(usual, values)
    known = set(encoding.label_set.colours) if encoding else set()
    is_fixable = all(set(_used_colours(mask.facts).values()) <= known for mask in odd)
    lines = write_classes(encoding).strip() if encoding else "names: [background, object]"
    finding = find("palettes-conflict", [mask.name for mask in odd], fixable=is_fixable, lines=lines)
    return Verdict(encoding=encoding if is_fixable else None, findings=[finding])


def _as_colours(palette: bytes, values: Values) -> MaskEncoding | None:
    try:
        return mask_values.from_palette(split_palette(palette), values, "colours")
    except ValueError:  # the palette has a colour twice
        return None


def _begin_alike(one: bytes, other: bytes) -> bool:
    common = min(len(one), len(other))
    return one[:common] == other[:common]


def _used_colours(mask: MaskFacts) -> dict[int, tuple[int, int, int]]:
    colours = split_palette(mask.palette)
    return {value: colours[value] for value in mask.values.tolist() if value < len(colours) and value != 255}


def _settle(masks: Sequence[Mask], encoding: MaskEncoding) -> Verdict:
    """Judge whether the masks as a whole follow the meaning, or a simple variant of it."""
    if encoding.kind == "colours" or all(mask.facts.is_drawn for mask in masks):
        return Verdict(encoding=encoding, findings=[])
    values = count_ids([mask.facts for mask in masks])
    painted = _find_painted(masks, encoding)
    if painted.encoding is not encoding:
        return painted
    settled, findings = encoding, painted.findings
    count = len(encoding.label_set)
    is_said = 255 in (*encoding.values, *encoding.ignored_ids)
    mixed = _find_mixed(masks, encoding)
    if not is_said and count <= 2 and mask_values.is_binary(values):
        settled = mask_values.as_binary(encoding)
        names = [mask.name for mask in masks if 255 in mask.facts.values or mask.facts.is_grey]
        lines = write_classes(settled).strip()
        findings.append(find("mask-0-255", names, where=introduce_lines(encoding), lines=lines))
    elif mixed:
        findings.append(find("mask-0-255-mixed", mixed))
    elif mask_values.starts_at_one(values, encoding):
        settled = mask_values.from_one(encoding)
        names = [mask.name for mask in masks]
        lines = write_classes(settled).strip()
        where = introduce_lines(encoding)
        findings.append(find("ids-from-1", names, where=where, lines=lines, highest=count, last=count - 1))
    return Verdict(encoding=settled, findings=findings)


def _find_mixed(masks: Sequence[Mask], encoding: MaskEncoding) -> list[str]:
    """Find binary masks of 0 and 255 among others of 0 and 1."""
    if encoding.values != (0, 1) or 255 in encoding.ignored_ids:
        return []
    held = {mask.name: set(mask.facts.values.tolist()) for mask in masks}
    with_void = [name for name, values in held.items() if 255 in values and 0 in values]
    has_other = any(1 in values for values in held.values())
    return with_void if has_other and not any({1, 255} <= values for values in held.values()) else []


def _find_painted(masks: Sequence[Mask], encoding: MaskEncoding) -> Verdict:
    """Find colour masks where ids are expected, and propose a meaning if most masks are in colour."""
    painted = [mask for mask in masks if mask.facts.is_colour and not mask.facts.is_grey]
    if not painted:
        return Verdict(encoding=encoding, findings=[])
    values = count_colours([mask.facts for mask in painted])
    known = set(pack_colours(encoding.label_set.colours).tolist()) if _can_paint(encoding) else set()
    is_known = any(not set(mask.facts.values.tolist()) - known for mask in painted)
    proposal = None
    if 2 * len(painted) <= len(masks):
        lines = advise_few_painted(is_known)
    elif is_known:
        by_colour = of_colours(encoding.label_set, [], encoding.origin)
        lines = f"{introduce_lines(encoding)}\n{write_classes(by_colour).strip()}"
    else:
        proposal = mask_values.propose_colours(values)
        lines = ask_for_colours(values, proposal, encoding)
    finding = find(
        "mask-colours-for-ids",
        [mask.name for mask in painted],
        fixable=is_known or proposal is not None,
        values=values.describe(),
        lines=lines,
    )
    return Verdict(encoding=proposal or encoding, findings=[finding])


def _can_paint(encoding: MaskEncoding) -> bool:
    return encoding.has_colours and len(set(encoding.label_set.colours)) == len(encoding.label_set)


def _judge_each(masks: Sequence[Mask], encoding: MaskEncoding) -> list[Finding]:
    """Find problems of single masks, given a meaning that holds for all."""
    points = points_of(encoding)[0]
    is_colour = encoding.kind == "colours"
    found: dict[str, list[Mask]] = defaultdict(list)
    fits: dict[str, Fit] = {}
    for mask in masks:
        if mask.facts.is_colour != is_colour:
            if mask.facts.is_grey:
                found["mask-rgb-ids"].append(mask)
            continue
        fits[mask.name] = mask.facts.fit or _fit(mask.facts, points, is_colour)
        kind = _judge_fit(fits[mask.name], mask.facts, can_snap(points, is_colour), is_colour)
        if kind:
            found[kind].append(mask)
    findings = [_describe_strays(kind, some, masks, fits, encoding) for kind, some in found.items()]
    blended = [] if is_colour else _find_blended(masks, [*found["mask-interpolated"], *found["mask-rgb-ids"]])
    return [*findings, *blended, *_judge_palette_colours(masks, encoding)]


def _find_blended(masks: Sequence[Mask], known: Sequence[Mask]) -> list[Finding]:
    """Find id masks resized by a smoothing filter: the values in between are ids of other classes."""
    reported = {mask.name for mask in known}
    names = [mask.name for mask in masks if mask.facts.is_blended and mask.name not in reported]
    return [find("mask-blended-ids", names)] if names else []


def _fit(mask: MaskFacts, points: Codes, is_colour: bool) -> Fit:
    return fit(mask.values, mask.counts, mask.areas, points, is_colour)


def _judge_fit(found: Fit, mask: MaskFacts, is_spaced: bool, is_colour: bool) -> str:
    """Return the kind of finding that the stray values of a mask are; empty if none."""
    if found.is_exact or mask.is_lossy:
        return ""
    is_noise = is_spaced and not found.unlisted
    if is_colour:
        return "mask-near-colours" if is_noise else "mask-unlisted-colours"
    return "mask-interpolated" if is_noise else "ids-outside"


def _describe_strays(
    kind: str, masks: Sequence[Mask], every: Sequence[Mask], fits: dict[str, Fit], encoding: MaskEncoding
) -> Finding:
    names = [mask.name for mask in masks]
    if kind == "mask-rgb-ids":
        return find(kind, names)
    if kind in ("mask-near-colours", "mask-interpolated"):
        return find(kind, names, fixable=any(fits[name].is_clear for name in names))
    strays = _count_strays([mask.facts for mask in masks], encoding, every)
    if encoding.kind == "colours":
        lines = advise_colours(strays, encoding, is_grey=all(mask.facts.is_grey for mask in masks))
    else:
        lines = advise_ids(strays, count_ids([mask.facts for mask in every]), encoding)
        which = "this sample" if len(masks) == 1 else "these samples"
        lines += f"\nOr: `--fix OUT` writes a copy without {which}." if len(masks) < len(every) else ""
    return find(kind, names, values=strays.describe(), lines=lines)


def _count_strays(masks: Sequence[MaskFacts], encoding: MaskEncoding, every: Sequence[Mask]) -> Values:
    points = points_of(encoding)[0]
    is_colour = encoding.kind == "colours"
    counts: Counter[int] = Counter()
    for mask in masks:
        stray = ~np.isin(mask.values, points)
        counts.update(dict(zip(mask.values[stray].tolist(), mask.counts[stray].tolist(), strict=True)))
    total = sum(int(mask.facts.counts.sum()) for mask in every)
    return Values(pixels=dict(counts.most_common()), is_colour=is_colour, of=total)


def _judge_palette_colours(masks: Sequence[Mask], encoding: MaskEncoding) -> list[Finding]:
    """Find masks whose palettes show an id in another colour than classes.yaml or most masks do."""
    if encoding.kind == "colours" or encoding.origin == PALETTE_ORIGIN:
        return []
    used = {mask.name: _used_colours(mask.facts) for mask in masks if mask.facts.palette}
    if encoding.has_colours:
        stored = dict(zip(encoding.values, encoding.label_set.colours, strict=True))
        contrary = {name: clashes for name, drawn in used.items() if (clashes := _find_clashes(drawn, stored))}
        if contrary:
            lines = _describe_both_readings(next(iter(contrary.values())), encoding)
            return [find("palettes-contradict", [*contrary], lines=lines, where=introduce_lines(encoding))]
    counts: dict[int, Counter[tuple[int, int, int]]] = defaultdict(Counter)
    for drawn in used.values():
        for value, colour in drawn.items():
            counts[value][colour] += 1
    usual = {value: colours.most_common(1)[0][0] for value, colours in counts.items()}
    permuted = [name for name, drawn in used.items() if _find_clashes(drawn, usual)]
    if permuted:
        return [find("palettes-permuted", permuted)]
    odd = [name for name, drawn in used.items() if any(usual[value] != colour for value, colour in drawn.items())]
    return [find("palettes-differ", odd)] if odd else []


def _find_clashes(
    drawn: dict[int, tuple[int, int, int]], known: dict[int, tuple[int, int, int]]
) -> list[tuple[int, int]]:
    """Find ids that a palette shows in the known colour of another id, each with that other id.

    Grey ramps, which programs write by default, are ignored.
    """
    if all(colour == (value, value, value) for value, colour in drawn.items()):
        return []
    owners = {colour: value for value, colour in reversed(known.items())}
    return [
        (value, owners[colour])
        for value, colour in sorted(drawn.items())
        if value in known and known[value] != colour and colour in owners
    ]


def _describe_both_readings(clashes: Sequence[tuple[int, int]], encoding: MaskEncoding) -> str:
    names = dict(zip(encoding.values, encoding.label_set.names, strict=True))
    return ", ".join(
        f"id {value} is {names[value]!r} by its number and {names[other]!r} by its colour"
        for value, other in clashes[:3]
    )


def classes_of(mask: MaskFacts, encoding: MaskEncoding) -> Iterator[int]:
    """Yield the label ids in a mask, including void; -1 for values without a meaning."""
    codes, ids = points_of(encoding)
    lookup = dict(zip(codes.tolist(), ids.tolist(), strict=True))
    values = mask.values & 255 if mask.is_grey and encoding.kind == "ids" else mask.values
    return (lookup.get(value, -1) for value in values.tolist())
