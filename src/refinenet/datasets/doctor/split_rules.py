"""Findings about a dataset as a whole: classes by split, and the same picture more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from refinenet.datasets.doctor.duplicates import find_near, group_equal, group_equal_files
from refinenet.datasets.doctor.file_rules import name_pair
from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Pair, shorten
from refinenet.datasets.doctor.mask_rules import classes_of
from refinenet.datasets.doctor.scan import Facts, MaskFacts
from refinenet.datasets.folder.classes_file import Meaning

_NEAR = "near-duplicates-across-splits"
_KEPT_FIRST = ("test", "val")
_TELLING = 100
"""So many masks of a sample have to lack a class before that is worth saying."""
_MOSTLY = 0.8
"""Share of the pixels from which on it is worth saying that they have no class."""
_ALIKE = 0.01
"""What shares of a value in two masks of different size differ by, at most, that show the same."""


def judge_classes(
    facts: Sequence[Facts], meaning: Meaning, root: Path | None, resplit: str, *, is_whole: bool
) -> list[Finding]:
    """Classes that never occur or in one split only, and masks of nothing but void.

    Args:
        facts: Of the samples that were read.
        meaning: What the masks' values mean.
        root: The dataset's folder.
        resplit: How samples come into other splits.
        is_whole: Whether these are all samples; otherwise they tell little of rare classes.
    """
    void = meaning.label_set.ignore_index
    held: dict[str, set[int]] = defaultdict(set)
    empty: list[str] = []
    sparse: list[str] = []
    pixels = without_class = 0
    looked_at = 0
    for fact in facts:
        if fact.mask is None or fact.mask.problem:
            continue
        classes = list(classes_of(fact.mask, meaning))
        found = set(classes)
        counts = fact.mask.counts[np.asarray(classes) == void].sum(), fact.mask.counts.sum()
        without_class, pixels = without_class + int(counts[0]), pixels + int(counts[1])
        if counts[0] > _MOSTLY * counts[1]:
            sparse.append(shorten(name_pair(fact.pair), root))
        held[fact.pair.split] |= found - {void, -1}
        looked_at += 1
        if found == {void}:
            empty.append(shorten(name_pair(fact.pair), root))
    if empty and len(empty) == looked_at:
        return [find("nothing-but-void", empty)]
    findings = [find("mask-all-void", empty)] if empty else []
    if without_class > _MOSTLY * pixels:
        findings.append(find("masks-mostly-void", sparse, values=f"{100 * without_class / pixels:.1f}"))
    names = meaning.label_set.names
    every = set().union(*held.values())
    if len(names) == 1 or (is_whole and len(every) == 1):
        findings.append(_find_classes("class-only-one", every or {0}, names))
    judged = _judge_splits(held, names, resplit) if is_whole else _judge_sample(held, names, looked_at)
    return [*findings, *judged]


def _judge_splits(held: Mapping[str, set[int]], names: Sequence[str], resplit: str) -> Iterator[Finding]:
    every = set().union(*held.values())
    train, val = held.get("train"), held.get("val")
    missing = {"class-absent": set(range(len(names))) - every}
    if train is not None:
        missing["class-not-in-train"] = every - train
        if val is not None:
            missing["class-not-in-val"] = train - val
    for kind, classes in missing.items():
        if classes and every:
            yield _find_classes(kind, classes, names, resplit=resplit)


def _judge_sample(held: Mapping[str, set[int]], names: Sequence[str], looked_at: int) -> Iterator[Finding]:
    seen = set().union(*held.values())
    unseen = set(range(len(names))) - seen
    if seen and unseen and looked_at >= _TELLING:
        yield _find_classes("class-unseen", unseen, names, masks=looked_at)


def _find_classes(kind: str, classes: set[int], names: Sequence[str], masks: int = 0, resplit: str = "") -> Finding:
    listed = [names[k] for k in sorted(classes)]
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return find(kind, listed, values=", ".join(listed[:10]) + more, masks=masks, resplit=resplit)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Pictures that stand more than once."""

    findings: list[Finding]
    left_out: Mapping[Pair, str]
    """What a repaired copy leaves out, with the reason."""


