"""Findings about a dataset as a whole: classes by split, and duplicate images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.doctor.findings import Finding, find
from refinenet.datasets.doctor.listing import Pair, name_pair, shorten
from refinenet.datasets.doctor.mask_rules import classes_of
from refinenet.datasets.doctor.scan import Facts, ImageFacts, MaskFacts
from refinenet.datasets.folder.classes_file import MaskEncoding

MIN_CORRELATION = 0.9991
"""Smallest correlation of the thumbnails of near duplicates."""
MAX_DIFFERENCE = 12.5
"""Largest difference of a thumbnail pixel of near duplicates, of 255."""
MIN_CONTRAST = 3.0
"""Smallest standard deviation, of 255, of a thumbnail that is compared; others show too little."""

_CHUNK = 1024
_START = 1 << 16

Floats = npt.NDArray[np.float32]


def group_equal(facts: Sequence[Facts]) -> list[list[Facts]]:
    """Group samples whose images have identical pixels; groups of one are omitted."""
    groups: dict[bytes, list[Facts]] = defaultdict(list)
    for fact in facts:
        if fact.image and fact.image.digest:
            groups[fact.image.digest].append(fact)
    return [group for group in groups.values() if len(group) > 1]


def group_equal_files(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Group samples of two or more splits whose image files are identical.

    Only files of equal size are opened, and only those with equal beginnings are read to the end. Unreadable files are
    omitted.
    """
    groups = [[pair for pair in pairs if pair.image]]
    for key in (_find_size, _digest_start, _digest_file):
        groups = [part for group in groups for part in _part(group, key) if len({pair.split for pair in part}) > 1]
    return groups


def _part(group: Sequence[Pair], key: Callable[[str], Hashable]) -> list[list[Pair]]:
    parts: dict[Hashable, list[Pair]] = defaultdict(list)
    for pair in group:
        try:
            parts[key(pair.image)].append(pair)
        except OSError:  # reported when the file itself is examined
            continue
    return list(parts.values())


def _find_size(path: str) -> int:
    return Path(path).stat().st_size


