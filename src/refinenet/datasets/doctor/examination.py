"""The examination: list, look at each file, judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from refinenet.datasets.catalog import PUBLISHED
from refinenet.datasets.doctor.file_rules import find_swapped, judge_files, judge_masks
from refinenet.datasets.doctor.findings import find
from refinenet.datasets.doctor.listing import Pair
from refinenet.datasets.doctor.mask_rules import judge_values
from refinenet.datasets.doctor.prospects import is_worth_fixing
from refinenet.datasets.doctor.report import Report, sort_findings
from refinenet.datasets.doctor.scan import Facts
from refinenet.datasets.doctor.sources import Source, open_source
from refinenet.datasets.doctor.split_rules import judge_classes, judge_equal_files, judge_repetitions
from refinenet.datasets.folder.classes_file import Meaning
from refinenet.io.console import progress_bar
from refinenet.io.parallel import map_safely

QUICK_SAMPLES = 100
"""Samples of each split that a quick check reads."""

_NEEDS_ALL = ("mask-0-255", "ids-from-1", "nothing-but-void")
"""What a quick check may take for true because it saw too little."""

_UNSURE = (
    *("no-classes", "palettes-conflict", "mask-colours-for-ids", "mask-unlisted-colours", "mask-near-colours"),
    *("mask-interpolated", "ids-outside", "mask-lossy-format"),
)
"""Where this is found, classes may only seem to be absent."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A report, and what a repaired copy is made from."""

    report: Report
    source: Source
    facts: list[Facts]
    meaning: Meaning | None
    """What masks mean, as it should be said."""
    left_out: Mapping[Pair, str]
    """Samples that stand elsewhere, too, with the reason why they should go."""
    is_quick: bool
    """Whether it may have read a part only, and compared no pictures."""


def examine(
    source: str | Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Examination:
    """Find what is wrong with a dataset, and keep what a repaired copy needs. Nothing is changed.

    Args:
        source: A folder or YAML file of one's own, or a dataset known by name.
        root: Where a dataset known by name lies.
        quick: List everything, but read only `QUICK_SAMPLES` samples of each split, and compare image files byte by
            byte instead of picture by picture: seconds instead of minutes.
        workers: Processes that read files; by default one for each core, and 0 reads in this process.
        progress: Whether to show a progress bar on a terminal.

    Raises:
        ValueError: an unknown name, or a root where none is used.
        FileNotFoundError: there is no such folder, or it is laid out in no way that is understood.
        OSError: a folder cannot be read.
    """
    examination = _examine(open_source(source, root), quick, workers, progress)
    return replace(examination, report=replace(examination.report, root=root))


def check_masks(source: str | Path, split: str, *, workers: int | None = 0, progress: bool = True) -> Report:
    """Ask of the masks of one split what `examine` asks before training, before something is measured on them.

    Only masks are read, `QUICK_SAMPLES` of them, and only what concerns the masks' values and files is reported.

    Args:
        source: A folder or YAML file of one's own.
        split: The split that is measured on.
        workers: As for `examine`.
        progress: As for `examine`.

    Raises:
        FileNotFoundError: there is no such folder, or it is laid out in no way that is understood.
        OSError: a folder cannot be read.
    """
    opened = open_source(source, None)
    pairs = [pair for pair in opened.listing.pairs if pair.split == split and pair.mask]
    opened = replace(opened, reading=replace(opened.reading, masks_only=True))
    facts = _look(opened, _spread(pairs, QUICK_SAMPLES) if pairs else [], workers, progress)
    findings = judge_masks(facts, opened.root)
    if not opened.is_meaning_damaged:
        findings += judge_values(facts, opened.meaning, opened.root).findings
    return Report(
        source=opened.name,
        root=None,
        layout=opened.layout,
        images={split: len(pairs)},
        checked=len(facts),
        is_fixable=False,
        findings=sort_findings([finding.without_fix() for finding in findings]),
    )


def _examine(opened: Source, quick: bool, workers: int | None, progress: bool) -> Examination:
    pairs = _spread(opened.listing.pairs, QUICK_SAMPLES) if quick else opened.listing.pairs
    facts = _look(opened, pairs, workers, progress)
    examination = _judge(opened, facts, quick)
    if quick and any(finding.kind in _NEEDS_ALL for finding in examination.report.findings):
        return _judge(opened, _look(opened, opened.listing.pairs, workers, progress), quick)
    return examination


def _look(source: Source, pairs: Sequence[Pair], workers: int | None, progress: bool) -> list[Facts]:
    found: list[Facts] = []
    palettes: dict[bytes, bytes] = {}
    with progress_bar(progress) as bar:
        task = bar.add_task("Checking", total=len(pairs), status="")
        for pair, facts in zip(pairs, map_safely(source.reading.look, pairs, workers=workers), strict=True):
            found.append(_share(facts, pair, palettes) if facts else Facts(pair, None, None))
            bar.advance(task)
    return found


def _share(facts: Facts, pair: Pair, palettes: dict[bytes, bytes]) -> Facts:
    """Facts that came from another process as copies: what they have in common with others is kept once."""
    mask = facts.mask
    if mask is not None and mask.palette:
        mask = replace(mask, palette=palettes.setdefault(mask.palette, mask.palette))
    return Facts(pair, facts.image, mask)


def _judge(source: Source, facts: list[Facts], quick: bool) -> Examination:
    swapped = find_swapped(facts, source.root)
    findings = [*source.listing.findings, *(swapped or judge_files(facts, source.root))]
    missing = [split for split in ("train", "val") if split not in source.listing.splits]
    if missing:
        findings.append(find("split-missing", missing, resplit=source.resplit))
    meaning, left_out = source.meaning, {}
    if swapped:
        meaning = None
    elif not source.is_meaning_damaged:
        verdict = judge_values(facts, meaning, source.root)
        findings += verdict.findings
        meaning = verdict.meaning
    if meaning is not None:
        is_sure = not any(finding.kind in _UNSURE and 20 * finding.count > len(facts) for finding in findings)
        is_whole = len(facts) == len(source.listing.pairs)
        classes = judge_classes(facts, meaning, source.root, source.resplit, is_whole=is_whole)
        findings += [finding for finding in classes if is_sure or not finding.kind.startswith("class-")]
    if quick and source.name not in PUBLISHED:  # whose splits are as their owners made them, here as everywhere
        findings += judge_equal_files(source.listing.pairs, source.root)
    elif not quick:
        repeated = judge_repetitions(facts, source.root)
        findings += repeated.findings
        left_out = dict(repeated.left_out)
    known = None if source.is_meaning_damaged else meaning
    is_fixable = is_worth_fixing(source.listing, facts, known, left_out, findings)
    report = Report(
        source=source.name,
        root=None,
        layout=source.layout,
        images=source.listing.splits,
        checked=len(facts),
        is_quick=quick,
        is_fixable=is_fixable,
        findings=sort_findings(findings if is_fixable else [finding.without_fix() for finding in findings]),
    )
    return Examination(report=report, source=source, facts=facts, meaning=meaning, left_out=left_out, is_quick=quick)


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` pairs of each split, at equal distances."""
    splits: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        splits[pair.split].append(pair)
    return [
        some[index * len(some) // min(count, len(some))]
        for some in splits.values()
        for index in range(min(count, len(some)))
    ]