def judge_repetitions(facts: Sequence[Facts], root: Path | None) -> Repeated:
    """The same picture in two splits, exactly or nearly, or several times in one."""
    found: dict[str, list[str]] = defaultdict(list)
    left_out: dict[Pair, str] = {}
    for group in group_equal(facts):
        _judge_group(group, root, found, left_out)
    is_near_left_out = False
    for one, other in find_near(facts):
        first, second = sorted((one.pair, other.pair), key=_rank)
        found[_NEAR].append(f"{_name(second, root)} = {_name(first, root)}")
        if _are_labelled_alike(one, other):
            is_near_left_out = True
            left_out.setdefault(second, f"nearly the same picture as {_name(first, root)}")
    findings = [find(kind, sorted(names)) for kind, names in found.items()]
    if not is_near_left_out:
        findings = [replace(one.without_fix(), fixable=False) if one.kind == _NEAR else one for one in findings]
    return Repeated(findings=findings, left_out=left_out)


def judge_equal_files(pairs: Sequence[Pair], root: Path | None) -> list[Finding]:
    """Image files that stand in two splits; no picture is decoded, so copies saved anew are not found."""
    found: dict[str, list[str]] = defaultdict(list)
    for group in group_equal_files(pairs):
        _judge_group([Facts(pair, None, None) for pair in group], root, found, {})
    repeated = found["duplicates-across-splits"]
    return [find("duplicates-across-splits", sorted(repeated))] if repeated else []


def _are_labelled_alike(one: Facts, other: Facts) -> bool:
    """Whether masks agree; of a camera that stands still, pictures are nearly the same and masks are not."""
    if one.mask is None or other.mask is None:
        return False
    if one.mask.size == other.mask.size:
        return one.mask.digest == other.mask.digest
    return _shares(one.mask).keys() == _shares(other.mask).keys() and all(
        abs(share - _shares(other.mask)[value]) < _ALIKE for value, share in _shares(one.mask).items()
    )


def _shares(mask: MaskFacts) -> dict[int, float]:
    total = max(1, int(mask.counts.sum()))
    return {value: count / total for value, count in zip(mask.values.tolist(), mask.counts.tolist(), strict=True)}


def _judge_group(
    group: Sequence[Facts], root: Path | None, found: dict[str, list[str]], left_out: dict[Pair, str]
) -> None:
    splits: dict[str, list[Facts]] = defaultdict(list)
    for fact in sorted(group, key=lambda fact: _rank(fact.pair)):
        splits[fact.pair.split].append(fact)
    ordered = list(splits.values())
    for some in ordered[1:]:
        first, second = ordered[0][0].pair, some[0].pair
        found["duplicates-across-splits"].append(f"{_name(second, root)} = {_name(first, root)}")
        left_out.update(dict.fromkeys((fact.pair for fact in some), f"the same picture as {_name(first, root)}"))
    for some in ordered:
        digests = {fact.mask.digest for fact in some if fact.mask and fact.mask.digest}
        names = " = ".join(_name(fact.pair, root) for fact in some)
        if len(digests) > 1:
            found["contradicting-masks"].append(names)
            left_out.update(
                dict.fromkeys((fact.pair for fact in some), f"the same picture with different masks: {names}")
            )
        elif len(some) > 1:
            found["duplicates-within-split"].append(names)
            left_out.update(dict.fromkeys((fact.pair for fact in some[1:]), f"stands several times: {names}"))


def _rank(pair: Pair) -> tuple[int, str, str]:
    """What is kept of two comes first: what is measured by, as training has more to lose from."""
    place = _KEPT_FIRST.index(pair.split) if pair.split in _KEPT_FIRST else len(_KEPT_FIRST)
    return place + (pair.split == "train"), pair.split, pair.item


def _name(pair: Pair, root: Path | None) -> str:
    return shorten(pair.image, root) if pair.image else name_pair(pair)