def _digest_start(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.blake2b(stream.read(_START)).digest()


def _digest_file(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


def find_near(facts: Sequence[Facts]) -> list[tuple[Facts, Facts]]:
    """Find pairs of samples of two splits whose images are nearly, but not exactly, equal."""
    splits: dict[str, list[tuple[Facts, ImageFacts]]] = defaultdict(list)
    for fact in facts:
        if fact.image and fact.image.thumbnail:
            splits[fact.pair.split].append((fact, fact.image))
    ordered = [splits[name] for name in sorted(splits)]
    return [
        (first, second)
        for index, one in enumerate(ordered)
        for other in ordered[index + 1 :]
        for first, second in _find_between(one, other)
    ]


def _find_between(
    one: list[tuple[Facts, ImageFacts]], other: list[tuple[Facts, ImageFacts]]
) -> Iterator[tuple[Facts, Facts]]:
    for start in range(0, len(one), _CHUNK):
        left = one[start : start + _CHUNK]
        left_pixels, left_unit = _normalise(left)
        for begin in range(0, len(other), _CHUNK):
            right = other[begin : begin + _CHUNK]
            right_pixels, right_unit = _normalise(right)
            for i, j in np.argwhere(left_unit @ right_unit.T >= MIN_CORRELATION):
                is_equal = left[i][1].digest == right[j][1].digest
                if not is_equal and _differ(left_pixels[i], right_pixels[j]) <= MAX_DIFFERENCE:
                    yield left[i][0], right[j][0]


def _normalise(images: Sequence[tuple[Facts, ImageFacts]]) -> tuple[Floats, Floats]:
    """Return thumbnails `(N, T)` minus their means, and these scaled to length 1, or 0 if they lack contrast."""
    pixels = np.frombuffer(b"".join(image.thumbnail for _, image in images), np.uint8)
    rows = pixels.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    has_contrast = length > MIN_CONTRAST * np.sqrt(rows.shape[1])
    return rows, np.divide(rows, length, out=np.zeros_like(rows), where=has_contrast)


def _differ(one: Floats, other: Floats) -> float:
    """Return the largest difference of a thumbnail pixel after matching contrast."""
    gain = float(one @ other) / float(one @ one)  # least squares: minimises |other - gain * one|
    return float(np.abs(other - gain * one).max())


_NEAR = "near-duplicates-across-splits"
_KEPT_FIRST = ("test", "val")
_TELLING = 100
"""Number of checked masks from which a class that none of them contains is reported."""
_MOSTLY = 0.8
"""Share of pixels without a class from which it is reported."""
_ALIKE = 0.01
"""Largest difference of a value's share between two masks of different size that show the same."""


def judge_classes(
    facts: Sequence[Facts], encoding: MaskEncoding, root: Path | None, resplit: str, *, is_whole: bool
) -> list[Finding]:
    """Find classes that never occur or only in one split, and masks that contain only void.

    Args:
        facts: Facts of the samples that were read.
        encoding: Encoding of the mask values.
        root: The dataset's folder.
        resplit: Advice on how to move samples to other splits.
        is_whole: Whether these are all samples; a part may lack rare classes by chance.
    """
    void = encoding.label_set.ignore_index
    held: dict[str, set[int]] = defaultdict(set)
    empty: list[str] = []
    sparse: list[str] = []
    pixels = without_class = 0
    looked_at = 0
    for fact in facts:
        if fact.mask is None or fact.mask.problem:
            continue
        classes = list(classes_of(fact.mask, encoding))
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
    names = encoding.label_set.names
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
    """Duplicate images."""

    findings: list[Finding]
    left_out: Mapping[Pair, str]
    """Samples that a repaired copy omits, with the reason."""


def judge_repetitions(facts: Sequence[Facts], root: Path | None) -> Repeated:
    """Find exact or near duplicates in two splits, and exact ones within a split."""
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
            left_out.setdefault(second, f"nearly the same image as {_name(first, root)}")
    findings = [find(kind, sorted(names)) for kind, names in found.items()]
    if not is_near_left_out:
        findings = [replace(one.without_fix(), fixable=False) if one.kind == _NEAR else one for one in findings]
    return Repeated(findings=findings, left_out=left_out)


def judge_equal_files(pairs: Sequence[Pair], root: Path | None) -> list[Finding]:
    """Find identical image files in two splits, without decoding; copies that were saved again are not found."""
    found: dict[str, list[str]] = defaultdict(list)
    for group in group_equal_files(pairs):
        _judge_group([Facts(pair, None, None) for pair in group], root, found, {})
    repeated = found["duplicates-across-splits"]
    return [find("duplicates-across-splits", sorted(repeated))] if repeated else []


def _are_labelled_alike(one: Facts, other: Facts) -> bool:
    """Return whether masks agree. Images from a fixed camera are nearly equal, but their masks are not."""
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
        left_out.update(dict.fromkeys((fact.pair for fact in some), f"the same image as {_name(first, root)}"))
    for some in ordered:
        digests = {fact.mask.digest for fact in some if fact.mask and fact.mask.digest}
        names = " = ".join(_name(fact.pair, root) for fact in some)
        if len(digests) > 1:
            found["contradicting-masks"].append(names)
            left_out.update(
                dict.fromkeys((fact.pair for fact in some), f"the same image with different masks: {names}")
            )
        elif len(some) > 1:
            found["duplicates-within-split"].append(names)
            left_out.update(dict.fromkeys((fact.pair for fact in some[1:]), f"duplicates: {names}"))


def _rank(pair: Pair) -> tuple[int, str, str]:
    """Return a sort key by which the sample to keep comes first: train can spare samples, evaluation splits cannot."""
    place = _KEPT_FIRST.index(pair.split) if pair.split in _KEPT_FIRST else len(_KEPT_FIRST)
    return place + (pair.split == "train"), pair.split, pair.item


def _name(pair: Pair, root: Path | None) -> str:
    return shorten(pair.image, root) if pair.image else name_pair(pair)
